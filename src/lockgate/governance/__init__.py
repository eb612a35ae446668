"""Who may let what in: tiers, the policy that binds them, approvals tied to evidence.

Main types: `Policy` (policy.py), `ApprovalState` (state.py), `missing_for` (judgement.py): everything that still
stands between a version and an environment. This room knows no statistics and no traffic: it reads verdicts,
names and dates.
"""
