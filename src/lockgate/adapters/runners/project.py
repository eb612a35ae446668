"""The user's project inside a Python process: its source read, its modules imported afresh, its functions called.

Modules are imported from a mapping of source bytes, so the code that was planned is the code that runs, even
when a file is edited while a long step is at work. Bytecode files are neither read nor written: Python trusts
one by the second of the edit and the size of the file, and two quick edits of equal length are one to it.

Each step sees modules of its own, imported when it starts and forgotten when it ends. So a step cannot
see what another one left in a global, and runs as it would if the other one had come from the cache.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import CodeType, ModuleType, TracebackType

import msgspec
import numpy as np

# sys.path, sys.modules and the working directory belong to the whole process.
_PROCESS = threading.RLock()
_COMPILED: dict[str, tuple[bytes, CodeType]] = {}
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why the project's code gave no result; travels from the worker to its parent.

    Attributes:
        bases: names of the exception's classes, the most derived first.
        where: last line of the project's code that was running, `flights/model.py:12`; empty when none was.
        line: the text of that line.
    """

    exception: str
    bases: tuple[str, ...]
    message: str
    where: str = ""
    line: str = ""


class UserCodeFailed(Exception):
    """The project's code raised; `failure` says what."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def read_sources(project_dir: str) -> dict[str, bytes]:
    """Every `.py` file below the directory by relative path with `/`, sorted; hidden folders, virtual
    environments and installed packages are left out."""
    found: dict[str, bytes] = {}
    for folder, folders, files in os.walk(project_dir):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))  # noqa: PTH110, PTH118
        )
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(folder, name)  # noqa: PTH118
                with open(path, "rb") as file:  # noqa: PTH123
                    found[os.path.relpath(path, project_dir).replace(os.sep, "/")] = file.read()
    return dict(sorted(found.items()))


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_data(self, path: str) -> bytes:
        return self._source if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        known = _COMPILED.get(self.path)
        if known is None or known[0] != self._source:
            code = compile(self._source, self.path, "exec", dont_inherit=True)
            known = _COMPILED[self.path] = (self._source, code)
        return known[1]


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, root: str, sources: Mapping[str, bytes]) -> None:
        self._root = root
        self._sources = sources
        self._folders = {path.rpartition("/")[0] for path in sources if path.endswith(".py")}
        self._folders |= {folder[:n] for folder in self._folders for n, c in enumerate(folder) if c == "/"}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        place = fullname.replace(".", "/")
        for file in (f"{place}/__init__.py", f"{place}.py"):
            source = self._sources.get(file)
            if source is not None:
                full = f"{self._root}/{file}"
                inside = [f"{self._root}/{place}"] if file.endswith("/__init__.py") else None
                return importlib.util.spec_from_file_location(
                    fullname, full, loader=_Loader(fullname, full, source), submodule_search_locations=inside
                )
        if place not in self._folders:
            return None
        # A folder without __init__.py yields to an installed package of the same name, as in Python.
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        if found is None:
            found = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            found.submodule_search_locations = [f"{self._root}/{place}"]
        return found


@contextlib.contextmanager
def importable(project_dir: str, sources: Mapping[str, bytes]) -> Iterator[None]:
    """Within the block the project's modules import from `sources`, and the working directory is the project's.

    Afterwards `sys.path`, `sys.modules`, `sys.meta_path` and the working directory are as before. One block at a
    time per process; others wait.
    """
    root = os.path.realpath(project_dir)
    tops = {path.partition("/")[0].removesuffix(".py") for path in sources if path.endswith(".py")}
    finder = _Finder(root, sources)
    with _PROCESS, contextlib.chdir(root):
        # No module is loaded without its package, so this spares a look through the thousands of others.
        hidden = {} if tops.isdisjoint(sys.modules) else _loaded(sys.modules, tops, root)
        for name in hidden:
            del sys.modules[name]
        others = set(sys.modules)
        sys.meta_path.insert(0, finder)
        sys.path.insert(0, root)
        _forget_listings(root)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            with contextlib.suppress(ValueError):
                sys.path.remove(root)
            for name in _loaded(sys.modules.keys() - others, tops, root):
                del sys.modules[name]
            sys.modules.update(hidden)


def _forget_listings(root: str) -> None:
    """Let the import system look into the project's folders anew; what is installed did not change."""
    for place in list(sys.path_importer_cache):
        if place == root or place.startswith(root + os.sep):
            del sys.path_importer_cache[place]


def _loaded(names: Iterable[str], tops: set[str], root: str) -> dict[str, ModuleType]:
    """Which of `names` are the project's modules; a library that shares a top-level name is not one of them."""
    inside = root + os.sep
    found: dict[str, ModuleType] = {}
    for name in [name for name in names if name.partition(".")[0] in tops]:
        module = sys.modules[name]
        places = [getattr(module, "__file__", None) or "", *(getattr(module, "__path__", None) or ())]
        if any(os.path.realpath(place).startswith(inside) for place in places if place):
            found[name] = module
    return found


def call(
    target: str, arguments: Mapping[str, object], *, seed: int, wants: Sequence[str], root: str
) -> object:
    """Import `module:function` and call it; inside an `importable` block.

    `random` and NumPy's old global generator are seeded for the call and put back afterwards. The argument
    `seed` gets the lower 31 bits, which every library accepts; `rng` is made of all 64.

    Raises:
        UserCodeFailed: importing or calling raised, `SystemExit` included.
    """
    module, _, function = target.partition(":")
    given = dict(arguments)
    if "seed" in wants:
        given["seed"] = seed & 0x7FFF_FFFF
    if "rng" in wants:
        given["rng"] = np.random.default_rng(seed)
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed & 0xFFFF_FFFF)  # noqa: TID251 -- for code that uses the global generator all the same
    try:
        return getattr(importlib.import_module(module), function)(**given)  # noqa: TID251
    except (Exception, SystemExit) as error:
        raise UserCodeFailed(describe(error, root)) from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def describe(error: BaseException, root: str) -> Failure:
    """What an exception of the project's code was, and at which of its lines."""
    root = os.path.realpath(root)
    where, line = _last_line(error.__traceback__, root + os.sep)
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith(root + os.sep):
        where = f"{error.filename.removeprefix(root + os.sep)}:{error.lineno}"
        line = (error.text or "").strip()
    return Failure(
        exception=type(error).__name__,
        bases=tuple(kind.__name__ for kind in type(error).__mro__),
        message=str(error),
        where=where,
        line=line,
    )


def _last_line(traceback: TracebackType | None, inside: str) -> tuple[str, str]:
    where = line = ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        known = _COMPILED.get(file)
        if file.startswith(inside) and known is not None:
            where = f"{file.removeprefix(inside)}:{traceback.tb_lineno}"
            lines = known[0].decode("utf-8", "replace").splitlines()
            line = lines[traceback.tb_lineno - 1].strip() if traceback.tb_lineno <= len(lines) else ""
        traceback = traceback.tb_next
    return where, line
