"""Who may do what: roles, grants of them, and the tokens and CI jobs that act by them.

Main types: `Grant` and the table `ROLES` (roles.py), `SubjectState` and `TokenState` (state.py). This room knows
names and permissions only; the hub asks it about each message, and the edges prove who somebody is.
"""
