"""The model package and its versions: what a package holds, what changed since the last, who vouches for it.

A floor of its own, `packages`, knows the bytes and nothing of versions: `ModelContract` (contract.py: what goes in and
what comes out), `Package` (package.py: immutable bytes under one digest), `LoadedPackage` (load.py: a package whose
signature, bytes, formats and golden rows were checked, ready to predict); `Engine`, `Signer`, `Verifier` (ports.py)
are what it needs from outside. Above it are the versions: who registered, made, signed and trusts which package.
This room refuses to know environments, traffic, approvals and gates, where bytes are kept, and any training
library: a package says how it was made in digests and names, nothing here can make it again.
"""
