from __future__ import annotations

import itertools
import math
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from lockgate.adapters.online.lmdb_store import (
    LmdbOnline,
    OnlineCorrupt,
    OnlineUnavailable,
    OnlineValueRefused,
)
from lockgate.features.ports import OnlineStore
from lockgate.testing.online_suite import OTHER, VIEW, OnlineContract, row

SMALL = 1 << 16
WRITER = """
import sys
from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.features.ports import OnlineRow
store = LmdbOnline(sys.argv[1], map_bytes=1 << 16, durable=False)
start, n_rows = int(sys.argv[3]), int(sys.argv[4])
rows = [((n,), OnlineRow(n, n, (float(n), "x" * 200))) for n in range(start, start + n_rows)]
print(store.write(sys.argv[2], rows), flush=True)
"""


class TestLmdbOnline(OnlineContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Callable[[], OnlineStore]]:
        made: list[LmdbOnline] = []

        def new() -> OnlineStore:
            made.append(LmdbOnline(tmp_path / f"online-{len(made)}", map_bytes=SMALL, durable=False))
            return made[-1]

        yield new
        for store in made:
            store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "online"


@pytest.fixture
def store(folder: Path) -> Iterator[LmdbOnline]:
    with LmdbOnline(folder, map_bytes=SMALL, durable=False) as opened:
        yield opened


def in_another_process(folder: Path, start: int, n_rows: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), VIEW, str(start), str(n_rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_floats_come_back_to_the_bit(store: LmdbOnline) -> None:
    odd = struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf4\x7f")[0]
    values = (-0.0, 0.1 + 0.2, math.ulp(0.0), math.inf, odd)
    for _ in range(2):
        store.write(VIEW, [(("k",), row(1, 1, *values))])
    (found,) = store.read(VIEW, [("k",)])
    assert found is not None
    assert [struct.pack("<d", value) for value in found.values] == [struct.pack("<d", one) for one in values]


def test_a_value_that_no_row_may_hold_is_refused(store: LmdbOnline) -> None:
    for value in (2**64, "\ud800", object()):
        with pytest.raises(OnlineValueRefused):
            store.write(VIEW, [(("k",), row(1, 1, value))])  # type: ignore[arg-type]
    assert store.views() == frozenset()


def test_the_order_of_pushes_leaves_no_trace(tmp_path: Path) -> None:
    rows = [(("k",), row(1, 1, 1.0)), (("k",), row(1, 3, 2.0)), (("k",), row(0, 9, 3.0)), (("j",), row(4))]
    contents = set()
    for number, order in enumerate(itertools.permutations(rows)):
        with LmdbOnline(tmp_path / str(number), durable=False) as store:
            for one in (*order, *order):
                store.write(VIEW, [one])
        with lmdb.open(str(tmp_path / str(number)), readonly=True) as files, files.begin() as txn:
            contents.add(tuple(txn.cursor()))
    assert len(contents) == 1


def test_the_map_grows_while_others_read(store: LmdbOnline) -> None:
    done, failures = threading.Event(), list[object]()

    def look() -> None:
        while not done.is_set():
            (found,) = store.read(VIEW, [(0,)])
            if found is not None and found != row(0, 0, "x" * 200):
                failures.append(found)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        assert store.write(VIEW, [((n,), row(n, n, "x" * 200)) for n in range(3000)]) == 3000
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert store.read(VIEW, [(2999,)]) == [row(2999, 2999, "x" * 200)]


def test_another_process_may_make_the_map_grow(folder: Path, store: LmdbOnline) -> None:
    store.write(VIEW, [((-1,), row(1))])
    with in_another_process(folder, 0, 5000) as writer:
        assert writer.communicate()[0] == "5000\n"
    assert store.read(VIEW, [(-1,), (4999,)]) == [row(1), row(4999, 4999, 4999.0, "x" * 200)]
    assert store.write(VIEW, [((-2,), row(2))]) == 1
    store.drop(VIEW)
    assert store.views() == frozenset()


def test_many_processes_write_at_once_and_lose_nothing(folder: Path, store: LmdbOnline) -> None:
    writers = [in_another_process(folder, start, 1000) for start in (0, 500, 1000)]
    taken = [int(writer.communicate()[0]) for writer in writers]
    assert sum(taken) == 2000 and [writer.returncode for writer in writers] == [0, 0, 0]
    assert None not in store.read(VIEW, [(n,) for n in range(2000)])


def test_all_stores_of_a_folder_share_its_files(folder: Path, store: LmdbOnline) -> None:
    reader = LmdbOnline(folder, readonly=True)
    with pytest.raises(OnlineUnavailable) as raised:
        reader.read(VIEW, [("k",)])
    assert "materialize" in raised.value.remedy
    store.write(VIEW, [(("k",), row(1))])
    assert reader.read(VIEW, [("k",)]) == [row(1)]
    store.close()
    assert reader.read(VIEW, [("k",)]) == [row(1)]
    store.write(VIEW, [(("k",), row(2))])
    assert reader.read(VIEW, [("k",)]) == [row(2)]
    reader.close()
    # A reader alone, then a writer beside it: the files are opened again.
    store.close()
    assert reader.read(VIEW, [("k",)]) == [row(2)]
    assert store.write(VIEW, [(("k",), row(3))]) == 1
    assert reader.read(VIEW, [("k",)]) == [row(3)]
    for refused in (lambda: reader.write(VIEW, []), lambda: reader.drop(VIEW)):
        with pytest.raises(OnlineUnavailable):
            refused()
    reader.close()


def test_a_store_that_was_replaced_is_found(
    folder: Path, tmp_path: Path, store: LmdbOnline, eventually: Callable[..., object]
) -> None:
    store.write(VIEW, [(("k",), row(1))])
    with LmdbOnline(tmp_path / "new", durable=False) as other:
        other.write(OTHER, [(("k",), row(2))])
    folder.rename(tmp_path / "old")
    (tmp_path / "new").rename(folder)
    eventually(lambda: store.read(OTHER, [("k",)]) == [row(2)])
    assert store.views() == {OTHER}


def test_a_full_disk_is_told_and_harms_nothing(folder: Path) -> None:
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
    )
    command = [sys.executable, "-c", limited + WRITER, str(folder), VIEW]
    with LmdbOnline(folder, durable=False) as store:
        store.write(VIEW, [((-1,), row(1))])
    told = subprocess.run([*command, "0", "50000"], capture_output=True, text=True, check=False)
    assert told.returncode == 1 and "OnlineUnavailable" in told.stderr.splitlines()[-1], told.stderr
    with LmdbOnline(folder, durable=False) as store:
        assert store.read(VIEW, [(-1,)]) == [row(1)]
        assert store.write(VIEW, [((-1,), row(2))]) == 1


def _cut(folder: Path) -> None:
    os.truncate(folder / "data.mdb", 10 * 4096)


def _overwrite(folder: Path) -> None:
    (folder / "data.mdb").write_bytes(b"no LMDB file" * 10_000)


def _somebody_elses(folder: Path) -> None:
    shutil.rmtree(folder)
    with lmdb.open(str(folder)) as files, files.begin(write=True) as txn:
        txn.put(b"theirs", b"1")


def _a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("text")


def _rot(folder: Path) -> None:
    with lmdb.open(str(folder)) as files, files.begin(write=True) as txn:
        for name, _ in list(txn.cursor()):
            if len(name) > 16:
                txn.put(name, b"\xc1\xc1")


@pytest.mark.parametrize("damage", [_cut, _overwrite, _somebody_elses, _a_file, _rot])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_damaged_or_foreign_file_is_told(
    folder: Path, damage: Callable[[Path], None], readonly: bool
) -> None:
    with LmdbOnline(folder, durable=False) as store:
        store.write(VIEW, [((n,), row(n)) for n in range(5000)])
    damage(folder)
    with LmdbOnline(folder, readonly=readonly) as store, pytest.raises(OnlineCorrupt) as raised:
        store.read(VIEW, [(1,)])
    assert str(folder) in raised.value.message and "materialize" in raised.value.remedy


def test_the_data_plane_loads_nothing_heavy_with_it() -> None:
    code = (
        "import sys; import lockgate.adapters.online.lmdb_store\n"
        "print(sorted({'numpy', 'pyarrow', 'duckdb', 'sqlglot', 'sqlite3'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
