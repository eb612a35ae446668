"""Write docs/cli.md from the command line's own help. `--check` only tells whether it is current.

`VERBS` in lockgate/app/cli/main.py names the verbs and what each does; everything else on the page is what
`lockgate VERB --help` prints, groups included.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

from house_rules import ROOT

PAGE = ROOT / "docs" / "cli.md"
HEAD = """# Commands

<!-- Written by tools/cli_page.py (`make pages`) from the help texts; edit those, not this page. -->

Exit codes: 0 done, 1 a bug in Lockgate, 2 wrong usage or invalid input, 3 refused by a gate or a policy, 4 not
found, 5 conflict (read again, then retry), 6 unavailable (retry later), 7 altered or damaged, 8 waiting for a
person or for time. Every command takes `--json`.
"""
RUN = "import sys; sys.argv[0] = 'lockgate'; from lockgate.app.cli.main import main; sys.exit(main())"
VERBS = "import json; from lockgate.app.cli.main import VERBS; print(json.dumps(list(VERBS)))"
_COMMANDS = re.compile(r"^Commands:\n((?: +\S.*\n?)+)", re.MULTILINE)


def verbs() -> list[str]:
    """The verbs in the order of the table; empty while there is no table."""
    done = subprocess.run([sys.executable, "-c", VERBS], capture_output=True, text=True, cwd=ROOT)
    return re.findall(r'"([^"]+)"', done.stdout) if done.returncode == 0 else []


def help_of(*command: str) -> str:
    """What `lockgate COMMAND --help` prints, at a fixed width and without colour."""
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    if done.returncode:
        sys.exit(f"lockgate {' '.join(command)} --help ended with {done.returncode}:\n{done.stderr}")
    return done.stdout.strip()


def sections(*command: str) -> Iterator[str]:
    """The section of a command and, when it is a group, those of its own verbs."""
    text = help_of(*command)
    heading = "#" * (1 + len(command))
    yield f"{heading} `lockgate {' '.join(command)}`\n\n```text\n{text}\n```\n"
    listed = _COMMANDS.search(text + "\n")
    for line in listed[1].splitlines() if listed else ():
        if re.match(r" {2}\S", line):
            yield from sections(*command, line.split()[0])


def page(names: list[str]) -> str:
    return "\n".join([HEAD, *(section for name in names for section in sections(name))])


def main(arguments: list[str]) -> int:
    names = verbs()
    wanted = page(names)
    current = PAGE.read_text() if PAGE.exists() else ""
    if "--check" in arguments:
        print("docs/cli.md is current" if wanted == current else "docs/cli.md is stale: run `make pages`")
        return int(wanted != current)
    PAGE.write_text(wanted)
    print(f"docs/cli.md: {len(names)} verbs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
