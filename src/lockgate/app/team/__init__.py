"""The hub of a team: its configuration (config.py), its composition root (hub.py), its verb (verb.py)."""
