"""Who may let what in: tiers, the policy that binds them, approvals tied to evidence.

Main types: `Policy` (policy.py), `ApprovalState` (state.py), and the reasons that stand between a version and an
environment (judgement.py): `gate_reasons`, `limit_reasons`, `age_reasons`, `baseline_reasons`, `approval_reasons`. This
room knows no statistics and no traffic: it reads verdicts, figures, names and dates.
"""
