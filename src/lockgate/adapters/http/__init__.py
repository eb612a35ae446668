"""What serves the hub over HTTP, apart from the hub: listening, limits, the description of the protocol, bytes.

Main doors: `Listener` (listener.py).
"""
