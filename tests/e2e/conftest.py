"""Fixtures of the stories: given, when, then. What they can say stands in operator_story.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from operator_story import Given, Project, Story, Then, When, Worlds


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    return Worlds(tmp_path_factory.mktemp("worlds"))


@pytest.fixture
def story(worlds: Worlds, eventually: Callable[..., object]) -> Iterator[Story]:
    told = Story(worlds, eventually)
    yield told
    told.close()


@pytest.fixture
def given(story: Story) -> Given:
    return Given(story)


@pytest.fixture
def when(story: Story) -> When:
    return When(story)


@pytest.fixture
def then(story: Story) -> Then:
    return Then(story)


@pytest.fixture(scope="session")
def serving(worlds: Worlds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Version 1.1.0 live on every endpoint and all processes up. For reading and asking only."""
    project = worlds.two.copy(tmp_path_factory.mktemp("serving") / "flights")
    project.up()
    yield project
    project.down()
