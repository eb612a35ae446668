"""Deterministic training: which steps a model needs, which of them must run and why, and the record of a run.

A step is a plain function of the user's project; its argument names wire it to other steps and to params. Each
step has a key made of everything that can change its answer: the code it reaches (`closure.py`), its params,
the digests of its inputs, the environment. Equal key, equal answer: the step is not run again.

Main types: `SourceTree` and `Closure` (the code a step reaches, from source text), `Node` (a step in the
graph), `Plan` (run or cached, and why), `Artifact`, `StepRecord` and `RunRecord` (what came out).

This room imports no user code and does no input or output: sources come in as bytes, records go through the
`StepCache` port, work is done by the `StepRunner` port. It ends where the registry begins and knows nothing of
environments, endpoints or releases. It imports neither numpy nor pyarrow, so that a plan in which everything
is cached costs milliseconds.
"""
