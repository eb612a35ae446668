"""Python source as values: a fingerprint blind to how code looks, and the names that code refers to.

Both work on `ast` trees alone; nothing is imported or run.

`normalise` and `fingerprint` decide what "the same code" means. Comments, formatting, quotes, docstrings and
other statements that are bare constants are no part of it; neither are annotations, except where Python code
commonly acts on them: fields of a class, parameters of a function with a decorator that is not known to ignore
them, and what a function returns. The fingerprint leaves out empty fields, so that a newer Python which adds a
field to its syntax tree still finds the same code.

`references` follows Python's rules of scope: a parameter or local variable hides a global name. That matters
here more than elsewhere, because a step's *argument* usually bears the name of another step's *function*, and
must not count as a use of its code. A name bound in a class body hides nothing, which errs on the safe side.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Use = Literal["read", "iterate", "value", "call", "discard", "store", "import"]

# Decorators that never look at annotations; others might (singledispatch, validators, dependency injection).
_BLIND_TO_ANNOTATIONS = frozenset(
    {"step", "staticmethod", "classmethod", "property", "setter", "cache", "lru_cache", "cached_property"}
    | {"wraps", "contextmanager", "abstractmethod", "override", "njit", "jit"}
)
# A library call whose result is kept is taken to be free of side effects, unless it is named like these.
_NAMED_LIKE_AN_EFFECT = re.compile(
    r"(set|seed|use|register|enable|disable|config|configure|patch|install)(_.*)?\Z"
    r"|seterr|setlocale|setrecursionlimit|basicConfig|filterwarnings|simplefilter"
)
_SKIPPED_FIELDS = frozenset({"ctx", "type_comment", "kind", "type_ignores"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Callee(NamedTuple):
    """What is called, as written: see `Ref.module` and `Ref.path`; an empty path means "not known"."""

    module: str | None
    path: tuple[str, ...]


class Ref(NamedTuple):
    """One mention of a name that lives outside the function or statement that mentions it.

    Attributes:
        module: None when `path` starts at a global name of the own module, else the dotted name of the module
            that an import inside a function names, and `path` starts inside that module.
        path: the name and the attributes read from it: `features.clean` is `("features", "clean")`.
        use: how; `discard` is a call whose result nobody keeps, `read` can change nothing, `iterate` could
            change the elements.
        eager: whether it is evaluated when the module is imported, not when a function is called.
        callee: the call it is an argument of, None when it is not one.
        literal: for a call, whether its first argument is a constant string.
    """

    module: str | None
    path: tuple[str, ...]
    use: Use
    eager: bool
    callee: Callee | None = None
    literal: bool = False


class Target(NamedTuple):
    """What an import binds a name to: a module, or a name inside one."""

    module: str
    name: str | None


class Bindings(NamedTuple):
    """Names bound by statements in their own scope, the names declared global, and import targets by name."""

    bound: frozenset[str]
    global_names: frozenset[str]
    targets: dict[str, list[Target]]
    stars: list[str]
    modules: list[str]


def dotted(node: ast.expr) -> tuple[str, ...]:
    """`a.b.c` as its parts; empty when the expression is not a plain chain of names."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ()
    return (node.id, *reversed(parts))


def absolute(package: str, module: str | None, level: int) -> str:
    """The dotted name that `from ..module import x` means inside `package`."""
    if level == 0:
        return module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - (level - 1)] if package else []
    return ".".join([*kept, *([module] if module else [])])


def normalise(tree: ast.Module) -> None:
    """Remove, in place, the annotations that nothing acts on."""
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS) and _blind(node.decorator_list):
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                argument.annotation = None
            for rest in (arguments.vararg, arguments.kwarg):
                if rest is not None:
                    rest.annotation = None
        if isinstance(node, ast.ClassDef):
            continue
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                statements[:] = [_unannotated(statement) for statement in statements]


def _blind(decorators: Sequence[ast.expr]) -> bool:
    names = (dotted(node.func if isinstance(node, ast.Call) else node) for node in decorators)
    return all(name and name[-1] in _BLIND_TO_ANNOTATIONS for name in names)


def _unannotated(statement: ast.stmt) -> ast.stmt:
    if not isinstance(statement, ast.AnnAssign):
        return statement
    if statement.value is None:
        statement.annotation = ast.Constant(value=None)
        return statement
    return ast.copy_location(ast.Assign(targets=[statement.target], value=statement.value), statement)


def fingerprint(node: ast.AST, *, keep_docs: bool = False) -> str:
    """The code as text; equal for two trees exactly when they mean the same to Python.

    With `keep_docs`, docstrings count: for code that reads `__doc__`.
    """
    out: list[str] = []
    _write(node, out, keep_docs)
    return "".join(out)


def _write(node: object, out: list[str], keep_docs: bool) -> None:
    if isinstance(node, ast.Constant):
        value = node.value
        # hex(): repr of a very long int is refused by Python.
        shown = hex(value) if type(value) is int else repr(value)
        out.append(f"<{type(value).__name__} {shown}>")
    elif isinstance(node, ast.AST):
        out.append(f"({type(node).__name__}")
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or field in _SKIPPED_FIELDS or value == []:
                continue
            out.append(f" {field}=")
            _write(value, out, keep_docs)
        out.append(")")
    elif isinstance(node, list):
        out.append("[")
        for item in node:
            if keep_docs or not is_bare_constant(item):
                _write(item, out, keep_docs)
                out.append(",")
        out.append("]")
    else:
        out.append(repr(node))


def is_bare_constant(node: object) -> bool:
    """Whether a statement is a docstring, an ellipsis or another constant on a line of its own."""
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or isinstance(node, ast.Pass)


def bindings(nodes: Iterable[ast.AST], package: str) -> Bindings:
    """What the statements bind in their own scope; bodies of functions and classes inside are not entered."""
    found = _Binder(package)
    stack = list(nodes)
    while stack:
        stack.extend(found.take(stack.pop()))
    return Bindings(
        frozenset(found.bound - found.declared - found.outer),
        frozenset(found.declared),
        found.targets,
        found.stars,
        found.modules,
    )


class _Binder:
    def __init__(self, package: str) -> None:
        self.package = package
        self.bound: set[str] = set()
        self.declared: set[str] = set()
        self.outer: set[str] = set()
        self.targets: dict[str, list[Target]] = {}
        self.stars: list[str] = []
        self.modules: list[str] = []

    def take(self, node: ast.AST) -> Iterable[ast.AST]:
        """Note what `node` binds; return the nodes below it that belong to the same scope."""
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            self.bound.add(node.name)
            return node.decorator_list
        if isinstance(node, ast.Lambda):
            return node.args.defaults
        if isinstance(node, _COMPREHENSIONS):
            # Targets of a comprehension are its own; `:=` inside binds in the scope around it.
            return [inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._imports(node)
            return ()
        if isinstance(node, ast.Global):
            self.declared.update(node.names)
        elif isinstance(node, ast.Nonlocal):
            self.outer.update(node.names)
        elif isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                self.bound.add(node.id)
        elif isinstance(node, (ast.MatchAs, ast.MatchStar, ast.ExceptHandler)):
            if node.name is not None:
                self.bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            self.bound.add(node.rest)
        if is_type_checking_block(node):
            return ()
        return ast.iter_child_nodes(node)

    def _imports(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                self.modules.append(alias.name)
                name = alias.asname or alias.name.partition(".")[0]
                target = Target(alias.name if alias.asname else name, None)
            else:
                module = absolute(self.package, node.module, node.level)
                self.modules.append(module)
                if alias.name == "*":
                    self.stars.append(module)
                    continue
                # The name may be a submodule, which the import then runs.
                self.modules.append(f"{module}.{alias.name}")
                name, target = alias.asname or alias.name, Target(module, alias.name)
            self.bound.add(name)
            self.targets.setdefault(name, []).append(target)


def is_type_checking_block(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:` without an else: never run."""
    return isinstance(node, ast.If) and not node.orelse and dotted(node.test)[-1:] == ("TYPE_CHECKING",)


def is_main_block(node: ast.AST) -> bool:
    """`if __name__ == "__main__":` without an else: never run by an import."""
    if not isinstance(node, ast.If) or node.orelse or not isinstance(node.test, ast.Compare):
        return False
    sides = [node.test.left, *node.test.comparators]
    return (
        len(sides) == 2
        and isinstance(node.test.ops[0], ast.Eq)
        and any(dotted(side) == ("__name__",) for side in sides)
        and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)
    )


def references(statement: ast.stmt, package: str) -> tuple[Ref, ...]:
    """Every mention in a module-level statement of a name that lives outside it."""
    collector = _References(package)
    collector.visit(statement)
    return tuple(dict.fromkeys(collector.refs))


class _Scope:
    __slots__ = ("global_names", "hidden", "is_class", "targets")

    def __init__(self, is_class: bool, hidden: frozenset[str], names: Bindings | None) -> None:
        self.is_class = is_class
        self.hidden = hidden
        self.global_names = names.global_names if names else frozenset()
        self.targets = names.targets if names else {}


class _References(ast.NodeVisitor):
    def __init__(self, package: str) -> None:
        self.package = package
        self.refs: list[Ref] = []
        self.scopes: list[_Scope] = []
        self.depth = 0
        self.callee: Callee | None = None

    # -- names

    def _origins(self, name: str) -> list[tuple[str | None, tuple[str, ...]]]:
        """Where a name comes from: global `[(None, (name,))]`, imports of a function, or nothing if local."""
        innermost = True
        for scope in reversed(self.scopes):
            if scope.is_class:
                if innermost and name in scope.targets:
                    return [(t.module, (t.name,) if t.name else ()) for t in scope.targets[name]]
                innermost = False
                continue
            innermost = False
            if name in scope.global_names:
                break
            if name in scope.targets:
                return [(t.module, (t.name,) if t.name else ()) for t in scope.targets[name]]
            if name in scope.hidden:
                return []
        return [(None, (name,))]

    def _mention(
        self, node: ast.expr, use: Use, *, more: tuple[str, ...] = (), literal: bool = False
    ) -> None:
        """Note a chain of names; `a[0].b` is a use of `a`."""
        path = dotted(node)
        if path:
            for module, start in self._origins(path[0]):
                full = (*start, *path[1:], *more)
                self.refs.append(Ref(module, full, use, self.depth == 0, self.callee, literal))
        elif isinstance(node, ast.Attribute):
            self._mention(node.value, use)
        elif isinstance(node, ast.Subscript):
            self._mention(node.value, use)
            self.visit(node.slice)
        else:
            self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._mention(node, "value")
        elif any(node.id in scope.global_names for scope in self.scopes):
            self._mention(node, "store")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._mention(node, "value" if isinstance(node.ctx, ast.Load) else "store")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._mention(node.value, "read" if isinstance(node.ctx, ast.Load) else "store")
        self.visit(node.slice)

    def _read(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Name, ast.Attribute)):
                self._mention(child, "read")
            else:
                self.visit(child)

    visit_BinOp = visit_Compare = visit_UnaryOp = visit_FormattedValue = _read

    # -- calls

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call):
            self._call(value, discarded=True)
        else:
            self.visit(value)

    def visit_Call(self, node: ast.Call) -> None:
        self._call(node, discarded=False)

    def _call(self, node: ast.Call, *, discarded: bool) -> None:
        path = dotted(node.func)
        effect = discarded or (path and _NAMED_LIKE_AN_EFFECT.match(path[-1]))
        first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        self._mention(node.func, "discard" if effect else "call", literal=isinstance(first, str))
        around, self.callee = self.callee, Callee(None, ())
        # `out=` and `inplace=` change an argument although the result may be kept.
        if path and not discarded and not {"out", "inplace"} & {keyword.arg for keyword in node.keywords}:
            origins = self._origins(path[0])
            if len(origins) == 1:
                self.callee = Callee(origins[0][0], (*origins[0][1], *path[1:]))
        arguments = node.args
        if path and path[-1] in ("import_module", "__import__") and isinstance(first, str):
            self.refs.append(Ref(first, (), "value", self.depth == 0))
        elif path in (("getattr",), ("setattr",), ("delattr",)) and len(arguments) > 1:
            named = arguments[1].value if isinstance(arguments[1], ast.Constant) else None
            more = (named,) if isinstance(named, str) and dotted(arguments[0]) else ()
            self._mention(arguments[0], "value" if path[0] == "getattr" else "store", more=more)
            arguments = arguments[1:]
        for argument in arguments:
            self.visit(argument)
        for keyword in node.keywords:
            self.visit(keyword.value)
        self.callee = around

    # -- scopes

    def _function(self, arguments: ast.arguments, body: Sequence[ast.AST]) -> None:
        names = bindings(body, self.package)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [rest for rest in (arguments.vararg, arguments.kwarg) if rest is not None]
        hidden = names.bound | {argument.arg for argument in every}
        around, self.callee = self.callee, None
        self.scopes.append(_Scope(False, frozenset(hidden), names))
        self.depth += 1
        for statement in body:
            self.visit(statement)
        self.depth -= 1
        self.scopes.pop()
        self.callee = around

    def _defaults(self, arguments: ast.arguments) -> None:
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self._decorator(decorator)
        self._defaults(node.args)
        if node.decorator_list and not _blind(node.decorator_list):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            for annotation in (*(argument.annotation for argument in every), node.returns):
                if annotation is not None:
                    self.visit(annotation)
        self._function(node.args, node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        self._function(node.args, [node.body])

    def _decorator(self, node: ast.expr) -> None:
        """A decorator is called with the thing it decorates."""
        if isinstance(node, ast.Call):
            self.visit(node)
        else:
            self._mention(node, "call")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self._decorator(decorator)
        for parent in (*node.bases, *(keyword.value for keyword in node.keywords)):
            # Making a subclass runs __init_subclass__ and the metaclass of the parent: a call.
            if dotted(parent):
                self._mention(parent, "call")
            else:
                self.visit(parent)
        self.scopes.append(_Scope(True, frozenset(), bindings(node.body, self.package)))
        for statement in node.body:
            self.visit(statement)
        self.scopes.pop()

    def _iterate(self, node: ast.expr) -> None:
        if dotted(node):
            self._mention(node, "iterate")
        else:
            self.visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._iterate(node.iter)
        for part in (node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.visit_For(node)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        first, *rest = node.generators
        self._iterate(first.iter)
        targets = frozenset(
            inner.id
            for generator in node.generators
            for inner in ast.walk(generator.target)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        )
        self.scopes.append(_Scope(False, targets, None))
        for generator in node.generators:
            self.visit(generator.target)
            for condition in generator.ifs:
                self.visit(condition)
        for generator in rest:
            self._iterate(generator.iter)
        for element in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(element)
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    # -- imports inside statements and functions

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.refs.append(Ref(alias.name, (), "import", self.depth == 0))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = absolute(self.package, node.module, node.level)
        for alias in node.names:
            path = () if alias.name == "*" else (alias.name,)
            self.refs.append(Ref(module, path, "import", self.depth == 0))

    def visit_If(self, node: ast.If) -> None:
        if not is_type_checking_block(node):
            self.generic_visit(node)
