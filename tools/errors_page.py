"""Write docs/errors.md from the error classes in the source. `--check` only tells whether it is current.

The page is read from the text of the sources, so that it names every error without loading a vendor's library.
"""

from __future__ import annotations

import re
import sys

from house_rules import FIRST_LEVEL, PACKAGE, ROOT, ErrorClass, Source, error_classes, read

PAGE = ROOT / "docs" / "errors.md"
HEAD = """# Errors

<!-- Written by tools/errors_page.py (`make pages`); edit the classes, not this page. -->

Every error carries a stable **code**, one sentence, typed facts and a remedy: what to type next. With `--json`
the command line prints the same as a record; over HTTP it travels as a problem document (RFC 9457). The first
level of the tree says what a caller can do. A refusal by a gate or a policy is no error: the question was
answered, and the answer holds all its reasons.
"""
_BRANCH = re.compile(r"^ {4}[├└]── (\w+) +(\S.*)$", re.MULTILINE)


def first_level_meanings(sources: list[Source]) -> dict[str, str]:
    """The sentence beside each first-level class in the drawing at the head of core/errors.py."""
    drawing = next(source.text for source in sources if source.module == "core.errors")
    return dict(_BRANCH.findall(drawing))


def row(error: ErrorClass) -> str:
    meaning = " ".join(error.doc.partition("\n\n")[0].split()).replace("|", "\\|") or words(error.name)
    where = f"{PACKAGE}.{error.module}"
    return f"| `{error.code}` | {meaning} | `{where}.{error.name}` |"


def words(name: str) -> str:
    """`BlobMissing` -> `Blob missing`, for classes whose name says it all."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize() + "."


def page(sources: list[Source]) -> str:
    meanings = first_level_meanings(sources)
    errors = [error for error in error_classes(sources) if error.module != "core.errors" and error.code]
    lines = [HEAD]
    for kind in FIRST_LEVEL:
        rows = sorted(row(error) for error in errors if error.root == kind)
        lines.append(f"## {kind}\n\n{meanings[kind].capitalize()}.\n")
        if rows:
            lines += ["| code | when | class |", "|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    wanted = page(read(ROOT / "src"))
    current = PAGE.read_text() if PAGE.exists() else ""
    if "--check" in arguments:
        print(
            "docs/errors.md is current" if wanted == current else "docs/errors.md is stale: run `make pages`"
        )
        return int(wanted != current)
    PAGE.write_text(wanted)
    n_errors = sum(line.startswith("| `") for line in wanted.splitlines())
    print(f"docs/errors.md: {n_errors} errors")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
