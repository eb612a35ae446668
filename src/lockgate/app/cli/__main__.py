"""`python -m lockgate.app.cli`, for processes that start processes."""

from __future__ import annotations

from lockgate.app.cli.main import main

main()
