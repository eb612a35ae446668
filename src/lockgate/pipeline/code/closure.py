"""The code closure of a step: everything of the project's own source that can change what the step computes.

A cache is only worth having when it is never stale. Hashing the step's own source, as most tools do, serves an
old result as soon as a helper changes; hashing whole files reruns for each comment. Here the closure is found
from source text, by following names, without importing anything:

- Start at the step function. Each name it mentions that is bound at the top level of its module is reached:
  functions, classes (whole, with methods and parents), constants, through decorators, default arguments,
  lambdas and nested functions alike, and through every form of import, re-exports and star imports included.
- What is reached is followed in turn, across modules of the project. Each reached definition is one *part* with
  its own digest, so that a plan can say `clean() in flights/features.py` changed.
- Importing a module also *does* things: `REGISTRY.append(...)`, a decorator that registers, a loop, a patch of
  another module. For all modules that the step's module imports, a top-level statement counts when running it
  can change something that is reached, or something outside the project (`numpy.seterr`, `os.environ[...] =`).
  So a package's `__init__.py` counts when a name is resolved through it, and by such statements, not otherwise.
- Where order matters (a name bound twice, statements with effects), the order of the statements is a part.

Third-party code is not followed: it is pinned by the environment's digest, and listed in `distributions`.

What names cannot tell falls back to whole modules, and is named in `dynamic`: a module used as a value
(`getattr(features, name)`), `globals()`, `eval`, a module-level `__getattr__`. Where even the module is unknown
(`exec`, `import_module(name)`), every module of the project counts.

Taken on trust: a library function whose result is kept does not change its arguments; a decorator from outside
the project wraps a function and does not call it on import. Not seen: files a step opens by itself (declare
them as data sets), and what a process did before the step. Unused imports do not count.

Proof: tests/properties/test_closure_mutations.py mutates each literal, operator and statement of a project,
runs it, and finds that a step whose result changed has changed its closure.
"""

from __future__ import annotations

import builtins
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from lockgate.core.digests import Digest, digest_of, sha256
from lockgate.pipeline.code.source import Module, SourceTree, Unit, find_function
from lockgate.pipeline.code.syntax import Callee, Ref, Target

_BUILTINS = frozenset(dir(builtins))
_WHOLE_MODULE = frozenset({"globals", "eval"})
_WHOLE_MODULE_WHEN_EAGER = frozenset({"locals", "vars", "dir"})
_WHOLE_PROJECT = frozenset({"exec", "compile", "__import__"})
_CHANGES_ITS_ARGUMENT = frozenset({"next", "setattr", "delattr", "map", "filter"})
_READING_METHODS = frozenset(
    {
        "values",
        "keys",
        "items",
        "get",
        "copy",
        "index",
        "count",
        "join",
        "split",
        "strip",
        "format",
        "replace",
    }
    | {"lower", "upper", "startswith", "endswith", "union", "intersection", "difference", "encode"}
)
_QUIET_IMPORTLIB = ("metadata", "resources")
_MODULE_FACTS = frozenset({"__name__", "__file__", "__doc__", "__package__", "__path__", "__spec__"})

# How much a mention can change: nothing, the object if it is mutable, the binding or an attribute itself.
_READS, _TOUCHES, _STORES = 0, 1, 2


class Closure(msgspec.Struct, frozen=True, kw_only=True):
    """What a step's result depends on in the project's code.

    Attributes:
        parts: label -> digest, for example `clean() in flights/features.py`.
        dynamic: sentences that say where names were not enough and whole modules were taken; empty is best.
        modules: paths of the modules that importing the step runs, whether or not anything of them counts.
        distributions: top-level import names from outside the project and the standard library.
    """

    parts: dict[str, Digest]
    dynamic: tuple[str, ...]
    modules: tuple[str, ...]
    distributions: tuple[str, ...]

    @property
    def digest(self) -> Digest:
        return digest_of({"closure": 1, "parts": self.parts})


class Symbol(NamedTuple):
    module: str
    name: str


class Effect(NamedTuple):
    """What running a unit at import time may change: symbols with the weight of the touch, and the outside."""

    touched: Mapping[Symbol, int]
    outside: bool


def closure(tree: SourceTree, call: str) -> Closure:
    """The closure of the step function `call`, written `flights.model:train`.

    Deterministic, independent of the order of files; nothing is imported.

    Raises:
        NoSuchStep: there is no such function; near matches are given.
        BadSource: a module on the way is not valid Python.
    """
    module, _ = find_function(tree, call)
    name, _, function = call.partition(":")
    reach = _Reach(tree)
    reach.enter(name)
    reach.symbol(name, function, (), _READS)
    reach.enter(module.name)
    reach.settle()
    keep_docs = reach.reads_docs()
    return Closure(
        parts=dict(sorted(_parts(tree, reach, keep_docs).items())),
        dynamic=tuple(sorted(reach.dynamic)),
        modules=tuple(sorted(path for name in reach.executed if (path := tree.path_of(name)))),
        distributions=tuple(sorted(reach.distributions)),
    )


class _Reach:
    """What can be reached by name from a start; grows until nothing new turns up."""

    def __init__(self, tree: SourceTree) -> None:
        self.tree = tree
        self.symbols: dict[Symbol, int] = {}
        self.units: dict[tuple[str, int], Unit] = {}
        self.missing: set[Symbol] = set()
        self.whole: set[str] = set()
        self.executed: dict[str, None] = {}
        self.effects: set[tuple[str, int]] = set()
        self.distributions: set[str] = set()
        self.dynamic: set[str] = set()
        self.outside = False
        self._seen: set[tuple[Symbol, tuple[str, ...], int, bool]] = set()
        self._todo: list[tuple[Module, Unit]] = []

    # -- following names

    def drain(self) -> None:
        while self._todo:
            module, unit = self._todo.pop()
            for ref in unit.refs:
                self.mention(module, ref)

    def unit(self, module: Module, unit: Unit) -> None:
        key = (module.name, unit.index)
        if key not in self.units:
            self.units[key] = unit
            self._todo.append((module, unit))

    def mention(self, module: Module, ref: Ref) -> None:
        """Follow one mention made in `module`."""
        if ref.module is not None:
            self.inside(ref.module, ref.path, ref, self._level(module, ref))
            return
        name, *rest = ref.path
        if self._bound(module, name):
            self.symbol(module.name, name, tuple(rest), self._level(module, ref), ref)
        elif name in _BUILTINS:
            self._builtin(module, name, ref)

    def _builtin(self, module: Module, name: str, ref: Ref) -> None:
        self._foreign_stars(module, ref)
        if name in _WHOLE_PROJECT and not (name == "__import__" and ref.literal):
            self._project(f"{module.path} uses {name}()")
        elif name in _WHOLE_MODULE or (name in _WHOLE_MODULE_WHEN_EAGER and ref.eager and ref.use != "store"):
            self._module(module.name, f"{module.path} uses {name}()")

    def symbol(
        self,
        module_name: str,
        name: str,
        rest: tuple[str, ...],
        level: int,
        ref: Ref | None = None,
        *,
        imported: bool = False,
    ) -> None:
        """Reach a name at the top level of a module, and what it is imported from.

        With `imported`, the way here was a `from ... import`, whose own part tells the origin of the name.
        """
        symbol = Symbol(module_name, name)
        if (symbol, rest, level, imported) in self._seen:
            return
        self._seen.add((symbol, rest, level, imported))
        module = self.tree.module(module_name)
        if module is not None and ref is not None and _only_reads(module.binders.get(name, []), rest, ref):
            level = _READS
        self.symbols[symbol] = max(level, self.symbols.get(symbol, _READS))
        if module is None:
            return
        self.enter(module_name)
        binders = module.binders.get(name, [])
        for unit in binders:
            if not (imported and len(binders) == 1 and unit.target is not None):
                self.unit(module, unit)
        for target in module.targets.get(name, []):
            path = (*((target.name,) if target.name else ()), *rest)
            self.inside(target.module, path, ref, level, imported=target.name is not None)
        for unit in _stars(module):
            found = self.tree.module(unit.target.module) if unit.target else None
            if found is not None and self._bound(found, name):
                self.unit(module, unit)
                self.symbol(found.name, name, rest, level, ref)
                self.symbol(found.name, "__all__", (), _READS)
        if name not in module.binders:
            self._foreign_stars(module, ref)

    def _foreign_stars(self, module: Module, ref: Ref | None) -> None:
        """A name bound by nothing in the project may come from `from numpy import *`."""
        for unit in module.units:
            if (
                unit.target is not None
                and unit.target.name == "*"
                and not self.tree.holds(unit.target.module)
            ):
                self.unit(module, unit)
                self._outside(unit.target.module, (), ref)

    def inside(
        self, module: str, path: tuple[str, ...], ref: Ref | None, level: int, *, imported: bool = False
    ) -> None:
        """Follow `path` starting in the module with the dotted name `module`; `imported` as for `symbol`."""
        if not self.tree.holds(module):
            self._outside(module, path, ref)
            return
        self.enter(module)
        only_run = ref is not None and ref.use == "import"
        if not path:
            if not only_run:
                self._module(module, f"{self.tree.path_of(module) or module} is used as a value")
            return
        name, *rest = path
        found = self.tree.module(module)
        submodule = f"{module}.{name}"
        bound = found is not None and self._bound(found, name)
        if self.tree.holds(submodule):
            self.inside(submodule, tuple(rest), ref, level)
        if only_run:
            return
        if bound:
            self.symbol(module, name, tuple(rest), level, ref, imported=imported)
        elif not self.tree.holds(submodule):
            self._unbound(module, found, name, level)

    def _unbound(self, module: str, found: Module | None, name: str, level: int) -> None:
        if name == "__dict__" or (found is not None and "__getattr__" in found.binders):
            self._module(module, f"{self.tree.path_of(module)} is asked for {name!r} dynamically")
        elif name not in _MODULE_FACTS:
            # Bound by nobody we can see: an effect of some import may still bind it.
            self.symbols[Symbol(module, name)] = max(level, self.symbols.get(Symbol(module, name), _READS))
            self.missing.add(Symbol(module, name))

    def _bound(self, module: Module, name: str, seen: frozenset[str] = frozenset()) -> bool:
        if name in module.binders:
            return True
        for star in module.stars:
            found = self.tree.module(star) if star not in seen else None
            if found is not None and self._bound(found, name, seen | {module.name}):
                return True
            if not self.tree.holds(star) and name not in _BUILTINS:
                return True
        return False

    def _outside(self, module: str, path: tuple[str, ...], ref: Ref | None) -> None:
        top, *rest = (*module.split("."), *path)
        if top not in sys.stdlib_module_names:
            self.distributions.add(top)
        if ref is not None and ref.use in ("discard", "store"):
            self.outside = True
        elsewhere = top in ("runpy", "pkgutil") or (top == "sys" and rest[:1] == ["modules"])
        if top == "importlib":
            elsewhere = not rest or (rest[0] not in _QUIET_IMPORTLIB and not (ref and ref.literal))
        if elsewhere and ref is not None and ref.use != "import":
            self._project(f"{'.'.join((top, *rest))} can import anything")

    # -- falling back to whole modules

    def _module(self, name: str, why: str) -> None:
        self.dynamic.add(f"{why}: all of {self.tree.path_of(name) or name} counts")
        self._take_whole(name)

    def _take_whole(self, name: str) -> None:
        if name not in self.whole:
            self.whole.add(name)
            self.enter(name)
            module = self.tree.module(name)
            for unit in module.units if module else ():
                self.unit(module, unit)  # type: ignore[arg-type]
            for bound in module.binders if module else ():
                # Whoever holds the module itself can assign to any name of it.
                self.symbol(name, bound, ("",), _STORES)

    def _project(self, why: str) -> None:
        self.dynamic.add(f"{why}: every module of the project counts")
        for name in self.tree.module_names:
            self._take_whole(name)

    # -- what imports run

    def enter(self, name: str) -> None:
        """Note that importing `name` runs its module, its packages before it, and what they import."""
        parts = name.split(".")
        for n in range(1, len(parts) + 1):
            prefix = ".".join(parts[:n])
            if prefix in self.executed or not self.tree.holds(prefix):
                continue
            self.executed[prefix] = None
            module = self.tree.module(prefix)
            for imported in module.imports if module else ():
                self.enter(imported)
            # Kept in the order in which the modules finish, which is the order of their effects.
            del self.executed[prefix]
            self.executed[prefix] = None

    def settle(self) -> None:
        """Follow names, then add import-time effects on what was reached, until neither adds anything."""
        self.drain()
        while True:
            grown = False
            for name in list(self.executed):
                module = self.tree.module(name)
                for unit in module.units if module else ():
                    key = (name, unit.index)
                    if key not in self.effects and self._relevant(module, unit):  # type: ignore[arg-type]
                        self.effects.add(key)
                        grown = grown or key not in self.units
                        self.unit(module, unit)  # type: ignore[arg-type]
            if not grown:
                return
            self.drain()

    def _relevant(self, module: Module, unit: Unit) -> bool:
        if unit.target is not None or not (unit.calls_eagerly or unit.kind == "statement"):
            return False
        effect = _effect(self.tree, module, unit)
        if effect.outside:
            return True
        own = {Symbol(module.name, name) for name in unit.names}
        return any(
            level == _STORES or (level == _TOUCHES and not self._fixed(symbol))
            for symbol, level in effect.touched.items()
            if symbol in self.symbols and symbol not in own
        )

    def _fixed(self, symbol: Symbol) -> bool:
        module = self.tree.module(symbol.module)
        return module is not None and all(unit.fixed for unit in module.binders.get(symbol.name, []))

    def _level(self, module: Module, ref: Ref) -> int:
        if ref.use == "store":
            return _STORES
        if ref.use in ("read", "import"):
            return _READS
        if ref.use == "value" and ref.callee is not None and self.harmless(module, ref.callee):
            return _READS
        return _TOUCHES

    def harmless(self, module: Module, callee: Callee) -> bool:
        """Whether the thing called is of a library, so that it leaves its arguments alone."""
        if callee.module is not None:
            return not self.tree.holds(callee.module)
        if not callee.path:
            return False
        name = callee.path[0]
        if not self._bound(module, name):
            return name not in _CHANGES_ITS_ARGUMENT
        units = module.binders.get(name, [])
        return bool(units) and all(
            u.target is not None and not self.tree.holds(u.target.module) for u in units
        )

    def reads_docs(self) -> bool:
        return any("__doc__" in ref.path for unit in self.units.values() for ref in unit.refs)


def _stars(module: Module) -> list[Unit]:
    return [unit for unit in module.units if unit.target is not None and unit.target.name == "*"]


def _origin(tree: SourceTree, target: Target) -> Target:
    """Where an imported name is defined, through re-exports: importing it by another way is no change."""
    seen: set[Target] = set()
    while target.name is not None and target not in seen:
        seen.add(target)
        submodule = f"{target.module}.{target.name}"
        module = tree.module(target.module)
        binders = module.binders.get(target.name, []) if module else []
        if not binders and tree.holds(submodule):
            return Target(submodule, None)
        if len(binders) != 1 or binders[0].target is None:
            return target
        target = binders[0].target
    return target


def _text(tree: SourceTree, unit: Unit, keep_docs: bool) -> str:
    if unit.target is None:
        return unit.fingerprint(keep_docs=keep_docs)
    origin = _origin(tree, unit.target)
    return f"import {origin.module}:{origin.name}"


def _only_reads(binders: list[Unit], rest: tuple[str, ...], ref: Ref) -> bool:
    """Whether this use leaves the thing itself as it is; what a call does inside is followed anyway."""
    if ref.use in ("call", "discard") and not rest and binders:
        return all(unit.kind == "function" for unit in binders)
    if ref.use == "iterate":
        return all(unit.plain_elements for unit in binders)
    reading = ref.use == "call" and len(rest) == 1 and rest[0] in _READING_METHODS
    return reading and all(unit.container for unit in binders)


def _effect(tree: SourceTree, module: Module, unit: Unit) -> Effect:
    """What importing `unit` may change, through whatever it calls; worked out once per tree."""
    key = (module.name, unit.index)
    known = tree.effects.get(key)
    if isinstance(known, Effect):
        return known
    reach = _Reach(tree)
    eager = [ref for ref in unit.refs if ref.eager]
    for ref in eager:
        reach.mention(module, ref)
    direct = reach.outside
    marked = [
        (module, ref)
        for ref in eager
        if ref.use == "value" and ref.callee is not None and not reach.harmless(module, ref.callee)
    ]
    calls = (Callee(ref.module, ref.path) for ref in eager if ref.use in ("call", "discard"))
    if unit.kind in ("function", "class") and not all(reach.harmless(module, callee) for callee in calls):
        # A decorator or parent class of the project gets hold of the definition, and may call it.
        for ref in unit.refs:
            reach.mention(module, ref)
    reach.drain()
    for where, ref in marked:
        _mark(reach, where, ref)
    outside = direct or (unit.kind == "statement" and reach.outside)
    effect = Effect(reach.symbols, outside)
    tree.effects[key] = effect
    return effect


def _mark(reach: _Reach, module: Module, ref: Ref) -> None:
    """An argument of a function of the project, which may set attributes even of a function."""
    named = _Reach(reach.tree)
    named.mention(module, ref)
    for symbol in named.symbols:
        reach.symbols[symbol] = _STORES


def _parts(tree: SourceTree, reach: _Reach, keep_docs: bool) -> dict[str, Digest]:
    texts: dict[str, list[str]] = {}
    for (name, _), unit in sorted(reach.units.items()):
        if name not in reach.whole:
            label = f"{_label(unit)} in {tree.path_of(name)}"
            texts.setdefault(label, []).append(_text(tree, unit, keep_docs))
    for name in sorted(reach.whole):
        module = tree.module(name)
        if module is not None:
            texts[f"all of {module.path}"] = [module.fingerprint(keep_docs=keep_docs)]
    for symbol in sorted(reach.missing):
        texts[f"{symbol.name} (not found) in {tree.path_of(symbol.module) or symbol.module}"] = [""]
    for label, order in _orders(tree, reach):
        texts[label] = order
    return {label: sha256("\n".join(text).encode("utf-8", "surrogatepass")) for label, text in texts.items()}


def _label(unit: Unit) -> str:
    if unit.kind == "statement" and not unit.names:
        return "module statements"
    shown = ", ".join(unit.names[:3]) + (", ..." if len(unit.names) > 3 else "")
    return {"function": f"{shown}()", "class": f"class {shown}", "import": f"import of {shown}"}.get(
        unit.kind, shown
    )


def _orders(tree: SourceTree, reach: _Reach) -> Iterator[tuple[str, list[str]]]:
    """The order of statements, for the modules where exchanging two of them could change a result."""
    busy: list[str] = []
    for name in sorted({name for name, _ in reach.units} - reach.whole):
        module = tree.module(name)
        if module is None:
            continue
        units = [unit for unit in module.units if (name, unit.index) in reach.units]
        acting = [unit for unit in units if (name, unit.index) in reach.effects]
        if acting:
            busy.append(name)
        rebound = _rebound(tree, units)
        if acting or rebound:
            moving = [u for u in units if u.kind != "function" or u in acting or rebound & set(u.names)]
            yield f"order of statements in {module.path}", [_label(unit) for unit in moving]
    if len(busy) > 1:
        yield "order of imports", [name for name in reach.executed if name in busy]


def _rebound(tree: SourceTree, units: list[Unit]) -> set[str]:
    """Names that several of the units bind, star imports included: the last one wins."""
    names = Counter(name for unit in units for name in unit.names)
    for unit in units:
        if unit.target is not None and unit.target.name == "*":
            module = tree.module(unit.target.module)
            names.update(name for name in (module.binders if module else ()) if name in names)
    return {name for name, n in names.items() if n > 1}
