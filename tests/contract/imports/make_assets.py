"""Made the models and recorded answers beside this file, once, with the real MLflow; no test runs it.

    python -m venv /tmp/mlflow && /tmp/mlflow/bin/pip install mlflow lightgbm onnx skl2onnx 'protobuf<7'
    /tmp/mlflow/bin/mlflow server --backend-store-uri sqlite:////tmp/mlflow/m.db \
        --artifacts-destination /tmp/mlflow/artifacts --serve-artifacts --port 5599 &
    /tmp/mlflow/bin/python make_assets.py assets http://127.0.0.1:5599

What the libraries themselves answer is written beside the models: `expected.json` holds it for the rows of each
input example.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_ROWS, N_EXAMPLES = 400, 4
PARAMS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 5,
    "num_threads": 1,
    "verbose": -1,
    "deterministic": True,
    "seed": 1,
    "min_data_in_leaf": 10,
}
KEPT = ("MLmodel", "model.lgb", "model.onnx", "input_example.json", "requirements.txt")


def flights() -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(7)
    rows = pd.DataFrame(
        {
            "distance": rng.uniform(50, 2500, N_ROWS).round(1),
            "scheduled_minute": rng.integers(0, 1440, N_ROWS).astype("int64"),
            "carrier": pd.Categorical(rng.choice(["AA", "DL", "UA"], N_ROWS), categories=["AA", "DL", "UA"]),
        }
    )
    late = (
        (rows["scheduled_minute"] > 900) * 0.5 + (rows["carrier"] == "UA") * 0.3 + rng.uniform(0, 1, N_ROWS)
    )
    return rows, (late > 0.9).astype(int)


def models(folder: Path) -> None:
    rows, late = flights()
    plain = rows[["distance", "scheduled_minute"]]
    matrix = plain.to_numpy(dtype=np.float32)
    expected: dict[str, list[float]] = {}

    def answers(name: str, values: Any) -> None:
        expected[name] = [float(value) for value in values[:N_EXAMPLES]]

    booster = lightgbm.train(PARAMS, lightgbm.Dataset(rows, late), num_boost_round=6)
    answers("lightgbm", booster.predict(rows))
    signature = infer_signature(rows, booster.predict(rows))
    mlflow.lightgbm.save_model(
        booster, folder / "lightgbm", signature=signature, input_example=rows.head(N_EXAMPLES)
    )
    mlflow.lightgbm.save_model(booster, folder / "unsigned")
    value = lightgbm.train(
        {**PARAMS, "objective": "regression"}, lightgbm.Dataset(plain, plain["distance"] * 0.1), 4
    )
    mlflow.lightgbm.save_model(
        value, folder / "regression", signature=infer_signature(plain, value.predict(plain))
    )
    wrapper = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1).fit(plain, late)
    mlflow.lightgbm.save_model(
        wrapper, folder / "wrapper", signature=infer_signature(plain, wrapper.predict(plain))
    )
    logistic = make_pipeline(StandardScaler(), LogisticRegression()).fit(matrix, late)
    answers("onnx", logistic.predict_proba(matrix)[:, 1])
    probabilities = logistic.predict_proba(matrix).astype(np.float32)
    for name, options in (("onnx", {"zipmap": False}), ("onnx_zipmap", None)):
        mlflow.onnx.save_model(
            to_onnx(logistic, matrix[:1], options=options, target_opset=13),
            folder / name,
            signature=infer_signature(matrix, probabilities),
            input_example=matrix[:N_EXAMPLES],
        )
    linear = LinearRegression().fit(matrix, late)
    answers("onnx_value", linear.predict(matrix))
    mlflow.onnx.save_model(
        to_onnx(linear, matrix[:1], target_opset=13),
        folder / "onnx_value",
        signature=infer_signature(plain.astype("float32"), linear.predict(matrix).astype(np.float32)),
        input_example=plain.astype("float32").head(N_EXAMPLES),
    )
    mlflow.sklearn.save_model(logistic, folder / "sklearn", signature=infer_signature(matrix, late))
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def tidy(folder: Path) -> None:
    """Only what the reader reads; nothing that has to be unpickled."""
    for path in folder.rglob("*"):
        if path.is_file() and path.parent != folder and path.name not in KEPT:
            path.unlink()


def recorded(folder: Path, server: str) -> None:
    """Two registered versions, and what the server answers to each question about them."""
    mlflow.set_tracking_uri(server)
    mlflow.set_experiment("flights")
    rows, late = flights()
    plain = rows[["distance", "scheduled_minute"]]
    for rounds in (6, 9):
        booster = lightgbm.train(PARAMS, lightgbm.Dataset(plain, late), num_boost_round=rounds)
        with mlflow.start_run(run_name=f"rounds-{rounds}"):
            mlflow.log_params({**PARAMS, "rounds": rounds})
            mlflow.log_metric("auc", 0.71 + rounds / 1000)
            mlflow.set_tag("team", "flight-data")
            mlflow.lightgbm.log_model(
                booster,
                name="model",
                signature=infer_signature(plain, booster.predict(plain)),
                input_example=plain.head(N_EXAMPLES),
                registered_model_name="flight-delay",
            )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("flight-delay", "champion", "2")
    client.transition_model_version_stage("flight-delay", "1", "Production")
    client.set_model_version_tag("flight-delay", "1", "approved_by", "risk-office")
    found: dict[str, str] = {}

    def ask(path: str) -> str:
        with urllib.request.urlopen(server + path) as answer:
            found[path] = answer.read().decode()
        return found[path]

    api, files = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"
    ask(f"{api}registered-models/alias?name=flight-delay&alias=champion")
    for version in ("1", "2"):
        known = json.loads(ask(f"{api}model-versions/get?name=flight-delay&version={version}"))
        ask(f"{api}runs/get?run_id={known['model_version']['run_id']}")
        where = json.loads(ask(f"{api}model-versions/get-download-uri?name=flight-delay&version={version}"))
        base = where["artifact_uri"].removeprefix("mlflow-artifacts:/")
        for name in ("MLmodel", "model.lgb", "input_example.json", "requirements.txt"):
            ask(files + quote(f"{base}/{name}"))
    (folder / "server.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    models(target)
    tidy(target)
    recorded(target, sys.argv[2])
