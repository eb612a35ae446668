"""The dossier: one value, made of journal and package, that claims nothing which was not measured."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import msgspec
import pytest

from lockgate.core.digests import Digest, canonical
from lockgate.gates.scans.dossier import SECTIONS
from lockgate.governance.dossier.document import Dossier, Section, Table, markdown
from lockgate.governance.dossier.profile import ProfileInvalid, parse_profile, read_by
from lockgate.hub.messages import CompileDossier
from lockgate.hub.reports.dossier import compile_dossier
from lockgate.registry.messages import TracedColumn, TracedInput
from lockgate.registry.packages.package import build_package, open_package, store_package
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, named_digest
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import package_config, package_files

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
WRITTEN = {name: f"dossier/{name}.md" for name in SECTIONS if name != "fairness"}
LIMITS = b"# Limits\n\nNot | on Sundays.\n\n# More\n\n```\n# no heading\n```\n"
TRACES = (
    TracedInput(
        input="delay",
        source="queue:delay",
        feature="main/queue:delay@aaa",
        columns=(TracedColumn("main/flights.dep_delay", "value"),),
    ),
)
PROFILES = {
    name: resources.files("lockgate.app").joinpath(f"profiles/{name}.toml").read_text()
    for name in ("eu-ai-act", "sr-11-7", "nist-ai-rmf")
}


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def world() -> HubWorld:
    world = HubWorld.in_memory()
    world.traces[named_digest("package", "one")] = TRACES
    return world


def packed(blobs: MemoryBlobs, **changes: Any) -> Digest:
    files = {f"include/{path}": b"# Title\n\nWords." for path in WRITTEN.values()}
    files["include/dossier/limitations.md"] = LIMITS
    config = package_config(**{"recipe": {"label": "late", "dossier": WRITTEN}, **changes})
    return store_package(build_package(config, package_files(**files)), blobs)


def dossier(story: Story, blobs: MemoryBlobs, version: str = V1, **changes: Any) -> Dossier:
    package = open_package(packed(blobs, **changes), blobs)
    return compile_dossier(story.ask(CompileDossier(version=version)), package, blobs)


def section(document: Dossier, name: str) -> Section:
    return next(one for one in document.sections if one.id == name)


def cells(part: Section) -> list[tuple[str, ...]]:
    return [row for table in part.tables for row in table.rows]


def test_it_tells_of_the_whole_way_of_a_version(story: Story, blobs: MemoryBlobs) -> None:
    story.release("one", V1)
    accepted(story.do("ann", story.attaching(V1, "bom")))
    document = dossier(story, blobs)
    assert (document.version, document.tier, document.owner) == ("flight-delay@1.0.0", "high", "team")
    assert dict(section(document, "training").facts)["label"] == "late"
    assert [row[0] for row in cells(section(document, "evidence"))[2:]] == [
        "perf.absolute",
        "perf.vs_champion",
    ]
    assert [row[:3] for row in cells(section(document, "approvals"))] == [("prod", "owner", "bob")]
    releases = cells(section(document, "releases"))
    assert [(row[0], row[2], row[6]) for row in releases] == [
        ("dev/flight-delay", "live", "-"), ("prod/flight-delay", "live", "CHG-1")
    ]  # fmt: skip
    assert [row[2] for row in cells(section(document, "consumers"))] == ["app", "app"]
    assert cells(section(document, "lineage")) == [("main/flights.dep_delay", "delay")]
    assert dict(section(document, "materials").facts)["bill of materials"].endswith(
        named_digest("envelope", "bom")
    )
    assert cells(section(document, "signatures"))[0][0] == "https://cyclonedx.org/bom"


def test_a_rollback_stays_in_it(story: Story, blobs: MemoryBlobs) -> None:
    story.release("one", V1)
    story.release("two", V2)
    accepted(story.roll_back("prod", reason="errors"))
    accepted(story.confirm("prod"))
    releases = section(dossier(story, blobs, V2), "releases")
    assert [row[2].partition(":")[0] for row in cells(releases)] == ["live", "rolled back"]
    assert releases.notes == ("1 of 2 releases were taken back or failed.",)
    assert dict(section(dossier(story, blobs, V2), "changes").facts)["before"] == "flight-delay@1.0.0"


def test_what_is_not_written_is_named_and_what_is_not_measured_is_not_claimed(
    story: Story, blobs: MemoryBlobs
) -> None:
    accepted(story.register("one"))
    document = dossier(story, blobs, traces=())
    assert document.missing == ("fairness",)
    fairness = section(document, "fairness")
    assert fairness.origin == "missing" and fairness.asks == SECTIONS["fairness"]
    assert "Nothing is measured by groups." in fairness.notes
    said = markdown(document)
    assert (
        "**Still to be written by its owner:** fairness." in said
        and "**Missing.** Asked for is which groups" in said
    )
    for name, words in (
        ("evidence", "There is no evidence."),
        ("slices", "No slice was compared"),
        ("approvals", "Nobody has approved it yet."),
        ("releases", "It was never released."),
        ("exceptions", "There are none."),
        ("training", "No run of it is recorded."),
        ("data", "Gate privacy.tags was not asked."),
    ):
        assert section(document, name).notes[0].startswith(words), name


def test_markdown_and_json_come_from_one_value_and_never_differ(story: Story, blobs: MemoryBlobs) -> None:
    story.release("one", V1)
    first, second = dossier(story, blobs), dossier(story, blobs)
    assert canonical(first) == canonical(second) and markdown(first) == markdown(second)
    back = msgspec.json.decode(canonical(first), type=Dossier)
    assert markdown(back) == markdown(first)
    assert json.loads(canonical(first))["schema"] == "lockgate.dossier/1"


def test_what_the_owner_wrote_stays_below_our_headings(story: Story, blobs: MemoryBlobs) -> None:
    accepted(story.register("one"))
    lines = markdown(dossier(story, blobs)).splitlines()
    start = next(place for place, line in enumerate(lines) if line.endswith(". Known limitations"))
    assert lines[start + 2 :][:7] == ["Not | on Sundays.", "", "### More", "", "```", "# no heading", "```"]
    assert "*Written by the owner, in `dossier/limitations.md`.*" in lines
    assert [line for line in lines if line.startswith("# ")] == [
        "# Dossier of flight-delay@1.0.0",
        "# no heading",
    ]


def test_a_cell_is_one_line_and_keeps_its_bars() -> None:
    part = Section(id="x", title="X", tables=(Table(columns=("a", "b"), rows=(("one\ntwo", "p|q"),)),))
    document = Dossier(
        version="v",
        package=named_digest("p"),
        tier="low",
        owner="o",
        purpose="p",
        sections=(part,),
        missing=(),
    )
    assert "| one two | p\\|q |" in markdown(document)


@pytest.mark.parametrize("name", PROFILES)
def test_the_profiles_name_sections_that_there_are(name: str, story: Story, blobs: MemoryBlobs) -> None:
    profile = parse_profile(PROFILES[name], where=name)
    assert profile.name == name and len({one.ref for one in profile.article}) == len(profile.article)
    accepted(story.register("one"))
    read = read_by(dossier(story, blobs), profile)
    assert read.reading is not None
    states = {one.state for one in read.reading.requirements}
    # Fairness is not written here, and every set of rules asks for something that no dossier can hold.
    assert states == {"answered", "missing", "elsewhere"} - ({"missing"} if name == "sr-11-7" else set())
    assert f"## Read by: {profile.title}" in markdown(read)
    for one in read.reading.requirements:
        assert (one.state == "missing") == ("fairness" in one.sections)


def test_a_profile_that_names_no_section_of_a_dossier_is_refused(story: Story, blobs: MemoryBlobs) -> None:
    accepted(story.register("one"))
    text = (
        'name = "x"\ntitle = "X"\nsource = "me"\n[[article]]\nref = "1"\nasks = "y"\nsections = ["limits"]\n'
    )
    with pytest.raises(ProfileInvalid) as caught:
        read_by(dossier(story, blobs), parse_profile(text, where="x.toml"))
    assert "'limits'" in caught.value.message and "limitations" in caught.value.remedy
    with pytest.raises(ProfileInvalid):
        parse_profile(text.replace("asks", "ask"), where="x.toml")
