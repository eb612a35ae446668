"""What the control plane and the data plane say to each other, as values.

A `Plan` (plan.py) is the whole routing table of one endpoint: which packages stay loaded and which slots of
traffic go where. It travels through a `control_file`, a fixed-size file that both sides map into memory; what
comes back is `Observed` (observed.py), and what was counted on the way is `Counts` (counts.py). errors.py
holds the classes into which a failed request falls, because a caller's mistake must never look like a bad
model.

This room opens no file and knows neither HTTP nor a model's bytes: it turns plans into stores and back.
"""
