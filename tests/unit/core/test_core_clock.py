from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core.clock import iso, parse_iso

YEAR_1000, YEAR_9999 = -30_610_224_000_000_000, 253_402_300_799_999_999


@given(st.integers(YEAR_1000, YEAR_9999))
def test_an_instant_reads_back_to_the_microsecond(at):
    assert parse_iso(iso(at)) == at


@pytest.mark.parametrize(
    "text", ["2013-11-01T00:00:00Z", "2013-10-31T20:00:00-04:00", "2013-11-01T05:30:00.000000+05:30"]
)
def test_every_zone_gives_the_same_instant(text):
    assert parse_iso(text) == 1_383_264_000_000_000
    assert iso(parse_iso(text)) == "2013-11-01T00:00:00.000000Z"


@pytest.mark.parametrize("text", ["2013-11-01T00:00:00", "2013-11-01", "yesterday", ""])
def test_a_text_without_zone_or_sense_is_refused(text):
    with pytest.raises(ValueError):
        parse_iso(text)
