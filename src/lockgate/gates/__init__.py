"""What is known about a package before anybody lets it in: evidence, and the gates that make it.

Main types: `Evidence` (evidence.py), one judged measurement whose bytes depend on nothing but its inputs;
`Probe` (ports.py), a running model as a gate sees it. A gate is a function from arrays to evidence: it never
raises, and what it could not measure is `error`, never `pass`. The gates are in performance.py (absolute and
against the champion), slices.py (against the champion, part by part), calibration.py, features.py (definitions
and online rows), latency.py, parity.py (two runtimes, golden rows) and contract.py (data contracts).

This room knows no policy, no tier, no approval and no clock: which gates a version needs, how old evidence
may be and who may waive it is decided by governance. It reads no file and starts no model.
"""
