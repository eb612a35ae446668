from __future__ import annotations

import msgspec
import pytest

from lockgate.core.documents import Columns, DocRef, Docs, DocumentKind
from lockgate.core.messages import Event, Stamp


class Counted(Event, tag="lamps.counted/1"):
    lamp: str

    def summary(self) -> str:
        return f"{self.lamp} was counted"


class Lamp(msgspec.Struct, frozen=True):
    n_seen: int


def seen(body: Lamp | None, event: Counted, stamp: Stamp) -> Lamp:
    return Lamp((body.n_seen if body else 0) + 1)


LAMP = DocumentKind("lamp", Lamp, keys=lambda event: (event.lamp,), made_by={Counted: seen})


def test_a_kind_without_columns_projects_nothing():
    assert LAMP.columns(Lamp(1)) == Columns("", "", "")


def test_a_decision_sees_what_it_declared():
    docs = Docs({DocRef("lamp", "l1"): Lamp(1), DocRef("lamp", "l2"): None, DocRef("lamp", "l*"): (Lamp(1),)})
    assert docs.get(LAMP, "l1") == Lamp(1)
    assert docs.get(LAMP, "l2") is None
    assert docs.all(LAMP, "l") == (Lamp(1),)
    assert docs.has(DocRef("lamp", "l2"))
    assert list(docs) == [DocRef("lamp", "l1"), DocRef("lamp", "l2"), DocRef("lamp", "l*")]


def test_a_decision_that_reads_what_it_did_not_declare_is_a_bug():
    docs = Docs({})
    with pytest.raises(KeyError, match="not declared"):
        docs.get(LAMP, "l1")
    with pytest.raises(KeyError, match="not declared"):
        docs.all(LAMP, "l")


def test_more_documents_make_new_docs():
    few = Docs({})
    more = few.with_({DocRef("lamp", "l1"): Lamp(1)})
    assert more.has(DocRef("lamp", "l1"))
    assert not few.has(DocRef("lamp", "l1"))
