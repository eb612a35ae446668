"""Verbs about people and machines: who is speaking, and who may do what."""
