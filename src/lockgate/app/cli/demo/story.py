"""The acts of `demo`, in their order."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import click
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from lockgate.adapters.runners.artifacts import load
from lockgate.adapters.sql.step_cache import SqliteStepCache
from lockgate.app.cli.demo.edits import (
    BETTER,
    FEATURES,
    FRAGILE,
    FRAGILE_VIEW,
    IMPOSSIBLE,
    RENAMED,
    SOURCES,
    WORSE,
)
from lockgate.app.cli.demo.live import (
    KEYS,
    REQUEST,
    Caller,
    Ending,
    Jobs,
    Replay,
    Step,
    Watch,
    questions,
)
from lockgate.app.cli.demo.stage import APPROVER, AUTHOR, ENDPOINT, MODEL, OPERATOR, DemoFailed, Stage, title
from lockgate.app.cli.session import Session, verb
from lockgate.core.clock import Micros, iso, parse_iso
from lockgate.core.names import ModelName
from lockgate.data.manifest import read_snapshot
from lockgate.data.snapshot import load_table
from lockgate.hub.messages import ChangeLine, ChangesAnswer, ChangesSince
from lockgate.workshop.online import Materializer

FIRST_QUESTION = "2013-11-12T22:00Z"
NOVEMBER, MOST_IN_NOVEMBER = "2013-11-13T05:00Z", 10_000
# Midnight in New York after a storm: of the flights of the last hours, 44 % (LGA) to 85 % (EWR) were overdue.
STORM, MOST_IN_STORM = "2013-12-24T05:00Z", 2_500
# How long an hour of the replay lasts at least. The controller looks ten times a second; in the storm it shall have
# seen an hour before the next one begins, in November it may lag an hour or two behind.
_NOVEMBER_HOUR_S, _STORM_HOUR_S = 0.1, 0.25


@verb
@click.option("--folder", default=".demo/flights", show_default=True, help="Where the project goes.")
def demo(session: Session, folder: str) -> None:
    """A real model from its data to production and back, on this machine."""
    started = time.monotonic()
    stage = Stage(Path(folder).resolve())
    stage.open()
    try:
        with contextlib.chdir(stage.root):
            tell(stage)
    finally:
        stage.close()
    click.echo(f"\nThe demo took {time.monotonic() - started:.0f} s. The project is in {folder}.")


def tell(stage: Stage) -> None:
    """All acts, and the six questions."""
    _build_and_judge(stage)
    _go_live(stage)
    live = LiveActs(stage)
    live.improve()
    _drill(stage)
    _refuse_worse(stage)
    live.storm()
    rollback_ms = _roll_back(stage)
    _prove(stage)
    _six_questions(stage, rollback_ms)


def _build_and_judge(stage: Stage) -> None:
    title("1. A renamed column and an impossible value stop the run; nothing later runs")
    with stage.edited(SOURCES, *RENAMED, IMPOSSIBLE):
        stage.run("contract", "check", "--as", AUTHOR, expect=2)
    title("2. What would run, and why; then data, features, training, gates, a signed package")
    stage.run("plan")
    stage.run("up", "--detach", "--port", "0")
    stage.run("ship", "--to", "staging", "--as", AUTHOR, "--ticket", "OPS-101")
    title("3. The same plan again: nothing to do")
    stage.run("plan")


def _go_live(stage: Stage) -> None:
    title(
        "4. Features by key come before a version that reads them; then it stops where a person is asked for"
    )
    stage.run("materialize", "--until", FIRST_QUESTION)
    stage.run("ship", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-101", expect=8)
    title("5. The author cannot approve; somebody else can, on exactly this evidence")
    stage.run("approve", "flight-delay@1.0.0", "--for", "prod", "--as", AUTHOR, expect=3)
    stage.run("approve", "flight-delay@1.0.0", "--for", "prod", "--as", APPROVER)
    stage.run("promote", "flight-delay@1.0.0", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-101")
    title("6. One flight, asked about with all its features and by its keys alone: the same answer")
    flight = _learned_from(stage, parse_iso(FIRST_QUESTION))
    every = _example(stage)
    raw = {"inputs": [{name: flight[name] for name in every}]}
    by_key = {
        "inputs": [{name: flight[name] for name in REQUEST}],
        "entities": [{name: flight[name] for name in KEYS}],
        "as_of": FIRST_QUESTION,
    }
    answers = [_post(stage, body) for body in (raw, by_key)]
    if answers[0]["predictions"] != answers[1]["predictions"]:
        raise DemoFailed("training and serving see different features", remedy="report this")


def _learned_from(stage: Stage, as_of: Micros) -> dict[str, Any]:
    """A flight that was asked about at that moment, as the training join sees it: all of its features known."""
    with SqliteStepCache(stage.layout.steps, f"main/{MODEL}") as cache:
        found = cache.last("training_set")
    assert found is not None
    table = cast("pa.Table", load(found.output, stage.control.blobs))
    asked = table.filter(pc.equal(pc.cast(table["as_of"], pa.int64()), pa.scalar(as_of)))
    flight: dict[str, Any] = asked.drop_null().slice(0, 1).to_pylist()[0]
    return flight


def _example(stage: Stage) -> dict[str, Any]:
    """A golden row of what is live: a real flight, as the package carries it."""
    shown = stage.ask("package", "golden", ENDPOINT)
    row: dict[str, Any] = shown["rows"][0]
    return row


def _post(stage: Stage, body: Any) -> Any:
    """One request, shown with its answer."""
    click.echo(f"\nPOST /{ENDPOINT} {json.dumps(body)}")
    with Caller(stage.up.plane_port, ENDPOINT) as caller:
        answer = caller.ask(json.dumps(body).encode())
    click.echo(json.dumps(answer))
    return answer


class LiveActs:
    """The two acts in which traffic decides, and what they share: the timetable and the jobs of the features."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @cached_property
    def _flights(self) -> pa.Table:
        """The timetable and what became of it: the very snapshot the live version was made from."""
        known = self._stage.ask("explain", ENDPOINT)["datasets"]
        (digest,) = (one["snapshot"] for one in known if one["dataset"].endswith("flights"))
        blobs = self._stage.control.blobs
        return load_table(read_snapshot(digest, blobs), blobs)

    @cached_property
    def _views_of_better(self) -> Materializer:
        """All views of the better version, as the project defines them when this is first asked for."""
        work = Materializer(self._stage.control.premises, ModelName("main", MODEL))
        assert work.feeds
        return work

    def improve(self) -> None:
        """A better version goes live, step by step."""
        stage = self._stage
        title("7. A better version: more features. The plan names the change; the number is computed")
        stage.edit(FEATURES, BETTER)
        version = self._bring_to_prod("OPS-102", NOVEMBER)
        title(f"8. {version} by canary, under the traffic of November; labels come when the flights land")
        coming = questions(self._flights, parse_iso(NOVEMBER), MOST_IN_NOVEMBER)
        with Caller(stage.up.plane_port, ENDPOINT) as caller:
            replay = Replay(caller, coming, Jobs(self._views_of_better, since=parse_iso(NOVEMBER)))
            ending = self._roll_out(
                version, "OPS-102", replay, most=MOST_IN_NOVEMBER, pause_s=_NOVEMBER_HOUR_S
            )
        if not ending.live:
            raise DemoFailed(f"{version} was taken back", remedy=f"lockgate rollout show {ENDPOINT}")
        click.echo(f"  {version} is live after {ending.sent.n_requests:,} requests: {ending.told}")

    def storm(self) -> None:
        """A version that no offline gate can find fault with meets its fault in production."""
        stage = self._stage
        title(
            "11. A third version: one view for two, and it is believed for seven days. Every offline gate passes it"
        )
        stage.edit(FEATURES, *FRAGILE)
        before = stage.live_on(ENDPOINT)
        version = self._bring_to_prod("OPS-104", STORM)
        # Its number is a major one: it takes less in than the version before, so whoever reads it has to agree.
        for consumer in stage.ask("status", ENDPOINT)["endpoints"][ENDPOINT]["consumers"]:
            stage.run("sign-off", version, "--for", "prod", "--consumer", consumer, "--as", APPROVER)
        self._views_of_better.push(parse_iso(STORM), since=parse_iso(NOVEMBER))
        title(
            f"12. The night after a storm the job of {FRAGILE_VIEW} stops. Nobody is told; the canary finds out"
        )
        coming = questions(self._flights, parse_iso(STORM), MOST_IN_STORM)
        with Caller(stage.up.plane_port, ENDPOINT) as caller:
            replay = Replay(caller, coming, Jobs(self._views_of_better, since=parse_iso(STORM)))
            ending = self._roll_out(version, "OPS-104", replay, most=MOST_IN_STORM, pause_s=_STORM_HOUR_S)
            if ending.live:
                raise DemoFailed(f"{version} went live", remedy=f"lockgate rollout show {ENDPOINT}")
            answer = caller.ask(msgspec.json.encode(coming[replay.n_asked].body))
        self._say_how_it_ended(ending)
        stage.run("rollout", "show", ENDPOINT)
        click.echo(f"\nthe next request is answered by {answer['version']}")
        if f"{MODEL}@{answer['version']}" != before:
            raise DemoFailed(f"{before} does not answer again", remedy=f"lockgate status {ENDPOINT}")

    def _bring_to_prod(self, ticket: str, until: str) -> str:
        """Everything that comes before a release to prod; the version's name."""
        stage = self._stage
        stage.run("plan")
        stage.run("ship", "--to", "staging", "--as", AUTHOR, "--ticket", ticket)
        version = stage.live_on(f"staging/{MODEL}")
        stage.run("materialize", "--until", until)
        stage.run("ship", "--to", "prod", "--as", AUTHOR, "--ticket", ticket, expect=8)
        stage.run("evidence", version, "--for", "prod")
        stage.run("approve", version, "--for", "prod", "--as", APPROVER)
        return version

    def _roll_out(self, version: str, ticket: str, replay: Replay, *, most: int, pause_s: float) -> Ending:
        stage = self._stage
        head: ChangesAnswer = stage.query(ChangesSince(limit=0))
        stage.run("promote", version, "--to", "prod", "--as", AUTHOR, "--ticket", ticket, expect=8)
        bare = version.partition("@")[2]
        watch = Watch(
            replay,
            self._changes,
            bare,
            seen=head.head,
            most=most,
            pause_s=pause_s,
            over=lambda step: _say_step(step, bare),
        )
        return watch.until_the_end()

    def _changes(self, since: int) -> Sequence[ChangeLine]:
        answer: ChangesAnswer = self._stage.query(ChangesSince(seq=since, limit=1_000))
        return answer.changes

    def _say_how_it_ended(self, ending: Ending) -> None:
        shown = self._stage.ask("rollout", "show", ENDPOINT)
        guards = shown["rollout"]["verdict"]["guards"]
        sent, failed = (
            ending.sent,
            ", ".join(guard["guard"] for guard in guards if guard["outcome"] == "fail"),
        )
        click.echo(
            f"  taken back by the guard of {failed}, by itself: detected after {sent.n_new} canary requests "
            f"({sent.n_new_labels} labelled), of {sent.n_requests:,} in all"
        )
        click.echo(f"  {ending.told}")


def _say_step(step: Step, version: str) -> None:
    sent, until = step.sent, iso(step.until)[:13].replace("T", " ")
    click.echo(
        f"  {step.name:<16} {sent.n_requests:>5,} requests, {sent.n_new:>4,} answered by {version}; "
        f"{sent.n_labels:>5,} labels; until {until}:00Z\n      {step.verdict}"
    )


def _drill(stage: Stage) -> None:
    title("9. The way back, rehearsed on the running data plane; no caller is moved by it")
    stage.run("drill", "rollback", ENDPOINT, "--as", OPERATOR)
    stage.run("status", ENDPOINT)
    stage.run("explain", ENDPOINT)
    ready = stage.ask("status", ENDPOINT)["endpoints"][ENDPOINT]["rollback_ready"]
    if not (ready["ready"] and ready["drill"] and ready["drill"]["passed"]):
        raise DemoFailed("the way back is not ready after its drill", remedy=f"lockgate status {ENDPOINT}")


def _refuse_worse(stage: Stage) -> None:
    title("10. A worse version: three days where three hours were meant. The gate refuses it")
    with stage.edited(FEATURES, WORSE):
        stage.run("ship", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-103", expect=3)


def _roll_back(stage: Stage) -> float:
    title("13. Rollback under traffic; the caller goes on sending the new version's inputs and is answered")
    with Traffic(stage.up.plane_port, {"inputs": [_example(stage)]}) as traffic:
        traffic.wait_for(50)
        answer = stage.ask("rollback", ENDPOINT, "--as", OPERATOR, "--reason", "demo")
        traffic.wait_for(50)
    click.echo(f"{answer['from']} -> {answer['to']} in {answer['took_ms']} ms")
    click.echo(f"requests meanwhile: {traffic.text()}")
    expected = [answer["from"].partition("@")[2], answer["to"].partition("@")[2]]
    if traffic.failed or list(traffic.versions) != expected:
        raise DemoFailed("traffic did not pass cleanly through the rollback", remedy="see .lockgate/up.log")
    stage.run("status", ENDPOINT)
    return float(answer["took_ms"])


class Traffic:
    """One client that asks without pause, and counts who answered."""

    def __init__(self, port: int, body: Any) -> None:
        self._port, self._body = port, json.dumps(body).encode()
        self._stop = threading.Event()
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.versions: dict[str, int] = {}
        self.failed = 0

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exit: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, n_more: int) -> None:
        """Wait until so many more requests were answered."""
        with self._arrived:
            goal = sum(self.versions.values()) + self.failed + n_more
            self._arrived.wait_for(lambda: sum(self.versions.values()) + self.failed >= goal, timeout=30)

    def text(self) -> str:
        counts = ", ".join(f"{count} by {version}" for version, count in self.versions.items())
        return f"{counts}, {self.failed} failed"

    def _ask(self) -> None:
        with Caller(self._port, ENDPOINT) as caller:
            while not self._stop.is_set():
                try:
                    version = caller.ask(self._body)["version"]
                except (OSError, http.client.HTTPException, DemoFailed):
                    version = None
                with self._arrived:
                    if version is None:
                        self.failed += 1
                    else:
                        self.versions[version] = self.versions.get(version, 0) + 1
                    self._arrived.notify_all()


def _prove(stage: Stage) -> None:
    title("14. Version 1.0.0 again, from its package and snapshots alone")
    stage.run("reproduce", "flight-delay@1.0.0")
    title("15. The journal verifies; in a copy with one changed byte and one changed row it does not")
    stage.run("audit", "verify")
    copy = stage.root.parent / (stage.root.name + "-altered")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(stage.root, copy, ignore=shutil.ignore_patterns("run", "online", "up.json"))
    try:
        model = _model_blob(stage)
        _flip_byte(copy / ".lockgate/store/blobs/sha256" / model)
        stage.run("package", "verify", "flight-delay@1.0.0", "--project", str(copy), expect=7)
        _alter_row(copy / ".lockgate/state.db")
        stage.run("audit", "verify", "--project", str(copy), expect=7)
    finally:
        shutil.rmtree(copy)


def _model_blob(stage: Stage) -> str:
    layers = stage.ask("package", "show", "flight-delay@1.0.0")["layers"]
    digest: str = next(layer["digest"] for layer in layers if layer["path"].endswith(".onnx"))
    return digest.removeprefix("sha256:")


def _flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def _alter_row(database: Path) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(
            "UPDATE documents SET body = CAST(replace(CAST(body AS TEXT), 'OPS-101', 'OPS-999') AS BLOB) "
            "WHERE kind = 'release' AND key LIKE 'prod/%'"
        )
    connection.close()


def _six_questions(stage: Stage, rollback_ms: float) -> None:
    explained = stage.ask("explain", ENDPOINT)
    line = stage.ask("status", ENDPOINT)["endpoints"][ENDPOINT]
    changes = stage.ask("diff", "flight-delay@1.0.0", "flight-delay@1.1.0")["differences"]
    reached = stage.ask("lineage", f"{explained['version']}")["edges"]
    endpoints = sorted({edge["target"] for edge in reached if edge["target"].startswith("endpoint:")})
    data = ", ".join(f"{one['dataset']} {one['snapshot'][7:19]}" for one in explained["datasets"])
    views = ", ".join(one["view"] for one in explained["features"])
    gates = ", ".join(sorted({f"{one['gate']} {one['verdict']}" for one in explained["evidence"]}))
    people = ", ".join(sorted({one["approver"] for one in explained["approvals"]}))
    sections = sorted({one["section"] for one in changes})
    ready, drill = line["rollback_ready"], line["rollback_ready"]["drill"]
    title("The six questions")
    for question, answer in (
        ("What runs where?", f"{ENDPOINT}: {line['live']['version']} ({line['live']['digest'][7:19]})"),
        (
            "Which data, features and code made it?",
            f"{data}; views {views}; code {explained['code']['closure'][7:19]}",
        ),
        ("Which evidence and whose approval let it in?", f"{gates}; approved by {people}"),
        (
            "What changed since the version before?",
            f"1.0.0 to 1.1.0: {len(changes)} differences in {', '.join(sections)}",
        ),
        (
            "Is the way back ready, and how long does it take?",
            f"{'yes' if ready['ready'] else 'no: ' + ready['reason']}; the last one took {rollback_ms} ms, "
            f"in the drill of {drill['n_flips']} p50 {drill['p50_ms']:.1f} and p99 {drill['p99_ms']:.1f} ms",
        ),
        (
            "What would a change of it break?",
            f"{', '.join(endpoints)}; consumers {', '.join(line['consumers'])}; "
            f"dashboards {', '.join(line['dashboards'])}",
        ),
    ):
        click.echo(f"  {question}\n      {answer}")
