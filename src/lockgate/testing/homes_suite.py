"""The contract suite of the `Homes` port: subclass `HomesContract` and override `make` with a fresh, empty store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import Bug
from lockgate.hub.ports import Homes, Store
from lockgate.testing.journal_suite import commit_of

ONE, TWO, NEVER_TOLD = (sha256(name) for name in (b"one", b"two", b"never told"))


def led(store: Store, command_id: str, *homes: tuple[Digest, str]) -> None:
    """A command that gave these blobs these homes."""
    with store.journal.transaction() as transaction:
        transaction.commit(commit_of(transaction.head(), command_id)._replace(homes=homes))


class HomesContract:
    """What every `Homes` promises."""

    @pytest.fixture
    def make(self) -> Store:
        raise NotImplementedError("override `make` in the subclass")

    @pytest.fixture
    def homes(self, make: Store) -> Homes:
        return make.homes

    def test_a_commit_gives_homes_with_all_else_it_writes(self, make: Store, homes: Homes) -> None:
        led(make, "c1", (ONE, "a/"), (ONE, "b/m"), (TWO, "b/m"))
        found = homes.of([ONE, TWO, NEVER_TOLD])
        assert found == {ONE: {"a/": 0, "b/m": 0}, TWO: {"b/m": 0}}
        assert homes.of([TWO]) == {TWO: {"b/m": 0}}
        assert homes.of([NEVER_TOLD]) == homes.of([]) == {}

    def test_what_is_led_to_again_stays_as_it_is(self, make: Store, homes: Homes) -> None:
        led(make, "c1", (ONE, "a/"))
        led(make, "c2", (ONE, "a/"), (ONE, "c/"))
        assert homes.of([ONE]) == {ONE: {"a/": 0, "c/": 0}}

    def test_what_was_not_committed_has_no_home(self, make: Store, homes: Homes) -> None:
        with pytest.raises(Bug), make.journal.transaction() as transaction:
            given = commit_of(transaction.head(), "c1")._replace(homes=((ONE, "a/"),))
            assert given.homes
            raise Bug("before it was written", remedy="none")
        assert homes.of([ONE]) == {}

    @pytest.mark.parametrize("hold", [True, False])
    def test_a_list_may_be_long(self, make: Store, homes: Homes, hold: bool) -> None:
        many: Sequence[Digest] = [sha256(str(number).encode()) for number in range(5_000)]
        with make.journal.transaction("c1", hold=hold) as transaction:
            rows = tuple((one, "a/") for one in many)
            transaction.commit(commit_of(transaction.head(), "c1")._replace(homes=rows))
        assert homes.of(many) == {one: {"a/": 0} for one in many}

    def test_who_brought_a_blob_is_known_with_the_last_time(self, make: Store, homes: Homes) -> None:
        homes.brought(ONE, "@ ann", 5)
        homes.brought(ONE, "@ ann", 9)
        homes.brought(ONE, "@ ann", 7)
        homes.brought(ONE, "@ bob", 6)
        led(make, "c1", (ONE, "a/"))
        assert homes.of([ONE]) == {ONE: {"@ ann": 9, "@ bob": 6, "a/": 0}}

    def test_who_brought_what_is_forgotten_and_homes_are_not(self, make: Store, homes: Homes) -> None:
        homes.brought(ONE, "@ ann", 5)
        homes.brought(ONE, "@ bob", 6)
        homes.brought(TWO, "@ ann", 5)
        led(make, "c1", (ONE, "a/"))
        homes.prune(6)
        assert homes.of([ONE, TWO]) == {ONE: {"@ bob": 6, "a/": 0}}

    def test_it_is_filled_once_somebody_has_done_it(self, make: Store, homes: Homes) -> None:
        led(make, "c1", (ONE, "a/"))
        homes.brought(TWO, "@ ann", 5)
        assert not homes.is_filled()
        homes.fill([(ONE, "a/"), (ONE, "b/m"), (TWO, "b/m")])
        assert homes.is_filled()
        homes.fill(())
        assert homes.is_filled()
        assert homes.of([ONE, TWO]) == {ONE: {"a/": 0, "b/m": 0}, TWO: {"@ ann": 5, "b/m": 0}}

    def test_many_fill_and_bring_at_once(self, make: Store, homes: Homes) -> None:
        rows = [(sha256(str(number).encode()), "a/") for number in range(100)]

        def work(number: int) -> None:
            homes.fill(rows)
            for digest, _ in rows[number::4]:
                homes.brought(digest, "@ ann", 1 + number)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        found = homes.of([digest for digest, _ in rows])
        assert [found[digest] for digest, _ in rows] == [{"@ ann": 1 + at % 4, "a/": 0} for at in range(100)]
