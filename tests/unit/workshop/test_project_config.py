"""lockgate.toml is read strictly, and every complaint says where and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.core.names import ModelName
from lockgate.core.secrets import NotAReference
from lockgate.workshop.config import ConfigInvalid, NoProject, UnknownModel, decode_config, parse_config
from lockgate.workshop.layout import here

MODEL = """
[models.{name}]
tier = "low"
owner = "team"
purpose = "To test."
definitions = "shop.features"
service = "basket"
label = "bought"
output = {{ name = "bought" }}
[models.{name}.steps]
examples = "shop.model:examples"
train = "shop.model:train"
evaluation_set = "shop.model:evaluation_set"
[models.{name}.gates]
"perf.absolute" = {{ metric = "auc", minimum = 0.6 }}
"""
HEAD = """schema = 1
[project]
name = "shop"
[environments.dev]
order = 1
trust = ["trust/key.pub"]
[environments.prod]
order = 2
trust = ["trust/key.pub"]
[datasets.baskets]
source = "shop.sources:baskets"
contract = "contracts/baskets.odcs.yaml"
"""
TEXT = HEAD + MODEL.format(name="basket")


def complaint(text: str) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        parse_config(text)
    return caught.value


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


def test_what_is_left_out_has_the_documented_default() -> None:
    config = parse_config(TEXT)
    assert config.project.namespace == "main"
    assert config.environments["prod"].sensitivity == "guarded"
    assert config.models["basket"].gates.parity.tolerance == 1e-6
    assert config.only_model() == "basket"
    assert config.model_name("basket") == ModelName("main", "basket")
    assert config.model_name("main/basket") == ModelName("main", "basket")


@pytest.mark.parametrize(
    ("old", "new", "key", "words", "remedy"),
    [
        ('tier = "low"', 'teir = "low"', "models.basket.teir", "unknown key", "'tier'"),
        (
            'tier = "low"',
            'tier = "lwo"',
            "models.basket.tier",
            "none of critical, high, low, moderate",
            "'low'",
        ),
        ('owner = "team"\n', "", "models.basket", "missing key 'owner'", "add owner"),
        ("minimum = 0.6", "minium = 0.6", "models.basket.gates.perf.absolute.minium", "unknown", "'minimum'"),
        ("order = 2", 'order = "two"', "environments.prod.order", "Expected `int`", "a whole number"),
        (
            "minimum = 0.6",
            "minimum = nan",
            "models.basket.gates.perf.absolute.minimum",
            "nan is no figure",
            "finite",
        ),
        (
            "minimum = 0.6",
            'minimum = "0.6"',
            "models.basket.gates.perf.absolute.minimum",
            "Expected `float",
            "a number",
        ),
    ],
)
def test_a_complaint_names_file_line_and_key(old: str, new: str, key: str, words: str, remedy: str) -> None:
    error = complaint(TEXT.replace(old, new, 1))
    assert error.facts["key"] == key
    assert words in error.message
    assert remedy in error.remedy
    assert error.message.startswith(f"lockgate.toml:{error.facts['line']}: ")


def test_the_line_is_the_one_where_the_key_stands() -> None:
    text = TEXT.replace('tier = "low"', 'teir = "low"')
    assert complaint(text).facts["line"] == line_of(text, "teir")
    text = TEXT.replace("order = 2", 'order = "two"')
    assert complaint(text).facts["line"] == line_of(text, 'order = "two"')


def test_text_that_is_no_toml_says_where() -> None:
    assert complaint("schema = 1\n[project\n").message.startswith("lockgate.toml:2: ")


def test_an_unknown_schema_asks_for_an_upgrade() -> None:
    assert "upgrade" in complaint(TEXT.replace("schema = 1", "schema = 2")).remedy


def test_an_endpoint_must_name_a_declared_environment_and_model() -> None:
    error = complaint(TEXT + '[endpoints."prud/basket"]\n')
    assert "'prud'" in error.message
    assert "'prod'" in error.remedy
    assert "'baskett'" in complaint(TEXT + '[endpoints."prod/baskett"]\n').message


def test_a_secret_in_the_file_is_refused_and_not_repeated() -> None:
    with pytest.raises(NotAReference) as caught:
        parse_config(TEXT + '[signing]\nkey = "hunter2-very-secret"\n')
    assert "hunter2" not in str(caught.value.record())
    assert "signing.key" in caught.value.message


def test_several_models_live_in_one_repository_and_one_must_be_named() -> None:
    config = parse_config(TEXT + MODEL.format(name="refund"))
    assert set(config.models) == {"basket", "refund"}
    with pytest.raises(ConfigInvalid, match="2 models"):
        config.only_model()
    with pytest.raises(UnknownModel) as caught:
        config.model_name("refnd")
    assert "'refund'" in caught.value.remedy


@pytest.mark.parametrize(
    ("fallback", "says"),
    [
        ('{ kind = "constant" }', "a constant needs its value"),
        (
            '{ kind = "constant", value = 7 }',
            "7 is no answer of the model, whose 'bought' goes from 0.0 to 1.0",
        ),
        ("{ value = 0.5 }", "kind none answers nothing"),
    ],
)
def test_a_fallback_is_an_answer_that_the_model_could_give(fallback: str, says: str) -> None:
    error = complaint(TEXT + f'[endpoints."prod/basket"]\nfallback = {fallback}\n')
    assert says in error.message and error.facts["key"] == "endpoints.prod/basket.fallback"


@pytest.mark.parametrize(
    "limits",
    ['{ metric = "auc" }', '{ metric = "auc", minimum = 0.6, maximum = 0.9 }', '[{ metric = "auc" }]'],
)
def test_a_gate_has_exactly_one_limit(limits: str) -> None:
    text = TEXT.replace('{ metric = "auc", minimum = 0.6 }', limits)
    error = complaint(text)
    line = line_of(text, '"perf.absolute"')
    assert error.message.startswith(f"lockgate.toml:{line}: models.basket.gates.perf.absolute: ")
    assert "exactly one of minimum and maximum" in error.message


def with_gate(line: str) -> str:
    return TEXT.replace("minimum = 0.6 }\n", "minimum = 0.6 }\n" + line + "\n")


def test_the_limits_of_slices_follow_those_of_the_champion() -> None:
    gates = parse_config(TEXT).models["basket"].gates
    assert gates.slice_limits == {
        "columns": [], "metric": "auc", "min_effect": 0.02, "min_n": 200, "critical": []
    }  # fmt: skip
    assert (gates.calibration.max_gap, gates.calibration.slope) == (0.05, (0.7, 1.4))
    text = with_gate('"perf.vs_champion" = { metric = "brier", margin = 0.001 }')
    limits = parse_config(text).models["basket"].gates.slice_limits
    assert (limits["metric"], limits["min_effect"]) == ("brier", 0.004)
    text = with_gate(
        '"perf.slices" = { columns = ["shop"], metric = "auc", min_effect = 0.1, critical = ["shop=A"] }'
    )
    limits = parse_config(text).models["basket"].gates.slice_limits
    assert (limits["columns"], limits["min_effect"], limits["critical"]) == (["shop"], 0.1, ["shop=A"])


@pytest.mark.parametrize(
    ("gate", "limits", "words", "remedy"),
    [
        ("perf.slices", "columns = []", "columns is empty", "name a column"),
        ("perf.slices", "min_effect = -0.1", "min_effect -0.1", "0 or more"),
        ("perf.slices", "min_n = 1", "min_n 1", "min_n = 200"),
        ("perf.slices", 'columns = ["shop"], critical = ["shop"]', "'shop' is not", "origin=JFK"),
        ("perf.slices", 'columns = ["shop"], critical = ["shp=A"]', "'shp=A' is of no column", "'shop'"),
        ("perf.slices", 'critical = ["shop=A"]', "no columns are named", 'columns = ["shop"]'),
        ("calibration", "slope = [1.1, 1.4]", "slope [1.1, 1.4] does not hold 1", "slope = ["),
        ("calibration", "slope = [1.4, 0.7]", "does not hold 1", "slope = ["),
        ("calibration", "max_gap = 1.5", "max_gap 1.5", "max_gap = 0.05"),
    ],
)
def test_limits_that_make_no_sense_are_told_with_their_line(
    gate: str, limits: str, words: str, remedy: str
) -> None:
    text = with_gate(f'"{gate}" = {{ {limits} }}')
    error = complaint(text)
    assert error.message.startswith(
        f"lockgate.toml:{line_of(text, chr(34) + gate)}: models.basket.gates.{gate}: "
    )
    assert words in error.message and remedy in error.remedy


def test_an_unknown_limit_of_a_new_gate_has_its_near_matches() -> None:
    error = complaint(with_gate('"perf.slices" = { colums = ["shop"] }'))
    assert "'columns'" in error.remedy
    assert "'max_gap'" in complaint(with_gate("calibration = { maxgap = 0.1 }")).remedy


def test_an_unknown_target_is_told_with_what_there_is() -> None:
    text = TEXT.replace("order = 2\n", 'order = 2\ntarget = "locl"\n')
    error = complaint(text)
    assert error.message.startswith(f"lockgate.toml:{line_of(text, 'target')}: environments.prod.target: ")
    assert "'local'" in error.remedy


def test_a_file_that_is_no_utf8_names_the_line() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        decode_config(b'schema = 1\nowner = "J\xf6rg"\n')
    assert caught.value.message == "lockgate.toml:2: not UTF-8"


def test_a_project_that_was_named_must_hold_the_file_itself(allow_files: Path) -> None:
    (allow_files / "lockgate.toml").write_text(TEXT)
    below = allow_files / "below"
    below.mkdir()
    assert here(str(allow_files)).root == allow_files
    with pytest.raises(NoProject) as caught:
        here(str(below))
    assert str(below) in caught.value.message


def test_checkpoints_go_to_one_place_or_several() -> None:
    two = 'sink = ["file:notes", "s3://audit/team?access_key=env:KEY&secret_key=file:secret"]'
    assert parse_config(TEXT).audit.sinks == ("file:.lockgate/checkpoints",)
    assert parse_config(TEXT + '[audit]\nsink = "file:notes"\n').audit.sinks == ("file:notes",)
    assert parse_config(TEXT + f"[audit]\n{two}\n").audit.sinks[0] == "file:notes"
    for sink in ('"ftp://notes"', "[]"):
        assert complaint(TEXT + f"[audit]\nsink = {sink}\n").facts["key"] == "audit.sink"
    with pytest.raises(NotAReference) as caught:
        parse_config(TEXT + '[audit]\nsink = "s3://audit?secret_key=very-secret"\n')
    assert "very-secret" not in caught.value.message


def test_a_dossier_has_the_sections_that_people_write_and_no_others() -> None:
    written = TEXT + '[models.basket.dossier]\nlimitations = "docs/limits.md"\n'
    assert parse_config(written).models["basket"].dossier == {"limitations": "docs/limits.md"}
    error = complaint(written.replace("limitations =", "limitation ="))
    assert "'limitation'" in error.message and "limitations" in error.remedy
    assert error.facts["key"] == "models.basket.dossier.limitation"


def test_advisories_have_a_threshold_and_may_grow_old_only_if_nobody_minds() -> None:
    assert parse_config(TEXT).security is None
    table = parse_config(TEXT + '[security]\nadvisories = "osv.json"\n').security
    assert table is not None and (table.severity, table.max_age_days) == ("high", None)
    assert "security" in complaint(TEXT + '[security]\nadvisories = "x"\nmax_age_days = -1\n').message
    assert "security" in complaint(TEXT + '[security]\nadvisories = "x"\nseverity = "grave"\n').message
