"""A connection that asks its few frequent questions by way of libpq alone.

A cursor of psycopg adapts any value to any type and wakes up Python several times on the way; for a question of one row
that is most of what it costs. Here a statement is prepared once and has texts, numbers and bytes only.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus, Format

Value: TypeAlias = str | int | bytes | Sequence[str | int | bytes]

_TEXT, _BYTES, _NUMBER = 25, 17, 20
_READ: dict[int, Callable[[bytes], object]] = {
    _TEXT: bytes.decode,
    _BYTES: bytes,
    _NUMBER: functools.partial(int.from_bytes, byteorder="big", signed=True),
}
_MAX_PREPARED = 200


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A session of PostgreSQL. Not for two threads at once."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._names: dict[bytes, bytes] = {}
        self._n_named = 0

    def ask(self, statement: bytes, values: Sequence[Value]) -> list[tuple[Any, ...]]:
        """The rows that one statement gives, outside of any pipeline. Their columns are texts, bytes and bigints.

        Args:
            statement: with `%s` for each value. One of few texts.

        Raises:
            psycopg.Error: as a cursor raises it; `OperationalError` when the connection broke.
        """
        given = list(map(_given, values))
        # Texts as well: libpq takes the others to end at a NUL.
        formats = [Format.BINARY if isinstance(value, bytes | str) else Format.TEXT for value in values]
        name = self._names.get(statement)
        if name is None and len(self._names) < _MAX_PREPARED:
            # Never the same name twice: what was forgotten here may be known to the server.
            self._n_named += 1
            name = b"lockgate_%d" % self._n_named
            self._checked(self.pgconn.prepare(name, _numbered(statement)))
            self._names[statement] = name
        if threading.current_thread() is threading.main_thread():
            found = self._interruptibly(statement, name, given, formats)
        elif name is None:
            found = self.pgconn.exec_params(_numbered(statement), given, None, formats, Format.BINARY)
        else:
            found = self.pgconn.exec_prepared(name, given, formats, Format.BINARY)
        self._checked(found)
        columns = [(number, _READ[found.ftype(number)]) for number in range(found.nfields)]
        return [
            tuple(
                None if (raw := found.get_value(row, number)) is None else read(raw)
                for number, read in columns
            )
            for row in range(found.ntuples)
        ]

    def _interruptibly(
        self, statement: bytes, name: bytes | None, given: list[bytes], formats: list[Format]
    ) -> Any:
        """As libpq does it, but waiting in Python: Ctrl-C ends the wait, and what the server was doing for it. Signals
        come to the main thread only, so no other pays for it."""
        if name is None:
            self.pgconn.send_query_params(_numbered(statement), given, None, formats, Format.BINARY)
        else:
            self.pgconn.send_query_prepared(name, given, formats, Format.BINARY)
        return self.wait(generators.execute(self.pgconn))[-1]

    def forget(self) -> None:
        """The server may have forgotten what was prepared."""
        self._names.clear()

    def _checked(self, result: Any) -> None:
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            if self.closed:
                raise psycopg.OperationalError("the connection broke")
            raise psycopg.errors.error_from_result(result, encoding="utf-8")


def _given(value: Value) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case int():
            return b"%d" % value
    array = ("{" + ",".join(map(_element, value)) + "}").encode()
    if b"\0" in array:
        raise psycopg.DataError("a text of PostgreSQL has no NUL")
    return array


def _element(value: str | int | bytes) -> str:
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


@functools.lru_cache(maxsize=1000)
def _numbered(statement: bytes) -> bytes:
    first, *others = statement.split(b"%s")
    return first + b"".join(b"$%d%s" % numbered for numbered in enumerate(others, 1))
