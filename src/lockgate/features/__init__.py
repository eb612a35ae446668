"""Features: what a model may know about a thing at a moment, defined once and versioned by meaning.

Main types: `FeatureView` and `FeatureService` (definition.py), what a project writes; `semantic_hash` and its
kin (hashes.py), which say whether two definitions mean the same; `ViewRows` and `join_as_of` (join.py), the
point-in-time join that makes a training set without looking into the future.

It refuses to know models, environments and endpoints, and it has no clock: "now" is a column of the spine.
Definitions import no heavy package, so a features file loads in the time Python takes to read it.
"""
