"""The tree drawn at the head of core/errors.py is the tree of the classes."""

from __future__ import annotations

import re

from house_rules import ERROR_ROOT, FIRST_LEVEL

from lockgate.core import errors

BRANCH = re.compile(r"^ {4}[├└]── (?P<name>\w+) +(?P<meaning>\S.*)$", re.MULTILINE)


def test_the_drawing_names_every_first_level_class_in_order():
    drawn = [match["name"] for match in BRANCH.finditer(errors.__doc__ or "")]
    written = [
        kind.__name__ for kind in errors.LockgateError.__subclasses__() if kind.__module__ == errors.__name__
    ]
    assert drawn == written == list(FIRST_LEVEL)


def test_the_drawing_starts_at_the_root():
    assert f"\n    {ERROR_ROOT}\n" in (errors.__doc__ or "")


def test_the_first_level_knows_neither_http_nor_exit_codes():
    for kind in errors.LockgateError.__subclasses__():
        assert not {"status", "http_status", "exit_code"} & set(vars(kind))
