"""What the functions of a project have to give, by their place in the graph, held to it where it is first used."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lockgate.adapters.runners.artifacts import REMEDIES
from lockgate.core.errors import Invalid, did_you_mean
from lockgate.pipeline.artifact import Artifact
from lockgate.registry.packages.contract import InputRejected, ModelContract, encode_columns


class WrongResult(Invalid):
    """A function of the project gave something else than its place in the graph asks for."""

    code = "pipeline.wrong-result"


def as_table(value: object, call: str) -> pa.Table:
    """What `call` (`module:function`) returned, which has to be a table."""
    if isinstance(value, pa.Table):
        return value
    kind = type(value)
    raise WrongResult(
        f"{_shown(call)} returned {_described(value)}, not a pyarrow.Table",
        remedy=REMEDIES.get(kind.__module__.partition(".")[0], "return a pyarrow.Table"),
        call=call,
    )


def require_booster(model: Artifact, call: str) -> None:
    """Refuse what no package can hold as its model."""
    if model.format != "lightgbm-text":
        raise WrongResult(
            f"{_shown(call)} returned {model.format}, not a lightgbm.Booster",
            remedy="return the booster that lightgbm.train() gives",
            call=call,
        )


def evaluation_rows(value: object, call: str, contract: ModelContract, label: str) -> pa.Table:
    """The rows that versions are judged by: one at least, with the label and with inputs that the model takes."""
    rows = as_table(value, call)
    if not rows.num_rows:
        raise WrongResult(
            f"{_shown(call)} returned no rows, so there is nothing to judge by",
            remedy="look at what it filters by, and at the params it takes",
            call=call,
        )
    if label not in rows.column_names:
        raise WrongResult(
            f"{_shown(call)} returned no column {label!r}, which lockgate.toml names as the label",
            remedy=did_you_mean(label, rows.column_names),
            call=call,
            column=label,
        )
    try:
        encode_columns(contract, rows)
    except InputRejected as error:
        raise WrongResult(
            f"{_shown(call)} returned rows that the model does not take: {error}",
            remedy="correct the rows, or what the feature service declares of the field",
            call=call,
            **error.facts,
        ) from error
    return rows


def _shown(call: str) -> str:
    module, _, name = call.partition(":")
    return f"{name}() of {module}"


def _described(value: Any) -> str:
    if value is None:
        return "nothing"
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
