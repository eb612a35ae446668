"""From which columns of which datasets the inputs of a model are made.

SQL says it exactly enough (`features.trace`). Python does not: what the project's own steps take from a dataset is
known only by the names that stand in their code. So a request input is tied to the columns of its own name, and every
column that the code of the steps names is listed under the file that names it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lockgate.features.definition import Definitions, service_fields, service_views
from lockgate.features.trace import trace_view
from lockgate.pipeline.recipe import Recipe, Sources
from lockgate.registry.packages.package import ColumnUse, InputTrace


def input_traces(
    recipe: Recipe,
    sources: Sources,
    definitions: Definitions,
    columns: Mapping[str, Sequence[str]],
    code: Iterable[str],
) -> tuple[InputTrace, ...]:
    """The traces of a package: one per input in the contract's order, then one per file of code that names columns.

    Args:
        columns: the columns of each dataset, as they are in the data.
        code: labels of the closure of the project's steps, `late() in flights/labels.py`.
    """
    service = definitions.service(recipe.service)
    traced = {view.name: trace_view(view, columns) for view in service_views(service, definitions)}
    found = []
    for field in service_fields(service, definitions):
        view, _, feature = field.source.partition(":")
        uses = (
            tuple(
                ColumnUse(dataset, column, "name")
                for dataset in sorted(columns)
                for column in columns[dataset]
                if column.lower() == field.name.lower()
            )
            if field.source == "request"
            else tuple(ColumnUse(one.dataset, one.column, one.how) for one in traced[view][feature])
        )
        found.append(InputTrace(input=field.name, source=field.source, columns=uses))
    files = sorted({label.rpartition(" in ")[2] for label in code} & set(sources.code))
    read = _read_by({path: ast.parse(sources.code[path]) for path in files}, columns)
    return (*found, *(InputTrace(input="", source=path, columns=uses) for path, uses in read if uses))


def _read_by(
    files: Mapping[str, ast.Module], columns: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, tuple[ColumnUse, ...]]]:
    """Per file the columns it names, of the datasets that some function of the files is given by name."""
    arguments = {node.arg for tree in files.values() for node in ast.walk(tree) if isinstance(node, ast.arg)}
    given = sorted(arguments & set(columns))
    for path, tree in files.items():
        words = set(re.findall(r"\w+", " ".join(_texts(tree))))
        yield (
            path,
            tuple(
                ColumnUse(dataset, column, "code")
                for dataset in given
                for column in sorted(columns[dataset])
                if column in words
            ),
        )


def _texts(tree: ast.Module) -> Iterator[str]:
    """All text in the code but its docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value
