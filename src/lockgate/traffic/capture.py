"""What a data plane writes down of its traffic, and what it amounts to: one line per fact, JSON, append only.

    RUN_DIR/capture/ENV.NAMESPACE.NAME/GENERATION-PID-TOKEN.jsonl

A file belongs to one worker process and one generation of the plan, so whoever reads knows the weights under
which each request was given its version. A line is an array that begins with its kind; kinds are never edited,
a new shape is a new kind. Lines of one worker are in the order in which they happened; between workers there is
no order but the times.

A verdict about a release is a function of these lines alone, so it comes out the same however often, and by
whichever process, they are read. Half a line at the end of a file is a worker that was killed: it counts for
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.traffic.errors import ErrorClass

CAPTURE_DIR = "capture"
CAPTURE_SUFFIX = ".jsonl"

CaptureMode = Literal["off", "scores", "rows"]
"""What of an endpoint's traffic is kept: nothing; who answered what and how fast; the rows themselves too."""


class Answered(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """A request that reached a version, and how it went.

    Attributes:
        at: when it was answered.
        unit: what was given a version at random: `unit_of` the routing key; empty when the request had no key
            and so is a unit of its own.
        package: of the version that the plan chose; `weight` are its slots of 10,000 then.
        outcome: `ok`, or the class of the error.
        latency_us: from the complete request to the complete answer.
        predictions: one per row; empty unless `ok`.
        as_of: the moment the question was about.
    """

    at: Micros
    request_id: str
    unit: str
    package: Digest
    weight: int
    outcome: Literal["ok"] | ErrorClass
    latency_us: int
    predictions: tuple[float, ...]
    as_of: Micros


class Shadowed(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """What the shadow said to a request that another version answered."""

    at: Micros
    request_id: str
    package: Digest
    outcome: Literal["ok"] | ErrorClass
    predictions: tuple[float, ...]


class Labelled(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """What turned out to be true about one row of a request."""

    at: Micros
    request_id: str
    row: int
    label: float


class Asked(msgspec.Struct, frozen=True, array_like=True, tag="i"):
    """The rows of a request as the version got them, features read by key included. Only in mode `rows`."""

    at: Micros
    request_id: str
    rows: tuple[dict[str, Any], ...]


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """So many lines before this one are missing, because writing could not keep up or the file is full."""

    at: Micros
    n_lines: int


Line = Answered | Shadowed | Labelled | Asked | Dropped

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """One line with its line break."""
    return _ENCODER.encode(line) + b"\n"


def encode_all(lines: Sequence[Line]) -> bytes:
    """Lines one after the other, each with its line break; there is no other line break in them."""
    return _ENCODER.encode_lines(lines)


def decode(data: bytes) -> Line | None:
    """What a line says; None for one that is no line of this release (cut short, or of a newer one)."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def unit_of(key: str, salt: str) -> str:
    """A routing key as captures keep it: 64 bits of BLAKE2b keyed with the plan's salt, in hex."""
    hashed = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64])
    return hashed.hexdigest()


def file_name(generation: int, worker: str) -> str:
    """The name of the file of a worker (`control_file.worker_name`) for one generation."""
    return f"{generation}-{worker}{CAPTURE_SUFFIX}"


def generation_of(name: str) -> int | None:
    """The generation in a file's name; None when it is no capture file."""
    number, dash, _ = name.removesuffix(CAPTURE_SUFFIX).partition("-")
    return int(number) if dash and name.endswith(CAPTURE_SUFFIX) and number.isdecimal() else None
