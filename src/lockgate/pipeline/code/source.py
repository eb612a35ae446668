"""The project's Python source as a value: which module is where, what each binds at its top level.

A `SourceTree` is given its files; it reads none. Modules are parsed on demand and once, so asking for the
closures of ten steps costs one parse per file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import Invalid, NotFound, did_you_mean
from lockgate.pipeline.code import syntax
from lockgate.pipeline.code.syntax import Ref, Target
from lockgate.pipeline.step import BadStep, StepOptions, check_options

UnitKind = Literal["function", "class", "value", "import", "statement"]
# Calls of these make values that nothing can change afterwards.
_FROZEN_MAKERS = frozenset({"frozenset", "int", "float", "str", "bytes", "bool", "range", "complex"})


class BadSource(Invalid):
    """A file of the project is not Python."""

    code = "pipeline.bad-source"


class NoSuchStep(NotFound):
    code = "pipeline.no-such-step"


@dataclass(frozen=True, eq=False)
class Unit:
    """One top-level statement of a module, or one name of a top-level import."""

    index: int
    kind: UnitKind
    names: tuple[str, ...]
    node: ast.stmt
    package: str
    target: Target | None = None
    options: StepOptions | None = None

    @cached_property
    def refs(self) -> tuple[Ref, ...]:
        return () if self.target is not None else syntax.references(self.node, self.package)

    @cached_property
    def calls_eagerly(self) -> bool:
        """Whether importing the module calls something or stores into something here."""
        return any(ref.eager and ref.use in ("call", "discard", "store") for ref in self.refs)

    @cached_property
    def fixed(self) -> bool:
        """Whether what it binds can only change by assigning to an attribute of it, or to the name again."""
        if self.kind == "class" and isinstance(self.node, ast.ClassDef):
            return all(_fixed_statement(statement) for statement in self.node.body)
        if self.kind == "function":
            # What a decorator returns may keep state, such as the implementations of functools.singledispatch.
            return not getattr(self.node, "decorator_list", [])
        return self.kind == "import" or (self.kind == "value" and _fixed_statement(self.node))

    @cached_property
    def container(self) -> bool:
        """Whether it binds a list, dict or set written out, whose own methods are the well-known ones."""
        value = getattr(self.node, "value", None)
        return self.kind == "value" and isinstance(
            value, (ast.List, ast.Dict, ast.Set, ast.Tuple, ast.Constant)
        )

    @cached_property
    def plain_elements(self) -> bool:
        """Whether it binds a list, tuple or set written out of values that cannot change."""
        value = getattr(self.node, "value", None)
        if self.kind != "value" or not isinstance(value, (ast.List, ast.Set, ast.Tuple)):
            return False
        return bool(value.elts) and all(_fixed_value(element) for element in value.elts)

    def fingerprint(self, *, keep_docs: bool) -> str:
        """Of its statement; an import is told by where it leads instead, see `closure.py`."""
        return syntax.fingerprint(self.node, keep_docs=keep_docs)


def _fixed_statement(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return node.value is None or _fixed_value(node.value)
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or syntax.is_bare_constant(node)


def _fixed_value(node: ast.expr) -> bool:
    if isinstance(node, (ast.Constant, ast.Lambda, ast.JoinedStr)):
        return True
    if isinstance(node, ast.Tuple):
        return all(_fixed_value(element) for element in node.elts)
    if isinstance(node, ast.UnaryOp):
        return _fixed_value(node.operand)
    if isinstance(node, ast.BinOp):
        return _fixed_value(node.left) and _fixed_value(node.right)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FROZEN_MAKERS


class Module:
    """What one file binds, imports and does when it is imported."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        self.name = name
        self.path = path
        is_package = path.endswith("/__init__.py") or path == "__init__.py"
        self.package = name if is_package else name.rpartition(".")[0]
        self._tree = _parse(path, source)
        syntax.normalise(self._tree)
        body = [node for node in self._tree.body if not syntax.is_main_block(node)]
        names = syntax.bindings(body, self.package)
        self.targets: Mapping[str, list[Target]] = names.targets
        self.stars: list[str] = names.stars
        self.imports: list[str] = names.modules
        self.units: list[Unit] = []
        for node in body:
            self._add(node)
        self.binders: dict[str, list[Unit]] = {}
        for unit in self.units:
            for bound in unit.names:
                self.binders.setdefault(bound, []).append(unit)
        self._bind_globals_of_functions()

    def _add(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
                names = syntax.bindings([node], self.package)
                bound: list[tuple[tuple[str, ...], Target]] = []
                for name, found in names.targets.items():
                    bound += [((name,), target) for target in found]
                bound += [((), Target(star, "*")) for star in names.stars]
                for of, target in bound:
                    self.units.append(Unit(len(self.units), "import", of, node, self.package, target))
            return
        if syntax.is_bare_constant(node):
            return
        options = None
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            options = self._take_step_decorator(node)
        kept = tuple(sorted(syntax.bindings([node], self.package).bound))
        self.units.append(Unit(len(self.units), _kind(node), kept, node, self.package, None, options))

    def _take_step_decorator(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> StepOptions | None:
        """Read `@step(...)` and remove it from the tree: how a step is run is no part of what it computes."""
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            path = syntax.dotted(call.func if call else decorator)
            if not path or not self._is_step(path):
                continue
            node.decorator_list = [other for other in node.decorator_list if other is not decorator]
            where = f"step {node.name}() in {self.path}"
            return check_options(_options(call, where), where=where)
        return None

    def _is_step(self, path: tuple[str, ...]) -> bool:
        for target in self.targets.get(path[0], []):
            full = (*target.module.split("."), *((target.name,) if target.name else ()), *path[1:])
            if full[0] == "lockgate" and full[-1] == "step":
                return True
        return False

    def _bind_globals_of_functions(self) -> None:
        """A function that says `global X` and assigns is one of the places where X gets its value."""
        for unit in self.units:
            for node in ast.walk(unit.node) if unit.kind in ("function", "class") else ():
                if isinstance(node, ast.Global):
                    for name in node.names:
                        if unit not in self.binders.setdefault(name, []):
                            self.binders[name].append(unit)

    def fingerprint(self, *, keep_docs: bool) -> str:
        return syntax.fingerprint(self._tree, keep_docs=keep_docs)


def _parse(path: str, source: bytes) -> ast.Module:
    try:
        return ast.parse(source, filename=path)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        reason = getattr(error, "msg", None) or str(error)
        raise BadSource(
            f"{path}{f' line {line}' if line else ''} is not valid Python: {reason}",
            remedy=f"fix {path}, then run it again",
            path=path,
            line=line,
        ) from error


def _options(call: ast.Call | None, where: str) -> StepOptions:
    if call is None:
        return StepOptions()
    try:
        given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError as error:
        raise BadStep(
            f"the options of {where} are not literals",
            remedy="write the values themselves, for example @step(slow=True, timeout_s=600)",
        ) from error
    known = StepOptions.__struct_fields__
    for name in given:
        if name not in known or call.args:
            raise BadStep(f"{where} has an unknown option {name!r}", remedy=did_you_mean(name, known))
    if "retry_on" in given:
        given["retry_on"] = tuple(given["retry_on"])
    return StepOptions(**given)


def _kind(node: ast.stmt) -> UnitKind:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return "function"
    if isinstance(node, ast.ClassDef):
        return "class"
    if isinstance(node, ast.Assign) and all(_plain_target(target) for target in node.targets):
        return "value"
    if isinstance(node, (ast.AnnAssign, ast.AugAssign)) and _plain_target(node.target):
        return "value"
    return "statement"


def _plain_target(node: ast.expr) -> bool:
    if isinstance(node, (ast.Tuple, ast.List)):
        return all(_plain_target(element) for element in node.elts)
    return isinstance(node, ast.Name) or (isinstance(node, ast.Starred) and _plain_target(node.value))


class SourceTree(Mapping[str, bytes]):
    """The files of a project by path, `flights/model.py` -> source bytes; the project directory is the root.

    Only `.py` files count; others may be present. It is a mapping, so a runner can be given the same tree:
    then the code that was hashed is the code that runs, whatever happens to the files meanwhile.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = dict(sorted(files.items()))
        self._paths: dict[str, str] = {}
        self._packages: set[str] = set()
        self._modules: dict[str, Module] = {}
        #: What importing a unit does, kept by `closure.py` so that several steps share the work.
        self.effects: dict[tuple[str, int], Any] = {}
        for path in self._files:
            if path.endswith(".py"):
                parts = path.removesuffix(".py").split("/")
                if parts[-1] == "__init__":
                    parts.pop()
                if parts and all(part.isidentifier() for part in parts):
                    name = ".".join(parts)
                    # A package wins over a module of the same name, as it does in Python.
                    if name not in self._paths or path.endswith("/__init__.py"):
                        self._paths[name] = path
                    self._packages.update(".".join(parts[:n]) for n in range(1, len(parts)))

    def __getitem__(self, path: str) -> bytes:
        return self._files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(sorted(self._paths))

    def holds(self, module: str) -> bool:
        """Whether the dotted name is a module or package of the project."""
        return module in self._paths or module in self._packages

    def path_of(self, module: str) -> str | None:
        """The file of a module; None for a package without `__init__.py`, and for what is not of the project."""
        return self._paths.get(module)

    def module(self, name: str) -> Module | None:
        """The parsed module, or None where there is no file.

        Raises:
            BadSource: the file is not Python; the message names file and line.
        """
        if name not in self._modules:
            path = self._paths.get(name)
            if path is None:
                return None
            self._modules[name] = Module(name, path, self._files[path])
        return self._modules[name]

    def digest(self, module: str) -> Digest:
        """Digest of a module's bytes as they stand."""
        return sha256(self._files[self._paths[module]])


def split_call(call: str) -> tuple[str, str]:
    """`flights.model:train` -> (`flights.model`, `train`)."""
    module, colon, function = call.partition(":")
    if not colon or not module or not function.isidentifier():
        raise BadStep(
            f"{call!r} does not name a function",
            remedy="write MODULE:FUNCTION, for example flights.model:train",
        )
    return module, function


def find_function(tree: SourceTree, call: str) -> tuple[Module, Unit]:
    """The definition of a step function, also when its module only re-exports it.

    Raises:
        NoSuchStep: no such module or function, with near matches.
        BadStep: the name is bound to something that is not one plain function.
    """
    name, function = split_call(call)
    module = tree.module(name)
    if module is None:
        raise NoSuchStep(
            f"the project has no module {name!r}", remedy=did_you_mean(name, tree.module_names), call=call
        )
    units = module.binders.get(function, [])
    if not units:
        known = [bound for unit in module.units if unit.kind == "function" for bound in unit.names]
        raise NoSuchStep(
            f"{module.path} has no function {function}()", remedy=did_you_mean(function, known), call=call
        )
    last = units[-1]
    if last.target is not None and last.target.name is not None and tree.holds(last.target.module):
        return find_function(tree, f"{last.target.module}:{last.target.name}")
    if last.kind != "function" or not isinstance(last.node, ast.FunctionDef):
        raise BadStep(
            f"{function} in {module.path} is no plain function, so it cannot be a step",
            remedy=f"write def {function}(...) at the top level of {module.path}",
        )
    return module, last


def steps_in(tree: SourceTree, module: str) -> tuple[str, ...]:
    """The functions of a module that bear `@step`, as `module:function`, in source order."""
    found = tree.module(module)
    if found is None:
        raise NoSuchStep(
            f"the project has no module {module!r}", remedy=did_you_mean(module, tree.module_names)
        )
    return tuple(f"{module}:{unit.names[0]}" for unit in found.units if unit.options is not None)
