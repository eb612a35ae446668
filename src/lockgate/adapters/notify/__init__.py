"""Telling others what happened: events of the journal on their way to who subscribed to them."""
