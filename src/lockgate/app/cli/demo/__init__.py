"""`lockgate demo`: a real model's way to production and back, told by the verbs that a user types.

`edits` are the changes somebody makes to the project, `stage` is the project and the means to act in it, `live` the
traffic of later months as it is replayed, `story` the acts. Nothing here is canned, and nothing here decides
anything: each act runs a verb or sends a request, shows what comes back, and checks it.
"""
