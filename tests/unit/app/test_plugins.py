"""Modules are imported without the collector, which is as it was before when they are there."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from lockgate.app.plugins import resolve

# Of Python itself, and imported by nothing here.
MODULE = "colorsys"


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    sys.modules.pop(MODULE, None)
    yield
    gc.unfreeze()
    gc.enable()
    sys.modules.pop(MODULE, None)


def test_what_is_imported_is_out_of_the_collectors_way_and_only_then() -> None:
    assert resolve(f"{MODULE}:rgb_to_hsv")(0, 0, 1) == (2 / 3, 1.0, 1)
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    resolve(f"{MODULE}:hsv_to_rgb")
    assert gc.get_freeze_count() == 0, (
        "in a process that goes on for long, garbage would never be found again"
    )


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError):
        resolve("no_module_has_this_name:anything")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    resolve(f"{MODULE}:rgb_to_hsv")
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0
