"""Pickles that would only touch a marker file; none is ever loaded, and the guard of unit tests would see it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import multiprocessing.util
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lockgate.core.messages import Receipt
from lockgate.registry.packages import formats
from lockgate.registry.packages.formats import scan_file
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, rules_of


class Marker:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


SPAWN = getattr(multiprocessing.util, "spawnv_passfds")  # noqa: B009 - not in the stubs
TOUCH = Marker(SPAWN, b"/bin/touch", [b"touch", b"/tmp/lockgate-marker"], [])
EVIL = pickle.dumps(TOUCH)
DISTUTILS = b"cdistutils.spawn\nspawn\n((lp0\nS'touch'\naS'/tmp/lockgate-marker'\natR."
PLAIN = {"a": [1, 2.5, "x", None, True], (1, 2): b"bytes", "set": {1}, "frozen": frozenset([2])}


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "harmless")
        archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def refused(data: bytes, path: str = "include/file.bin") -> list[str]:
    return [str(one) for one in scan_file(path, data)]


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_is_refused_in_every_protocol(protocol: int) -> None:
    (said,) = refused(pickle.dumps(TOUCH, protocol))
    assert said.startswith("include/file.bin: reading it runs ")
    if protocol > 2:
        assert "multiprocessing.util.spawnv_passfds" in said


HIDDEN = {
    "distutils, as text": (DISTUTILS, "distutils.spawn.spawn"),
    "without an end": (DISTUTILS[:-1] + b" and then prose", "distutils.spawn.spawn"),
    "without a protocol": (b"\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.", "os.system"),
    "INST": (b"(S'id'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'id'\no.", "os.system"),
    "a class that is only named": (pickle.dumps(dict), "builtins.dict"),
    "cut off": (EVIL[:-2], "spawnv_passfds"),
    "an object behind plain ones": (pickle.dumps(1) + pickle.dumps([2]) + EVIL, "spawnv_passfds"),
    "torch": (zipped("archive/data.pkl", EVIL), "!archive/data.pkl"),
    "zip behind something else": (b"#!/bin/sh\n" + zipped("x", EVIL), "!x"),
    "zip in zip": (zipped("inner.zip", zipped("x.dat", EVIL)), "!inner.zip!x.dat"),
    "tar": (tarred("a/b", EVIL), "!a/b"),
    "gzip": (gzip.compress(EVIL), "spawnv_passfds"),
    "tar.gz": (gzip.compress(tarred("a/b", EVIL)), "!a/b"),
    "bz2": (bz2.compress(EVIL), "spawnv_passfds"),
    "xz": (lzma.compress(EVIL), "spawnv_passfds"),
    "lzma": (lzma.compress(EVIL, format=lzma.FORMAT_ALONE), "spawnv_passfds"),
    "joblib": (zlib.compress(EVIL), "spawnv_passfds"),
    "npy of objects": (npy(np.array([TOUCH], dtype=object)), "!objects"),
    "npz of objects": (zipped("a.npy", npy(np.array([{}], dtype=object))), "!a.npy!objects"),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_it_is_found_wherever_it_hides(case: str) -> None:
    data, words = HIDDEN[case]
    assert any(words in said for said in refused(data)), refused(data)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (pickle.dumps(PLAIN, 5), "a.pkl"),
        (pickle.dumps(PLAIN, 4) * 3, "a.pkl"),
        (zipped("a.pkl", pickle.dumps([1, 2])), "a.zip"),
        (npy(np.arange(12.0)), "a.npy"),
        (zipped("a.npy", npy(np.array(["x", "y"]))), "a.npz"),
        (gzip.compress(b"carrier,delay\nUA,3\n"), "a.csv.gz"),
        (b"", "empty"),
        (b"hello.", "a.txt"),
        (b"category\nname\nbicycle\n", "words.txt"),
        (b"carrier\nbad\nRest\nbest\n", "a.csv"),
        (b"tree\nversion=v4\n", "model.txt"),
        (b"import os\nos.system('true')\n", "a.py"),
        (b"\x08\x07\x12\x07skl2onnx" + bytes(range(256)), "model.onnx"),
    ],
)
def test_plain_data_and_text_are_let_through(data: bytes, path: str) -> None:
    assert refused(data, path) == []


@pytest.mark.parametrize(
    ("data", "path", "why"),
    [
        (b"not a pickle at all", "a.joblib", "named like a pickle"),
        (EVIL[:2] + b"\xff\xff", "a.bin", "cannot be read to its end"),
        (pickle.dumps(1) + b"???", "a.bin", "bytes behind it"),
        (zipped("x", b"y" * 1000)[:-30], "a.zip", "cannot be looked into"),
        (gzip.compress(b"y" * 1000)[:-12], "a.gz", "cannot be looked into"),
        (b"\x28\xb5\x2f\xfd1234", "a.zst", "cannot be looked into"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "a.npy", "cannot be looked into"),
        (b"\x80\x04K\x01Q.", "a.bin", "it holds BINPERSID"),
    ],
)
def test_what_cannot_be_looked_into_is_refused(data: bytes, path: str, why: str) -> None:
    (said,) = refused(data, path)
    assert why in said


def test_there_is_a_limit_to_how_deep_and_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = b"core"
    for _ in range(formats.MAX_DEPTH + 1):
        nested = zipped("inner", nested)
    assert "archives deep" in refused(nested)[0]
    monkeypatch.setattr(formats, "MAX_BYTES", 10_000)
    assert "unpacks to over" in refused(gzip.compress(bytes(20_000)))[0]
    monkeypatch.setattr(formats, "MAX_MEMBERS", 1)
    assert "holds over" in refused(zipped("x", b"y"))[0]


def test_registration_refuses_a_package_that_holds_one_and_says_so_for_each_file() -> None:
    world = HubWorld.in_memory()
    story = Story(world.hub)
    story.found()
    story.train("one")
    world.refused = tuple(refused(EVIL, "include/a") + refused(DISTUTILS, "include/b"))
    receipt: Receipt = story.register("one")
    assert rules_of(receipt) == ["security.format", "security.format"]
    assert receipt.refusal is not None and "include/b" in receipt.refusal.reasons[1].message
    assert world.journal.document("version", f"{MODEL_NAME}@1.0.0") is None
