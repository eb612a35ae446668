"""What every room may know: names, digests, versions of numbers, time, messages, the journal's chain, errors.

Main types: `Event`, `Command` and `Query` (messages.py), `DocumentKind` (documents.py), `LockgateError` (errors.py).
This room knows no model, no environment and no storage; it uses the standard library and msgspec only.
"""
