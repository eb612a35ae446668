"""The rules of the house that neither import-linter nor ruff can see. `python tools/house_rules.py [SRC]`.

import-linter reads import statements, ruff reads names. Between them stay open: an `__init__.py` that pulls
in its children (a parent package counts as imported by nobody, yet runs), a bare `open()` in a pure room, a
file or a port that grows without end, and an error code that is used twice. Each rule is a function from
the sources to findings, so tests/architecture can hold it against a small tree that breaks it.

Nothing here imports Lockgate: sources are read as text, and a half-written tree can be checked.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "lockgate"

ROOMS = (
    "core",
    "access",
    "data",
    "traffic",
    "features",
    "registry",
    "gates",
    "governance",
    "monitoring",
    "pipeline",
    "delivery",
    "hub",
)
"""The pure rooms, in reading order. The edges are `adapters`, `serving`, `app`; `testing` is no room."""

MAX_FILE_LINES = 800
P90_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PORT_METHODS = 8
MAX_MODULES = 12
MAX_TOP_SHARE = 0.20
TOP_SHARE_COUNTS_FROM = 5_000
FORBIDDEN_MODULE_NAMES = frozenset(
    {"utils", "util", "helpers", "helper", "common", "base", "misc", "manager", "handler", "service"}
)

WORLDLY_BUILTINS = frozenset({"open", "print", "input", "breakpoint", "eval", "exec", "__import__"})

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(rule, place) -> why the rule does not hold there. An entry that nothing needs is itself a finding."""

DOOR_FILES = ("messages", "state", "decide")
DOOR_VALUES: dict[str, str] = {
    "access.roles": "a grant travels inside the event that gives it",
    "access.subjects": "who may hold a grant is checked where one is given",
    "access.aliases": "the part of `decide` about who stands behind a name",
    "governance.policies.policy": "a policy travels inside the event that adopts it",
    "governance.tickets.tracker": "what a tracker said travels inside the event that tells it",
    "governance.policies.pattern": "what a policy may ask of tickets is checked where one is adopted",
    "governance.judgement": "the part of `decide` that other rooms ask as well",
    "governance.release_plan": "a release plan travels inside the event that writes it",
    "governance.waivers": "the part of `decide` about waivers",
    "governance.break_glass": "the part of `decide` about emergencies",
    "governance.attention": "what asks for people, said of documents",
    "governance.policies.laxity": "the part of `decide` that compares two policies",
    "delivery.standing": "the part of `decide` that questions ask as well",
    "delivery.way_back": "the half of `decide` about coming back",
    "delivery.advance": "the part of `decide` about rollouts on their way",
    "delivery.rollouts.asked": "the part of `decide` about what a rollout has to pass",
    "delivery.rollouts.policy": "steps and guards travel inside the events that plan a rollout",
    "delivery.rollouts.verdict": "a verdict is decided, and travels inside the event that tells it",
    "registry.makers": "the part of `decide` about who made a version",
    "registry.trust": "the part of `decide` about keys and signatures",
    "traffic.capture": "what is kept of traffic is part of a plan",
    "traffic.observed": "what was seen of a target, beside what was decided",
    "traffic.plan": "the routing table is what a release is about",
    "traffic.errors": "what a routing table refuses",
}
"""Further plain modules that `messages`, `state` and `decide` may import; they must keep the same rule."""
DOOR_THIRD_PARTY = frozenset({"msgspec"})


@dataclass(frozen=True)
class Finding:
    rule: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message} [{self.rule}]"


@dataclass(frozen=True)
class Source:
    """One file. `module` is relative to the package (`governance.policy`); a package is its directory."""

    path: str
    module: str
    is_package: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    @property
    def room(self) -> str:
        return self.module.partition(".")[0]

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


Rule = Callable[[list[Source]], Iterator[Finding]]


def read(src: Path) -> list[Source]:
    """All modules of the package below `src`, in path order."""
    sources = []
    for path in sorted((src / PACKAGE).rglob("*.py")):
        relative = path.relative_to(src / PACKAGE)
        is_package = path.name == "__init__.py"
        parts = relative.parent.parts if is_package else (*relative.parent.parts, path.stem)
        sources.append(Source(str(path.relative_to(src)), ".".join(parts), is_package, path.read_text()))
    return sources


def docstring_free(
    node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
) -> list[ast.stmt]:
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def own_imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, module relative to the package) of every import of our own code, at any depth."""
    for line, name in all_imports(source):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            yield line, name.removeprefix(PACKAGE).removeprefix(".")


def all_imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import; `from a import b` gives `a.b`, be it a module or not."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = [PACKAGE, *source.module.split(".")]
            above = package[: len(package) - node.level + source.is_package] if node.level else []
            start = ".".join(part for part in (*above, node.module or "") if part)
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def closed_doors(sources: list[Source]) -> Iterator[Finding]:
    """`__init__.py` holds a docstring and nothing else; only the public surface at the top may do more."""
    for source in sources:
        if not source.is_package or not source.module:
            continue
        if (ast.get_docstring(source.tree) or "TODO").startswith("TODO"):
            yield Finding("closed-doors", source.path, "has no docstring that says what this is")
        if docstring_free(source.tree):
            yield Finding("closed-doors", source.path, "holds code; importing any child would run it")


def names(sources: list[Source]) -> Iterator[Finding]:
    for source in sources:
        stem = source.module.rpartition(".")[2]
        if stem in FORBIDDEN_MODULE_NAMES:
            yield Finding("names", source.path, f"{stem!r} says nothing; name the idea")


def file_size(sources: list[Source]) -> Iterator[Finding]:
    sizes = sorted(len(source.lines) for source in sources if len(source.lines) > 3)
    for source in sources:
        if len(source.lines) > MAX_FILE_LINES:
            yield Finding("file-size", source.path, f"{len(source.lines)} lines, at most {MAX_FILE_LINES}")
    if len(sizes) >= 10 and (p90 := sizes[int(0.9 * (len(sizes) - 1))]) > P90_FILE_LINES:
        yield Finding(
            "file-size", PACKAGE, f"one file in ten has {p90} lines or more, at most {P90_FILE_LINES}"
        )


def function_size(sources: list[Source]) -> Iterator[Finding]:
    """Lines from `def` to the end without the docstring: a long promise is welcome, a long body is not."""
    for source in sources:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if len(docstring_free(node)) < len(node.body):
                n_lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if n_lines > MAX_FUNCTION_LINES:
                place = f"{source.path}:{node.lineno}"
                yield Finding(
                    "function-size", place, f"{node.name}() has {n_lines} lines, at most {MAX_FUNCTION_LINES}"
                )


def port_size(sources: list[Source]) -> Iterator[Finding]:
    for source in sources:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ClassDef) or "Protocol" not in {
                last_name(base) for base in node.bases
            }:
                continue
            n_methods = sum(isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) for child in node.body)
            if n_methods > MAX_PORT_METHODS:
                place = f"{source.path}:{node.lineno}"
                yield Finding(
                    "port-size", place, f"{node.name} has {n_methods} methods, at most {MAX_PORT_METHODS}"
                )


def room_size(sources: list[Source]) -> Iterator[Finding]:
    """Modules directly inside a package. Not of `testing`: it holds two for every port, and is no room."""
    counts: dict[str, int] = {}
    for source in sources:
        if "." in source.module and not source.is_package and source.room != "testing":
            parent = source.module.rpartition(".")[0]
            counts[parent] = counts.get(parent, 0) + 1
    for package, n_modules in counts.items():
        if n_modules > MAX_MODULES:
            yield Finding("room-size", package, f"{n_modules} modules, at most {MAX_MODULES}")


def hidden_imports(sources: list[Source]) -> Iterator[Finding]:
    """An import of our own code inside a function is a hidden circle or a hidden weight."""
    for source in sources:
        for function in ast.walk(source.tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.Import | ast.ImportFrom):
                    continue
                if isinstance(node, ast.ImportFrom):
                    named = [PACKAGE if node.level else node.module or ""]
                else:
                    named = [alias.name for alias in node.names]
                if any(name.partition(".")[0] == PACKAGE for name in named):
                    place = f"{source.path}:{node.lineno}"
                    yield Finding(
                        "hidden-imports", place, f"{function.name}() imports our own code when called"
                    )


def pure_rooms(sources: list[Source]) -> Iterator[Finding]:
    """What the import contract cannot forbid: built-ins that touch the world, and paths that open."""
    for source in sources:
        if source.room not in ROOMS:
            continue
        for node in ast.walk(source.tree):
            called = last_name(node.func) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and called in WORLDLY_BUILTINS:
                place = f"{source.path}:{node.lineno}"
                yield Finding("pure-rooms", place, f"calls {called}(); rooms decide, edges act")
        for line, name in all_imports(source):
            if name.partition(".")[0] == "pathlib" and not name.startswith("pathlib.Pure"):
                place = f"{source.path}:{line}"
                yield Finding("pure-rooms", place, f"imports {name}; a room knows pathlib.PurePath at most")
            if name.startswith("io.") and name not in {"io.BytesIO", "io.StringIO"}:
                yield Finding(
                    "pure-rooms", f"{source.path}:{line}", f"imports {name}; only buffers in memory"
                )


def plain_doors(sources: list[Source]) -> Iterator[Finding]:
    """`messages`, `state`, `decide` import core, msgspec and such files of their own room or of lower ones.

    Whatever speaks through the door then starts fast and decides the same everywhere. That lower means lower
    is the business of the layers contract.
    """
    known = {source.module for source in sources}
    for source in sources:
        room, _, name = source.module.partition(".")
        is_door = room in ROOMS and room != "hub" and name in DOOR_FILES
        if not is_door and source.module not in DOOR_VALUES:
            continue
        for line, imported in all_imports(source):
            place = f"{source.path}:{line}"
            top, _, rest = imported.partition(".")
            if top != PACKAGE:
                if top not in sys.stdlib_module_names and top not in DOOR_THIRD_PARTY:
                    yield Finding("plain-doors", place, f"imports {imported}; only core and msgspec")
                continue
            module = rest if rest in known else rest.rpartition(".")[0]
            plain = module.partition(".")[0] == "core" or module in DOOR_VALUES
            if not plain and module.rpartition(".")[2] not in DOOR_FILES:
                yield Finding("plain-doors", place, f"imports {module}; only core and other such files")


def thin_top(sources: list[Source]) -> Iterator[Finding]:
    """The program and the hub join what the rooms know; when they grow, a room's knowledge leaked out."""
    total = sum(code_lines(source) for source in sources)
    top = sum(code_lines(source) for source in sources if source.room in {"app", "hub"})
    if total >= TOP_SHARE_COUNTS_FROM and top > MAX_TOP_SHARE * total:
        share = f"{top} of {total} lines of code ({top / total:.0%}), at most {MAX_TOP_SHARE:.0%}"
        yield Finding("thin-top", "app + hub", share)


def code_lines(source: Source) -> int:
    """Lines that are neither blank, comment nor docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    n_doc_lines = 0
    for node in ast.walk(source.tree):
        if isinstance(node, documented) and len(docstring_free(node)) < len(node.body):
            text = source.lines[node.body[0].lineno - 1 : node.body[0].end_lineno]
            n_doc_lines += sum(bool(line.strip()) for line in text)
    written = [line.strip() for line in source.lines]
    return sum(bool(line) and not line.startswith("#") for line in written) - n_doc_lines


@dataclass(frozen=True)
class ErrorClass:
    """One class of the error tree; `root` is the first-level class it descends from."""

    name: str
    parents: tuple[str, ...]
    root: str
    code: str | None
    doc: str
    place: str
    module: str


FIRST_LEVEL = ("Invalid", "NotFound", "Conflict", "Forbidden", "Unsupported", "Unavailable", "Corrupt", "Bug")
ERROR_ROOT = "LockgateError"
_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*\Z")


def last_name(node: ast.expr) -> str:
    """`Protocol` of `Protocol`, `typing.Protocol` and `Protocol[T]`."""
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def error_classes(sources: Iterable[Source]) -> list[ErrorClass]:
    """Every class below `LockgateError`, in order of place; bases are told apart by their names."""
    written: dict[str, tuple[Source, ast.ClassDef]] = {}
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                written.setdefault(node.name, (source, node))
    found = []
    for name, (source, node) in written.items():
        line = ancestry(name, written)
        if ERROR_ROOT not in line[1:]:
            continue
        root = next((each for each in line if each in FIRST_LEVEL), "")
        parents = tuple(last_name(base) for base in node.bases)
        doc = ast.get_docstring(node) or ""
        place = f"{source.path}:{node.lineno}"
        found.append(ErrorClass(name, parents, root, own_code(node), doc, place, source.module))
    return found


def ancestry(name: str, written: dict[str, tuple[Source, ast.ClassDef]]) -> list[str]:
    """The class and all it descends from, nearest first."""
    line = [name]
    for each in line:
        if each in written:
            line += [base for base in map(last_name, written[each][1].bases) if base not in line]
    return line


def own_code(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        target = (
            statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        )
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and target.id == "code" and isinstance(value, ast.Constant):
            return str(value.value)
    return None


def error_codes(sources: list[Source]) -> Iterator[Finding]:
    """Every class below the first level has a code of its own, and no code is used twice."""
    owners: dict[str, str] = {}
    for error in error_classes(sources):
        if error.name in FIRST_LEVEL and error.module == "core.errors":
            continue
        if error.code is None:
            yield Finding("error-codes", error.place, f"{error.name} has no code of its own")
            continue
        if _CODE.match(error.code) is None:
            yield Finding("error-codes", error.place, f"{error.code!r} is not of the form room.short-name")
        if error.code in owners:
            yield Finding(
                "error-codes", error.place, f"{error.code!r} is the code of {owners[error.code]} too"
            )
        owners.setdefault(error.code, error.name)


RULES: tuple[Rule, ...] = (
    closed_doors,
    names,
    file_size,
    function_size,
    port_size,
    room_size,
    hidden_imports,
    pure_rooms,
    plain_doors,
    thin_top,
    error_codes,
)


def findings(sources: list[Source], rules: Iterable[Rule] = RULES) -> list[Finding]:
    """What breaks a rule without being a named exception, and exceptions that nothing needs any more."""
    found = [finding for rule in rules for finding in rule(sources)]
    excused = {(each.rule, each.place.partition(":")[0]) for each in found} & EXCEPTIONS.keys()
    left = [each for each in found if (each.rule, each.place.partition(":")[0]) not in EXCEPTIONS]
    stale = [
        Finding("exceptions", " ".join(key), "nothing needs this") for key in EXCEPTIONS.keys() - excused
    ]
    return left + stale


def main(arguments: list[str]) -> int:
    sources = read(Path(arguments[0]) if arguments else ROOT / "src")
    found = findings(sources)
    for finding in found:
        print(finding)
    print(f"{len(sources)} modules, {sum(map(code_lines, sources))} lines of code, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
