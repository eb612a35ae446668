"""Verbs of the supply chain: packages on their way, and the keys that vouch for them."""
