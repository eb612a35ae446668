"""The one door to state: commands in, events out, and every question that spans rooms.

Main types: `Hub` and `LocalHub` (kernel.py), the table of messages (table.py), `Questions` (questions.py), the
ports a store must fill (ports.py). The hub holds no domain rule of its own: rooms decide, it carries.
"""
