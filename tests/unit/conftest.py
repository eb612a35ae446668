"""Unit tests are pure: their bodies run under the guard of tools/world_guard.py; fixtures do not."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from world_guard import GUARD

GUARD.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with GUARD.watching():
        return (yield)


@pytest.fixture
def allow_files(tmp_path: Path) -> Iterator[Path]:
    """`tmp_path`, opened to the test: files and SQLite databases below it, and nothing else of the world.

    For parts of `serving` and `adapters` that work on files. A test of a room that needs it tells that the
    room is not pure.
    """
    GUARD.allow(tmp_path)
    yield tmp_path
    GUARD.forget()
