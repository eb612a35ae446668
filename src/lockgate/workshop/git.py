"""What git knows of the project; a project without git is built all the same, and labelled so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from lockgate.registry.makers import MAX_PEOPLE
from lockgate.registry.messages import CommitPerson


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


class People(NamedTuple):
    """Whom commits name, each once for what he did, the newest commit first.

    Attributes:
        are_all: whether they are those of every commit that was asked for.
    """

    named: tuple[CommitPerson, ...]
    are_all: bool


MAX_COMMITS = 5_000
_LOG = "--format=%x01%H%x02%ae%x02%ce%x02%(trailers:key=Co-authored-by,valueonly,separator=%x03)"
_SHA = re.compile(r"[0-9a-f]{40,64}\Z")
_ADDRESS = re.compile(r"<([^<>]*)>")
_UNFIT = re.compile(r"[\s\x00-\x1f\x7f:*]")


def people_of(root: Path, since: str = "", upto: str = "HEAD") -> People:
    """The people of the commits that made the project in `root` what it was at `upto`, and always those of that one.

    Addresses stand as they were committed, in small letters; a `.mailmap` of the project changes nothing. Git checks
    none of them: whoever commits says who he is.

    Args:
        since: the commit that was the last one before; empty for all there are. One that the repository does not have
            counts as none, and all are told.
    """
    known = bool(since) and _git(root, "cat-file", "-t", f"{since}^{{commit}}") == "commit"
    wanted = f"{since}..{upto}" if known else upto
    last = _commits(root, "-1", upto)
    found = _commits(root, f"--max-count={MAX_COMMITS + 1}", wanted, "--", ".")
    people = dict[tuple[str, str], CommitPerson]()
    for sha, author, committer, others in [*(last or ()), *(found or ())]:
        said = [("authored", author), ("committed", committer)]
        said += [("co-authored", _address(one)) for one in others.split("\x03") if one.strip()]
        for did, address in said:
            name = _fit(address)
            commit = sha if _SHA.match(sha) else ""
            people.setdefault((name, did), CommitPerson(name=name, did=cast(Any, did), commit=commit))
    shallow = _git(root, "rev-parse", "--is-shallow-repository") != "false"
    cut = found is None or len(found) > MAX_COMMITS or len(people) > MAX_PEOPLE
    return People(tuple(people.values())[:MAX_PEOPLE], bool(last) and not shallow and not cut)


def _commits(root: Path, *arguments: str) -> list[list[str]] | None:
    """Each commit with its people; None when git did not say."""
    said = _run(root, "log", "--no-show-signature", _LOG, *arguments)
    if said is None:
        return None
    parts = [one.strip("\n").split("\x02") for one in said.split("\x01")[1:]]
    # Whoever breaks a line with his address is somebody all the same, whom nobody knows.
    return [one if len(one) == 4 else [one[0], "unreadable", "unreadable", ""] for one in parts]


def _address(trailer: str) -> str:
    found = _ADDRESS.search(trailer)
    return found[1] if found else trailer


def _fit(address: str) -> str:
    """As it is compared. What no address should hold is kept visible, so that nobody vanishes behind it."""
    return _UNFIT.sub("_", address.strip().lower())[:120] or "nobody"


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
    return _run(root, *arguments) or ""


def _run(root: Path, *arguments: str) -> str | None:
    """What git said; None when it failed, or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=30,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
