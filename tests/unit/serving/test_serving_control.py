from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lockgate.adapters.targets.local import LocalTarget
from lockgate.serving.control import ControlFile, Presence, discover
from lockgate.testing.target_suite import ENDPOINT, sample_plan
from lockgate.traffic import control_file as codec
from lockgate.traffic.errors import ControlFileCorrupt, NoWorkerSlot
from lockgate.traffic.observed import EndpointReport


@pytest.fixture
def run_dir(allow_files: Path) -> Path:
    return allow_files / "run"


@pytest.fixture
def presence(run_dir: Path) -> Iterator[Presence]:
    with_it = Presence(run_dir, pid=10, token=1)
    yield with_it
    with_it.close()


def control_path(run_dir: Path) -> Path:
    LocalTarget(run_dir).apply(sample_plan(1, "1.0.0"))
    return discover(run_dir)[ENDPOINT]


def test_control_files_are_found_by_name(run_dir: Path) -> None:
    assert discover(run_dir) == {}
    path = control_path(run_dir)
    (path.parent / "not.a.control.file.ctl").touch()
    (path.parent / "UPPER.main.x.ctl").touch()
    assert discover(run_dir) == {ENDPOINT: path}


def test_who_is_present_is_alive_and_who_left_is_not(run_dir: Path, presence: Presence) -> None:
    other = Presence(run_dir, pid=10, token=2)
    assert presence.alive(10, 1) and presence.alive(10, 2) and other.alive(10, 1)
    assert not presence.alive(10, 3)
    other.close()
    assert not presence.alive(10, 2)


def test_the_next_worker_sweeps_what_a_dead_one_left(run_dir: Path, presence: Presence) -> None:
    left = [run_dir / "workers" / f"99-5{suffix}" for suffix in (".live", ".bell", ".json", ".new")]
    for file in left:
        file.touch()
    mine = run_dir / "workers" / "10-1.live"
    Presence(run_dir, pid=11, token=1).close()
    assert not any(file.exists() for file in left) and mine.exists()


def test_a_bell_wakes_and_is_heard_once(presence: Presence) -> None:
    assert not presence.wait(0)
    presence.ring()
    presence.ring()
    assert presence.wait(0) and not presence.wait(0)


def test_ringing_somebody_who_does_not_listen_never_blocks(presence: Presence) -> None:
    for _ in range(100_000):
        presence.ring()
    assert presence.wait(0)


def test_a_control_file_is_acknowledged_in_a_slot_of_ones_own(run_dir: Path, presence: Presence) -> None:
    path = control_path(run_dir)
    other = Presence(run_dir, pid=11, token=1)
    mine, theirs = ControlFile(path, presence), ControlFile(path, other)
    mine.acknowledge(generation=1, seen=1, state="serving", n_requests=5)
    theirs.acknowledge(generation=0, seen=1, state="failed", n_requests=0)
    other.report({ENDPOINT: EndpointReport(seen=1, detail="why")})
    observed = LocalTarget(run_dir).observe(ENDPOINT)
    assert [(one.pid, one.generation, one.state, one.detail, one.n_requests) for one in observed.workers] == [
        (10, 1, "serving", "", 5),
        (11, 0, "failed", "why", 0),
    ]
    theirs.acknowledge(generation=0, seen=2, state="failed", n_requests=0)
    # The report is about an older plan: better no reason than the wrong one.
    assert LocalTarget(run_dir).observe(ENDPOINT).workers[1].detail == ""
    theirs.close()
    mine.close()
    other.close()
    assert [one.state for one in LocalTarget(run_dir).observe(ENDPOINT).workers] == ["idle"]


def test_a_worker_that_knows_no_plan_yet_counts_as_on_its_way(run_dir: Path, presence: Presence) -> None:
    control_path(run_dir)
    observed = LocalTarget(run_dir).observe(ENDPOINT)
    assert [(one.pid, one.generation, one.state) for one in observed.workers] == [(10, 0, "idle")]
    assert observed.alive and not observed.settled(1)


def test_the_slots_of_the_dead_are_given_away_and_those_of_the_living_are_not(
    run_dir: Path, presence: Presence
) -> None:
    path = control_path(run_dir)
    image = bytearray(path.read_bytes())
    for slot in range(codec.N_WORKER_SLOTS):
        dead = codec.Ack(slot, 99, slot + 1, 0, 0, "idle", 0)
        codec.carry_out(image, codec.acknowledge(dead))
    with path.open("r+b") as file:
        file.write(image)
    ControlFile(path, presence).close()
    others = [Presence(run_dir, pid=20, token=number) for number in range(1, codec.N_WORKER_SLOTS + 1)]
    files = [ControlFile(path, other) for other in others]
    with pytest.raises(NoWorkerSlot):
        ControlFile(path, presence)
    parts: list[ControlFile | Presence] = [*files, *others]
    for part in parts:
        part.close()


@pytest.mark.parametrize("content", [b"", b"x" * codec.SIZE_BYTES, codec.blank() + b"x"])
def test_what_is_no_control_file_is_not_mapped(run_dir: Path, presence: Presence, content: bytes) -> None:
    path = control_path(run_dir)
    path.write_bytes(content)
    with pytest.raises(ControlFileCorrupt):
        ControlFile(path, presence)
    with pytest.raises(ControlFileCorrupt):
        LocalTarget(run_dir).observe(ENDPOINT)
    with pytest.raises(ControlFileCorrupt):
        LocalTarget(run_dir).apply(sample_plan(2, "1.0.0"))


def test_a_half_made_control_file_of_a_killed_target_is_made_again(run_dir: Path) -> None:
    (run_dir / "endpoints").mkdir(parents=True)
    (run_dir / "endpoints" / "prod.main.flight-delay.new").write_bytes(b"half")
    assert LocalTarget(run_dir).observe(ENDPOINT).generation == 0
    LocalTarget(run_dir).apply(sample_plan(1, "1.0.0"))
    assert LocalTarget(run_dir).observe(ENDPOINT).generation == 1
    assert LocalTarget(run_dir).endpoints() == (ENDPOINT,)
    assert not (run_dir / "endpoints" / "prod.main.flight-delay.new").exists()
