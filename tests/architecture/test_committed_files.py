"""No committed file holds a secret, the address of a package index, or a path of the machine it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Written so that no pattern matches its own source.
TRACES = {
    "package index": re.compile(
        r"\bpypi[.](org|python[.]org)|pythonhosted[.]org|registry[.]npmjs|conda[.]anaconda|--(extra-)?index[-]url\b"
        r"|--find[-]links\b|--trusted[-]host\b|\b(artifactory|devpi|nexus3?)[.:/]",
        re.IGNORECASE,
    ),
    "machine path": re.compile(
        r"(?<![\w.~/-])/(root|work|home/[a-z]\w*|Users/\w+|opt/(pypi|wheels)|mnt/\w)[/][\w.]"
    ),
    "secret": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE[ ]KEY-----\s+[A-Za-z0-9+/=]{16}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b"
        r"|\bxox[abp]-[0-9A-Za-z-]{20}|://[^/\s:@'\"{}<$]+:[^/\s:@'\"{}<$]+@[\w.-]+[.]\w"
    ),
}


def committed() -> list[Path]:
    """All files Git holds or would take now, without those it ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a Git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def traces(text: str) -> list[str]:
    return [f"{kind}: {match[0]}" for kind, pattern in TRACES.items() for match in pattern.finditer(text)]


def test_no_file_gives_away_where_it_was_made():
    found = []
    for path in committed():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {trace}" for trace in traces(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "https://py" + "pi.org/simple",
        "https://files.python" + "hosted.org/packages/x",
        "--index" + "-url x",
        "see /ro" + "ot/.config/x",
        "'/wor" + "k/main/x'",
        "/ho" + "me/somebody/x",
        "AKIA" + "A" * 16,
        "postgres://user:pass" + "word@db.example.org/x",
        "-----BEGIN EC PRIVATE" + " KEY-----\n" + "M" * 20,
    ],
)
def test_a_trace_is_found(text):
    assert traces(f"some {text} words")


@pytest.mark.parametrize(
    "text",
    [
        "https://semver.org/spec/v2.0.0.html",
        "https://www.rfc-editor.org/rfc/rfc6962",
        "http://127.0.0.1:8080/work/list",
        "tests/work/x",
        "the root/leaf",
        "-----BEGIN PRIVATE KEY-----",
        "./home/page",
    ],
)
def test_what_gives_nothing_away_is_let_through(text):
    assert not traces(f"some {text} words")


def test_generated_directories_are_ignored_by_git():
    names = {path.relative_to(ROOT).parts[0] for path in committed()}
    assert not names & {".venv", ".bootstrap", ".lockgate", ".demo", "dist", "build", ".hypothesis"}
