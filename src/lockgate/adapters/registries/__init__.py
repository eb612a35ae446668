"""Registries of other kinds than ours: where packages travel through. One module per protocol."""
