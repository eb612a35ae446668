"""Metadata on SQLite, through the standard library: one file per port, `opening.py` is the door."""
