"""Verbs for what does not go by itself, where people speak for roles."""
