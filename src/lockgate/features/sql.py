"""A view's SQL: its normal form, and what it may do.

The normal form is the token sequence: whitespace, comments and a closing semicolon are gone, and words are in
one case, because DuckDB reads both the same. It deliberately stops there. A printed syntax tree would also
hide a redundant pair of brackets, but its text changes whenever the parser learns a new construct, and with it
every hash ever published; tokens are as stable as the language. Telling two equal queries apart costs a
recomputation; calling two different ones equal would serve stale features.

The tree is used for what does not have to stay the same for ever: refusing SQL that reads something it did
not declare, or that would give another answer tomorrow.
"""

from __future__ import annotations

from typing import Final

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.features.definition import FeatureView

_CLOCK_AND_CHANCE: Final = frozenset(
    {
        *("now", "today", "current_timestamp", "current_date", "current_time", "get_current_timestamp"),
        *("get_current_time", "current_localtime", "current_localtimestamp", "localtime", "localtimestamp"),
        *(
            "transaction_timestamp",
            "random",
            "rand",
            "setseed",
            "uuid",
            "gen_random_uuid",
            "uuidv4",
            "uuidv7",
        ),
        *("nextval", "currval", "txid_current", "current_setting", "current_user", "version"),
    }
)


class BadSql(Invalid):
    """The SQL of a view cannot be used; the message says why."""

    code = "features.bad-sql"


class UndeclaredDataset(Invalid):
    """The SQL reads a table that the view does not declare, or declares one it does not read."""

    code = "features.undeclared-dataset"


class UnstableSql(Invalid):
    """The SQL depends on the clock or on chance, so it would give another answer tomorrow."""

    code = "features.unstable-sql"


def normal_form(sql: str) -> str:
    """The tokens of `sql`, one space apart.

    Raises:
        BadSql: it cannot be split into tokens.
    """
    try:
        tokens = sqlglot.tokenize(sql, read="duckdb")
    except SqlglotError as error:
        raise BadSql(
            f"cannot read the SQL: {_first_line(error)}", remedy="correct the SQL", sql=sql
        ) from error
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    return " ".join(_spell(sql, token) for token in tokens)


def check_sql(view: FeatureView) -> None:
    """Hold a view's SQL to its declaration.

    Raises:
        BadSql: not one SELECT, or not SQL.
        UndeclaredDataset: it reads a table outside `view.reads`, a file or a table function, or not all of them.
        UnstableSql: it calls a function whose answer depends on the clock or on chance.
    """
    try:
        trees = [tree for tree in sqlglot.parse(view.sql, read="duckdb") if tree is not None]
    except SqlglotError as error:
        raise BadSql(
            f"view {view.name!r}: {_first_line(error)}", remedy="correct the SQL", view=view.name
        ) from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise BadSql(f"view {view.name!r} is not one SELECT", remedy="write a single SELECT", view=view.name)
    tree = trees[0]
    for call in tree.find_all(exp.Func):
        name = (call.name if isinstance(call, exp.Anonymous) else call.sql_name()).lower()
        if name in _CLOCK_AND_CHANCE:
            raise UnstableSql(
                f"view {view.name!r} calls {name}(), whose answer is not the same every time",
                remedy="use a column of the dataset instead",
                view=view.name,
                function=name,
            )
    if tree.find(exp.TableSample) is not None:
        raise UnstableSql(
            f"view {view.name!r} takes a sample, which is not the same every time",
            remedy="select rows by a condition on their values",
            view=view.name,
            function="sample",
        )
    read = _tables(tree, view)
    unread = sorted(set(view.reads) - read)
    if unread:
        raise UndeclaredDataset(
            f"view {view.name!r} declares dataset {unread[0]!r} and does not read it",
            remedy="remove it from the view",
            view=view.name,
            dataset=unread[0],
        )


def _tables(tree: exp.Expr, view: FeatureView) -> set[str]:
    """The datasets `tree` reads. Names of WITH queries are no datasets wherever they appear."""
    local = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    read = set()
    for table in tree.find_all(exp.Table):
        if isinstance(table.this, exp.GenerateSeries):
            continue
        name = table.name.lower()
        if isinstance(table.this, exp.Identifier) and not table.db:
            if name in view.reads:
                read.add(name)
                continue
            if name in local:
                continue
        shown = table.sql(dialect="duckdb")
        raise UndeclaredDataset(
            f"view {view.name!r} reads {shown}, which is not among its datasets",
            remedy=did_you_mean(name, view.reads),
            view=view.name,
            table=shown,
        )
    return read


def _spell(sql: str, token: Token) -> str:
    """A token in one spelling. What stood in quotes keeps its case and its quotes, as written."""
    written = sql[token.start : token.end + 1]
    quoted = written[:1] in "'\"$" or written[-1:] in "'\"$"
    return written if quoted else written.lower()


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
