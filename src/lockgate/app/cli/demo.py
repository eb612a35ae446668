"""`demo`: a real model's way through it, by the same verbs a user types.

Nothing here is canned. Each act runs a verb, shows what it prints, and checks its exit code; an outcome other than
the expected one ends the demo with an error. The project stays in .demo/flights to be looked at.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lockgate.app.cli.main import main
from lockgate.app.cli.session import Session, verb
from lockgate.app.supervise import running, stop
from lockgate.core.errors import Bug
from lockgate.workshop.layout import Layout
from lockgate.workshop.templates import create, refresh

AUTHOR, APPROVER = "ada", "grace"
ENDPOINT = "prod/flight-delay"
FEATURES, SOURCES = "flights/features.py", "flights/sources.py"
_MORE_FEATURES = (
    "origin_queue:origin_waiting",
    "carrier_arrivals:carrier_delay",
    "carrier_arrivals:carrier_late_share",
    "destination_arrivals:destination_delay",
    "destination_arrivals:destination_late_share",
    "flight_history:history_delay",
    "flight_history:history_late_share",
    "observed_weather:humidity",
    "observed_weather:wind_direction",
    "observed_weather:wind_speed",
    "observed_weather:precipitation",
    "observed_weather:pressure",
    "observed_weather:visibility",
    "airframe:seats",
)
_LAST_FEATURE = '        "last_leg:aircraft_in_air",\n'
BETTER = (_LAST_FEATURE, _LAST_FEATURE + "".join(f'        "{name}",\n' for name in _MORE_FEATURES))
WORSE = ("INTERVAL 3 HOURS PRECEDING AND CURRENT ROW", "INTERVAL 3 DAYS PRECEDING AND CURRENT ROW")
# A renamed column, and the broken sensor that the project's source leaves out: 1,048 miles per hour.
RENAMED = (("engines, seats\n", "engines, seats AS seat_count\n"), ('("seats"', '("seat_count"'))
IMPOSSIBLE = ("CASE WHEN wind_speed <= 200 THEN wind_speed END AS wind_speed", "wind_speed")


class DemoFailed(Bug):
    code = "demo.unexpected"


@verb
@click.option("--folder", default=".demo/flights", show_default=True, help="Where the project goes.")
def demo(session: Session, folder: str) -> None:
    """A real model from its data to production and back, on this machine."""
    started = time.monotonic()
    stage = Stage(Path(folder).resolve())
    stage.open()
    try:
        with contextlib.chdir(stage.root):
            _build_and_judge(stage)
            _go_live(stage)
            _improve(stage)
            _refuse_worse(stage)
            rollback_ms = _roll_back(stage)
            _prove(stage)
            _six_questions(stage, rollback_ms)
    finally:
        stage.close()
    click.echo(f"\nThe demo took {time.monotonic() - started:.0f} s. The project is in {folder}.")


class Stage:
    """The demo's project, and the means to act in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root)
        self.reused = root.exists()

    def open(self) -> None:
        """A fresh project, or the old one with its step cache and blobs but a new journal."""
        if self.reused:
            if running(self.layout) is not None:
                stop(self.layout)
            for path in self.layout.dot.glob("state.db*"):
                path.unlink()
            shutil.rmtree(self.layout.run, ignore_errors=True)
            (self.layout.dot / "checkpoints").unlink(missing_ok=True)
            refresh(self.root, "flights")
            _title(f"{self.root.name} is there from an earlier run: its step cache and blobs are used again")
        else:
            create(self.root, "flights")
            _title("A project made from the template `flights`: lockgate init flights")

    def close(self) -> None:
        if running(self.layout) is not None:
            stop(self.layout)

    def run(self, *arguments: str, expect: int = 0) -> None:
        """Type a verb: shown, run, its exit code checked."""
        click.echo(f"\n$ lockgate {' '.join(arguments)}")
        _check(arguments, _exit_code(arguments), expect)

    def ask(self, *arguments: str) -> Any:
        """The JSON answer of a verb, not shown."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = _exit_code((*arguments, "--json"))
        _check(arguments, code, 0)
        return json.loads(out.getvalue())

    def edit(self, file: str, change: tuple[str, str]) -> None:
        path = self.root / file
        text = path.read_text()
        if change[0] not in text:
            raise DemoFailed(f"{file} no longer holds what the demo edits", remedy="report this", file=file)
        path.write_text(text.replace(*change))

    @contextlib.contextmanager
    def edited(self, file: str, *changes: tuple[str, str]) -> Iterator[None]:
        """Edits that are taken back at the end of the block."""
        before = (self.root / file).read_text()
        try:
            for change in changes:
                self.edit(file, change)
            yield
        finally:
            (self.root / file).write_text(before)


def _exit_code(arguments: tuple[str, ...]) -> int:
    try:
        main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _check(arguments: tuple[str, ...], code: int, expect: int) -> None:
    if code != expect:
        raise DemoFailed(
            f"lockgate {' '.join(arguments)} ended with {code}, not {expect}",
            remedy="run it by hand in the demo's project and report what it prints",
        )


def _title(text: str) -> None:
    click.echo(f"\n== {text}")


def _build_and_judge(stage: Stage) -> None:
    _title("1. A renamed column and an impossible value stop the run; nothing later runs")
    with stage.edited(SOURCES, *RENAMED, IMPOSSIBLE):
        stage.run("contract", "check", "--as", AUTHOR, expect=2)
    _title("2. What would run, and why; then data, features, training, gates, a signed package")
    stage.run("plan")
    stage.run("up", "--detach", "--port", "0")
    stage.run("ship", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-101", expect=8)
    _title("3. The same plan again: nothing to do")
    stage.run("plan")


def _go_live(stage: Stage) -> None:
    _title("4. The author cannot approve; somebody else can, on exactly this evidence")
    stage.run("approve", "flight-delay@1.0.0", "--for", "prod", "--as", AUTHOR, expect=3)
    stage.run("approve", "flight-delay@1.0.0", "--for", "prod", "--as", APPROVER)
    stage.run("promote", "flight-delay@1.0.0", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-101")
    _title("5. A request with raw features is answered")
    url = f"{_plane(stage)}/{ENDPOINT}"
    body = {"inputs": [_example(stage)]}
    click.echo(f"POST /{ENDPOINT} {json.dumps(body)}")
    click.echo(json.dumps(_post(url, body)))


def _plane(stage: Stage) -> str:
    known = running(stage.layout)
    if known is None:
        raise DemoFailed("the data plane is not up", remedy="see .lockgate/up.log")
    return known.plane_url


def _example(stage: Stage) -> dict[str, Any]:
    """A golden row of what is live: a real flight, as the package carries it."""
    shown = stage.ask("package", "golden", ENDPOINT)
    row: dict[str, Any] = shown["rows"][0]
    return row


def _post(url: str, body: Any) -> Any:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def _improve(stage: Stage) -> None:
    _title("6. A better version: more features. The plan names the change; the number is computed")
    stage.edit(FEATURES, BETTER)
    stage.run("plan")
    stage.run("ship", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-102", expect=8)
    stage.run("approve", "flight-delay@1.1.0", "--for", "prod", "--as", APPROVER)
    stage.run("promote", "flight-delay@1.1.0", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-102")


def _refuse_worse(stage: Stage) -> None:
    _title("7. A worse version: three days where three hours were meant. The gate refuses it")
    with stage.edited(FEATURES, WORSE):
        stage.run("ship", "--to", "prod", "--as", AUTHOR, "--ticket", "OPS-103", expect=3)


def _roll_back(stage: Stage) -> float:
    _title("8. Rollback under traffic; the caller goes on sending the new version's inputs and is answered")
    with Traffic(f"{_plane(stage)}/{ENDPOINT}", {"inputs": [_example(stage)]}) as traffic:
        traffic.wait_for(50)
        answer = stage.ask("rollback", ENDPOINT, "--as", "sre", "--reason", "demo")
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

    def __init__(self, url: str, body: Any) -> None:
        self._url, self._body = url, body
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
        while not self._stop.is_set():
            try:
                version = _post(self._url, self._body)["version"]
            except OSError:
                version = None
            with self._arrived:
                if version is None:
                    self.failed += 1
                else:
                    self.versions[version] = self.versions.get(version, 0) + 1
                self._arrived.notify_all()


def _prove(stage: Stage) -> None:
    _title("9. Version 1.0.0 again, from its package and snapshots alone")
    stage.run("reproduce", "flight-delay@1.0.0")
    _title("10. The journal verifies; in a copy with one changed byte and one changed row it does not")
    stage.run("audit", "verify")
    copy = stage.root.parent / (stage.root.name + "-altered")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(stage.root, copy, ignore=shutil.ignore_patterns("run", "up.json"))
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
    ready = line["rollback_ready"]
    _title("The six questions")
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
            f"{'yes' if ready['ready'] else 'no: ' + ready['reason']}; the last one took {rollback_ms} ms",
        ),
        (
            "What would a change of it break?",
            f"{', '.join(endpoints)}; consumers {', '.join(line['consumers'])}; "
            f"dashboards {', '.join(line['dashboards'])}",
        ),
    ):
        click.echo(f"  {question}\n      {answer}")
