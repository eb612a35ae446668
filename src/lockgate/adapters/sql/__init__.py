"""Metadata on SQL databases: the journal, the outbox, the step cache. Plain SQL, no ORM; a folder per database."""
