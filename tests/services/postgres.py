"""PostgreSQL for tests: a cluster of its own on the loopback interface, durable as in earnest, with a password."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql
from servers import (
    LOOPBACK,
    as_unprivileged,
    folder,
    free_port,
    on_a_small_disk,
    started,
    unprivileged,
    wait_until_gone,
)

USER = "lockgate"
PASSWORD = "s3cret/of:the@tests"
QUOTED = "s3cret%2Fof%3Athe%40tests"
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "shared_buffers": "32MB",
    "max_connections": "60",
    # Small, so that a crash has some log to replay.
    "checkpoint_timeout": "5min",
}


def binaries() -> Path:
    """Debian keeps them out of the path, one folder per major version."""
    return max(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda path: tuple(map(int, path.parent.name.split("."))),
    )


class PostgresServer:
    """One cluster, which may be stopped, killed and started again."""

    def __init__(self, home: Path, disk_bytes: int = 0) -> None:
        self.home = home
        self._disk_bytes = disk_bytes
        self.port = free_port()
        self._data = home / "data"
        self._running = ExitStack()
        self.process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        if not self._disk_bytes:
            done = subprocess.run(as_unprivileged(self._making()), cwd="/", capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    def _making(self) -> list[str]:
        secret = self.home / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        return [
            str(binaries() / "initdb"),
            f"--pgdata={self._data}",
            f"--username={USER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            # A language's order of letters: a store that relies on the order of the database is found out.
            "--locale-provider=icu",
            "--icu-locale=en-US",
            "--no-sync",
            *([f"--waldir={self.home / 'wal'}"] if self._disk_bytes else []),
        ]

    def start(self) -> None:
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [str(binaries() / "postgres"), "-D", str(self._data), "-k", str(self.home), *options]
        command += ["-p", str(self.port)]
        if self._disk_bytes:
            # The small disk lives as long as the process that mounted it, so the cluster is made by the same one.
            self._data.mkdir()
            os.chown(self._data, *unprivileged())
            both = f"{shlex.join(self._making())} && exec {shlex.join(command)}"
            command = on_a_small_disk(self._data, self._disk_bytes, ["sh", "-ec", both])
        self.process = self._running.enter_context(
            started(
                command,
                ready=self._answers,
                log=self.home / "log",
                cwd=Path("/"),
                # Nothing is kept, so nothing need be written down in order.
                stop=signal.SIGQUIT,
            )
        )

    def die(self, how: signal.Signals) -> None:
        """SIGQUIT: stop at once without a shutdown; SIGKILL: as when the machine's memory ran out."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.process.send_signal(how)
        self.process.wait(30)
        # The shared memory of the dead is in use until the last of them is gone.
        wait_until_gone(map(int, children))

    def close(self) -> None:
        self._running.close()

    def dsn(
        self, database: str = "postgres", *, user: str = USER, password: str = QUOTED, schema: str = ""
    ) -> str:
        options = f"?options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql://{user}:{password}@{LOOPBACK}:{self.port}/{database}{options}"

    def administer(self, statement: str, database: str = "postgres", *names: str) -> list[tuple[object, ...]]:
        """Run a statement as the owner of everything; `{}` in it stand for names."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(
                sql.SQL(statement).format(*map(sql.Identifier, names))  # type: ignore[arg-type]
            )
            return cursor.fetchall() if cursor.description else []

    def set(self, setting: str, value: str) -> None:
        """Change a setting of the whole server, as its owner may at any time."""
        self.administer(f"ALTER SYSTEM SET {setting} = {value}")
        self._reload(setting, value)

    def reset(self, setting: str) -> None:
        (before,) = self.administer(f"SELECT boot_val FROM pg_settings WHERE name = '{setting}'")
        self.administer(f"ALTER SYSTEM RESET {setting}")
        self._reload(setting, str(before[0]))

    def _reload(self, setting: str, value: str) -> None:
        self.administer("SELECT pg_reload_conf()")
        pause = threading.Event()
        for _ in range(1000):
            if self.administer(f"SHOW {setting}") == [(value,)]:
                return
            pause.wait(0.01)
        raise RuntimeError(f"{setting} is still not {value}")

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.dsn(), connect_timeout=2):
            return True
        return False


@contextmanager
def postgres_server(*, disk_bytes: int = 0) -> Iterator[PostgresServer]:
    """A server while the block runs; with `disk_bytes`, its tables (not its log) on a disk of that size."""
    with folder() as home:
        server = PostgresServer(home, disk_bytes)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.close()
