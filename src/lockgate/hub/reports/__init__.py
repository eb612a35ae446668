"""Answers put together from many documents: lineage and what a change would break, the dossier of a version."""
