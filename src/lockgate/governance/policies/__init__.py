"""What is asked of a version, tier by tier: the policy (policy.py), how it is written down (file.py), and whether
another one asks for less (laxity.py).
"""
