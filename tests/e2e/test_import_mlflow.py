"""A model from MLflow goes the same way as one that was trained here, and starts at its beginning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from operator_story import Project, Worlds

from command_line import NOT_FOUND, OK, REFUSED, USAGE

ASSETS = Path(__file__).parents[1] / "contract" / "imports" / "assets"
EXPECTED = json.loads((ASSETS / "expected.json").read_text())["lightgbm"]


@pytest.fixture
def project(worlds: Worlds, tmp_path: Path) -> Project:
    return worlds.one.copy(tmp_path / "flights")


def test_an_imported_version_is_a_candidate_and_nothing_more(project: Project) -> None:
    line = f"import mlflow {ASSETS / 'lightgbm'} --model flight-delay --json"
    told = project.types(line, by="ada").must(OK).json
    version = told["version"]
    assert (version, told["new"]) == ("flight-delay@2.0.0", True)
    known = project.asks(f"explain {version}")
    assert known["state"] == "candidate"
    assert known["imported"]["origin"]["system"] == "mlflow"
    assert not known["evidence"]
    assert not known["approvals"]
    # The same model is the same package, and gets no second number.
    again = project.types(line, by="bob").must(OK).json
    assert (again["version"], again["new"]) == (version, False)
    assert len(project.journal("registry.package-imported")) == 1

    refused = project.types(f"promote {version} --to prod", by="ada").must(REFUSED)
    assert "candidate" in refused.text
    assert "imported" in project.types(f"reproduce {version}").must(USAGE).text
    # It is judged on the rows of the newest version that was trained here, by the same gates.
    judged = project.types(f"judge {version}", by="ada")
    lines = {one["gate"]: one["verdict"] for one in project.asks(f"explain {version}")["evidence"]}
    assert lines["model.parity"] == "pass", judged.text
    assert lines["model.infra"] == "pass"
    assert lines["perf.absolute"] in ("pass", "fail")
    project.types("audit verify").must(OK)


def test_it_is_served_where_it_is_free_to_try(project: Project) -> None:
    told = project.types(f"import mlflow {ASSETS / 'lightgbm'} --model flight-delay --json", by="ada").json
    project.up()
    try:
        project.types(f"promote {told['version']} --to dev", by="ada").must(OK)
        example = json.loads((ASSETS / "lightgbm/input_example.json").read_text())
        rows = [dict(zip(example["columns"], values, strict=True)) for values in example["data"]]
        reply = project.predict(*rows, at="dev/flight-delay")
        assert reply.status == 200, reply.body
        assert reply.body["predictions"] == pytest.approx(EXPECTED, abs=1e-6)
    finally:
        project.down()


def test_a_model_that_nobody_declared_is_declared_on_the_way(project: Project) -> None:
    folder = ASSETS / "onnx"
    project.types(f"import mlflow {folder} --model churn", by="ada").must(REFUSED)
    wanted = f"import mlflow {folder} --model churn --tier low --owner growth --purpose 'Who leaves.'"
    project.types(wanted, by="ada").must(OK)
    assert project.asks("explain churn@1.0.0")["tier"] == "low"
    project.types(f"import mlflow {ASSETS / 'sklearn'} --model churn", by="ada").must(USAGE)
    project.types(f"import mlflow {ASSETS / 'nowhere'} --model churn", by="ada").must(NOT_FOUND)
