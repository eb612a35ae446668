from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core.digests import BadDigest, canonical, check_digest, digest_of, sha256, short

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    second: int
    first: dict[str, int]


def test_the_digest_of_nothing_is_the_published_one():
    assert sha256(b"") == EMPTY  # FIPS 180-4 test vector
    assert short(EMPTY) == "e3b0c44298fc"


def test_every_kind_of_buffer_has_the_same_digest():
    data = b"flights"
    assert sha256(data) == sha256(bytearray(data)) == sha256(memoryview(data))


def test_canonical_bytes_keep_field_order_and_sort_keys_and_sets():
    assert canonical(Pair(second=2, first={"b": 1, "a": 2})) == b'{"second":2,"first":{"a":2,"b":1}}'
    assert canonical({3, 1, 2}) == b"[1,2,3]"
    assert canonical([float("nan"), float("inf")]) == b"[null,null]"


@given(JSON)
def test_canonical_bytes_read_back_equal_and_do_not_depend_on_insertion_order(value):
    assert msgspec.json.decode(canonical(value)) == value
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == canonical(value)


def test_the_digest_of_a_value_is_that_of_its_canonical_bytes():
    value = {"b": [1, 2], "a": None}
    assert digest_of(value) == "sha256:" + hashlib.sha256(b'{"a":null,"b":[1,2]}').hexdigest()


@pytest.mark.parametrize(
    "text",
    ["", "e3b0c442", EMPTY.upper(), EMPTY[:-1], EMPTY + "0", EMPTY + "\n", "sha512:" + "0" * 64, " " + EMPTY],
)
def test_what_is_no_digest_is_refused_with_the_value(text):
    with pytest.raises(BadDigest) as caught:
        check_digest(text)
    assert caught.value.facts == {"value": text}


def test_a_digest_passes_unchanged():
    assert check_digest(EMPTY) == EMPTY
