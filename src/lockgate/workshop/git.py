"""What git knows of the project; a project without git is built all the same, and labelled so."""

from __future__ import annotations

import subprocess
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


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
