"""The code closure against what really happens: no edit that changes a result leaves a step's closure alone.

Three proofs. `EDITS` names one edit for each way code can depend on code, with exactly the steps it must change.
The mutation suite changes every literal, operator, statement, decorator and parent class of the same project,
one at a time, runs every step before and after, and demands a changed closure wherever the result changed.
Hypothesis writes projects of its own, whose true dependencies are known, and compares.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.adapters.runners.project import importable
from lockgate.core.errors import LockgateError
from lockgate.pipeline.code.closure import Closure, closure
from lockgate.pipeline.code.source import SourceTree

Files = dict[str, str]

PROJECT: Files = {
    "flights/__init__.py": '''
"""The package."""
from .clean import tidy as tidied
from . import patches
VERSION = 1
''',
    "flights/clean.py": '''
"""Cleaning."""
import math
from .deep import clip as cut

FLOOR = 2
SCALES = {"short": 10, "long": 20}
SCALES["far"] = 30
NAMES = ["a", "b"]
NAMES.append("c")
for extra in ("d", "e"):
    NAMES.append(extra)
TOTAL = 1
TOTAL += 4
if FLOOR > 1:
    STEEP = 7
else:
    STEEP = 8
try:
    from missing_library import fast
except ImportError:
    fast = lambda x: x + 6

def tidy(x):
    """Tidy up."""
    return cut(x) + FLOOR  # a comment

def scale(kind, x, factor=3):
    return SCALES[kind] * x * factor

def spell():
    return "".join(NAMES)

def rooted(x):
    def inner(y):
        return math.floor(y) + 5
    return inner(x)

def unrelated(x):
    """Nobody calls this."""
    return x - 1000
''',
    "flights/deep.py": """
LIMIT = 40

def clip(x):
    return min(x, bound())

def bound():
    return LIMIT

def lonely():
    return 0
""",
    "flights/shapes.py": """
class Shape:
    corners = 4

    def area(self, side):
        return side * side

class Square(Shape):
    unit = 2

    def area(self, side):
        return super().area(side) * self.unit

def doubled(function):
    def wrapper(*args):
        return function(*args) * 2
    return wrapper

@doubled
def edge(x):
    return x + 3

SHIFT = lambda x: x + 9
""",
    "flights/plugins.py": """
RULES = []

def rule(weight):
    def register(function):
        RULES.append((weight, function))
        return function
    return register

def judged(x):
    return sum(weight * function(x) for weight, function in RULES)
""",
    "flights/rules.py": """
from .plugins import rule

@rule(2)
def small(x):
    return 1 if x < 10 else 0

@rule(3)
def even(x):
    return 1 if x % 2 == 0 else 0
""",
    "flights/stars.py": """
__all__ = ["shine", "GLOW"]
GLOW = 11

def shine(x):
    return x * GLOW
""",
    "flights/settings.py": """
class Settings:
    depth = 3
    ratio: float = 0.5

MODES = {"mode": "calm", "limits": [1, 2]}
STATE = 0

def start():
    global STATE
    STATE = 21

start()
""",
    "flights/patches.py": """
from . import settings
settings.MODES["mode"] = "brisk"
""",
    "flights/model.py": """
from lockgate.pipeline.step import step
import flights.clean
import flights.shapes as forms
from flights import tidied, settings
from flights.clean import scale as scaled, spell, rooted, fast, TOTAL, STEEP
from .plugins import judged
from . import rules
from .stars import *

@step
def helper_two_calls_below():
    return tidied(50)

@step(slow=True)
def constants(kind="long"):
    return scaled(kind, 2) + scaled("far", 1) + TOTAL + STEEP

@step
def containers():
    return spell()

@step
def nested_and_lambda():
    return rooted(2.5) + forms.SHIFT(1) + fast(1)

@step
def classes():
    return forms.Square().area(3) + forms.edge(1)

@step
def registered():
    return judged(8)

@step
def starred():
    return shine(2)

@step
def configured(helper_two_calls_below=1):
    return [settings.Settings.depth, settings.Settings().ratio, settings.MODES["mode"], settings.STATE]

@step
def late():
    from .deep import lonely
    return lonely() + getattr(flights.clean, "FLOOR")
""",
}
STEPS = [
    "helper_two_calls_below",
    "constants",
    "containers",
    "nested_and_lambda",
    "classes",
    "registered",
    "starred",
    "configured",
    "late",
]

# (file, before, after, the steps that must change, a label that must be named)
EDITS: list[tuple[str, str, str, str, str]] = [
    ("deep.py", "return LIMIT", "return LIMIT + 1", "helper_two_calls_below", "bound() in flights/deep.py"),
    ("deep.py", "LIMIT = 40", "LIMIT = 41", "helper_two_calls_below", "LIMIT in flights/deep.py"),
    ("deep.py", "min(x, bound())", "max(x, bound())", "helper_two_calls_below", "clip() in flights/deep.py"),
    ("deep.py", "return 0", "return 1", "late", "lonely() in flights/deep.py"),
    (
        "clean.py",
        "FLOOR = 2",
        "FLOOR = 3",
        "helper_two_calls_below constants late",
        "FLOOR in flights/clean.py",
    ),
    ("clean.py", "cut(x) + FLOOR", "cut(x)", "helper_two_calls_below", "tidy() in flights/clean.py"),
    ("clean.py", '"short": 10', '"short": 12', "constants", "SCALES in flights/clean.py"),
    ("clean.py", '"long": 20', '"length": 20', "constants", "SCALES in flights/clean.py"),
    ("clean.py", '["far"] = 30', '["far"] = 31', "constants", "module statements in flights/clean.py"),
    ("clean.py", "factor=3", "factor=4", "constants", "scale() in flights/clean.py"),
    ("clean.py", "TOTAL += 4", "TOTAL += 5", "constants", "TOTAL in flights/clean.py"),
    ("clean.py", "STEEP = 7", "STEEP = 9", "constants", "STEEP in flights/clean.py"),
    (
        "clean.py",
        'NAMES.append("c")',
        'NAMES.append("q")',
        "containers",
        "module statements in flights/clean.py",
    ),
    ("clean.py", '("d", "e")', '("e", "d")', "containers", "extra in flights/clean.py"),
    ("clean.py", "y) + 5", "y) + 6", "nested_and_lambda", "rooted() in flights/clean.py"),
    ("clean.py", "x + 6", "x + 7", "nested_and_lambda", "fast in flights/clean.py"),
    (
        "clean.py",
        "import math",
        "import cmath as math",
        "nested_and_lambda",
        "import of math in flights/clean.py",
    ),
    ("clean.py", "x - 1000", "x - 1001", "", ""),
    ("clean.py", "import clip as cut", "import bound as cut", "helper_two_calls_below", "import of cut in"),
    ("shapes.py", "corners = 4", "corners = 5", "classes", "class Shape in flights/shapes.py"),
    ("shapes.py", "side * side", "side + side", "classes", "class Shape in flights/shapes.py"),
    ("shapes.py", "unit = 2", "unit = 3", "classes", "class Square in flights/shapes.py"),
    ("shapes.py", "(*args) * 2", "(*args) * 3", "classes", "doubled() in flights/shapes.py"),
    ("shapes.py", "@doubled\n", "", "classes", "edge() in flights/shapes.py"),
    ("shapes.py", "x + 9", "x + 10", "nested_and_lambda", "SHIFT in flights/shapes.py"),
    ("rules.py", "x < 10", "x < 11", "registered", "small() in flights/rules.py"),
    ("rules.py", "@rule(3)", "@rule(4)", "registered", "even() in flights/rules.py"),
    ("plugins.py", "weight * function(x)", "function(x)", "registered", "judged() in flights/plugins.py"),
    ("stars.py", "GLOW = 11", "GLOW = 12", "starred", "GLOW in flights/stars.py"),
    ("stars.py", "x * GLOW", "x", "starred", "shine() in flights/stars.py"),
    ("settings.py", "depth = 3", "depth = 4", "configured", "class Settings in flights/settings.py"),
    ("settings.py", "ratio: float", "ratio: int", "configured", "class Settings in flights/settings.py"),
    ("settings.py", '"calm"', '"still"', "configured", "MODES in flights/settings.py"),
    ("settings.py", "STATE = 21", "STATE = 22", "configured", "start() in flights/settings.py"),
    ("settings.py", "\nstart()\n", "\n", "configured", "module statements in flights/settings.py"),
    ("patches.py", '"brisk"', '"slow"', "configured", "module statements in flights/patches.py"),
    ("__init__.py", "from . import patches\n", "", "configured", "module statements in flights/patches.py"),
    ("__init__.py", "VERSION = 1", "VERSION = 2", "", ""),
    ("model.py", 'kind="long"', 'kind="short"', "constants", "constants() in flights/model.py"),
    ("model.py", "from . import rules\n", "", "registered", "small() in flights/rules.py"),
    ("model.py", "tidied(50)", "tidied(51)", "helper_two_calls_below", "helper_two_calls_below() in"),
    ("model.py", "shine(2)", "shine(3)", "starred", "starred() in flights/model.py"),
    ("model.py", "slow=True", "slow=False", "", ""),
    ("model.py", '"FLOOR"', '"TOTAL"', "late", "TOTAL in flights/clean.py"),
]


def tree_of(files: Files) -> SourceTree:
    return SourceTree({path: text.encode() for path, text in files.items()})


def closures(files: Files) -> dict[str, Closure]:
    tree = tree_of(files)
    return {step: closure(tree, f"flights.model:{step}") for step in STEPS}


BEFORE = closures(PROJECT)


def changed_steps(files: Files) -> set[str]:
    after = closures(files)
    return {step for step in STEPS if after[step].digest != BEFORE[step].digest}


def outcome(root: Path, files: Files, step: str) -> tuple[str, Any]:
    """What the step gives, in modules of its own; failures of the import itself are told apart."""
    sources = {path: text.encode() for path, text in files.items()}
    with importable(str(root), sources):
        try:
            function = getattr(importlib.import_module("flights.model"), step)
        except Exception as error:  # noqa: BLE001 -- any failure is an outcome
            return "unimportable", repr(error)
        try:
            return "value", function()
        except Exception as error:  # noqa: BLE001 -- any failure is an outcome
            return "raised", type(error).__name__


@pytest.mark.parametrize(("file", "old", "new", "steps", "label"), EDITS)
def test_an_edit_changes_the_steps_that_depend_on_it_and_no_others(
    file: str, old: str, new: str, steps: str, label: str
) -> None:
    path = f"flights/{file}"
    assert PROJECT[path].count(old) == 1, "the edit must be one edit"
    edited = {**PROJECT, path: PROJECT[path].replace(old, new)}
    assert changed_steps(edited) == set(steps.split())
    for step in steps.split():
        before, after = BEFORE[step].parts, closures(edited)[step].parts
        moved = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert any(name.startswith(label) for name in moved), (step, moved)


# -- edits without meaning


class _Decorate(ast.NodeTransformer):
    """Other docstrings and annotations everywhere they mean nothing."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        self.generic_visit(node)
        if not node.decorator_list:
            for argument in node.args.args:
                argument.annotation = ast.Name("float", ast.Load())
        return self._document(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        self.generic_visit(node)
        return self._document(node)

    def _document(self, node: Any) -> Any:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        node.body.insert(0, ast.Expr(ast.Constant("Another docstring.")))
        return node


def _decorated(source: str) -> str:
    return ast.unparse(ast.fix_missing_locations(_Decorate().visit(ast.parse(source))))


def _shuffled(source: str) -> str:
    """Plain functions in reverse order, all other statements where they were."""
    tree = ast.parse(source)
    plain = [n for n in tree.body if isinstance(n, ast.FunctionDef) and not n.decorator_list]
    # Only what the import does not call may move.
    moving = [n for n in plain if not any(isinstance(s, ast.Global) for s in n.body) and n.name != "doubled"]
    backwards = iter(reversed(moving))
    tree.body = [next(backwards) if node in moving else node for node in tree.body]
    if "def rule(" in source:
        return source
    return ast.unparse(tree)


def _commented(source: str) -> str:
    lines: list[str] = []
    for line in source.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines += [f"{indent}# a remark", f"{line}   # another" if line.strip() else line]
    return "\n".join(lines)


def _grown(source: str) -> str:
    more = "\n\ndef nobody_calls(x):\n    return x\n\n\nclass Unused:\n    size = 1\n\n\nUNUSED = [1, 2]\n"
    return source + more


@pytest.mark.parametrize(
    "rewrite", [lambda s: ast.unparse(ast.parse(s)), _decorated, _shuffled, _commented, _grown], ids=str
)
@pytest.mark.parametrize("path", sorted(PROJECT))
def test_an_edit_without_meaning_changes_nothing(rewrite: Any, path: str) -> None:
    edited = {**PROJECT, path: rewrite(PROJECT[path])}
    after = closures(edited)
    assert {step: after[step].parts for step in STEPS} == {step: BEFORE[step].parts for step in STEPS}


# -- every possible small edit


def _changed(node: ast.AST, names: list[str]) -> Iterator[Any]:
    """Other things of the same kind to stand in the place of `node`; `names` are those of the module."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        yield ast.Name(names[names.index(node.id) - 1], ast.Load())
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield node.value
        if node.attr in names:
            yield ast.Attribute(node.value, names[names.index(node.attr) - 1], ast.Load())
    elif isinstance(node, ast.alias):
        if node.name in names:
            yield ast.alias(names[names.index(node.name) - 1], node.asname or node.name)
        yield ast.alias(node.name, "another_name")
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, (int, float)):
            yield ast.Constant(node.value + 1)
        elif isinstance(node.value, str):
            yield ast.Constant(node.value + "x")
    elif isinstance(node, ast.BinOp):
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        yield ast.BinOp(node.left, other, node.right)
    elif isinstance(node, ast.Compare):
        yield ast.Compare(node.left, [ast.NotEq()], node.comparators)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was done, the source after it), for each small edit of one module."""
    tree = ast.parse(source)
    found = [getattr(node, field, None) for node in ast.walk(tree) for field in ("id", "attr", "name")]
    names = sorted({name for name in found if isinstance(name, str)} - {"*"})
    for node in list(ast.walk(tree)):
        for field, value in list(ast.iter_fields(node)):
            items = value if isinstance(value, list) else [value]
            for n, item in enumerate(items):
                for kind, mutated in _replacements(item, field, items, n, names):
                    if not isinstance(value, list) and len(mutated) != 1:
                        continue
                    setattr(node, field, mutated if isinstance(value, list) else mutated[0])
                    text = ast.unparse(tree)
                    setattr(node, field, value)
                    try:
                        compile(text, "mutant", "exec")
                    except SyntaxError:
                        continue
                    yield (
                        f"{kind} {field} of {type(node).__name__}, line {getattr(item, 'lineno', '?')}",
                        text,
                    )


def _replacements(
    item: Any, field: str, items: list[Any], n: int, names: list[str]
) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(item, ast.AST):
        for other in _changed(item, names):
            yield "change", [*items[:n], other, *items[n + 1 :]]
    if isinstance(item, ast.stmt):
        yield "delete", [*items[:n], ast.Pass(), *items[n + 1 :]]
        if n + 1 < len(items):
            yield "swap", [*items[:n], items[n + 1], item, *items[n + 2 :]]
    elif field in ("decorator_list", "bases", "keywords", "args", "names") and isinstance(item, ast.AST):
        yield "drop", [*items[:n], *items[n + 1 :]]


@pytest.mark.parametrize("path", sorted(PROJECT))
def test_no_mutant_with_another_result_keeps_its_closure(path: str, tmp_path: Path) -> None:
    results = {step: outcome(tmp_path, PROJECT, step) for step in STEPS}
    assert {kind for kind, _ in results.values()} == {"value"}
    n_telling = 0
    for what, text in mutants(PROJECT[path]):
        edited = {**PROJECT, path: text}
        changed: set[str] | None = None
        for step in STEPS:
            kind, value = outcome(tmp_path, edited, step)
            if kind == "unimportable":
                break
            if (kind, value) != results[step]:
                n_telling += 1
                changed = changed_steps(edited) if changed is None else changed
                assert step in changed, (
                    f"{path}: {what} makes {step} give {value!r}, was {results[step][1]!r}"
                )
    assert n_telling or path.endswith("__init__.py")


# -- projects nobody thought of

KINDS = [
    "constant",
    "function",
    "default",
    "nested",
    "lambda",
    "class",
    "inherited",
    "decorated",
    "dict",
    "list",
    "augmented",
    "guarded",
    "loop",
    "branch",
]
STYLES = [
    "relative",
    "absolute_as",
    "module_as",
    "package",
    "dotted",
    "star",
    "local",
    "reexport",
    "getattr",
]


class Thing:
    """One definition of a generated project: its own literal, the definitions it uses, and how."""

    def __init__(self, n: int, module: int, kind: str, uses: list[tuple[int, str]]) -> None:
        self.n, self.module, self.kind, self.uses = n, module, kind, uses
        self.name = f"thing{n}"

    def value(self, name: str) -> str:
        """An expression for its number, given how it is called at the place of use."""
        return {
            "dict": f"sum({name}.values())",
            "list": f"sum({name})",
            "class": f"{name}().get()",
            "inherited": f"{name}().get()",
            "constant": name,
            "augmented": name,
            "guarded": name,
            "loop": name,
            "branch": name,
        }.get(self.kind, f"{name}()")


def _use(thing: Thing, used: Thing, style: str, imports: list[str]) -> tuple[str, str]:
    """(what goes before the expression inside a function, the expression)."""
    home = f"m{used.module}"
    if used.module == thing.module:
        return "", used.value(used.name)
    if style == "relative":
        imports.append(f"from .{home} import {used.name}")
        return "", used.value(used.name)
    if style == "absolute_as":
        imports.append(f"from flights.{home} import {used.name} as other{used.n}")
        return "", used.value(f"other{used.n}")
    if style == "module_as":
        imports.append(f"import flights.{home} as module_{home}")
        return "", used.value(f"module_{home}.{used.name}")
    if style == "package":
        imports.append(f"from . import {home}")
        return "", used.value(f"{home}.{used.name}")
    if style == "dotted":
        imports.append(f"import flights.{home}")
        return "", used.value(f"flights.{home}.{used.name}")
    if style == "star":
        imports.append(f"from .{home} import *")
        return "", used.value(used.name)
    if style == "reexport":
        imports.append(f"from .exports import shown{used.n}")
        return "", used.value(f"shown{used.n}")
    if style == "getattr":
        imports.append(f"import flights.{home} as module_{home}")
        return "", used.value(f"getattr(module_{home}, {used.name!r})")
    if thing.kind in ("function", "nested", "decorated"):
        return f"from .{home} import {used.name} as near{used.n}\n    ", used.value(f"near{used.n}")
    return _use(thing, used, "relative", imports)


def _define(thing: Thing, things: list[Thing], literals: dict[int, int], imports: list[str]) -> str:
    parts = [_use(thing, things[n], style, imports) for n, style in thing.uses]
    before = "".join(text for text, _ in parts)
    rest = "".join(f" + {expression}" for _, expression in parts)
    name, number = thing.name, literals[thing.n]
    return {
        "constant": f"{name} = {number}{rest}",
        "function": f"def {name}():\n    {before}return {number}{rest}",
        "default": f"def {name}(start={number}{rest}):\n    return start",
        "nested": f"def {name}():\n    {before}def inside():\n        return {number}{rest}\n    return inside()",
        "lambda": f"{name} = lambda: {number}{rest}",
        "class": f"class {name}:\n    size = {number}\n    def get(self):\n        return self.size{rest}",
        "inherited": (
            f"class Parent{name}:\n    def get(self):\n        return {number}{rest}\n"
            f"class {name}(Parent{name}):\n    pass"
        ),
        "decorated": (
            f"def around{name}(function):\n    return lambda: function() + {number}\n"
            f"@around{name}\ndef {name}():\n    {before}return 0{rest}"
        ),
        "dict": f"{name} = {{'a': {number}}}\n{name}['b'] = 0{rest}",
        "list": f"{name} = [{number}]\n{name}.append(0{rest})",
        "augmented": f"{name} = {number}\n{name} += 0{rest}",
        "guarded": f"try:\n    from no_such_library import {name}\nexcept ImportError:\n    {name} = {number}{rest}",
        "loop": f"{name} = {number}\nfor turn{name} in range(2):\n    {name} += 1{rest}",
        "branch": f"if {number} > 0:\n    {name} = {number}{rest}\nelse:\n    {name} = 0",
    }[thing.kind]


def _write(things: list[Thing], literals: dict[int, int], n_modules: int) -> Files:
    files: Files = {"flights/__init__.py": ""}
    exported = {n for thing in things for n, style in thing.uses if style == "reexport"}
    for module in range(n_modules):
        imports: list[str] = []
        bodies = [_define(t, things, literals, imports) for t in things if t.module == module]
        files[f"flights/m{module}.py"] = "\n".join([*dict.fromkeys(imports), *bodies]) + "\n"
    for n in sorted(exported):
        # One module per re-exported name keeps the generated imports free of circles.
        home = f"m{things[n].module}"
        files[f"flights/exports{n}.py"] = f"from .{home} import {things[n].name} as shown{n}\n"
    return {path: _per_export(text, exported) for path, text in files.items()}


def _per_export(text: str, exported: set[int]) -> str:
    for n in exported:
        text = text.replace(f"from .exports import shown{n}\n", f"from .exports{n} import shown{n}\n")
    return text


@st.composite
def projects(draw: st.DrawFn) -> tuple[list[Thing], int]:
    n_modules = draw(st.integers(2, 4))
    n_things = draw(st.integers(4, 12))
    homes = sorted(draw(st.integers(0, n_modules - 1)) for _ in range(n_things))
    things: list[Thing] = []
    for n, module in enumerate(homes):
        used = draw(st.lists(st.integers(0, n - 1), max_size=2, unique=True)) if n else []
        uses = [(other, draw(st.sampled_from(STYLES))) for other in used]
        things.append(Thing(n, module, draw(st.sampled_from(KINDS)), uses))
    return things, n_modules


def _reached(things: list[Thing], start: int) -> set[int]:
    found: set[int] = set()
    todo = [start]
    while todo:
        n = todo.pop()
        if n not in found:
            found.add(n)
            todo += [used for used, _ in things[n].uses]
    return found


@settings(max_examples=100)
@given(projects(), st.data())
def test_generated_projects_change_exactly_where_their_graph_says(
    project: tuple[list[Thing], int], data: st.DataObject
) -> None:
    things, n_modules = project
    callable_ = [t for t in things if t.kind in ("function", "nested", "decorated", "default")]
    if not callable_:
        return
    literals = {thing.n: 1 for thing in things}
    edited = data.draw(st.sampled_from(things))
    before, after = _write(things, literals, n_modules), _write(things, {**literals, edited.n: 2}, n_modules)
    trees = tree_of(before), tree_of(after)
    for thing in callable_:
        call = f"flights.m{thing.module}:{thing.name}"
        one, two = (closure(tree, call) for tree in trees)
        assert one.dynamic == ()
        depends = edited.n in _reached(things, thing.n)
        assert (one.digest != two.digest) == depends, (call, edited.name)
        if depends:
            moved = {name for name in one.parts if one.parts[name] != two.parts.get(name)}
            assert any(edited.name in name for name in moved) or "module statements" in str(moved)


@settings(max_examples=80)
@given(projects(), st.data())
def test_generated_projects_never_keep_a_closure_whose_result_changed(
    tmp_path_factory: pytest.TempPathFactory, project: tuple[list[Thing], int], data: st.DataObject
) -> None:
    things, n_modules = project
    callable_ = [t for t in things if t.kind in ("function", "nested", "decorated", "default")]
    if not callable_:
        return
    root = tmp_path_factory.getbasetemp()
    literals = {thing.n: 1 for thing in things}
    before = _write(things, literals, n_modules)
    path = data.draw(st.sampled_from([f"flights/m{n}.py" for n in range(n_modules)]))
    every = list(mutants(before[path]))
    if not every:
        return
    _, text = data.draw(st.sampled_from(every))
    after = {**before, path: text}
    for thing in callable_:
        call = f"flights.m{thing.module}:{thing.name}"
        one, two = _answer(root, before, thing), _answer(root, after, thing)
        if two[0] != "unimportable" and one != two:
            assert closure(tree_of(before), call).digest != _digest(after, call)


def _answer(root: Path, files: Files, thing: Thing) -> tuple[str, Any]:
    with importable(str(root), {path: text.encode() for path, text in files.items()}):
        try:
            module = importlib.import_module(f"flights.m{thing.module}")
            function = getattr(module, thing.name)
        except Exception as error:  # noqa: BLE001 -- any failure is an outcome
            return "unimportable", repr(error)
        try:
            return "value", function()
        except Exception as error:  # noqa: BLE001 -- any failure is an outcome
            return "raised", type(error).__name__


def _digest(files: Files, call: str) -> str | None:
    try:
        return closure(tree_of(files), call).digest
    except LockgateError:
        return None
