"""Metadata on SQL databases: the journal, the outbox, the step cache. One file per port; plain SQL, no ORM."""
