"""The contract suites of the `Journal` and `Outbox` ports.

Subclass `JournalContract` and `OutboxContract` and override `make`. Both want journal and outbox over one fresh,
empty store, because they share its transactions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from lockgate.core.errors import Bug, Invalid
from lockgate.core.journal import EMPTY_HEAD, Head, extend
from lockgate.hub.ports import (
    NEVER,
    Commit,
    Deliveries,
    Delivery,
    Edge,
    Journal,
    Outbox,
    OutboxRow,
    Store,
    StoredDocument,
    StoredEntry,
    Usage,
)

PATIENCE_S = 30.0


class Stop(Exception):
    """Ends a transaction the hard way."""


def document(
    key: str, *, kind: str = "thing", parent: str = "", body: bytes = b"{}", rev: int = 1
) -> StoredDocument:
    return StoredDocument(kind, key, rev, 1, body, parent, "state", "digest")


def commit_of(
    head: Head,
    command_id: str,
    *,
    bodies: Iterable[bytes] = (b"{}",),
    documents: Iterable[StoredDocument] = (),
    edges: Iterable[Edge] = (),
    effects: Iterable[tuple[str, int, bytes]] = (),
    receipt: bytes = b"{}",
) -> Commit:
    """A commit that goes on from `head`."""
    entries = []
    for body in bodies:
        head = extend(head, body)
        entries.append(StoredEntry(head.seq, body, head.hash))
    return Commit(head, tuple(entries), tuple(documents), tuple(edges), tuple(effects), command_id, receipt)


class JournalContract:
    """Every promise of `Journal`, as tests.

    Attributes:
        keeps_nul: whether a NUL may stand in keys, ids and names. Where the database cannot keep one, it is refused.
    """

    keeps_nul = True

    @pytest.fixture
    def make(self) -> Store:
        raise NotImplementedError("override the fixture `make` to return the store under test")

    @pytest.fixture
    def journal(self, make: Store) -> Journal:
        return make.journal

    def test_a_new_journal_is_empty(self, journal: Journal) -> None:
        assert journal.head() == EMPTY_HEAD
        assert list(journal.entries(0, 10)) == []
        assert list(journal.documents("thing")) == []
        assert journal.document("thing", "a") is None
        assert journal.receipt("c1") is None
        assert list(journal.edges()) == []

    def test_what_was_committed_reads_back_byte_for_byte(self, journal: Journal) -> None:
        bodies = [b'{"a":1}', bytes(range(256)), b"", "\u00e9\u4e2d\U0001f600".encode()]
        kept = StoredDocument(
            "thing", "main/\u00e9@1", 3, 2, bytes(range(256)), "par\u00e9nt", "live", "sha256:00"
        )
        edge = Edge("version:a", "made", "package:\u00fc")
        write(journal, "c1", bodies=bodies, documents=[kept], edges=[edge], receipt=bytes(range(255, -1, -1)))

        expected = commit_of(EMPTY_HEAD, "c1", bodies=bodies)
        assert list(journal.entries(0, 10)) == list(expected.entries)
        assert journal.head() == expected.head
        assert journal.document("thing", kept.key) == kept
        assert list(journal.edges()) == [edge]
        assert journal.receipt("c1") == bytes(range(255, -1, -1))

    def test_the_head_grows_with_its_frontier(self, journal: Journal) -> None:
        head = EMPTY_HEAD
        for number in range(9):
            head = commit_of(head, "", bodies=[b"%d" % number]).head
            write(journal, f"c{number}", bodies=[b"%d" % number])
            assert journal.head() == head

    def test_entries_come_in_order_and_in_pages(self, journal: Journal) -> None:
        write(journal, "c1", bodies=[b"1", b"2", b"3"])
        write(journal, "c2", bodies=[b"4", b"5"])
        assert [one.body for one in journal.entries(0, 2)] == [b"1", b"2"]
        assert [one.seq for one in journal.entries(2, 2)] == [3, 4]
        assert [one.seq for one in journal.entries(4, 100)] == [5]
        assert list(journal.entries(5, 100)) == []
        assert list(journal.entries(0, 0)) == []

    def test_leaving_without_a_commit_changes_nothing(self, journal: Journal) -> None:
        write(journal, "c1", documents=[document("a")])
        with journal.transaction() as transaction:
            assert transaction.document("thing", "a") is not None
        assert journal.head().seq == 1
        write(journal, "c2")

    def test_an_exception_changes_nothing_and_frees_the_lock(self, make: Store) -> None:
        journal = make.journal
        with pytest.raises(Stop), journal.transaction():
            raise Stop
        write(journal, "c1", documents=[document("a")], effects=[("s", 1, b"{}")])
        assert journal.head().seq == 1
        assert make.outbox.open_rows() == 1

    def test_an_exception_after_the_commit_takes_nothing_back(self, journal: Journal) -> None:
        with pytest.raises(Stop), journal.transaction() as transaction:
            transaction.commit(commit_of(transaction.head(), "c1"))
            raise Stop
        assert journal.head().seq == 1
        write(journal, "c2")

    def test_a_transaction_commits_once(self, journal: Journal) -> None:
        with journal.transaction() as transaction:
            transaction.commit(commit_of(transaction.head(), "c1"))
            with pytest.raises(Bug):
                transaction.commit(commit_of(journal.head(), "c2"))
        assert journal.head().seq == 1
        assert journal.receipt("c2") is None

    def test_a_transaction_ends_with_its_block(self, journal: Journal) -> None:
        with journal.transaction() as transaction:
            commit = commit_of(transaction.head(), "c1")
        with pytest.raises(Bug):
            transaction.commit(commit)
        assert journal.head() == EMPTY_HEAD

    def test_a_transaction_reads_what_was_committed(self, journal: Journal) -> None:
        write(journal, "c1", documents=[document("a"), document("ab"), document("b")], receipt=b"r1")
        with journal.transaction() as transaction:
            assert transaction.head() == journal.head()
            assert transaction.receipt("c1") == b"r1"
            assert transaction.receipt("c2") is None
            assert transaction.document("thing", "a") == document("a")
            assert transaction.document("other", "a") is None
            assert [one.key for one in transaction.documents("thing", "a")] == ["a", "ab"]

    def test_what_is_expected_changes_no_answer(self, journal: Journal) -> None:
        write(journal, "c1", documents=[document("a"), document("b"), document("c")], receipt=b"r1")
        write(journal, "c2", documents=[document("b", rev=2)])
        first = [("thing", "a"), ("thing", "b"), ("thing", "none"), ("thing", "nul\0"), ("other", "a")]
        for command_id, receipt in (("c1", b"r1"), ("c9", None), ("nul\0", None), ("it's", None)):
            with journal.transaction(command_id, first) as transaction:
                assert transaction.receipt(command_id) == receipt
                assert transaction.receipt("c2") == b"{}"
                transaction.expect([("thing", "c"), ("thing", "b"), ("thing", "x%s"), ("thing", "c")])
                assert transaction.document("thing", "b") == document("b", rev=2)
                assert transaction.document("thing", "c") == document("c")
                absent = [("thing", "none"), ("thing", "nul\0"), ("other", "a"), ("thing", "x%s")]
                assert [transaction.document(*one) for one in absent] == [None] * 4
        # Not even what somebody else changed between two transactions.
        write(journal, "c3", documents=[document("a", rev=9)])
        with journal.transaction("c3", first) as transaction:
            assert transaction.document("thing", "a") == document("a", rev=9)

    def test_what_is_looked_at_and_then_decided_without_a_lock_is_written(self, journal: Journal) -> None:
        write(journal, "c1", documents=[document("a"), document("nul")], receipt=b"r1")
        first = [("thing", "a"), ("thing", "none"), ("thing", "nul\0")]
        for command_id in ("c1", "c2", "it's"):
            with journal.snapshot(command_id, first, hold=False):
                known = journal.receipt(command_id)
                assert (known == b"r1") == (command_id == "c1")
                assert journal.document("thing", "a") == document("a")
                before = journal.head().seq
                with journal.transaction(command_id, first, hold=False) as transaction:
                    assert transaction.receipt(command_id) == known
                    assert transaction.head() == journal.head()
                    assert transaction.document("thing", "a") == document("a")
                    assert transaction.document("thing", "nul\0") is None
                    made = [document(f"{command_id}-x"), document(f"{command_id}-y"), document("nul")]
                    transaction.expect([(one.kind, one.key) for one in made[:2]], new=True)
                    transaction.expect([(one.kind, one.key) for one in made])
                    assert transaction.document("thing", made[0].key) is None
                    assert [one.key for one in transaction.documents("thing", "n")] == ["nul"]
                    if known is None:
                        transaction.commit(commit_of(transaction.head(), command_id, documents=made))
                        with pytest.raises(Bug):
                            transaction.commit(commit_of(transaction.head(), "again"))
                # A thread's own commit is what it reads next.
                assert journal.head().seq == before + (known is None)
                assert (journal.document("thing", f"{command_id}-y") is None) == (command_id == "c1")
        assert [entry.seq for entry in journal.entries(0, 10)] == [1, 2, 3]

    def test_what_is_decided_without_a_lock_is_left_by_an_exception(self, journal: Journal) -> None:
        with (
            pytest.raises(Stop),
            journal.snapshot("c1", hold=False),
            journal.transaction("c1", hold=False) as transaction,
        ):
            assert transaction.receipt("c1") is None
            raise Stop
        write(journal, "c1")
        assert journal.head().seq == 1

    def test_many_threads_that_look_decide_and_write_again_lose_nothing(self, journal: Journal) -> None:
        n_threads, n_each = 6, 8
        start = threading.Barrier(n_threads)

        def work(number: int) -> None:
            start.wait(PATIENCE_S)
            for turn in range(n_each):
                command_id = f"c{number}-{turn}"
                hold, written = False, False
                while not written:
                    with (
                        journal.snapshot(command_id, [("thing", "all")], hold=False),
                        journal.transaction(command_id, [("thing", "all")], hold=hold) as transaction,
                    ):
                        before = transaction.document("thing", "all")
                        rev = 1 if before is None else before.rev + 1
                        commit = commit_of(transaction.head(), command_id, bodies=[command_id.encode()])
                        transaction.commit(commit._replace(documents=(document("all", rev=rev),)))
                        written = True
                    hold = True

        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(work, range(n_threads)))
        counted = journal.document("thing", "all")
        assert counted is not None and counted.rev == journal.head().seq == n_threads * n_each

    def test_a_command_may_change_nothing_but_its_receipt(self, journal: Journal) -> None:
        write(journal, "c1", bodies=[])
        assert journal.head() == EMPTY_HEAD
        assert journal.receipt("c1") == b"{}"

    def test_a_whole_history_may_pass_through_one_commit(self, journal: Journal) -> None:
        """Entries and receipts come from iterators, more of them than anybody would hold in memory."""
        commit = commit_of(EMPTY_HEAD, "c1", bodies=[b"%d" % number for number in range(5000)])
        told = ((f"old-{number}", b"r%d" % number) for number in range(5000))
        with journal.transaction() as transaction:
            transaction.commit(commit._replace(entries=iter(tuple(commit.entries)), receipts=told))
        assert journal.head() == commit.head
        assert [one.body for one in journal.entries(4990, 100)] == [b"%d" % n for n in range(4990, 5000)]
        assert [journal.receipt(f"old-{number}") for number in (0, 4999)] == [b"r0", b"r4999"]
        assert journal.receipt("c1") == b"{}"

    def test_a_document_is_replaced_as_a_whole(self, journal: Journal) -> None:
        write(journal, "c1", documents=[document("a", parent="p", body=b"1")])
        write(journal, "c2", documents=[document("a", parent="q", body=b"2", rev=2)])
        assert journal.document("thing", "a") == document("a", parent="q", body=b"2", rev=2)
        assert list(journal.documents("thing", parent="p")) == []
        assert len(journal.documents("thing", parent="q")) == 1

    def test_documents_are_found_by_prefix_and_parent_in_key_order(self, journal: Journal) -> None:
        keys = ["a", "a#1", "a#10", "a#2", "a%", "a_", "aa", "A", "b", "\u00e9", "a\u00e9", "a\U0001f600"]
        made = [document(key, parent="p" if "#" in key else "") for key in keys]
        write(journal, "c1", documents=[*made, document("a", kind="other")])
        assert [one.key for one in journal.documents("thing")] == sorted(keys)
        assert [one.key for one in journal.documents("thing", "a#")] == ["a#1", "a#10", "a#2"]
        assert [one.key for one in journal.documents("thing", "a%")] == ["a%"]
        assert [one.key for one in journal.documents("thing", "a_")] == ["a_"]
        assert [one.key for one in journal.documents("thing", "a")] == sorted(k for k in keys if k[0] == "a")
        assert [one.key for one in journal.documents("thing", parent="p")] == ["a#1", "a#10", "a#2"]
        assert [one.key for one in journal.documents("thing", "a#1", parent="p")] == ["a#1", "a#10"]
        assert len(journal.documents("thing", parent="")) == len(keys) - 3
        assert list(journal.documents("thing", "z")) == []

    @pytest.mark.parametrize(
        "prefix", ["", "a", "\ud7ff", "a\U0010ffff", "\U0010ffff", "\U0010ffff\U0010ffff"]
    )
    def test_no_character_is_beyond_a_prefix(self, journal: Journal, prefix: str) -> None:
        ends = [
            "",
            *(["\0"] if self.keeps_nul else []),
            "z",
            "\ud7ff",
            "\ue000",
            "\U0010ffff",
            "\U0010ffff\U0010ffff",
        ]
        keys = {start + end for start in ("", "a", "b", "\ud7ff", "\ue000", "\U0010ffff") for end in ends}
        write(journal, "c1", documents=[document(key) for key in keys])
        found = [one.key for one in journal.documents("thing", prefix)]
        assert found == sorted(key for key in keys if key.startswith(prefix))

    @pytest.mark.parametrize("where", ["command", "key", "parent", "state", "digest", "edge", "subject"])
    def test_a_nul_is_kept_or_refused(self, journal: Journal, where: str) -> None:
        write(journal, "c1", documents=[document("a", parent="p"), document("b", parent="p")])

        def text(here: str) -> str:
            return f"{here}\0x" if here == where else here

        kept = document(text("key"), parent=text("parent"))._replace(
            state=text("state"), digest=text("digest")
        )
        edge, effect, command_id = (
            Edge("a", "made", text("edge")),
            (text("subject"), 1, b"\0"),
            text("command"),
        )

        def attempt() -> None:
            write(journal, command_id, documents=[kept], edges=[edge], effects=[effect], receipt=b"\0")

        if self.keeps_nul:
            attempt()
            assert journal.document("thing", kept.key) == kept
            assert list(journal.edges(targets=(edge.target,))) == [edge]
            assert journal.receipt(command_id) == b"\0"
            return
        with pytest.raises(Invalid) as caught:
            attempt()
        assert caught.value.remedy
        assert journal.head().seq == 1
        assert list(journal.edges()) == []

    def test_a_question_with_a_nul_in_it_has_an_answer(self, journal: Journal) -> None:
        write(journal, "c1", documents=[document("a", parent="p"), document("ab", parent="p")])
        assert journal.receipt("c1\0") is None
        assert journal.document("thing", "a\0") is None
        assert list(journal.documents("thing", "a\0")) == []
        assert list(journal.documents("thing", parent="p\0")) == []
        assert list(journal.documents("thing", state="\0")) == []
        assert list(journal.edges(sources=("a\0",))) == list(journal.edges(targets=("\0",))) == []
        assert [one.key for one in journal.documents("thing", after="a\0")] == ["ab"]
        with journal.transaction() as transaction:
            assert transaction.receipt("\0") is None
            assert transaction.document("thing", "\0") is None

    def test_edges_are_a_sorted_set(self, journal: Journal) -> None:
        edges = [
            Edge("b", "made", "c"),
            Edge("a", "made", "c"),
            Edge("a", "kept", "c"),
            Edge("a", "made", "d"),
        ]
        write(journal, "c1", edges=edges)
        write(journal, "c2", edges=edges[:2])
        assert list(journal.edges()) == sorted(edges)
        assert list(journal.edges(sources=("a",))) == sorted(edges[1:])
        assert list(journal.edges(targets=("c",))) == sorted(edges[:3])
        assert list(journal.edges(sources=("b",), targets=("c",))) == [edges[0]]
        assert list(journal.edges(sources=("c",))) == []

    def test_edges_of_many_names_at_once(self, journal: Journal) -> None:
        edges = [Edge(f"a{number}", "made", f"b{number % 3}") for number in range(1500)]
        write(journal, "c1", edges=edges)
        names = [f"a{number}" for number in range(1, 1500)]
        assert list(journal.edges(sources=names)) == sorted(edges[1:])
        assert list(journal.edges(sources=[*names, "a1", "none", "a2\0"])) == sorted(edges[1:])
        assert list(journal.edges(sources=names, targets=["b1", "b2"])) == sorted(
            edge for edge in edges if edge.target != "b0"
        )
        assert list(journal.edges(sources=[])) == list(journal.edges(sources=names, targets=())) == []

    def test_one_writer_at_a_time(self, journal: Journal) -> None:
        """Read the head, wait for the others to try, write: without exclusion an entry would be lost."""
        n_threads, n_each = 6, 8
        start = threading.Barrier(n_threads)

        def work(number: int) -> None:
            start.wait(PATIENCE_S)
            for turn in range(n_each):
                write(journal, f"c{number}-{turn}", bodies=[b"%d-%d" % (number, turn)])

        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(work, range(n_threads)))
        head = EMPTY_HEAD
        for entry in journal.entries(0, 1000):
            head = extend(head, entry.body)
            assert (entry.seq, entry.hash) == (head.seq, head.hash)
        assert head == journal.head()
        assert head.seq == n_threads * n_each

    def test_readers_do_not_wait_for_a_writer_and_see_nothing_of_it(self, journal: Journal) -> None:
        with journal.transaction(), ThreadPoolExecutor(1) as pool:
            assert pool.submit(journal.head).result(PATIENCE_S) == EMPTY_HEAD
            assert pool.submit(journal.document, "thing", "a").result(PATIENCE_S) is None

    def test_readers_see_whole_commits_only(self, journal: Journal) -> None:
        done = threading.Event()
        torn: list[tuple[int, ...]] = []

        def read() -> None:
            while not done.is_set():
                with journal.snapshot():
                    keys = {one.key for one in journal.documents("thing")}
                    seen = (
                        len(keys),
                        len(journal.edges()),
                        journal.head().seq,
                        len(journal.entries(0, 1000)),
                    )
                if len({seen[0] // 2, *seen[1:]}) != 1 or seen[0] % 2:
                    torn.append(seen)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            for number in range(40):
                pair = [document(f"{number}-x"), document(f"{number}-y")]
                write(journal, f"c{number}", documents=pair, edges=[Edge(str(number), "made", "x")])
        finally:
            done.set()
            for reader in readers:
                reader.join(PATIENCE_S)
        assert torn == []

    def test_snapshots_nest(self, journal: Journal) -> None:
        write(journal, "c1")
        with journal.snapshot(), journal.snapshot():
            assert journal.head().seq == 1
        with pytest.raises(Stop), journal.snapshot():
            raise Stop
        write(journal, "c2")

    def test_what_is_named_to_a_snapshot_is_of_its_moment(self, journal: Journal) -> None:
        """Also inside another one, whatever is named: the same twice, what is not there, what cannot be a key."""
        write(journal, "c1", documents=[document("a", body=b"1"), document("b", body=b"1")])
        names = [("thing", key) for key in ("a", "b", "c", "a", "a\0")]
        found = []

        def overwrite() -> None:
            write(journal, "c2", documents=[document("a", body=b"2"), document("c", body=b"2")])

        with ThreadPoolExecutor(1) as pool:
            with journal.snapshot():
                journal.head()
                written = pool.submit(overwrite)
                for documents in (names, names[:1], []):
                    with journal.snapshot(documents=documents):
                        found += [journal.document(*name) for name in names]
            written.result(PATIENCE_S)
        bodies = [None if one is None else one.body for one in found]
        assert bodies == [b"1", b"1", None, b"1", None] * 3
        with journal.snapshot(documents=names):
            after = [journal.document(*name) for name in names]
        assert [None if one is None else one.body for one in after] == [b"2", b"1", b"2", b"2", None]

    def test_a_threads_own_commit_is_what_it_reads_next(self, journal: Journal) -> None:
        for number in range(5):
            write(journal, f"c{number}")
            assert journal.head().seq == number + 1
            assert journal.receipt(f"c{number}") == b"{}"

    def test_documents_come_page_by_page_and_by_state(self, journal: Journal) -> None:
        kept = [
            document(f"k{number}", parent="p" if number % 2 else "q")._replace(state=f"s{number % 3}")
            for number in range(9)
        ]
        with journal.transaction() as transaction:
            transaction.commit(commit_of(EMPTY_HEAD, "c1", documents=kept))
        assert list(journal.documents("thing", limit=4)) == kept[:4]
        assert list(journal.documents("thing", after="k3", limit=4)) == kept[4:8]
        assert list(journal.documents("thing", after="k8", limit=4)) == []
        assert list(journal.documents("thing", limit=0)) == []
        assert list(journal.documents("thing", parent="p", state="s0")) == [kept[3]]
        assert list(journal.documents("thing", "k", "q", after="k2", limit=2)) == [kept[4], kept[6]]

    def test_a_list_may_leave_the_bodies_out(self, journal: Journal) -> None:
        with journal.transaction() as transaction:
            transaction.commit(commit_of(EMPTY_HEAD, "c1", documents=[document("a", body=b"long")]))
        (line,) = journal.documents("thing", bodies=False)
        assert line == document("a", body=b"")


class OutboxContract:
    """Every promise of `Outbox`, as tests. Times are in microseconds of nobody's clock."""

    @pytest.fixture
    def make(self) -> Store:
        raise NotImplementedError("override the fixture `make` to return the store under test")

    @pytest.fixture
    def outbox(self, make: Store) -> Outbox:
        effects = [("prod/a", 7, b"first"), ("prod/b", 1, b"second"), ("prod/a", 8, bytes(range(256)))]
        write(make.journal, "c1", effects=effects)
        return make.outbox

    def test_an_empty_outbox_has_nothing_to_lease(self, make: Store) -> None:
        assert make.outbox.lease(0, 10) is None
        assert make.outbox.open_rows() == 0

    def test_rows_are_leased_oldest_first_as_they_were_written(self, outbox: Outbox) -> None:
        rows = [lease(outbox, 0, 10) for _ in range(3)]
        assert [(row.subject, row.fence, row.body, row.attempts) for row in rows] == [
            ("prod/a", 7, b"first", 1),
            ("prod/b", 1, b"second", 1),
            ("prod/a", 8, bytes(range(256)), 1),
        ]
        assert len({row.id for row in rows}) == 3
        assert outbox.lease(0, 10) is None

    def test_a_leased_row_is_open_until_settled(self, outbox: Outbox) -> None:
        row = lease(outbox, 0, 10)
        assert outbox.open_rows() == 3
        outbox.settle(row)
        assert outbox.open_rows() == 2
        assert row.id not in {lease(outbox, 100, 110).id for _ in range(2)}
        assert outbox.lease(100, 110) is None

    def test_only_rows_of_the_subject_that_was_asked_for(self, outbox: Outbox) -> None:
        assert lease(outbox, 0, 10, subject="prod/b").body == b"second"
        assert outbox.lease(0, 10, subject="prod/b") is None
        assert [lease(outbox, 0, 10, subject="prod/a").fence for _ in range(2)] == [7, 8]
        assert outbox.lease(0, 10, subject="prod/c") is None

    def test_a_lease_runs_out(self, outbox: Outbox) -> None:
        row = lease(outbox, 0, 10, subject="prod/b")
        assert outbox.lease(9, 20, subject="prod/b") is None
        again = lease(outbox, 10, 20, subject="prod/b")
        assert (again.id, again.attempts) == (row.id, 2)

    def test_a_released_row_is_free_at_once(self, outbox: Outbox) -> None:
        row = lease(outbox, 0, 1000, subject="prod/b")
        outbox.release(row)
        assert lease(outbox, 1, 1000, subject="prod/b").attempts == 2

    def test_a_late_release_does_not_free_what_somebody_else_has(self, outbox: Outbox) -> None:
        late = lease(outbox, 0, 10, subject="prod/b")
        lease(outbox, 10, 1000, subject="prod/b")
        outbox.release(late)
        assert outbox.lease(11, 1000, subject="prod/b") is None

    def test_settling_and_releasing_what_is_gone_does_nothing(self, outbox: Outbox) -> None:
        row = lease(outbox, 0, 10)
        outbox.settle(row)
        outbox.settle(row)
        outbox.release(row)
        assert outbox.open_rows() == 2

    def test_a_late_settle_counts(self, outbox: Outbox) -> None:
        """The effect was carried out, whoever holds the row by now."""
        late = lease(outbox, 0, 10, subject="prod/b")
        lease(outbox, 10, 20, subject="prod/b")
        outbox.settle(late)
        assert outbox.lease(100, 110, subject="prod/b") is None

    def test_ids_are_not_used_again(self, make: Store, outbox: Outbox) -> None:
        rows = [lease(outbox, 0, 10) for _ in range(3)]
        for row in rows:
            outbox.settle(row)
        write(make.journal, "c2", effects=[("prod/a", 9, b"later")])
        assert lease(outbox, 20, 30).id not in {row.id for row in rows}

    def test_nothing_of_an_aborted_transaction_is_leased(self, make: Store) -> None:
        with pytest.raises(Stop), make.journal.transaction():
            raise Stop
        assert make.outbox.lease(0, 10) is None

    def test_no_two_threads_get_the_same_row(self, make: Store) -> None:
        write(make.journal, "c1", effects=[(f"s{number}", 1, b"{}") for number in range(40)])

        def drain(_: int) -> list[int]:
            taken = []
            while (row := make.outbox.lease(0, 10)) is not None:
                taken.append(row.id)
            return taken

        with ThreadPoolExecutor(4) as pool:
            taken = [number for part in pool.map(drain, range(4)) for number in part]
        assert len(taken) == len(set(taken)) == 40


def write(
    journal: Journal,
    command_id: str,
    *,
    bodies: Iterable[bytes] = (b"{}",),
    documents: Iterable[StoredDocument] = (),
    edges: Iterable[Edge] = (),
    effects: Iterable[tuple[str, int, bytes]] = (),
    receipt: bytes = b"{}",
) -> None:
    """One command's worth of changes, after whatever is there."""
    with journal.transaction() as transaction:
        transaction.commit(
            commit_of(
                transaction.head(),
                command_id,
                bodies=bodies,
                documents=documents,
                edges=edges,
                effects=effects,
                receipt=receipt,
            )
        )


def lease(outbox: Outbox, now: int, until: int, *, subject: str | None = None) -> OutboxRow:
    row = outbox.lease(now, until, subject=subject)
    assert row is not None
    return row


class UsageContract:
    """What every `Usage` promises."""

    @pytest.fixture
    def make(self) -> Store:
        raise NotImplementedError("override `make` in the subclass")

    @pytest.fixture
    def usage(self, make: Store) -> Usage:
        return make.usage

    def test_the_latest_use_is_kept(self, usage: Usage) -> None:
        assert usage.last_used(["a", "b"]) == {}
        for at in (5, 9, 7):
            usage.used("a", at)
        usage.used("b", 1)
        assert usage.last_used(["a", "c", "b"]) == {"a": 9, "b": 1}
        assert usage.last_used([]) == {}

    def test_counts_add_up(self, usage: Usage) -> None:
        assert usage.counted() == {}
        for n in (1, 2):
            usage.count("refused", n)
        usage.count("other", 1)
        assert usage.counted() == {"refused": 3, "other": 1}

    def test_counts_of_many_threads_add_up(self, usage: Usage) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: usage.count("refused", n), range(20)))
        assert usage.counted() == {"refused": 190}


class DeliveriesContract:
    """What every `Deliveries` promises."""

    @pytest.fixture
    def make(self) -> Store:
        raise NotImplementedError("override `make` in the subclass")

    @pytest.fixture
    def deliveries(self, make: Store) -> Deliveries:
        return make.deliveries

    def test_what_is_owed_is_claimed_oldest_first_and_once(self, deliveries: Deliveries) -> None:
        deliveries.owe(9, [("a", 7), ("a", 3)])
        first = deliveries.claim(100, 200)
        assert first == Delivery("a", 3, 1, 200, None, "")
        # The next one waits for it, and nobody else gets it while it is claimed.
        assert deliveries.claim(199, 300) is None
        deliveries.settle(first, delivered_at=150, next_at=150, detail="200")
        second = deliveries.claim(150, 250)
        assert second is not None and second.seq == 7
        assert [one.state for one in deliveries.listed("a", 9)] == ["waiting", "delivered"]
        assert [one.seq for one in deliveries.listed("a", 1)] == [7]
        assert deliveries.listed("b", 9) == []

    def test_subscriptions_do_not_wait_for_one_another(self, deliveries: Deliveries) -> None:
        deliveries.owe(9, [("a", 1), ("b", 2), ("b", 3)])
        names = {
            (one.subscription, one.seq) for one in (deliveries.claim(5, 50), deliveries.claim(5, 50)) if one
        }
        assert names == {("a", 1), ("b", 2)}
        assert deliveries.claim(5, 50) is None

    def test_a_claim_runs_out_and_the_late_one_changes_nothing(self, deliveries: Deliveries) -> None:
        deliveries.owe(1, [("a", 1)])
        late = deliveries.claim(10, 20)
        again = deliveries.claim(20, 30)
        assert late is not None and again is not None and again.attempts == 2
        deliveries.settle(late, delivered_at=25, next_at=25, detail="late")
        (one,) = deliveries.listed("a", 9)
        assert (one.state, one.detail) == ("waiting", "")

    def test_what_failed_is_due_when_it_was_said_and_holds_up_the_next(self, deliveries: Deliveries) -> None:
        deliveries.owe(2, [("a", 1), ("a", 2)])
        failed = deliveries.claim(0, 10)
        assert failed is not None
        deliveries.settle(failed, delivered_at=None, next_at=1000, detail="503")
        assert deliveries.claim(999, 2000) is None
        again = deliveries.claim(1000, 2000)
        assert again is not None and (again.seq, again.attempts, again.detail) == (1, 2, "503")

    def test_what_is_given_up_lets_the_next_one_go(self, deliveries: Deliveries) -> None:
        deliveries.owe(2, [("a", 1), ("a", 2)])
        dead = deliveries.claim(0, 10)
        assert dead is not None
        deliveries.settle(dead, delivered_at=None, next_at=NEVER, detail="gone")
        after = deliveries.claim(NEVER - 1, NEVER - 1)
        assert after is not None and after.seq == 2
        assert deliveries.listed("a", 9)[1].state == "dead"

    def test_dead_ones_are_opened_again_from_their_first_attempt(self, deliveries: Deliveries) -> None:
        deliveries.owe(3, [("a", 1), ("a", 2), ("b", 3)])
        for _ in range(3):
            one = deliveries.claim(5, 10)
            assert one is not None
            delivered_at = 5 if one.seq == 2 else None
            deliveries.settle(one, delivered_at=delivered_at, next_at=NEVER, detail="x")
        deliveries.reopen("a", None)
        assert [(one.seq, one.state, one.attempts) for one in deliveries.listed("a", 9)] == [
            (2, "delivered", 1),
            (1, "waiting", 0),
        ]
        assert [one.state for one in deliveries.listed("b", 9)] == ["dead"]
        deliveries.reopen("a", 2)
        assert [one.state for one in deliveries.listed("a", 9)] == ["waiting", "waiting"]

    def test_how_far_the_journal_was_followed_never_goes_back(self, deliveries: Deliveries) -> None:
        assert deliveries.followed() == 0
        deliveries.owe(5, [("a", 5)])
        claimed = deliveries.claim(0, 10)
        assert claimed is not None
        deliveries.settle(claimed, delivered_at=1, next_at=1, detail="200")
        deliveries.owe(3, [("a", 2)])
        deliveries.owe(5, [("a", 5)])
        assert deliveries.followed() == 5
        assert [(one.seq, one.state) for one in deliveries.listed("a", 9)] == [
            (5, "delivered"),
            (2, "waiting"),
        ]

    def test_what_was_delivered_long_ago_is_forgotten(self, deliveries: Deliveries) -> None:
        deliveries.owe(3, [("a", 1), ("a", 2), ("a", 3)])
        for at in (10, 20):
            one = deliveries.claim(at, at + 1)
            assert one is not None
            deliveries.settle(one, delivered_at=at, next_at=at, detail="")
        deliveries.prune(20)
        assert [one.seq for one in deliveries.listed("a", 9)] == [3, 2]
        assert deliveries.followed() == 3

    def test_many_at_once_share_the_work_and_keep_the_order(self, deliveries: Deliveries) -> None:
        names, n = ("a", "b", "c"), 8
        deliveries.owe(n, [(name, seq) for name in names for seq in range(n)])
        done: list[tuple[str, int]] = []

        def work(_: int) -> None:
            while len(done) < len(names) * n:
                one = deliveries.claim(5, 1000)
                if one is not None:
                    done.append((one.subscription, one.seq))
                    deliveries.settle(one, delivered_at=6, next_at=6, detail="")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        for name in names:
            assert [seq for who, seq in done if who == name] == list(range(n))
