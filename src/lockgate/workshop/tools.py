"""The tools that built-in steps and gates work with: a table engine, two inference engines, a converter.

This module alone loads the training libraries, which takes longer than everything else together. Hence it is named
in `Premises` and loaded when something is to be run, not when something is to be planned or shown.
"""

from __future__ import annotations

from lockgate.adapters.engines.convert import lightgbm_to_onnx
from lockgate.adapters.engines.duckdb_tables import DuckDBTables
from lockgate.adapters.engines.lightgbm_engine import LightGbmEngine
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.adapters.runners.builtin import Tools


def tools() -> Tools:
    """A new set."""
    return Tools(
        tables=DuckDBTables(),
        engines={"onnx": OnnxEngine(), "lightgbm-text": LightGbmEngine()},
        convert=lightgbm_to_onnx,
    )
