"""The data plane: keeps packages loaded, answers requests, and follows the plan of every endpoint.

`Plane` (plane.py) turns a request's bytes into an answer's bytes and knows no transport; `Endpoint`
(endpoint.py) holds what one endpoint serves and swaps it as one reference; `Watcher` (watch.py) loads in the
background. Beside the requests, capture.py writes down what a plan keeps of them and shadow.py asks a second
version; on their way, lookup.py reads features by key. control.py maps the control files, asgi.py and
guarded_http.py speak HTTP.

This room never reaches the hub, a database, a pipeline or a policy: a plan in a control file is all it is
told, and it goes on serving the last good one when everything else is down. It logs nothing of a request.
"""
