"""Verbs about what is on record: the journal, what is kept, what goes."""
