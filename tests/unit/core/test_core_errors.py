from __future__ import annotations

import json

import pytest

from lockgate.core import errors
from lockgate.core.digests import BadDigest
from lockgate.core.errors import LockgateError, did_you_mean, near_matches

FIRST_LEVEL = [kind for kind in LockgateError.__subclasses__() if kind.__module__ == errors.__name__]


def test_an_error_is_a_record_of_what_why_and_next():
    error = BadDigest("'x' is not a digest", remedy="write sha256: and 64 digits", value="x")
    assert str(error) == "'x' is not a digest"
    assert json.loads(json.dumps(error.record())) == {
        "code": "core.bad-digest",
        "message": "'x' is not a digest",
        "facts": {"value": "x"},
        "remedy": "write sha256: and 64 digits",
        "retryable": False,
    }


def test_a_remedy_cannot_be_forgotten():
    with pytest.raises(TypeError, match="remedy"):
        LockgateError("something happened")  # type: ignore[call-arg]


def test_only_what_time_may_heal_is_retryable():
    assert {kind.__name__ for kind in FIRST_LEVEL if kind.retryable} == {"Conflict", "Unavailable"}


def test_every_first_level_class_has_its_own_code():
    codes = [kind.code for kind in FIRST_LEVEL]
    assert len(set(codes)) == len(codes) == 8


def test_near_matches_come_best_first():
    assert near_matches("carier", ["origin", "carrier", "carriers"]) == ["carrier", "carriers"]
    assert near_matches("xyz", ["origin", "carrier"]) == []


@pytest.mark.parametrize(
    ("known", "remedy"),
    [
        (["carrier", "origin"], "did you mean 'carrier'?"),
        (["origin", "dest"], "known names: dest, origin"),
        (
            [f"x{n:02}" for n in range(25)],
            f"known names: {', '.join(f'x{n:02}' for n in range(20))} and 5 more",
        ),
        ([], "nothing is known by that kind of name yet"),
    ],
)
def test_a_wrong_name_gets_the_near_ones_or_all(known, remedy):
    assert did_you_mean("carier", known) == remedy
