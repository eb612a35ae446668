from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from lockgate.adapters.runners import artifacts
from lockgate.adapters.runners.artifacts import NotStorable
from lockgate.adapters.runners.local import Inputs, LocalRunner, UnknownKind
from lockgate.adapters.runners.project import read_sources
from lockgate.adapters.sql.step_cache import SqliteStepCache
from lockgate.core.digests import Digest, sha256
from lockgate.pipeline.artifact import Artifact
from lockgate.pipeline.code.source import SourceTree
from lockgate.pipeline.execute import execute
from lockgate.pipeline.graph import Node, wire_steps
from lockgate.pipeline.plan import plan
from lockgate.pipeline.ports import StepFailed
from lockgate.pipeline.step import StepOptions
from lockgate.testing.clock import FakeClock
from lockgate.testing.memory_blobs import MemoryBlobs

KEY = sha256(b"key")
BOTH = pytest.mark.parametrize("slow", [False, True], ids=["here", "worker"])


class Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = MemoryBlobs()

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.root / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def node(self, call: str, *, slow: bool = False, **more: Any) -> Node:
        options = StepOptions(slow=slow, timeout_s=more.pop("timeout_s", None))
        return Node(name=call.partition(":")[2], call=call, options=options, **more)

    def run(self, call: str, inputs: dict[str, object] | None = None, **more: Any) -> Any:
        runner = LocalRunner(self.root, self.blobs)
        given = {name: artifacts.store(v, self.blobs, step="test") for name, v in (inputs or {}).items()}
        artifact = runner.run(self.node(call, **more), KEY, given)
        assert runner.has(artifact)
        assert artifact.n_bytes == len(self.blobs.get(artifact.digest))
        return artifacts.load(artifact, self.blobs)


@pytest.fixture
def made(tmp_path: Path) -> Project:
    return Project(tmp_path)


@BOTH
def test_inputs_and_params_go_by_name_and_the_result_is_kept(made: Project, slow: bool) -> None:
    made.write(
        flights__model="from . import deep\ndef train(table, rounds): return deep.add(table, rounds)\n"
    )
    made.write(flights__deep="def add(a, b): return {'n': a.num_rows + b}\n")
    table = pa.table({"x": [1, 2, 3]})
    assert made.run("flights.model:train", {"table": table}, params={"rounds": 2}, slow=slow) == {"n": 5}


@BOTH
def test_the_project_is_the_working_directory_and_the_first_import_path(made: Project, slow: bool) -> None:
    made.write(m="import os, sys\ndef where(): return [os.getcwd(), sys.path[0]]\n")
    before = (Path.cwd(), list(sys.path), list(sys.meta_path), set(sys.modules))
    assert made.run("m:where", slow=slow) == [str(made.root)] * 2
    assert (Path.cwd(), sys.path, sys.meta_path) == before[:3]
    assert "m" not in sys.modules


@BOTH
def test_an_edited_module_is_imported_afresh(made: Project, slow: bool) -> None:
    made.write(m="import deep\ndef f(): return deep.N\n", deep="N = 1\n")
    assert made.run("m:f", slow=slow) == 1
    # The same size and most likely the same second: a bytecode file would be trusted.
    made.write(deep="N = 2\n")
    assert made.run("m:f", slow=slow) == 2
    assert list(made.root.rglob("*.pyc")) == []


def test_a_stale_bytecode_file_is_not_used(made: Project) -> None:
    made.write(m="def f(): return 1\n")
    subprocess.run([sys.executable, "-c", "import m"], cwd=made.root, check=True)
    state = (made.root / "m.py").stat()
    made.write(m="def f(): return 2\n")
    os.utime(made.root / "m.py", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert made.run("m:f") == 2


def test_modules_of_the_caller_are_put_back(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write(mine="N = 1\ndef f(): return N\n")
    monkeypatch.syspath_prepend(str(made.root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import mine  # type: ignore[import-not-found]

    mine.N = 5
    assert made.run("mine:f") == 1
    assert sys.modules["mine"] is mine
    assert mine.f() == 5
    del sys.modules["mine"]


def test_a_folder_named_like_a_library_does_not_unload_it(made: Project) -> None:
    made.write(json__notes="", numpy__notes="", m="import json, numpy\ndef f(): return json.loads('1')\n")
    assert made.run("m:f") == 1
    assert sys.modules["numpy"] is np


@BOTH
def test_steps_do_not_see_what_others_left_in_globals(made: Project, slow: bool) -> None:
    made.write(m="SEEN = []\ndef f():\n    SEEN.append(1)\n    return len(SEEN)\n")
    assert [made.run("m:f", slow=slow) for _ in range(2)] == [1, 1]


@BOTH
def test_the_code_that_was_planned_is_the_code_that_runs(made: Project, slow: bool) -> None:
    made.write(m="import deep\ndef f(): return deep.N\n", deep="N = 1\n")
    runner = LocalRunner(made.root, made.blobs, sources=SourceTree(read_sources(str(made.root))))
    made.write(deep="N = 2\n")
    artifact = runner.run(made.node("m:f", slow=slow), KEY, {})
    assert artifacts.load(artifact, made.blobs) == 1


@BOTH
def test_seeds_come_from_the_key(made: Project, slow: bool) -> None:
    made.write(
        m="import random\nimport numpy as np\n"
        "def f(seed, rng): return [seed, rng.random(), random.random(), np.random.random()]\n"
    )
    random_state = np.random.get_state()[1].tolist()  # type: ignore[index]
    one = made.run("m:f", slow=slow, wants=("seed", "rng"))
    assert one == made.run("m:f", slow=not slow, wants=("seed", "rng"))
    assert 0 <= one[0] < 2**31
    assert np.random.get_state()[1].tolist() == random_state  # type: ignore[index]


def test_a_worker_has_a_fixed_hash_seed_and_the_threads_it_was_given(made: Project) -> None:
    made.write(
        m="import os\ndef f(): return [os.environ[n] for n in ('PYTHONHASHSEED', 'OMP_NUM_THREADS')]\n"
    )
    runner = LocalRunner(made.root, made.blobs, threads={"OMP_NUM_THREADS": "3"})
    artifact = runner.run(made.node("m:f", slow=True), KEY, {})
    assert artifacts.load(artifact, made.blobs) == ["0", "3"]
    assert runner.settings["OMP_NUM_THREADS"] == "3"
    assert runner.settings["PYTHONHASHSEED"] == "0"


# -- what goes wrong


@BOTH
def test_a_failure_names_the_last_line_of_the_project(made: Project, slow: bool) -> None:
    made.write(m="import json\nimport deep\ndef f(): return deep.g()\n")
    made.write(deep="import json\ndef g():\n    return json.loads('{')  # here\n")
    with pytest.raises(StepFailed) as caught:
        made.run("m:f", slow=slow)
    error = caught.value
    assert error.message.startswith("step f failed with JSONDecodeError: Expecting property name")
    assert "at deep.py:3: return json.loads('{')  # here" in error.message
    assert error.remedy == "fix deep.py line 3, then run it again: finished steps are kept"
    assert (error.facts["step"], error.facts["exception"]) == ("f", "JSONDecodeError")
    assert "ValueError" in error.facts["bases"]
    assert error.facts["where"] == "deep.py:3"


@BOTH
@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_library\ndef f(): ...", "ModuleNotFoundError"),
        ("def f(): = 1", "SyntaxError"),
        ("import sys\ndef f(): sys.exit(3)", "SystemExit: 3"),
        ("def f(x): ...", "TypeError"),
    ],
)
def test_failures_of_every_kind_are_step_failures(made: Project, slow: bool, source: str, says: str) -> None:
    made.write(m=source)
    with pytest.raises(StepFailed, match=says):
        made.run("m:f", slow=slow)
    assert "m" not in sys.modules


def test_what_a_worker_printed_comes_with_its_failure(made: Project) -> None:
    made.write(
        m="import os, sys\ndef f():\n    print('loading')\n    print('odd', file=sys.stderr)\n"
        "    os.system('echo below')\n    raise ValueError('no')\n"
    )
    with pytest.raises(StepFailed) as caught:
        made.run("m:f", slow=True)
    assert caught.value.facts["output"] == ["loading", "odd", "below"]
    assert caught.value.message.endswith("last lines of its output:\n  loading\n  odd\n  below")


def test_lines_are_passed_on_as_they_come(made: Project) -> None:
    made.write(m="def f():\n    print('one')\n    print('two')\n    return 1\n")
    lines: list[tuple[str, str]] = []
    runner = LocalRunner(made.root, made.blobs, echo=lambda step, line: lines.append((step, line)))
    runner.run(made.node("m:f", slow=True), KEY, {})
    assert lines == [("f", "one"), ("f", "two")]


def test_a_fast_step_does_not_print_to_standard_output(
    made: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write(m="def f():\n    print('one')\n    return 1\n")
    made.run("m:f")
    assert capsys.readouterr() == ("", "one\n")


@pytest.mark.parametrize(
    ("body", "name", "remedy"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", "ran out of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV", "native library crashed"),
        ("os._exit(3)", "SystemExit", "look at what it printed"),
    ],
)
def test_a_worker_that_dies_is_a_step_failure(made: Project, body: str, name: str, remedy: str) -> None:
    made.write(m=f"import os, signal\ndef f():\n    print('so far')\n    {body}\n")
    with pytest.raises(StepFailed) as caught:
        made.run("m:f", slow=True)
    assert caught.value.facts["exception"] == name
    assert remedy in caught.value.remedy
    assert "so far" in caught.value.message


def test_a_worker_that_takes_too_long_is_stopped_with_all_it_started(made: Project) -> None:
    made.write(
        m="import subprocess, sys\ndef f():\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "    print(child.pid)\n    child.wait()\n"
    )
    with pytest.raises(StepFailed, match=r"took longer than 6 s and was stopped") as caught:
        made.run("m:f", slow=True, timeout_s=6.0)
    assert caught.value.facts["exception"] == "TimeoutError"
    assert "timeout_s" in caught.value.remedy
    assert not _alive(int(caught.value.facts["output"][0]))


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_worker_ends_when_its_parent_is_killed(
    made: Project, eventually: Callable[[Callable[[], bool]], object]
) -> None:
    made.write(
        m="import os, pathlib, threading\ndef f():\n    pathlib.Path('pid.part').write_text(str(os.getpid()))\n"
        "    os.rename('pid.part', 'pid')\n    threading.Event().wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(made.root)],
        env={**os.environ, "TMPDIR": str(made.root)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    eventually((made.root / "pid").exists)
    worker = int((made.root / "pid").read_text())
    assert _alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    eventually(lambda: not _alive(worker))
    assert list(made.root.glob("lockgate-step-*")) == []


_PARENT = """
import sys
from pathlib import Path
from lockgate.adapters.runners.local import LocalRunner
from lockgate.pipeline.graph import Node
from lockgate.pipeline.step import StepOptions
from lockgate.testing.memory_blobs import MemoryBlobs
node = Node(name="f", call="m:f", options=StepOptions(slow=True))
LocalRunner(Path(sys.argv[1]), MemoryBlobs()).run(node, "sha256:" + "0" * 64, {})
"""


# -- built-in kinds


def test_a_builtin_reads_its_inputs_when_it_asks(made: Project) -> None:
    def double(node: Node, key: Digest, inputs: Inputs, seed: int) -> object:
        assert set(inputs) == {"x", "unreadable"}
        assert inputs.artifact("unreadable").format == "snapshot"
        return [node.params["times"], inputs["x"], inputs.load("x"), key == KEY, seed > 0]

    runner = LocalRunner(made.root, made.blobs, builtin={"double": double})
    given = {
        "x": artifacts.store([1], made.blobs, step="t"),
        "unreadable": Artifact(digest=made.blobs.put(b"{}"), format="snapshot", n_bytes=2),
    }
    artifact = runner.run(Node(name="d", kind="double", params={"times": 2}), KEY, given)
    assert artifacts.load(artifact, made.blobs) == [2, [1], [1], True, True]


def test_a_builtin_may_keep_its_output_itself(made: Project) -> None:
    kept = Artifact(digest=made.blobs.put(b"manifest"), format="snapshot", n_bytes=8)
    runner = LocalRunner(made.root, made.blobs, builtin={"snapshot": lambda *_: kept})
    assert runner.run(Node(name="flights", kind="snapshot"), KEY, {}) == kept


def test_an_unknown_kind_is_refused(made: Project) -> None:
    with pytest.raises(UnknownKind) as caught:
        LocalRunner(made.root, made.blobs, builtin={"snapshot": lambda *_: 1}).run(
            Node(name="x", kind="snapshto"), KEY, {}
        )
    assert "'snapshot'" in caught.value.remedy


# -- values


def _booster() -> Any:
    x = np.arange(200.0).reshape(100, 2)
    settings = {"objective": "regression", "verbose": -1, "num_threads": 1, "deterministic": True}
    return lightgbm.train(settings, lightgbm.Dataset(x, x[:, 0]), 2)


@pytest.mark.parametrize(
    ("value", "format"),
    [
        (pa.table({"a": pa.array([1, None]), "b": ["x", "y"]}), "parquet"),
        (np.arange(6, dtype=np.float32).reshape(2, 3), "npy"),
        (np.array(3.5), "npy"),
        (b"\x00\x01", "bytes"),
        ({"a": [1, 2.5, None, True, "x"], "b": {}}, "json"),
        (3.25, "json"),
        ("text", "json"),
        (None, "json"),
    ],
    ids=str,
)
def test_values_come_back_equal_and_their_bytes_are_stable(value: Any, format: str) -> None:
    found, data = artifacts.encode(value, step="s")
    back = artifacts.decode(found, data)
    assert found == format
    assert artifacts.encode(back, step="s") == (found, data)
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype  # type: ignore[attr-defined]
        assert back.shape == value.shape  # type: ignore[attr-defined]
        np.testing.assert_array_equal(back, value)
    else:
        assert back == value


def test_a_booster_keeps_its_predictions_bit_for_bit() -> None:
    booster = _booster()
    format, data = artifacts.encode(booster, step="s")
    rows = np.random.default_rng(0).random((50, 2)) * 200
    assert format == "lightgbm-text"
    back: Any = artifacts.decode(format, data)
    assert (back.predict(rows) == booster.predict(rows)).all()
    assert artifacts.encode(_booster(), step="s")[1] == data


def test_the_bytes_of_a_table_do_not_depend_on_its_chunks() -> None:
    whole = pa.table({"a": list(range(1000)), "b": [str(n % 7) for n in range(1000)]})
    parts = pa.concat_tables([whole.slice(0, 10), whole.slice(10, 500), whole.slice(510)])
    assert artifacts.encode(whole, step="s") == artifacts.encode(parts, step="s")


def test_the_bytes_of_an_array_do_not_depend_on_its_order_in_memory() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert artifacts.encode(np.asfortranarray(array), step="s") == artifacts.encode(array, step="s")


def test_scalars_of_numpy_and_tuples_become_plain() -> None:
    value = {"auc": np.float64(0.5), "n": np.int64(3), "ok": np.bool_(True), "t": (1, 2)}
    assert artifacts.decode(*artifacts.encode(value, step="s")) == {
        "auc": 0.5,
        "n": 3,
        "ok": True,
        "t": [1, 2],
    }


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"auc": float("nan")}, "NaN"),
        ([float("inf")], "NaN, an infinity"),
        ({1: "a"}, "not text"),
        ({"a": [object()]}, r"builtins.object in the result\['a'\]\[0\]"),
        (np.array([object()]), "Python objects"),
        ({"a": 1j}, "complex"),
        ({1, 2}, "set"),
    ],
)
def test_values_that_would_not_survive_are_refused(value: object, says: str) -> None:
    with pytest.raises(NotStorable, match=says):
        artifacts.encode(value, step="s")


@BOTH
def test_pickle_is_refused_with_what_to_return_instead(made: Project, slow: bool) -> None:
    made.write(m="import pandas as pd\ndef f(): return pd.DataFrame({'a': [1]})\n")
    with pytest.raises(NotStorable) as caught:
        made.run("m:f", slow=slow)
    assert "pandas" in caught.value.message
    assert "pyarrow.Table.from_pandas" in caught.value.remedy


def test_a_format_nobody_knows_is_refused() -> None:
    with pytest.raises(artifacts.UnknownFormat):
        artifacts.decode("pickle", b"")


# -- the whole way


def test_sources_leave_out_what_is_not_the_project(made: Project) -> None:
    made.write(flights__model="x = 1\n", a__b__c="")
    for place in (".git/x.py", "env/lib/y.py", "flights/__pycache__/z.py", "flights/data.csv"):
        (made.root / place).parent.mkdir(parents=True, exist_ok=True)
        (made.root / place).write_text("")
    (made.root / "env/pyvenv.cfg").write_text("")
    assert read_sources(str(made.root)) == {"a/b/c.py": b"", "flights/model.py": b"x = 1\n"}


SOURCE = """
import lockgate
from lockgate.pipeline.step import step
import pyarrow as pa
from clean import tidy

@step
def table(flights): return pa.table({"x": [tidy(v) for v in flights]})

@step(slow=True)
def train(table, rounds, rng): return {"mean": sum(table["x"].to_pylist()) / rounds, "noise": rng.random()}

@step
def score(train): return train["mean"]
"""


def test_edit_plan_run_and_run_again(made: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    made.write(m=SOURCE, clean="def tidy(x): return x * 2\n")
    database = tmp_path_factory.mktemp("store") / "steps.db"

    def nodes() -> tuple[SourceTree, tuple[Node, ...]]:
        tree = SourceTree(read_sources(str(made.root)))
        given = [Node(name="flights", kind="given")]
        calls = ["m:table", "m:train", "m:score"]
        return tree, wire_steps(tree, calls, params={"rounds": 2}, given=given)

    def run() -> Any:
        tree, graph = nodes()
        runner = LocalRunner(made.root, made.blobs, sources=tree, builtin={"given": lambda *_: [1, 2, 3]})
        with SqliteStepCache(database, "main/delay") as cache:
            return execute(graph, cache, runner, sha256(b"lock"), FakeClock())

    def why() -> dict[str, str]:
        with SqliteStepCache(database, "main/delay") as cache:
            return {s.name: f"{s.action}: {s.why}" for s in plan(nodes()[1], cache, sha256(b"lock")).steps}

    first = run()
    assert artifacts.load(first.output("score"), made.blobs) == 6.0
    assert run() == first
    made.write(clean="# twice\ndef tidy(x):\n    'Doc.'\n    return (x * 2)\n")
    assert set(why().values()) == {"cached: nothing changed"}
    made.write(clean="def tidy(x): return x * 3\n")
    assert why() == {
        "flights": "cached: nothing changed",
        "table": "run: helper tidy() in clean.py changed",
        "train": "run: because table runs",
        "score": "run: because train runs",
    }
    assert artifacts.load(run().output("score"), made.blobs) == 9.0


def test_a_plan_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import lockgate.pipeline.plan, lockgate.pipeline.execute, lockgate.pipeline.graph\n"
        "import lockgate.adapters.sql.step_cache\n"
        "heavy = {'numpy', 'pyarrow', 'pandas', 'lightgbm', 'duckdb', 'asyncio'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
