"""Whatever a writer left behind when it was killed, and whatever reached the disk, a reader sees a whole plan."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.testing.target_suite import sample_plan
from lockgate.traffic import control_file as codec
from lockgate.traffic.errors import ControlFileCorrupt
from lockgate.traffic.plan import N_SLOTS, Plan

WEIGHTS = st.integers(1, N_SLOTS - 1)


@st.composite
def histories(draw: st.DrawFn) -> list[Plan]:
    """Two to four plans with growing generations and payloads of several lengths."""
    plans, generation = [], 0
    for _ in range(draw(st.integers(2, 4))):
        generation += draw(st.integers(1, 300))
        first, more = draw(WEIGHTS), draw(st.integers(0, 3))
        versions = {"1.0.0": first, "2.0.0": N_SLOTS - first} | {f"{3 + n}.0.0": 0 for n in range(more)}
        plans.append(sample_plan(generation, versions, salt=draw(st.text("abc", max_size=20))))
    return plans


def words(stores: Sequence[codec.Store]) -> Iterator[codec.Store]:
    """The same stores, eight bytes at a time: the unit that a kill cannot cut."""
    for offset, data in stores:
        for start in range(0, len(data), 8):
            yield codec.Store(offset + start, data[start : start + 8])


def image_with(plans: Sequence[Plan]) -> bytearray:
    image = bytearray(codec.blank())
    for plan in plans:
        codec.carry_out(image, codec.publish(image, plan))
    return image


@given(histories())
@settings(max_examples=25)
def test_every_prefix_of_a_write_shows_the_old_plan_or_the_new_one(plans: list[Plan]) -> None:
    image = image_with(plans[:-1])
    old, new = plans[-2], plans[-1]
    stores = list(words(codec.publish(bytes(image), new)))
    for done, store in enumerate(stores, start=1):
        assert codec.read(image).plan == old
        codec.carry_out(image, [store])
        reading = codec.read(image)
        assert (reading.plan, reading.torn) == ((new, False) if done == len(stores) else (old, False))


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_power_cut_that_keeps_any_part_of_a_write_shows_the_old_plan_or_the_new_one(
    plans: list[Plan], chance: object
) -> None:
    image = image_with(plans[:-1])
    old, new = plans[-2], plans[-1]
    stores = list(words(codec.publish(bytes(image), new)))
    # From almost nothing to almost everything, the active word first or last or not at all.
    share = chance.random()  # type: ignore[attr-defined]
    kept = [store for store in stores if chance.random() < share]  # type: ignore[attr-defined]
    codec.carry_out(image, kept)
    assert codec.read(image).plan in (old, new)
    # The writer comes back and finishes, whatever it finds.
    codec.carry_out(image, codec.publish(bytes(image), new))
    assert (codec.read(image).plan, codec.read(image).torn) == (new, False)


@given(histories(), st.integers(0, codec.SIZE_BYTES * 8 - 1))
@settings(max_examples=150)
def test_one_flipped_bit_never_makes_another_plan(plans: list[Plan], bit: int) -> None:
    image = image_with(plans)
    image[bit // 8] ^= 1 << bit % 8
    try:
        reading = codec.read(image)
    except codec.ControlFileVersion:
        return
    except ControlFileCorrupt:
        return
    assert reading.plan is None or reading.plan in plans[-2:]


@given(histories(), st.integers(0, 40))
@settings(max_examples=40)
def test_a_writer_that_is_killed_again_and_again_gets_there(plans: list[Plan], cut: int) -> None:
    image = bytearray(codec.blank())
    codec.carry_out(image, codec.publish(image, plans[0]))
    for before, plan in itertools.pairwise(plans):
        stores = list(words(codec.publish(bytes(image), plan)))
        codec.carry_out(image, stores[: cut % len(stores)])
        assert codec.read(image).plan == before
        codec.carry_out(image, codec.publish(bytes(image), plan))
        assert codec.read(image).plan == plan
