"""From the registry to traffic: promotion, releases, rollback. Begins where the pipeline ends.

Main types: `EndpointState` (state.py), `ReleaseStarted` and `EndpointRolledBack` (messages.py), the `Target` port
(ports.py). This room knows no training; what it releases is a digest with a signature.
"""
