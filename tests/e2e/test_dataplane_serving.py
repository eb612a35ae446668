"""A data plane process from the outside: it serves what it is told, resumes, refuses, dies and is seen dead."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dataplane_rig import ENDPOINT, PATH, ROWS, Store, build_store, dataplane, plan, shared_store
from msgspec.structs import replace

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.keys import FileKey, generate_key
from lockgate.adapters.targets.local import LocalTarget
from lockgate.traffic.plan import Fallback

Eventually = Callable[..., object]
TIMEOUT_S = 60.0


@pytest.fixture
def store() -> Store:
    return shared_store()


@pytest.fixture
def own_store(store: Store, tmp_path: Path) -> Store:
    """A copy that a test may damage."""
    shutil.copytree(store.path, tmp_path / "store")
    return store._replace(path=tmp_path / "store")


def test_a_plan_is_served_from_the_signed_package(store: Store, tmp_path: Path) -> None:
    with dataplane(store, tmp_path) as plane:
        assert plane.get("/healthz").status == 200
        assert plane.get("/readyz").status == 200
        assert plane.request("POST", PATH, b"{}").status == 404
        plane.target.apply(plan(store, 1, "1.0.0"))
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        built = store.versions["1.0.0"]
        for path in (PATH, "/prod/main/flight-delay"):
            reply = plane.request(
                "POST", path, _body(ROWS), {"content-type": "application/json; charset=utf-8"}
            )
            assert (reply.status, reply.headers["x-lockgate-version"]) == (200, "1.0.0")
            assert reply.body["predictions"] == built.expected and reply.body["digest"] == built.ref.digest
        listing = plane.get("/endpoints").body["endpoints"]["prod/flight-delay"]
        assert (listing["generation"], listing["state"], listing["loaded"]) == (
            1,
            "serving",
            [built.ref.digest],
        )
        (worker,) = plane.target.observe(ENDPOINT).workers
        assert (worker.pid, worker.loaded) == (plane.pid, (built.ref.digest,))
        code, errors = plane.stop()
        assert (code, errors) == (0, "")
    observed = LocalTarget(tmp_path).observe(ENDPOINT)
    assert not observed.alive and observed.workers == () and observed.generation == 1
    assert list((tmp_path / "workers").glob("*.live")) == []


def test_it_resumes_what_the_control_files_say(store: Store, tmp_path: Path) -> None:
    LocalTarget(tmp_path).apply(plan(store, 4, "2.0.0", "1.0.0"))
    with dataplane(store, tmp_path) as plane:
        assert plane.target.wait(ENDPOINT, 4, TIMEOUT_S).reached(4)
        assert plane.get("/readyz").status == 200
        assert plane.predict().body["version"] == "2.0.0"


def test_until_the_first_plan_is_loaded_it_is_not_ready(store: Store, tmp_path: Path) -> None:
    LocalTarget(tmp_path).apply(plan(store, 1, "1.0.0"))
    with dataplane(store, tmp_path, trust="staging=" + str(store.pem)) as plane:
        observed = plane.target.wait(ENDPOINT, 1, TIMEOUT_S)
        assert observed.failed(1) and "no trusted keys" in observed.workers[0].detail
        reply = plane.get("/readyz")
        assert (reply.status, reply.body["not_ready"]) == (503, ["prod/flight-delay"])
        assert plane.predict().status == 503
        plane.target.apply(plan(store, 2, "1.0.0", routes=(), fallback=Fallback(kind="constant", value=0.2)))
        assert plane.target.wait(ENDPOINT, 2, TIMEOUT_S).reached(2)
        reply = plane.predict()
        assert (reply.status, reply.body["fallback"], reply.body["predictions"]) == (200, True, [0.2] * 3)


def test_a_damaged_layer_is_named_and_the_plan_before_stays(
    own_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    blobs = DirectoryBlobs(own_store.path)
    damaged = Path(blobs.path(max(own_store.versions["2.0.0"].layers, key=lambda one: len(blobs.get(one)))))
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with dataplane(own_store, tmp_path) as plane:
        plane.target.apply(plan(own_store, 1, "1.0.0"))
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        plane.target.apply(plan(own_store, 2, "2.0.0", "1.0.0"))
        observed = plane.target.wait(ENDPOINT, 2, TIMEOUT_S)
        (worker,) = observed.workers
        assert observed.failed(2) and (worker.generation, worker.state) == (1, "failed")
        assert damaged.name in worker.detail and "2.0.0" in worker.detail
        assert plane.predict().body["version"] == "1.0.0"
        plane.kill()
    # Started again on the plan that cannot be served, it goes on with the one before.
    with dataplane(own_store, tmp_path) as plane:
        observed = plane.target.wait(ENDPOINT, 2, TIMEOUT_S)
        assert observed.failed(2)
        eventually(lambda: plane.target.observe(ENDPOINT).reached(1), TIMEOUT_S)
        assert plane.predict().body["version"] == "1.0.0"
        plane.target.apply(plan(own_store, 3, "3.0.0"))
        assert plane.target.wait(ENDPOINT, 3, TIMEOUT_S).reached(3)
        assert plane.predict().body["version"] == "3.0.0"


def test_a_package_signed_by_a_stranger_is_not_served(store: Store, tmp_path: Path) -> None:
    generate_key(tmp_path / "stranger.pem")
    (tmp_path / "stranger.pub").write_bytes(FileKey(tmp_path / "stranger.pem").public.pem())
    with dataplane(store, tmp_path / "run", trust=f"prod={tmp_path / 'stranger.pub'}") as plane:
        plane.target.apply(plan(store, 1, "1.0.0"))
        observed = plane.target.wait(ENDPOINT, 1, TIMEOUT_S)
        assert observed.failed(1) and "registry.signature-invalid" in observed.workers[0].detail
        assert plane.predict().status == 503


def test_a_package_under_a_wrong_name_is_not_served(store: Store, tmp_path: Path) -> None:
    other = "prod/main/other"
    ref = store.versions["1.0.0"].ref
    misplaced = plan(store, 1, "1.0.0", endpoint=other, packages=(replace(ref, version="main/other@1.0.0"),))
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(misplaced)
        observed = plane.target.wait(other, 1, TIMEOUT_S)
        assert observed.failed(1) and "serving.package-misplaced" in observed.workers[0].detail


def test_a_killed_data_plane_is_seen_dead_and_its_successor_takes_its_place(
    store: Store, tmp_path: Path
) -> None:
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(plan(store, 1, "1.0.0"))
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        plane.kill()
        observed = plane.target.observe(ENDPOINT)
        assert [(worker.pid, worker.state) for worker in observed.workers] == [(plane.pid, "gone")]
        assert not observed.alive and not observed.reached(1)
    with dataplane(store, tmp_path) as plane:
        observed = plane.target.wait(ENDPOINT, 1, TIMEOUT_S)
        assert [(worker.pid, worker.state) for worker in observed.workers] == [(plane.pid, "serving")]
        assert observed.reached(1) and observed.alive


def test_two_workers_share_a_run_directory_and_a_port(store: Store, tmp_path: Path) -> None:
    share = ("--reuse-port",)
    with (
        dataplane(store, tmp_path, more=share) as first,
        dataplane(store, tmp_path, port=first.port, more=share) as second,
    ):
        for generation, version in enumerate(("1.0.0", "2.0.0"), start=1):
            first.target.apply(plan(store, generation, version))
            observed = first.target.wait(ENDPOINT, generation, TIMEOUT_S)
            assert {worker.pid: worker.generation for worker in observed.workers} == {
                first.pid: generation,
                second.pid: generation,
            }
            assert first.predict().body["version"] == second.predict().body["version"] == version
        second.kill()
        first.target.apply(plan(store, 3, "1.0.0"))
        observed = first.target.wait(ENDPOINT, 3, TIMEOUT_S)
        assert observed.reached(3)
        states = {worker.pid: worker.state for worker in observed.workers}
        assert states == {first.pid: "serving", second.pid: "gone"}


def test_nothing_of_a_request_reaches_a_log(store: Store, tmp_path: Path) -> None:
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(plan(store, 1, "1.0.0"))
        plane.target.wait(ENDPOINT, 1, TIMEOUT_S)
        plane.predict(key="secret-4711")
        plane.predict([{"distance": "secret-4711"}])
        plane.request(
            "POST", PATH, b"secret-4711", {"content-type": "secret-4711", "x-api-key": "secret-4711"}
        )
        plane.request("POST", "/prod/secret-4711", b"")
        raw = plane.connect()
        raw.connect()
        raw.sock.sendall(b"secret-4711\r\n\r\n")
        assert raw.sock.recv(100).startswith(b"HTTP/1.1 400")
        raw.close()
        code, errors = plane.stop()
    assert code == 0 and "secret-4711" not in errors
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"secret-4711" not in file.read_bytes()


def test_it_says_why_it_cannot_start(store: Store, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "lockgate.app.dataplane", "--store", str(store.path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    code, errors = run("--run-dir", str(tmp_path), "--trust", "prod")
    assert code == 2 and "ENV=PEMFILE" in errors
    code, errors = run("--run-dir", str(tmp_path), "--port", "0", "--trust", f"prod={tmp_path / 'no.pem'}")
    assert code == 2 and "no.pem" in errors
    code, errors = run("--run-dir", str(tmp_path), "--port", "80000")
    assert code == 2 and "is no port" in errors and "Traceback" not in errors
    with dataplane(store, tmp_path) as plane:
        code, errors = run("--run-dir", str(tmp_path), "--port", str(plane.port))
        assert code == 6 and "is taken by another program" in errors


def test_run_directories_are_for_their_user_only(store: Store, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with dataplane(store, run_dir) as plane:
        plane.target.apply(plan(store, 1, "1.0.0"))
        plane.target.wait(ENDPOINT, 1, TIMEOUT_S)
        for path in (run_dir, *run_dir.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path


def test_building_the_packages_again_gives_the_same_digests(store: Store, tmp_path: Path) -> None:
    again = build_store(tmp_path)
    assert [one.ref.digest for one in again.versions.values()] == [
        one.ref.digest for one in store.versions.values()
    ]


def _body(rows: object) -> bytes:
    return json.dumps({"inputs": rows}).encode()
