from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core.digests import sha256
from lockgate.core.semver import at_least
from lockgate.registry.packages.contract import OutputField
from lockgate.registry.packages.difference import NotComparable, differences, minimum_bump
from lockgate.registry.packages.package import (
    LIGHTGBM_PATH,
    ONNX_PATH,
    Layer,
    ModelForm,
    Package,
    PackageConfig,
    build_package,
    open_package,
)
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import CONTRACT, package_config, package_files, tiny_model


def _package(config: PackageConfig, files: dict[str, bytes] | None = None) -> Package:
    blobs = MemoryBlobs()
    built = build_package(config, package_files() if files is None else files)
    for data in (*built.blobs.values(), built.manifest):
        blobs.put(data)
    return open_package(built.digest, blobs)


OLD = _package(package_config())
A, B = sha256(b"a"), sha256(b"b")
FIRST, *REST = CONTRACT.inputs


def _contract(**first: Any) -> Any:
    return msgspec.structs.replace(CONTRACT, inputs=(msgspec.structs.replace(FIRST, **first), *REST))


CHANGES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"snapshots": {"main/flights": A}}, "patch", "data", "main/flights"),
    ({"snapshots": {}}, "patch", "data", "main/flights"),
    ({"seeds": {"train": 8}}, "patch", "params", "seeds.train"),
    ({"threads": {"OMP_NUM_THREADS": "2"}}, "patch", "environment", "threads.OMP_NUM_THREADS"),
    ({"params": {"rounds": 21, "learning_rate": 0.1}}, "minor", "params", "params.rounds"),
    ({"params": {"rounds": "20", "learning_rate": 0.1}}, "minor", "params", "params.rounds"),
    ({"recipe": {"tier": "high"}}, "minor", "params", "recipe.tier"),
    ({"code": A}, "minor", "code", "closure"),
    ({"environment": A}, "minor", "environment", "lock"),
    ({"service": "delays"}, "minor", "features", "service"),
    ({"service_hash": "x"}, "minor", "features", "hash"),
    ({"views": {"flights": A, "weather": sha256(b"view weather")}}, "minor", "features", "views.flights"),
    ({"contract": _contract(nullable=True)}, "minor", "contract", "inputs.distance"),
    ({"contract": _contract(maximum=10)}, "major", "contract", "inputs.distance"),
    ({"contract": _contract(dtype="int")}, "major", "contract", "inputs.distance"),
    (
        {"contract": msgspec.structs.replace(CONTRACT, inputs=CONTRACT.inputs[::-1])},
        "minor",
        "contract",
        "order",
    ),
    (
        {"contract": msgspec.structs.replace(CONTRACT, output=OutputField(name="late", kind="value"))},
        "major",
        "contract",
        "output.kind",
    ),
]


@pytest.mark.parametrize(("change", "bump", "section", "name"), CHANGES)
def test_each_change_is_found_and_weighed(change: dict[str, Any], bump: str, section: str, name: str) -> None:
    new = _package(package_config(**change))
    assert (section, name) in {(one.section, one.name) for one in differences(OLD, new)}
    found, why = minimum_bump(OLD, new)
    assert found == bump
    assert why


def test_the_same_package_differs_in_nothing() -> None:
    assert differences(OLD, OLD) == ()
    assert minimum_bump(OLD, OLD) == ("patch", ())


def test_new_weights_are_a_patch_and_a_new_form_is_minor() -> None:
    retrained = _package(package_config(), package_files(tiny_model((0.1, 0.1, 0.1, 0.1))))
    assert {one.section for one in differences(OLD, retrained)} == {"artifact"}
    assert minimum_bump(OLD, retrained)[0] == "patch"
    forms = (*OLD.config.forms, ModelForm(format="lightgbm-text", path=LIGHTGBM_PATH))
    both = _package(package_config(forms=forms), package_files() | {LIGHTGBM_PATH: b"tree\n"})
    bump, why = minimum_bump(OLD, both)
    assert bump == "minor"
    assert "artifact forms.1 is new" in why
    included = _package(package_config(), package_files() | {"include/table.csv": b"1"})
    assert minimum_bump(OLD, included) == ("minor", ("artifact include/table.csv is new",))


def test_the_grounds_come_strongest_first_in_words() -> None:
    new = package_config(
        contract=_contract(maximum=10),
        params={"rounds": 30, "learning_rate": 0.1},
        snapshots={"main/flights": A},
    )
    bump, why = minimum_bump(OLD, _package(new))
    assert bump == "major"
    assert why[:2] == (
        "input distance range changed [0, 20000] -> [0, 10]",
        "params params.rounds changed 20 -> 30",
    )
    assert why[2].startswith("data main/flights changed sha256:")


def test_other_models_are_not_compared() -> None:
    other = _package(package_config(model="main/other"))
    for compare in (differences, minimum_bump):
        with pytest.raises(NotComparable, match="main/other"):
            compare(OLD, other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "1", "a", "{}", "null", 1.0, 0.5]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "a.b", '"', ""]), inner)
    ),
    max_leaves=4,
)
MAPS = st.dictionaries(st.sampled_from(["a", "b", "a.b", '"a"', ""]), JSON, max_size=3)
DIGESTS = st.sampled_from([A, B])


@st.composite
def packages(draw: st.DrawFn) -> Package:
    named = st.dictionaries(st.sampled_from(["x", "y"]), DIGESTS, max_size=2)
    first = draw(st.sampled_from([{}, {"nullable": True}, {"maximum": 7}, {"source": "v:f"}]))
    config = package_config(
        contract=_contract(**first),
        params=draw(MAPS),
        recipe=draw(MAPS),
        snapshots=draw(named),
        closure=draw(named),
        views=draw(named),
        code=draw(DIGESTS),
        environment=draw(DIGESTS),
        seeds=draw(st.dictionaries(st.sampled_from(["s", "t"]), st.integers(0, 1), max_size=2)),
    )
    layer = Layer(path=ONNX_PATH, media_type="m", digest=draw(DIGESTS), n_bytes=1)
    return Package(digest=A, config=config, layers=(layer,), description=layer)


@given(packages(), packages())
def test_differences_are_complete_and_symmetric(old: Package, new: Package) -> None:
    forward, backward = differences(old, new), differences(new, old)
    same = msgspec.json.encode(old, order="deterministic") == msgspec.json.encode(new, order="deterministic")
    assert (forward == ()) == same
    mirrored = tuple(msgspec.structs.replace(one, before=one.after, after=one.before) for one in backward)
    assert forward == mirrored
    assert all(one.before != one.after for one in forward)
    assert len({(one.section, one.name) for one in forward}) == len(forward)


@given(packages(), packages())
def test_only_data_seeds_and_weights_are_a_patch(old: Package, new: Package) -> None:
    bump, why = minimum_bump(old, new)
    found = differences(old, new)
    small = all(
        one.section in ("data", "artifact") or (one.section == "params" and one.name.startswith("seeds."))
        for one in found
    )
    assert (bump == "patch") == small
    assert bool(why) == bool(found)
    if any(one.section == "contract" for one in found):
        assert at_least(bump, "minor")


@given(packages(), packages(), packages())
def test_a_detour_never_needs_less_than_the_way_it_covers(a: Package, b: Package, c: Package) -> None:
    """What the direct way calls minor or major shows on at least one leg of any way round."""
    direct = minimum_bump(a, c)[0]
    legs = (minimum_bump(a, b)[0], minimum_bump(b, c)[0])
    assert any(at_least(leg, direct) for leg in legs)
