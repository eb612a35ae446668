"""Packages on their way: out to a registry and back, and looked through wherever they lie.

Whatever comes from elsewhere is a layout in a folder of its own first, is looked through there (`inspection.py`), and
only then taken into the project's store.
"""
