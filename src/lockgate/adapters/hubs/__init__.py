"""Hubs that are elsewhere. `HttpHub` (http.py) speaks to a hub process; it decides nothing and believes its
answers."""
