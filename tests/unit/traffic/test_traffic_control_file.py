from __future__ import annotations

import hashlib

import pytest

from lockgate.testing.target_suite import ENDPOINT, sample_plan
from lockgate.traffic import control_file as codec
from lockgate.traffic.errors import ControlFileCorrupt, ControlFileVersion, PlanTooLarge, StalePlan
from lockgate.traffic.observed import Observed, State, WorkerState
from lockgate.traffic.plan import N_SLOTS, Plan


def file_with(*plans: Plan) -> bytearray:
    image = bytearray(codec.blank())
    for plan in plans:
        codec.carry_out(image, codec.publish(image, plan))
    return image


def test_a_blank_file_holds_no_plan() -> None:
    assert codec.read(codec.blank()) == codec.Reading(0, None)
    assert codec.read_acks(codec.blank()) == ()


def test_what_was_published_is_read_with_the_one_before() -> None:
    plans = [sample_plan(generation, "1.0.0") for generation in (1, 2, 9)]
    image = file_with(*plans)
    reading = codec.read(image)
    assert (reading.plan, reading.before, reading.torn) == (plans[2], plans[1], False)
    assert reading.word == codec.active_word(image) and reading.word >> 1 == 9


def test_the_active_word_is_stored_last_and_as_one() -> None:
    image = file_with(sample_plan(1, "1.0.0"))
    *rest, last = codec.publish(image, sample_plan(2, "2.0.0"))
    codec.carry_out(image, rest)
    assert codec.read(image).plan == sample_plan(1, "1.0.0")
    codec.carry_out(image, [last])
    assert len(last.data) == 8 and last.offset % 8 == 0
    assert codec.read(image).plan == sample_plan(2, "2.0.0")


def test_the_plan_in_force_is_not_written_again() -> None:
    assert codec.publish(file_with(sample_plan(1, "1.0.0")), sample_plan(1, "1.0.0")) == ()


@pytest.mark.parametrize("generation", [3, 4])
def test_a_generation_that_is_not_newer_is_fenced_off(generation: int) -> None:
    with pytest.raises(StalePlan, match="generation 4"):
        codec.publish(file_with(sample_plan(4, "1.0.0")), sample_plan(generation, "2.0.0"))


def test_a_plan_that_does_not_fit_is_refused() -> None:
    versions = {f"{number}.0.0": 0 for number in range(300)} | {"1.0.0": N_SLOTS}
    with pytest.raises(PlanTooLarge, match="28624 fit"):
        codec.publish(codec.blank(), sample_plan(1, versions))


def test_a_torn_area_gives_way_to_the_plan_before_and_may_be_written_again() -> None:
    plans = [sample_plan(1, "1.0.0"), sample_plan(2, "2.0.0")]
    image = file_with(*plans)
    image[_payload_of(image, 2) + 20] ^= 1
    assert codec.read(image)[1:] == (plans[0], True, None)
    with pytest.raises(StalePlan):
        codec.publish(image, plans[0])
    codec.carry_out(image, codec.publish(image, plans[1]))
    assert codec.read(image)[1:] == (plans[1], False, plans[0])


def test_a_file_whose_only_plan_is_torn_is_corrupt_until_the_next_plan() -> None:
    image = file_with(sample_plan(1, "1.0.0"))
    image[_payload_of(image, 1)] ^= 1
    with pytest.raises(ControlFileCorrupt, match="generation 1"):
        codec.read(image)
    codec.carry_out(image, codec.publish(image, sample_plan(2, "1.0.0")))
    assert codec.read(image).plan == sample_plan(2, "1.0.0")


def test_a_plan_of_a_newer_release_counts_as_unreadable_and_keeps_its_fence() -> None:
    image = bytearray(codec.blank())
    stores = codec.publish(image, sample_plan(5, "1.0.0"))
    payload = stores[0].data.rstrip(b"\0").replace(b"lockgate.plan/1", b"lockgate.plan/2")
    codec.carry_out(image, _forged(5, payload))
    with pytest.raises(ControlFileCorrupt):
        codec.read(image)
    with pytest.raises(StalePlan):
        codec.publish(image, sample_plan(4, "1.0.0"))


def test_other_files_are_told_apart() -> None:
    for image in (b"", b"x" * codec.SIZE_BYTES, codec.blank()[:-1]):
        with pytest.raises(ControlFileCorrupt):
            codec.check(image)
    swapped = bytearray(codec.blank())
    swapped[8:16] = bytes(reversed(swapped[8:16]))
    with pytest.raises(ControlFileVersion):
        codec.read(swapped)


def test_acks_are_kept_per_slot_and_given_back() -> None:
    image = file_with(sample_plan(3, "1.0.0"))
    acks = [
        codec.Ack(slot, 100 + slot, 7, 2, 3, state, 11)
        for slot, state in enumerate(("idle", "loading", "serving", "failed"))
    ]
    for ack in acks:
        assert codec.free_slot(image) == ack.slot
        codec.carry_out(image, codec.acknowledge(ack))
    assert list(codec.read_acks(image)) == acks
    codec.carry_out(image, codec.release(1))
    assert [ack.slot for ack in codec.read_acks(image)] == [0, 2, 3] and codec.free_slot(image) == 1
    assert codec.read(image).plan == sample_plan(3, "1.0.0")


def test_the_slots_are_finite() -> None:
    image = bytearray(codec.blank())
    for slot in range(codec.N_WORKER_SLOTS):
        codec.carry_out(image, codec.acknowledge(codec.Ack(slot, 1, 1, 0, 0, "idle", 0)))
    assert codec.free_slot(image) is None


def test_file_names_stand_for_endpoints() -> None:
    assert codec.file_name("prod/flight-delay") == "prod.main.flight-delay.ctl"
    assert codec.endpoint_of("prod.main.flight-delay.ctl") == ENDPOINT
    for name in ("prod.main.flight-delay.lock", "a.b.ctl", "A.b.c.ctl", "prod.main.x.new", ".ctl"):
        assert codec.endpoint_of(name) is None


def test_worker_files_are_named_for_their_process() -> None:
    assert codec.worker_of(codec.worker_name(4711, 99)) == (4711, 99)
    for stem in ("all", "1-", "-1", "1-x", ""):
        assert codec.worker_of(stem) is None


def worker(generation: int, seen: int, state: State) -> WorkerState:
    return WorkerState(pid=1, generation=generation, seen=seen, state=state)


@pytest.mark.parametrize(
    ("workers", "reached", "failed", "settled"),
    [
        ((), False, False, False),
        ((worker(2, 2, "serving"), worker(3, 3, "serving")), True, False, True),
        ((worker(2, 2, "serving"), worker(1, 2, "loading")), False, False, False),
        ((worker(2, 2, "serving"), worker(1, 1, "gone")), True, False, True),
        ((worker(2, 2, "gone"),), False, False, False),
        ((worker(2, 2, "serving"), worker(1, 2, "failed")), False, True, True),
        ((worker(0, 1, "failed"),), False, False, False),
        ((worker(2, 3, "failed"),), True, False, True),
    ],
)
def test_what_was_observed_decides(
    workers: tuple[WorkerState, ...], reached: bool, failed: bool, settled: bool
) -> None:
    observed = Observed(endpoint=ENDPOINT, generation=2, workers=workers)
    assert (observed.reached(2), observed.failed(2), observed.settled(2)) == (reached, failed, settled)


def _payload_of(image: bytearray, generation: int) -> int:
    """Where the payload of a generation begins."""
    return image.index(b'{"schema"', image.index(generation.to_bytes(8, "little"), 4_096))


def _forged(generation: int, payload: bytes) -> list[codec.Store]:
    """The stores of a plan this release would not write."""
    image = bytearray(codec.blank())
    real = codec.publish(image, sample_plan(generation, "1.0.0"))
    header = bytearray(real[1].data)
    header[8:16] = len(payload).to_bytes(8, "little")
    header[16:48] = hashlib.sha256(payload).digest()
    return [codec.Store(real[0].offset, payload), codec.Store(real[1].offset, bytes(header)), real[2]]
