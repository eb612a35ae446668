"""The client's side of long work: a project is read, planned, run, judged, rebuilt, in whoever's process asked.

Main types: `Config` (config.py) is lockgate.toml, `Premises` (premises.py) is what a project's store and keys offer,
`Workshop` (build.py) builds and judges one model. It composes rooms and adapters; what its work amounts to it tells the
hub in short commands. It knows no screen and no server.
"""
