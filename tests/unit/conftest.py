"""Unit tests are pure: their bodies run under the guard of tools/world_guard.py; fixtures do not."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from world_guard import GUARD

from lockgate.testing.hub_world import HubWorld, Story

GUARD.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with GUARD.watching():
        return (yield)


@pytest.fixture
def world() -> HubWorld:
    return HubWorld.in_memory()


@pytest.fixture
def story(world: HubWorld) -> Story:
    """One model, its ladder, its policy. A file that begins further on has a fixture `story` over this one."""
    story = Story(world.hub)
    story.found()
    return story


@pytest.fixture
def allow_files(tmp_path: Path) -> Iterator[Path]:
    """`tmp_path`, opened to the test: files and SQLite databases below it, and nothing else of the world.

    For parts of `serving` and `adapters` that work on files. A test of a room that needs it tells that the
    room is not pure.
    """
    GUARD.allow(tmp_path)
    yield tmp_path
    GUARD.forget()
