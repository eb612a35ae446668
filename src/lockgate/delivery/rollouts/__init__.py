"""How a release is let in step by step: what is asked of each step (policy.py), what was counted of its traffic
(tally.py), and what that proves (verdict.py). Values and statistics only; what follows is decided one floor up.
"""
