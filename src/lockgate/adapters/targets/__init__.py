"""Places that serve packages, one module per technology. `local` is this machine's own data plane.

A target is told what to serve (`apply`) and asked what it serves (`observe`, `wait`); it decides nothing.
"""
