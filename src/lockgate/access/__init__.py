"""Who may do what: roles, and what a grant of one covers.

Main types: `Grant` and the table `ROLES` (roles.py). This room knows names and permissions only; the hub asks it
about each message, and the edges prove who somebody is.
"""
