"""The error tree. The first level says what the caller can do; the leaves live beside the code that raises them.

    LockgateError
    ├── Invalid       fix the input, then call again
    ├── NotFound      the name is wrong, or the thing is not there yet
    ├── Conflict      somebody was faster: read again, then retry
    ├── Forbidden     this actor may not do that
    ├── Unsupported   the part that was chosen lacks the ability
    ├── Unavailable   something outside is down: retry later
    ├── Corrupt       stop and call a human: bytes, chain or signature do not hold
    └── Bug           Lockgate broke a promise of its own

An error carries a stable `code`, one sentence, typed `facts` and a `remedy`: what to type next. It knows
neither HTTP nor exit codes; `app/http` and `app/cli` hold one table each. A refusal by a gate or a policy is
no error: it is a value (`messages.Refusal`), because the question *was* answered.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class LockgateError(Exception):
    """Root of the tree.

    Args:
        message: one sentence that says what happened, with the offending value in it.
        remedy: what to type or change next.
        facts: the typed details a program may want; JSON-able values only, never a secret.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.facts: dict[str, Any] = facts

    def record(self) -> dict[str, Any]:
        """The same content as plain JSON-able data, for `--json` and problem documents."""
        return {
            "code": self.code,
            "message": self.message,
            "facts": self.facts,
            "remedy": self.remedy,
            "retryable": self.retryable,
        }


class Invalid(LockgateError):
    code = "invalid"


class NotFound(LockgateError):
    code = "not-found"


class Conflict(LockgateError):
    code = "conflict"
    retryable = True


class Forbidden(LockgateError):
    code = "forbidden"


class Unsupported(LockgateError):
    code = "unsupported"


class Unavailable(LockgateError):
    code = "unavailable"
    retryable = True


class Corrupt(LockgateError):
    code = "corrupt"


class Bug(LockgateError):
    code = "bug"


_MAX_NAMED = 20


def near_matches(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Known names that look like `name`, best first; empty when nothing is near."""
    return difflib.get_close_matches(name, sorted(known), n=limit, cutoff=0.5)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy sentence: the near matches, or else the known names, the first of them where there are many."""
    names = sorted(known)
    near = near_matches(name, names)
    if near:
        return "did you mean " + " or ".join(repr(match) for match in near) + "?"
    if names:
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        return "known names: " + ", ".join(names[:_MAX_NAMED]) + more
    return "nothing is known by that kind of name yet"
