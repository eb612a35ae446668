"""The control file: one endpoint's plan in 64 KiB that two sides map into memory. Pure codec, no file is
opened.

    page 0            magic | format version | ACTIVE WORD                    8-byte words, native order
    area A, area B    generation | length | SHA-256 of the payload | payload  the plan's canonical bytes
    ack area          64 slots of 64 bytes, one per worker process

The active word is `generation << 1 | area`. It is the only thing a request looks at: one 8-byte load, and
when it is the word of the last request there is nothing to do.

*Writing.* The payload and the header go into the area that is not in force; the active word is stored last.
Whatever prefix of these stores a killed writer leaves behind, the active word still names an untouched area,
or the write was complete. After a power cut the pages may have reached the disk in any order and in part;
then the named area fails its hash and the other one, made durable by the write before, is in force. A plan
that is neither the old nor the new one cannot verify, because the header holds the hash of the whole payload.

*Reading.* A reader that was overtaken by two writes finds an area that does not verify; it reads the active
word again. When the word did not move the area is torn for good, and `read` says so (`torn`).

*Acks.* A slot belongs to one worker process (pid and token); it alone stores there, word by word, the applied
generation before the state. Who lives is not told here: a worker holds a lock on its liveness file, which the
operating system drops with the process, kill -9 included. A pid and a start time would need the same pid
namespace on both sides; a lock does not.

Files of one machine only: words are in native byte order (a file from elsewhere is refused), stores of
aligned 8-byte words are atomic on every 64-bit platform that Python supports.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from lockgate.core.digests import canonical
from lockgate.core.errors import LockgateError
from lockgate.core.names import EndpointName, parse_endpoint
from lockgate.traffic.errors import (
    ControlFileCorrupt,
    ControlFileVersion,
    LocalPlanInForce,
    PlanTooLarge,
    StalePlan,
)
from lockgate.traffic.observed import State
from lockgate.traffic.plan import Plan

SIZE_BYTES: Final = 65_536
N_WORKER_SLOTS: Final = 64

ENDPOINTS_DIR: Final = "endpoints"
WORKERS_DIR: Final = "workers"
CONTROL_SUFFIX: Final = ".ctl"
LOCK_SUFFIX: Final = ".lock"
LIVE_SUFFIX: Final = ".live"
BELL_SUFFIX: Final = ".bell"
REPORT_SUFFIX: Final = ".json"

_MAGIC: Final = b"LOCKGATE"
_FORMAT: Final = 1
_ACTIVE_AT: Final = 16
_AREA_AT: Final = (4_096, 32_768)
_AREA_BYTES: Final = 28_672
_ACKS_AT: Final = 61_440
_SLOT_BYTES: Final = 64
_WORD = struct.Struct("@Q")
_AREA_HEADER = struct.Struct("@QQ32s")
_SLOT = struct.Struct("@QQQQQ24x")
_STATES: tuple[State, ...] = ("idle", "loading", "serving", "failed")
_DECODER = msgspec.json.Decoder(Plan)

MAX_PLAN_BYTES: Final = _AREA_BYTES - _AREA_HEADER.size

Buffer = bytes | bytearray | memoryview


class Store(NamedTuple):
    """One write: `data` at `offset`. Stores of 8 bytes are aligned and must be done as one."""

    offset: int
    data: bytes


class Reading(NamedTuple):
    """What a control file holds.

    Attributes:
        word: the active word the plan was read under.
        plan: the plan in force; None in a file that never held one.
        torn: the area the word names does not verify (a power cut, a damaged file); `plan` is the one before
            it.
        before: the plan of the other area when it verifies and is older: the last known good one of a
            restart.
    """

    word: int
    plan: Plan | None
    torn: bool = False
    before: Plan | None = None


class Ack(NamedTuple):
    """One worker's slot: the plan that answers (`generation`), and the `state` of the newest plan `seen`."""

    slot: int
    pid: int
    token: int
    generation: int
    seen: int
    state: State
    n_requests: int


def file_name(endpoint: str) -> str:
    """`prod.main.flight-delay.ctl`; parts of names hold no dot."""
    name = parse_endpoint(endpoint)
    return f"{name.environment}.{name.model.namespace}.{name.model.name}{CONTROL_SUFFIX}"


def endpoint_of(file: str) -> str | None:
    """The endpoint in full form that a file name stands for; None when it is no control file's name."""
    parts = file.removesuffix(CONTROL_SUFFIX).split(".")
    if not file.endswith(CONTROL_SUFFIX) or len(parts) != 3:
        return None
    try:
        name: EndpointName = parse_endpoint("/".join(parts))
    except LockgateError:
        return None
    return str(name)


def worker_name(pid: int, token: int) -> str:
    """The stem of a worker's files (liveness, bell, report)."""
    return f"{pid}-{token}"


def worker_of(stem: str) -> tuple[int, int] | None:
    """The pid and token in a stem made by `worker_name`; None when it is none."""
    pid, _, token = stem.partition("-")
    return (int(pid), int(token)) if pid.isdecimal() and token.isdecimal() else None


def blank() -> bytes:
    """A control file without a plan."""
    image = bytearray(SIZE_BYTES)
    image[:8] = _MAGIC
    _WORD.pack_into(image, 8, _FORMAT)
    return bytes(image)


def check(image: Buffer) -> None:
    """Raise unless the bytes are a control file of this format and byte order."""
    if len(image) != SIZE_BYTES or bytes(image[:8]) != _MAGIC:
        raise ControlFileCorrupt(
            f"these {len(image)} bytes are no control file",
            remedy="restore the file, or remove it and apply again",
        )
    (version,) = _WORD.unpack_from(image, 8)
    if version != _FORMAT:
        raise ControlFileVersion(
            f"the control file has format {version}, this side knows {_FORMAT}",
            remedy="run the same release on both sides, on one machine",
            format=version,
        )


def active_word(image: Buffer) -> int:
    """The one word a request compares; it changes with every plan."""
    word: int = _WORD.unpack_from(image, _ACTIVE_AT)[0]
    return word


def read(image: Buffer) -> Reading:
    """The plan in force. Safe while another process writes: never returns a mix of two plans.

    Raises:
        ControlFileCorrupt: the word names a plan and neither area verifies.
        ControlFileVersion, ControlFileCorrupt: it is no control file of this format.
    """
    check(image)
    word = active_word(image)
    while True:
        plan = _verified(image, word & 1)
        other = _verified(image, 1 - (word & 1))
        again = active_word(image)
        if again == word:
            break
        word = again
    if word == 0:
        return Reading(0, None)
    generation = word >> 1
    before = other if other is not None and other.generation < generation else None
    if plan is not None and plan.generation == generation:
        return Reading(word, plan, before=before)
    if before is None:
        raise ControlFileCorrupt(
            f"the plan of generation {generation} does not verify, and there is none before it",
            remedy="apply the plan again from the hub",
            generation=generation,
        )
    return Reading(word, before, torn=True)


def publish(image: Buffer, plan: Plan, adopted: int = 0) -> tuple[Store, ...]:
    """The stores that put `plan` in force, to be done in order; none when it is in force already.

    Args:
        image: the file as it is; the caller keeps other writers away until the stores are done.
        adopted: the newest plan of local origin that whoever decided this plan knew of.

    Raises:
        StalePlan: a plan of this or a newer generation is in force, and it is another one.
        LocalPlanInForce: a plan of local origin is in force that the hub did not know of when it decided.
        PlanTooLarge: its canonical bytes do not fit an area (`MAX_PLAN_BYTES`).
        ControlFileCorrupt: the image is no control file.
    """
    reading = _read_or_torn(image)
    payload = canonical(plan)
    if len(payload) > MAX_PLAN_BYTES:
        raise PlanTooLarge(
            f"the plan for {plan.endpoint} has {len(payload)} bytes, {MAX_PLAN_BYTES} fit",
            remedy="keep fewer packages loaded",
            n_bytes=len(payload),
        )
    if not reading.torn and plan == reading.plan:
        return ()
    # The plan that was torn may be written again.
    current = (reading.word >> 1) - reading.torn
    if plan.generation <= current:
        raise StalePlan(
            f"{plan.endpoint} is at generation {current}, {plan.generation} comes too late",
            remedy="observe the endpoint and decide again",
            endpoint=plan.endpoint,
            given=plan.generation,
            current=current,
        )
    if reading.plan is not None:
        check_adopted(reading.plan, plan, adopted)
    # A torn area holds nothing worth keeping; otherwise spare the one in force.
    area = (reading.word & 1) if reading.torn or reading.word == 0 else 1 - (reading.word & 1)
    start = _AREA_AT[area]
    header = _AREA_HEADER.pack(plan.generation, len(payload), hashlib.sha256(payload).digest())
    padded = payload + bytes(-len(payload) % 8)
    return (
        Store(start + _AREA_HEADER.size, padded),
        Store(start, header),
        Store(_ACTIVE_AT, _WORD.pack(plan.generation << 1 | area)),
    )


def check_adopted(current: Plan, plan: Plan, adopted: int) -> None:
    """The one exception to the single door: what was done without the hub is adopted before the hub goes on.

    Raises:
        LocalPlanInForce: `current` is of local origin, newer than `adopted`, and `plan` comes from the hub.
    """
    if current.origin == "local" and plan.origin == "hub" and current.generation > adopted:
        raise LocalPlanInForce(
            f"plan {current.generation} of {plan.endpoint} was written without the hub and is not adopted yet",
            remedy="lockgate control, or wait a second when lockgate up or a hub runs",
            endpoint=plan.endpoint,
            given=plan.generation,
            current=current.generation,
        )


def read_acks(image: Buffer) -> tuple[Ack, ...]:
    """The slots in use, in slot order."""
    acks = []
    for slot in range(N_WORKER_SLOTS):
        start = _ACKS_AT + slot * _SLOT_BYTES
        # The state before the generation: a worker stores them the other way round, so whoever sees
        # "serving" also sees the generation that serves.
        (seen,) = _WORD.unpack_from(image, start + 24)
        pid, token, generation, _, n_requests = _SLOT.unpack_from(image, start)
        if pid:
            state = _STATES[seen & 3]
            acks.append(Ack(slot, pid, token, generation, seen >> 2, state, n_requests))
    return tuple(acks)


def acknowledge(ack: Ack) -> tuple[Store, ...]:
    """The stores of a worker into its own slot, to be done in order."""
    start = _ACKS_AT + ack.slot * _SLOT_BYTES
    seen = ack.seen << 2 | _STATES.index(ack.state)
    words = ((32, ack.n_requests), (16, ack.generation), (24, seen), (8, ack.token), (0, ack.pid))
    return tuple(Store(start + offset, _WORD.pack(value)) for offset, value in words)


def release(slot: int) -> tuple[Store, ...]:
    """The stores that give a slot back: the pid first, so that nobody takes the rest for somebody's."""
    start = _ACKS_AT + slot * _SLOT_BYTES
    return tuple(Store(start + offset, bytes(8)) for offset in (0, 8, 16, 24, 32))


def free_slot(image: Buffer) -> int | None:
    """The first slot nobody holds."""
    taken = {ack.slot for ack in read_acks(image)}
    return next((slot for slot in range(N_WORKER_SLOTS) if slot not in taken), None)


def carry_out(view: memoryview | bytearray, stores: Iterable[Store]) -> None:
    """Do the stores on a writable buffer, in order; 8-byte words as one store each."""
    for offset, data in stores:
        if len(data) == 8:
            _WORD.pack_into(view, offset, _WORD.unpack(data)[0])
        else:
            view[offset : offset + len(data)] = data


def _verified(image: Buffer, area: int) -> Plan | None:
    """The plan of an area when its hash holds; None otherwise."""
    start = _AREA_AT[area]
    generation, length, digest = _AREA_HEADER.unpack_from(image, start)
    if generation == 0 or length > MAX_PLAN_BYTES:
        return None
    payload = bytes(image[start + _AREA_HEADER.size : start + _AREA_HEADER.size + length])
    if hashlib.sha256(payload).digest() != digest:
        return None
    try:
        plan = _DECODER.decode(payload)
    except (msgspec.DecodeError, LockgateError):
        # Whole, but not understood: written by another release. As good as torn for this side.
        return None
    return plan if plan.generation == generation else None


def _read_or_torn(image: Buffer) -> Reading:
    try:
        return read(image)
    except ControlFileCorrupt:
        check(image)
        return Reading(active_word(image), None, torn=True)
