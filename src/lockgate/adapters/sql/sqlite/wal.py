"""Switching a database file to WAL, also while another process is making the same file."""

from __future__ import annotations

import sqlite3
import time

_PAUSE_S = 0.01


def enter_wal(connection: sqlite3.Connection, *, patience_s: float) -> None:
    """Switch to WAL; nothing happens when the file is in it.

    SQLite does not ask its busy handler for this one statement: whoever meets another process that is switching
    is told "locked" at once, so the waiting is done here.

    Raises:
        sqlite3.OperationalError: it stayed locked, or cannot be switched at all.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)
