"""Tickets: what a policy asks of the one that a promotion names, and what a tracker says of it."""
