"""What every online store promises. Subclass `OnlineContract` and override the fixture `make`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from lockgate.core.digests import Digest, sha256
from lockgate.features.ports import Key, OnlineAmbiguous, OnlineRow, OnlineStore

VIEW, OTHER = sha256(b"view"), sha256(b"other")


def row(
    event_at: int, available_at: int | None = None, *values: float | int | bool | str | None
) -> OnlineRow:
    return OnlineRow(event_at, event_at if available_at is None else available_at, values or (1.5,))


class OnlineContract:
    """The suite; an adapter passes all of it."""

    @pytest.fixture
    def make(self) -> Callable[[], OnlineStore]:
        raise NotImplementedError("override the fixture `make`: a callable that gives an empty store")

    @pytest.fixture
    def store(self, make: Callable[[], OnlineStore]) -> OnlineStore:
        return make()

    def test_an_empty_store_knows_nothing(self, store: OnlineStore) -> None:
        assert store.read(VIEW, [("a",), ("b",)]) == [None, None]
        assert store.views() == frozenset()

    def test_rows_come_back_in_the_order_of_the_keys(self, store: OnlineStore) -> None:
        assert store.write(VIEW, [(("a",), row(1)), (("b",), row(2))]) == 2
        assert store.read(VIEW, [("b",), ("x",), ("a",), ("b",)]) == [row(2), None, row(1), row(2)]

    def test_values_keep_their_types(self, store: OnlineStore) -> None:
        kept = row(1, 1, 1.0, 1, True, "1", None, "", 2**53, float("-inf"))
        store.write(VIEW, [((7, "x"), kept)])
        (read,) = store.read(VIEW, [(7, "x")])
        assert read is not None
        assert [(type(value), value) for value in read.values] == [
            (type(value), value) for value in kept.values
        ]

    def test_keys_of_another_type_are_other_keys(self, store: OnlineStore) -> None:
        store.write(VIEW, [((1,), row(1)), (("1",), row(2))])
        assert store.read(VIEW, [(1,), ("1",)]) == [row(1), row(2)]

    def test_keys_may_be_of_any_length_and_value(self, store: OnlineStore) -> None:
        long = "N" * 5000
        keys = [
            (),
            ("",),
            (long,),
            (long, 1),
            (long + "1",),
            (-(2**63),),
            (2**63,),
            (2**70,),
            ("\ud800", 1),
            ("é",),
        ]
        assert store.write(VIEW, [(key, row(n)) for n, key in enumerate(keys)]) == len(keys)
        assert store.read(VIEW, keys) == [row(n) for n in range(len(keys))]
        assert store.read(VIEW, [(long, 2), (2**71,)]) == [None, None]

    def test_several_views_are_read_at_once(self, store: OnlineStore) -> None:
        store.write(VIEW, [(("k",), row(1))])
        store.write(OTHER, [(("k", 7), row(2))])
        asked: list[tuple[Digest, list[Key]]] = [(OTHER, [("k", 7), ("k",)]), (VIEW, [("k",)]), (OTHER, [])]
        assert store.read_many(asked) == [[row(2), None], [row(1)], []]
        assert store.read_many([]) == []

    def test_a_refused_row_keeps_those_before_it(self, store: OnlineStore) -> None:
        store.write(VIEW, [(("b",), row(1, 1, 1.0))])
        with pytest.raises(OnlineAmbiguous):
            store.write(VIEW, [(("a",), row(1)), (("b",), row(1, 1, 2.0)), (("c",), row(1))])
        assert store.read(VIEW, [("a",), ("b",), ("c",)]) == [row(1), row(1, 1, 1.0), None]

    def test_an_empty_write_makes_no_view(self, store: OnlineStore) -> None:
        assert store.write(VIEW, []) == 0
        assert store.views() == frozenset()

    def test_readers_see_whole_rows_and_both_views_at_one_moment(self, store: OnlineStore) -> None:
        """Two views are written one after the other, so at any moment the first is ahead by one row or by none."""
        n_writes, failures = 100, list[object]()
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                ((first,), (second,)) = store.read_many([(VIEW, [("k",)]), (OTHER, [("k",)])])
                for found in (first, second):
                    if found is not None and found.values != (found.event_at, str(found.event_at)):
                        failures.append(found)
                ahead = (first.event_at if first else 0) - (second.event_at if second else 0)
                if ahead not in (0, 1):
                    failures.append((first, second))

        readers = [threading.Thread(target=look) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for n in range(1, n_writes + 1):
                for view in (VIEW, OTHER):
                    store.write(view, [(("k",), row(n, n, n, str(n)))])
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert failures == []

    def test_many_writers_lose_nothing(self, store: OnlineStore) -> None:
        def write(start: int) -> None:
            for n in range(start, 200, 4):
                store.write(VIEW, [((n,), row(n)), (("newest",), row(n, n, n))])

        writers = [threading.Thread(target=write, args=(start,)) for start in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert store.read(VIEW, [(n,) for n in range(200)]) == [row(n) for n in range(200)]
        assert store.read(VIEW, [("newest",)]) == [row(199, 199, 199)]

    def test_the_newest_row_wins_in_any_order_and_however_often_it_comes(
        self, make: Callable[[], OnlineStore]
    ) -> None:
        rows = [row(1, 1, 1.0), row(2, 2, 2.0), row(2, 5, 3.0), row(0, 9, 4.0)]
        for order in itertools.permutations(rows):
            store = make()
            for one in (*order, *order):
                store.write(VIEW, [(("k",), one)])
            assert store.read(VIEW, [("k",)]) == [row(2, 5, 3.0)]

    def test_what_changes_nothing_is_not_counted(self, store: OnlineStore) -> None:
        store.write(VIEW, [(("k",), row(5))])
        assert store.write(VIEW, [(("k",), row(5)), (("k",), row(4))]) == 0
        assert store.write(VIEW, [(("k",), row(6))]) == 1

    def test_a_tie_with_other_values_is_refused(self, store: OnlineStore) -> None:
        store.write(VIEW, [(("k",), row(5, 5, 1.0))])
        with pytest.raises(OnlineAmbiguous):
            store.write(VIEW, [(("k",), row(5, 5, 2.0))])
        assert store.read(VIEW, [("k",)]) == [row(5, 5, 1.0)]

    def test_views_lie_side_by_side_and_are_dropped_alone(self, store: OnlineStore) -> None:
        store.write(VIEW, [(("k",), row(1))])
        store.write(OTHER, [(("k",), row(2))])
        assert store.views() == {VIEW, OTHER}
        store.drop(VIEW)
        store.drop(VIEW)
        assert store.read(VIEW, [("k",)]) == [None]
        assert store.read(OTHER, [("k",)]) == [row(2)]
        assert store.views() == {OTHER}
