"""What git knows of the project; a project without git is built all the same, and labelled so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Commit(NamedTuple):
    """`sha` is empty outside a repository; `dirty` says that the working tree differs from it."""

    sha: str
    dirty: bool


def commit_of(root: Path) -> Commit:
    sha = _git(root, "rev-parse", "HEAD")
    if not sha:
        return Commit("", True)
    return Commit(sha, bool(_git(root, "status", "--porcelain", "--", ".")))


class Change(NamedTuple):
    """What a release answers to: a ticket, and the address of a pull request; empty when nothing says."""

    ticket: str
    pull_request: str


_KEY = re.compile(r"\b[A-Z][A-Z0-9]+-[1-9][0-9]*\b")
_MERGED = re.compile(r"\(#(\d+)\)$|^Merge pull request #(\d+)\b")


def change_of(root: Path, environ: Mapping[str, str]) -> Change:
    """The ticket and the pull request of what is checked out, as CI and the commit tell them.

    The commit's trailers `Ticket:` and `Pull-Request:` come first. Then, in GitHub Actions and GitLab CI, the pull
    request of the job, or of the merge that it runs for; its branch or title names the ticket (`OPS-42`), and where it
    names none, the pull request itself is the ticket.
    """
    pull_request = _git_trailer(root, "Pull-Request") or _pull_request(root, environ)
    ticket = _git_trailer(root, "Ticket")
    if not ticket and pull_request:
        named = ("GITHUB_HEAD_REF", "CI_MERGE_REQUEST_TITLE", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME")
        texts = [environ.get(name, "") for name in named] + [_git(root, "log", "-1", "--format=%s")]
        keys = [match[0] for match in map(_KEY.search, texts) if match]
        number = pull_request.rstrip("/").rpartition("/")[2]
        ticket = keys[0] if keys else ("!" if environ.get("GITLAB_CI") else "#") + number
    return Change(ticket, pull_request)


def _pull_request(root: Path, environ: Mapping[str, str]) -> str:
    if environ.get("GITHUB_ACTIONS"):
        at = re.match(r"refs/pull/(\d+)/", environ.get("GITHUB_REF", ""))
        merged = _MERGED.search(_git(root, "log", "-1", "--format=%s"))
        number = at[1] if at else next(filter(None, merged.groups()), "") if merged else ""
        where = f"{environ.get('GITHUB_SERVER_URL', '')}/{environ.get('GITHUB_REPOSITORY', '')}"
        return f"{where}/pull/{number}" if number else ""
    number = environ.get("CI_MERGE_REQUEST_IID", "")
    where = environ.get("CI_MERGE_REQUEST_PROJECT_URL") or environ.get("CI_PROJECT_URL", "")
    return f"{where}/-/merge_requests/{number}" if environ.get("GITLAB_CI") and number else ""


def _git_trailer(root: Path, name: str) -> str:
    found = _git(root, "log", "-1", f"--format=%(trailers:key={name},valueonly)")
    return found.splitlines()[0].strip() if found else ""


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
