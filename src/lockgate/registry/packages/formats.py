"""What a file is by its bytes, whatever it is called: no file of a package may run something when it is read.

A list of what is known to be dangerous is out of date on the day it is written: pickles through
`multiprocessing.util.spawnv_passfds` or `distutils.spawn.spawn` pass the usual scanners. So pickles are held against
a list of what is harmless: the opcodes that make plain data. One that names a class or a function, calls, or sets a
state is refused, whatever it names.

Looked into, to any depth up to `MAX_DEPTH`: pickles of every protocol, several in a row (old torch files); zip
(torch, npz, keras), tar, gzip, bz2, xz, zlib (joblib); npy with objects. What claims to be one of these and cannot be
looked into is refused as well. Nothing is ever unpickled, imported or unpacked to disk.

Not looked for: pickles in the middle of other files, which no reader starts to read there, and code that is openly
code (`code.tar`, scripts).
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import lzma
import pickletools
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

MAX_DEPTH: Final = 5
MAX_BYTES: Final = 512 * 1024 * 1024
MAX_MEMBERS: Final = 20_000

HARMLESS: Final = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *(
            "STRING",
            "BINSTRING",
            "SHORT_BINSTRING",
            "UNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE",
            "BINUNICODE8",
        ),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
        *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    }
)
"""Opcodes that make numbers, texts and containers of them, and nothing else."""

_NAMED_PICKLE = re.compile(r"\.(pkl|pickle|joblib|dill|pt|pth|ckpt)\Z", re.IGNORECASE)
_COMPRESSED: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"Rar!\x1a\x07", "rar"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
)
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z")


class Refused(msgspec.Struct, frozen=True, order=True):
    """A file that must not travel, or one inside it (`include/a.zip!b.pkl`), and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class _TooMuch(Exception):
    """More than is looked into; the message says of what."""


class _Budget:
    """How much is unpacked in all, so that a small file cannot become an endless one."""

    def __init__(self) -> None:
        self._n_bytes = self._n_members = 0

    def take(self, data: bytes) -> bytes:
        self._n_bytes += len(data)
        self._n_members += 1
        if self._n_bytes > MAX_BYTES:
            raise _TooMuch(f"it unpacks to over {MAX_BYTES:,} bytes")
        if self._n_members > MAX_MEMBERS:
            raise _TooMuch(f"it holds over {MAX_MEMBERS:,} files")
        return data

    @property
    def left(self) -> int:
        return MAX_BYTES - self._n_bytes


def scan_file(path: str, data: bytes) -> tuple[Refused, ...]:
    """Everything in a file that is refused, sorted; empty when it is harmless."""
    return tuple(sorted(set(_scan(path, data, _Budget(), 0))))


def _scan(path: str, data: bytes, budget: _Budget, depth: int) -> Iterator[Refused]:
    if depth > MAX_DEPTH:
        yield Refused(path, f"it lies more than {MAX_DEPTH} archives deep, which is not looked into")
        return
    why = pickle_problem(data)
    if why is None and _NAMED_PICKLE.search(path) and not _container(data):
        why = None if _starts_pickle(data) else "it is named like a pickle and cannot be looked into"
    if why is not None:
        yield Refused(path, why)
    try:
        for name, inner in _members(data, budget):
            yield from _scan(f"{path}!{name}", inner, budget, depth + 1)
    except _TooMuch as error:
        yield Refused(path, f"{error}, which is not looked into")
    except _BROKEN as error:
        yield Refused(path, f"it cannot be looked into: {type(error).__name__}")


_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    SyntaxError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)


def _container(data: bytes) -> bool:
    return zipfile.is_zipfile(io.BytesIO(data)) or _decompressor(data) is not None or _is_tar(data)


def _members(data: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    """What a file holds: each file of an archive, or what it decompresses to. A file may be several things at once."""
    for magic, kind in _COMPRESSED:
        if data.startswith(magic):
            raise ValueError(kind)
    if data.startswith(b"\x93NUMPY"):
        yield from _npy(data)
    decompress = _decompressor(data)
    if decompress is not None:
        yield "", budget.take(decompress(data, budget.left))
    if zipfile.is_zipfile(io.BytesIO(data)):
        yield from _unzipped(data, budget)
    elif data.startswith(b"PK\x03\x04"):
        raise ValueError("zip")
    if _is_tar(data):
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is not None:
                    yield entry.name, budget.take(content.read(budget.left + 1))


def _unzipped(data: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                # What the directory says of the size is not believed.
                with archive.open(entry) as content:
                    yield entry.filename, budget.take(content.read(budget.left + 1))


def _npy(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The part of a NumPy file that is a pickle: there is one when its elements are objects."""
    major = data[6]
    width = 2 if major == 1 else 4
    start = 8 + width
    end = start + int.from_bytes(data[8:start], "little")
    header = ast.literal_eval(data[start:end].decode("latin-1"))
    if not isinstance(header, dict) or "descr" not in header or end > len(data):
        raise ValueError("npy")
    if re.search(r"['\"|<>=]O\d*['\"]", repr(header["descr"])):
        if pickle_problem(data[end:]) is None and not _starts_pickle(data[end:]):
            raise ValueError("npy")
        yield "objects", data[end:]


def _is_tar(data: bytes) -> bool:
    if len(data) < 512 or not data[:512].strip(b"\0"):
        return False
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:"):
            return True
    except tarfile.TarError:
        return False


def _decompressor(data: bytes) -> Callable[[bytes, int], bytes] | None:
    if data.startswith(b"\x1f\x8b"):
        return lambda packed, left: _read(gzip.GzipFile(fileobj=io.BytesIO(packed)), left)
    if data.startswith(b"BZh"):
        return lambda packed, left: _read(bz2.BZ2File(io.BytesIO(packed)), left)
    if data.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lambda packed, left: _read(lzma.LZMAFile(io.BytesIO(packed)), left)
    # The two bytes that open a zlib stream are a multiple of 31; text may begin so too, and then is no stream.
    if data[:1] == b"\x78" and len(data) > 6 and int.from_bytes(data[:2], "big") % 31 == 0:
        try:
            zlib.decompressobj().decompress(data[:4096])
        except zlib.error:
            return None
        return lambda packed, left: zlib.decompressobj().decompress(packed, left + 1)
    return None


def _read(file: io.BufferedIOBase, left: int) -> bytes:
    with file:
        return file.read(left + 1)


def pickle_problem(data: bytes) -> str | None:
    """Why bytes that a reader would take for a pickle are refused; None when they are none, or plain data.

    Old protocols have no mark to know them by, and text may look like one for a while. They are refused when a name is
    looked up and something is done with it, or when the whole of it is a pickle that looks one up; that is before a
    reader would stumble over what follows.
    """
    file, start = io.BytesIO(data), 0
    for _ in range(MAX_MEMBERS):
        if start == len(data):
            return None
        walked = _walk(file, start, marked=_is_marked(data, start))
        if walked.why is not None:
            return walked.why
        if walked.end is None:
            break
        start = walked.end
    else:
        return f"it is over {MAX_MEMBERS:,} pickles in a row, which are not looked into"
    if start and _is_marked(data, 0):
        return f"it is a pickle with {len(data) - start:,} bytes behind it that are none"
    return "it starts as a pickle and cannot be read to its end" if _is_marked(data, start) else None


def _is_marked(data: bytes, start: int) -> bool:
    """Whether a pickle of protocol 2 or later says so there."""
    return data[start : start + 1] == b"\x80" and data[start + 1 : start + 2] in _PROTOCOLS


def _starts_pickle(data: bytes) -> bool:
    return _walk(io.BytesIO(data), 0, marked=_is_marked(data, 0)).end is not None


class _Walked(msgspec.Struct, frozen=True):
    """How far bytes are a pickle: `end` after its STOP, None when it has none; `why` it is refused."""

    end: int | None
    why: str | None = None


_PROTOCOLS: Final = frozenset(bytes([number]) for number in range(2, 17))
_CALLS: Final = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_LOOKS_UP: Final = frozenset({"GLOBAL", "INST", "STACK_GLOBAL"})


def _walk(file: io.BytesIO, start: int, *, marked: bool) -> _Walked:
    """Go through the opcodes from `start` without carrying any out."""
    file.seek(start)
    looked_up, texts, stack = "", ["", ""], _Stack()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            stack.apply(opcode)
            if name in HARMLESS:
                if name == "STOP":
                    return _Walked(file.tell(), f"reading it looks up {looked_up}" if looked_up else None)
                texts = [texts[1], argument] if isinstance(argument, str) else texts
                continue
            if name in _LOOKS_UP:
                looked_up = ".".join(texts) if name == "STACK_GLOBAL" else str(argument).replace(" ", ".", 1)
                if not marked and not _NAME.match(looked_up):
                    break
            if name in _CALLS and looked_up:
                return _Walked(None, f"reading it runs {looked_up}; a package holds plain data only")
            if marked and name not in _LOOKS_UP:
                return _Walked(None, f"it holds {name}; a package holds plain data only")
    except Exception:  # noqa: BLE001 - whatever the bytes make the parser raise: from there on they are no pickle
        return _broken_off(looked_up if marked else "")
    return _Walked(None)


def _broken_off(looked_up: str) -> _Walked:
    return _Walked(None, f"reading it looks up {looked_up}" if looked_up else None)


class _Stack:
    """How many objects the opcodes left behind, and where the marks are. Raises where a reader would."""

    def __init__(self) -> None:
        self._depth = 0
        self._marks: list[int] = []

    def apply(self, opcode: pickletools.OpcodeInfo) -> None:
        before, after = opcode.stack_before, opcode.stack_after
        if pickletools.markobject in before:
            self._depth = self._marks.pop()
            self._depth -= before.index(pickletools.markobject)
        elif opcode.name == "POP" and self._marks and self._marks[-1] == self._depth:
            self._marks.pop()
            return
        else:
            self._depth -= len(before)
        if self._depth < (self._marks[-1] if self._marks else 0):
            raise ValueError(opcode.name)
        if pickletools.markobject in after:
            self._marks.append(self._depth)
        else:
            self._depth += len(after)
