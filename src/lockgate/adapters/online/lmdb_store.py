"""`LmdbOnline`: the online store in one LMDB environment, a folder with `data.mdb` and `lock.mdb`.

    lockgate-online              -> the format of this file
    VIEW                         -> the view's whole semantic hash
    VIEW  msgpack(key)           -> msgpack([event_at, available_at, values])
    VIEW  0xc1 sha256(key)       -> the same, for a key that msgpack cannot write or LMDB cannot hold

VIEW is the first 16 bytes of the hash: keys are compared often, and half of SHA-256 tells views apart as well.
msgpack keeps the types apart (1, 1.0, True, "1") and the 64 bits of a float.

**Many at once.** LMDB gives each reader a snapshot without locks and lets one writer in at a time, across processes;
a commit turns one 16-byte pointer, so whoever is killed leaves the old rows or the new ones. LMDB forbids opening
the same files twice in a process, so all `LmdbOnline` of one folder share one environment.

**Growing.** The map is only address space. A writer that fills it makes it larger and writes its batch again; readers
elsewhere meet `MapResizedError` and take the new size. Neither may happen while this process reads, hence the passes
in `_Environment`: a reader holds one while it reads, and whoever remaps collects them all first.

**Damage.** LMDB maps the file and trusts it, so a file cut short would end the process with SIGBUS instead of an
error. Writers therefore make the file long enough for all they may use before they use it; then a file that is too
short was cut, which is noticed when it is opened.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

import lmdb
import msgspec

from lockgate.core.digests import Digest, check_digest
from lockgate.core.errors import Corrupt, Invalid, LockgateError, Unavailable
from lockgate.features.online import supersedes
from lockgate.features.ports import Key, OnlineAmbiguous, OnlineRow

MAP_BYTES: Final = 1 << 30
_MARK: Final = b"lockgate-online"
_FORMAT: Final = b"lockgate.online/1"
_N_PREFIX: Final = 16
# LMDB holds keys of up to 511 bytes; the byte that msgpack never writes marks the digest of a longer one.
_N_NAME: Final = 511 - _N_PREFIX
_DIGESTED: Final = b"\xc1"
_N_READERS: Final = 1022
_N_BATCH: Final = 2000
_N_TRIES: Final = 40
_LOOK_AGAIN_S: Final = 1.0
_NIL: Final = b"\xc0"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(OnlineRow).decode
_decode_all: Final = msgspec.msgpack.Decoder(list[OnlineRow | None]).decode

R = TypeVar("R")
# A number of more than 64 bits; text with half a character.
_UNWRITABLE: Final = (OverflowError, UnicodeEncodeError)
_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)


class OnlineUnavailable(Unavailable):
    """The store cannot be read or written now: it is not there, the disk is full, the system refuses."""

    code = "features.online-unavailable"


class OnlineCorrupt(Corrupt):
    """The files are damaged, or something else than an online store."""

    code = "features.online-corrupt"


class OnlineValueRefused(Invalid):
    """A value is none that a row may hold: text with half a character, a number of more than 64 bits."""

    code = "features.online-value-refused"


class _Pending(NamedTuple):
    name: bytes
    data: bytes
    key: Key
    row: OnlineRow


class _Environment:
    """The one LMDB environment that a process has on a folder, and the passes of those who read in it.

    Attributes:
        env: to be used with a pass in hand, or under `writing`.
        writing: held by this process' writer, and by whoever is about to be `alone`.
        look_at: when, on the monotonic clock, to look whether the files are still the same.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.n_users = 0
        self.writing = threading.RLock()
        self.env: Any = None
        self.look_at = 0.0
        self._may_write = False
        self._file = (0, 0)
        # Passes that are not out, and where `enter` takes them from: the same list, but while somebody is `alone`.
        self._home: list[int] = []
        self._passes = self._home
        self._n_passes = 0
        self._issuing = threading.Lock()

    def open(self, *, map_bytes: int, readonly: bool, durable: bool) -> None:
        """Open the files, or open them again: for writing as well, or because others have taken their place."""
        with self.writing:
            self.look_at = monotonic() + _LOOK_AGAIN_S
            if self.env is not None and (readonly or self._may_write) and self._is_there():
                return
            with self.alone():
                if self.env is not None:
                    self.env.close()
                    self.env = None
                if not readonly:
                    Path(self.path).mkdir(parents=True, exist_ok=True)
                env = lmdb.open(
                    self.path,
                    map_size=map_bytes,
                    readonly=readonly,
                    create=not readonly,
                    mode=0o600,
                    sync=durable,
                    readahead=False,
                    max_readers=_N_READERS,
                    max_spare_txns=8,
                )
                try:
                    _check(env, self.path)
                except BaseException:
                    env.close()
                    raise
                env.reader_check()
                self.env, self._may_write, self._file = env, not readonly, _identity(self.path)

    def _is_there(self) -> bool:
        """Whether the files that are open are still those in the folder; it may have been moved away."""
        try:
            return _identity(self.path) == self._file
        except FileNotFoundError:
            return False

    def enter(self) -> int:
        """A pass: as long as it is out, nobody remaps. To be given back by `leave`."""
        try:
            return self._passes.pop()
        except IndexError:
            with self._issuing:
                with suppress(IndexError):  # given back while this one waited
                    return self._home.pop()
                self._n_passes += 1
                return self._n_passes

    def leave(self, number: int) -> None:
        self._home.append(number)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody of this process reads or writes within the block; the caller holds `writing` and no pass."""
        pause = threading.Event()
        with self._issuing:
            # Whoever comes now waits for the lock, or those who read on and on would never let go.
            self._passes, taken = [], list[int]()
            while len(taken) < self._n_passes:
                try:
                    taken.append(self._home.pop())
                except IndexError:
                    pause.wait(0.0002)
            try:
                yield
            finally:
                self._home.extend(taken)
                self._passes = self._home

    def resize(self, n_bytes: int) -> None:
        """Map `n_bytes`; 0 for as many as the file says by now."""
        with self.writing, self.alone():
            self.env.set_mapsize(n_bytes)

    def close(self) -> None:
        with self.writing, self.alone():
            if self.env is not None:
                self.env.close()
                self.env = None


_SHARED: dict[str, _Environment] = {}
_SHARING = threading.Lock()


class LmdbOnline:
    """An `OnlineStore` in a folder; any number of threads and processes may use it. Open it after forking.

    The files are opened by the first use, so a reader may be made before there is a store: until then it raises
    `OnlineUnavailable`, and finds the store once it is there.

    Args:
        path: the folder; a writer makes it.
        map_bytes: address space to begin with. It grows by itself; the disk holds what is used.
        readonly: never write; `write` and `drop` raise `OnlineUnavailable`.
        durable: whether a commit outlives a power cut. Without it writing is some ten times faster, and after a
            power cut (not after a crash) the folder may have to be made anew.

    Raises, in all methods:
        OnlineUnavailable: see there.
        OnlineCorrupt: see there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        map_bytes: int = MAP_BYTES,
        readonly: bool = False,
        durable: bool = True,
    ) -> None:
        self._path = str(Path(path).resolve())
        self._map_bytes = map_bytes
        self._readonly = readonly
        self._durable = durable
        self._shared: _Environment | None = None
        self._opening = threading.Lock()
        self._prefixes: dict[Digest, bytes] = {}

    def read(self, view: Digest, keys: Sequence[Key]) -> list[OnlineRow | None]:
        return self.read_many(((view, keys),))[0]

    def read_many(self, requests: Sequence[tuple[Digest, Sequence[Key]]]) -> list[list[OnlineRow | None]]:
        shared = self._shared
        if shared is not None and monotonic() < shared.look_at:
            try:
                return self._read(shared, requests)
            except (lmdb.Error, msgspec.DecodeError, AttributeError):  # closed meanwhile: env is None
                pass
        return self._tried(partial(self._read, requests=requests))

    def write(self, view: Digest, rows: Iterable[tuple[Key, OnlineRow]]) -> int:
        prefix, n_taken, coming = self._prefix(view), 0, iter(rows)
        self._require_writer()
        while batch := [_pending(prefix, key, row) for key, row in islice(coming, _N_BATCH)]:
            taken, doubtful = self._tried(partial(self._write, view=view, batch=batch))
            n_taken += taken
            if doubtful is not None:
                raise OnlineAmbiguous(
                    f"two rows of key {doubtful} have the same instants and different values",
                    remedy="give the later one a later event_at or available_at",
                    key=list(doubtful),
                )
        return n_taken

    def drop(self, view: Digest) -> None:
        prefix = self._prefix(view)
        self._require_writer()
        self._tried(lambda shared: self._drop(shared, prefix))

    def views(self) -> frozenset[Digest]:
        return self._tried(self._views)

    def close(self) -> None:
        """Let go of the files; the next use opens them again."""
        with self._opening, _SHARING:
            shared, self._shared = self._shared, None
            if shared is None:
                return
            shared.n_users -= 1
            if not shared.n_users:
                del _SHARED[shared.path]
                shared.close()

    def __enter__(self) -> LmdbOnline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what runs inside a transaction

    def _read(
        self, shared: _Environment, requests: Sequence[tuple[Digest, Sequence[Key]]]
    ) -> list[list[OnlineRow | None]]:
        prefixes, found = self._prefixes, []
        number = shared.enter()
        try:
            with shared.env.begin() as txn:
                get = txn.get
                for view, keys in requests:
                    prefix = prefixes.get(view) or self._prefix(view)
                    if len(keys) == 1:
                        one = get(prefix + _name(keys[0]))
                        found.append([None if one is None else _decode(one)])
                        continue
                    try:
                        data = [get(prefix + name, _NIL) for name in map(_encode, keys)]
                    except (lmdb.BadValsizeError, *_UNWRITABLE):
                        data = [get(prefix + _name(key), _NIL) for key in keys]
                    # One array of all rows is decoded a good deal faster than many rows.
                    found.append(_decode_all(b"\xdd" + len(data).to_bytes(4, "big") + b"".join(data)))
        finally:
            shared.leave(number)
        return found

    def _write(self, shared: _Environment, view: Digest, batch: Sequence[_Pending]) -> tuple[int, Key | None]:
        """Take a batch up in one transaction; how many rows were taken, and the key that stopped it."""
        with shared.writing:
            env, n_taken = shared.env, 0
            n_bytes = sum(len(one.name) + len(one.data) for one in batch)
            env.reader_check()
            with env.begin(write=True) as txn:
                _make_room(env, shared.path, n_rows=len(batch), n_bytes=n_bytes)
                for one in batch:
                    old = txn.get(one.name)
                    if old is not None:
                        if old == one.data:
                            continue
                        held = _decode(old)
                        if held[:2] == one.row[:2] and held != one.row:
                            return n_taken, one.key
                        if not supersedes(one.row, held):
                            continue
                    elif not n_taken:
                        txn.put(_MARK, _FORMAT)
                        txn.put(self._prefix(view), bytes.fromhex(view.removeprefix("sha256:")))
                    txn.put(one.name, one.data)
                    n_taken += 1
            return n_taken, None

    def _drop(self, shared: _Environment, prefix: bytes) -> None:
        with shared.writing:
            env = shared.env
            with env.begin(write=True) as txn:
                _make_room(env, shared.path, n_rows=0, n_bytes=0)
                cursor = txn.cursor()
                left = cursor.set_range(prefix)
                while left and cursor.key().startswith(prefix):
                    left = cursor.delete()

    def _views(self, shared: _Environment) -> frozenset[Digest]:
        found, number = set(), shared.enter()
        try:
            with shared.env.begin() as txn:
                cursor = txn.cursor()
                left = cursor.first()
                while left:
                    name = cursor.key()
                    if name == _MARK:
                        left = cursor.next()
                        continue
                    found.add(f"sha256:{cursor.value().hex()}")
                    # Past everything that begins so; the last prefix there can be has nothing behind it.
                    after = int.from_bytes(name[:_N_PREFIX], "big") + 1
                    left = after < 1 << 8 * _N_PREFIX and cursor.set_range(after.to_bytes(_N_PREFIX, "big"))
        finally:
            shared.leave(number)
        return frozenset(found)

    # -- opening, growing, errors

    def _tried(self, act: Callable[[_Environment], R]) -> R:
        """What `act` gives, after as much growing and adopting of a larger map as it takes."""
        for _ in range(_N_TRIES):
            shared = self._shared
            try:
                if shared is None or shared.env is None or monotonic() > shared.look_at:
                    shared = self._open()
                return act(shared)
            except lmdb.MapResizedError:
                self._remap(0)
            except lmdb.MapFullError:
                self._remap(1)
            except lmdb.ReadersFullError:
                self._drop_dead_readers()
            except (lmdb.Error, OSError) as error:
                raise _explained(error, self._path) from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _corrupt(self._path, f"it holds bytes that are no row: {error}") from error
        raise _unavailable(self._path, "it does not come to rest", "run it again")

    def _open(self) -> _Environment:
        with self._opening, _SHARING:
            shared = self._shared or _SHARED.get(self._path) or _Environment(self._path)
            shared.open(map_bytes=self._map_bytes, readonly=self._readonly, durable=self._durable)
            if self._shared is None:
                self._shared = _SHARED[self._path] = shared
                shared.n_users += 1
        return shared

    def _remap(self, larger: int) -> None:
        shared = self._shared
        if shared is None:
            return
        try:
            shared.resize(2 * shared.env.info()["map_size"] if larger else 0)
        except (lmdb.Error, OSError, OverflowError) as error:
            raise _unavailable(
                self._path, f"its map cannot grow: {error}", "free memory or disk; then run it again"
            ) from error

    def _drop_dead_readers(self) -> None:
        """Free the places of processes that were killed. When all are in use, that is an error."""
        shared = self._shared
        if shared is None or not shared.env.reader_check():
            raise _unavailable(
                self._path, f"{_N_READERS} readers are at it already", "end some of the processes that read"
            )

    def _require_writer(self) -> None:
        if self._readonly:
            raise _unavailable(
                self._path, "it was opened for reading only", "write with `lockgate materialize`"
            )

    def _prefix(self, view: Digest) -> bytes:
        prefix = self._prefixes.get(view)
        if prefix is None:
            text = check_digest(view).removeprefix("sha256:")
            prefix = self._prefixes[view] = bytes.fromhex(text)[:_N_PREFIX]
        return prefix


def _identity(path: str) -> tuple[int, int]:
    found = (Path(path) / "data.mdb").stat()
    return found.st_dev, found.st_ino


def _name(key: Key) -> bytes:
    """What a key is called behind its view's prefix."""
    try:
        name = _encode(key)
    except _UNWRITABLE:
        return _DIGESTED + hashlib.sha256(repr(key).encode()).digest()
    return name if len(name) <= _N_NAME else _DIGESTED + hashlib.sha256(name).digest()


def _pending(prefix: bytes, key: Key, row: OnlineRow) -> _Pending:
    try:
        return _Pending(prefix + _name(key), _encode(row), key, row)
    except (*_UNWRITABLE, TypeError) as error:
        raise OnlineValueRefused(
            f"the row of key {key!r} cannot be stored: {error}",
            remedy="use whole numbers of 64 bits, numbers, text, true and false",
            key=repr(key),
        ) from error


def _check(env: Any, path: str) -> None:
    """Whether the files are an online store, and whole."""
    info, page = env.info(), env.stat()["psize"]
    if (Path(path) / "data.mdb").stat().st_size < (info["last_pgno"] + 1) * page:
        raise _corrupt(path, "data.mdb is shorter than what was written to it")
    with env.begin() as txn:
        if txn.stat()["entries"] and txn.get(_MARK) != _FORMAT:
            raise _corrupt(path, "it is an LMDB environment of something else, or of a newer Lockgate")


def _make_room(env: Any, path: str, *, n_rows: int, n_bytes: int) -> None:
    """Make the file as long as this transaction can need. Called inside it, when nobody else lengthens the file.

    LMDB copies each page it changes once, so at the worst the whole tree; a new row may split pages, and a large one
    has pages of its own. The file is sparse: what is not used takes no room on the disk.
    """
    stat, file = env.stat(), Path(path) / "data.mdb"
    n_tree = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    n_new = n_tree + n_tree // 256 + 4 * n_rows + 2 * n_bytes // stat["psize"] + 256
    n_needed = (env.info()["last_pgno"] + 1 + n_new) * stat["psize"]
    if file.stat().st_size < n_needed:
        os.truncate(file, n_needed)


def _explained(error: lmdb.Error | OSError, path: str) -> LockgateError:
    if isinstance(error, _DAMAGE) or Path(path).is_file():
        return _corrupt(path, str(error))
    if not (Path(path) / "data.mdb").exists():
        return _unavailable(path, "there is none", "lockgate materialize")
    return _unavailable(path, str(error), "see that the disk has room and that you may use the folder")


def _corrupt(path: str, why: str) -> OnlineCorrupt:
    return OnlineCorrupt(
        f"the online store {path} cannot be used: {why}",
        remedy="move the folder away and run lockgate materialize: it is made of snapshots and loses nothing",
        path=path,
    )


def _unavailable(path: str, why: str, remedy: str) -> OnlineUnavailable:
    return OnlineUnavailable(f"the online store {path} cannot be used now: {why}", remedy=remedy, path=path)
