"""Metadata on PostgreSQL, by psycopg: one file per port, `opening.py` is the door."""
