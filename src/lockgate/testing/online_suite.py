"""What every online store promises. Subclass `OnlineContract` and override the fixture `make`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from lockgate.core.digests import sha256
from lockgate.features.ports import OnlineAmbiguous, OnlineRow, OnlineStore

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
