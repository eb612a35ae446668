"""The hub over HTTP: typed messages in, receipts and answers out, errors as problem documents.

Main doors: `create_app` and `serve` (server.py). This part compares no state and knows no message by name: it
reads the hub's table.
"""
