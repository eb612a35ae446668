"""Readers of what other systems hold: a model, and what they say of it."""
