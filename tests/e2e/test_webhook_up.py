"""The whole way: a subscription by the command line, delivered by `lockgate up`, seen by `webhook deliveries`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from operator_story import Worlds
from webhook_receiver import KEY, Receiver, receiving

from command_line import NOT_FOUND, OK, REFUSED, USAGE


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def test_a_subscriber_hears_of_what_happens(
    worlds: Worlds, tmp_path: Path, receiver: Receiver, eventually: Callable[..., object]
) -> None:
    project = worlds.one.copy(tmp_path / "flights")
    project.write(".lockgate/keys/chat", KEY + "\n")
    add = f"webhook add chat {receiver.url}/hook --secret file:.lockgate/keys/chat --events 'delivery.*'"
    project.types(add, by="petra").must(OK)
    project.types(add, by="petra").must(REFUSED)
    assert (
        "did you mean"
        in project.types(
            f"webhook add typo {receiver.url} --secret env:X --events delivery.release-went-liv", by="petra"
        )
        .must(OK)
        .text
    )
    project.types("webhook add bad http://hooks.example.com --secret env:X", by="petra").must(REFUSED)
    project.types(f"webhook add bad {receiver.url} --secret {KEY}", by="petra").must(USAGE)
    project.types("webhook remove nobody", by="petra").must(NOT_FOUND)
    project.up()
    try:
        project.types("promote flight-delay@1.0.0 --to dev", by="ada")
        project.types(
            "endpoint remove dev/flight-delay --reason tidy --live flight-delay@1.0.0 --despite-consumers",
            by="petra",
        )
        # This machine is not reached before the project says that it may be.
        eventually(lambda: project.asks("webhook deliveries chat")["deliveries"])
        eventually(
            lambda: (
                "not a public address" in project.asks("webhook deliveries chat")["deliveries"][-1]["detail"]
            )
        )
        assert not receiver.got
    finally:
        project.down()
    project.write(
        "lockgate.toml", project.read("lockgate.toml") + '\n[webhooks]\nnetworks = ["127.0.0.0/8"]\n'
    )
    project.up()
    try:
        eventually(lambda: any("endpoint-removed" in str(one.event["type"]) for one in receiver.got))
    finally:
        project.down()
    assert all(one.is_signed() for one in receiver.got)
    assert all(one.event["type"].startswith("dev.lockgate.delivery.") for one in receiver.got)
    removed = next(one for one in receiver.got if "endpoint-removed" in one.event["type"])
    assert removed.event["subject"] == "dev/main/flight-delay"
    assert removed.event["data"]["event"]["reason"] == "tidy"
    project.types("webhook remove chat", by="petra").must(OK)
    assert "removed" in project.types("webhook list").must(OK).text
    project.types("audit verify").must(OK)
    journal = (project.dot / "state.db").read_bytes()
    assert KEY.removeprefix("whsec_").encode() not in journal
