from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core import semver
from lockgate.core.semver import BadVersion, Semver

VERSIONS = st.builds(Semver, *[st.integers(0, 10**9)] * 3)
BUMPS = st.sampled_from(["patch", "minor", "major"])


@given(VERSIONS)
def test_text_reads_back_equal(version):
    assert semver.parse(str(version)) == version


@given(VERSIONS, BUMPS)
def test_a_bump_leads_to_the_smallest_version_that_needs_it(version, bump):
    bumped = version.bumped(bump)
    assert bumped > version
    assert semver.bump_between(version, bumped) == bump


@given(VERSIONS, VERSIONS)
def test_there_is_a_bump_exactly_when_the_version_rises(old, new):
    assert (semver.bump_between(old, new) is not None) == (new > old)


@given(VERSIONS, VERSIONS)
def test_texts_sort_as_the_versions_they_are(left, right):
    assert (semver.order(str(left)) < semver.order(str(right))) == (left < right)


def test_versions_compare_as_numbers():
    assert semver.parse("1.10.0") > semver.parse("1.9.9") > semver.parse("1.9.0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "v1.2.3",
        "01.2.3",
        "1.2.3-rc1",
        "1.2.3+build",
        "1.2.-3",
        " 1.2.3",
        "1.2.3\n",
    ],
)
def test_what_is_not_three_numbers_is_refused(text):
    with pytest.raises(BadVersion, match="is not a version"):
        semver.parse(text)


def test_the_strongest_bump_wins():
    assert semver.largest("patch", "major", "minor") == "major"
    assert semver.largest() == "patch"


def test_at_least_orders_the_bumps():
    assert semver.at_least("major", "minor")
    assert semver.at_least("minor", "minor")
    assert not semver.at_least("patch", "minor")


def test_digits_of_other_scripts_are_refused():
    with pytest.raises(BadVersion):
        semver.parse("1٣.0.0")  # 13 to int(), and another text for the same version
