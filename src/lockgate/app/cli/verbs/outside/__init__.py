"""Verbs about other people's systems."""
