"""Datasets: what a model is trained on, frozen, named by content, and held to a written contract.

Main types: `Snapshot` (snapshot.py), the immutable, content-addressed state of a dataset; `DataContract`
(contract.py), what its producer promises, read from an Open Data Contract Standard v3 file (odcs.py); and
`ContractReport`, the answer to "does this table keep the promise?". SQL runs behind the `TableEngine` port
(ports.py), so this room neither opens a file nor starts a database.

It refuses to know models, features and environments; it does not know when a snapshot was taken (the journal
does), and it never repairs data: a table keeps its contract or it does not.
"""
