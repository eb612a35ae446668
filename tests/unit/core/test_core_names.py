from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core import names
from lockgate.core.errors import LockgateError
from lockgate.core.names import BadName, ModelName, VersionRef
from lockgate.core.semver import BadVersion, Semver

PARTS = st.from_regex(r"[a-z][a-z0-9]{0,9}([-_][a-z0-9]{1,5}){0,3}", fullmatch=True)
MODELS = st.builds(ModelName, PARTS, PARTS)


@given(MODELS)
def test_full_and_shown_forms_name_the_same_model(model):
    assert names.parse_model(str(model)) == names.parse_model(model.shown) == model


@given(MODELS, st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_full_and_shown_forms_name_the_same_version(model, major, minor, patch):
    version = VersionRef(model, Semver(major, minor, patch))
    assert names.parse_version(str(version)) == names.parse_version(version.shown) == version


@given(PARTS, MODELS)
def test_full_and_shown_forms_name_the_same_endpoint(environment, model):
    endpoint = names.EndpointName(environment, model)
    assert names.parse_endpoint(str(endpoint)) == names.parse_endpoint(endpoint.shown) == endpoint


def test_the_default_namespace_is_left_out_when_shown():
    assert names.parse_model("flight-delay").shown == "flight-delay"
    assert str(names.parse_model("flight-delay")) == "main/flight-delay"
    assert names.parse_version("team/flight-delay@1.4.2").shown == "team/flight-delay@1.4.2"
    assert str(names.parse_endpoint("prod/flight-delay")) == "prod/main/flight-delay"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Flight",
        "1flight",
        "-flight",
        "flight-",
        "flight--delay",
        "fl ight",
        "flight.delay",
        "flüge",
        "a" * 64,
        "a\n",
    ],
)
def test_a_part_that_cannot_be_a_name_is_refused_with_what_it_should_name(text):
    with pytest.raises(BadName, match="cannot name a dataset") as caught:
        names.check_part(text, what="dataset")
    assert caught.value.facts == {"value": text}


@pytest.mark.parametrize(
    ("parse", "text", "error"),
    [
        (names.parse_model, "a/b/c", BadName),
        (names.parse_model, "/a", BadName),
        (names.parse_version, "flight-delay", BadName),
        (names.parse_version, "flight-delay@", BadVersion),
        (names.parse_version, "flight-delay@1.0.0@2", BadVersion),
        (names.parse_endpoint, "flight-delay", BadName),
        (names.parse_endpoint, "prod/flight-delay@1.0.0", BadName),
        (names.parse_endpoint, "a/b/c/d", BadName),
        (names.parse_endpoint, "prod/../etc", BadName),
    ],
)
def test_malformed_references_are_refused_with_a_remedy(parse, text, error):
    with pytest.raises(error) as caught:
        parse(text)
    assert caught.value.remedy


@given(st.text(max_size=20), st.sampled_from([names.parse_model, names.parse_version, names.parse_endpoint]))
def test_any_text_is_either_a_name_or_an_error_of_ours(text, parse):
    try:
        parsed = parse(text)
    except LockgateError:
        return
    assert parse(str(parsed)) == parsed
