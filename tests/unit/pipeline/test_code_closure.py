from __future__ import annotations

import pytest

from lockgate.pipeline.code.closure import Closure, closure
from lockgate.pipeline.code.source import BadSource, NoSuchStep, SourceTree, steps_in
from lockgate.pipeline.step import BadStep


def close(files: dict[str, str], call: str = "model:train") -> Closure:
    return closure(SourceTree({path: text.encode() for path, text in files.items()}), call)


def of(source: str, **more: str) -> Closure:
    files = {"model.py": source, **{f"{name}.py": text for name, text in more.items()}}
    return close(files)


def test_labels_say_what_and_where() -> None:
    found = close(
        {
            "flights/model.py": "from .features import clean\ndef train(x): return clean(x)\n",
            "flights/features.py": "import numpy as np\nLIMIT = 3\nclass Box: pass\n"
            "def clean(x): return np.clip(x, Box, LIMIT)\n",
        },
        "flights.model:train",
    )
    assert set(found.parts) == {
        "train() in flights/model.py",
        "import of clean in flights/model.py",
        "clean() in flights/features.py",
        "class Box in flights/features.py",
        "LIMIT in flights/features.py",
        "import of np in flights/features.py",
    }
    assert found.distributions == ("numpy",)
    assert found.dynamic == ()
    assert found.modules == ("flights/features.py", "flights/model.py")


def test_the_digest_does_not_depend_on_the_order_of_files() -> None:
    files = {"model.py": "import other\ndef train(): return other.x\n", "other.py": "x = 1\n"}
    assert close(files).digest == close(dict(reversed(files.items()))).digest


SAME = {
    "parentheses": ("def train(x): return x + 1", "def train(x):\n    return (x\n      + 1)"),
    "quotes": ("def train(): return 'a'", 'def train(): return "a"'),
    "number form": ("def train(): return 1000", "def train(): return 1_000"),
    "docstring": ("def train(): return 1", "def train():\n    'doc'\n    return 1"),
    "argument annotation": ("def train(x): return x", "def train(x: int): return x"),
    "annotated local": (
        "def train():\n    x = 1\n    return x",
        "def train():\n    x: int = 1\n    return x",
    ),
    "annotated constant": ("N = 1\ndef train(): return N", "N: int = 1\ndef train(): return N"),
    "future import": ("def train(): return 1", "from __future__ import annotations\ndef train(): return 1"),
    "unused import": ("def train(): return 1", "import json\ndef train(): return 1"),
    "type checking": (
        "def train(x): return x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\ndef train(x): return x",
    ),
    "main block": (
        "def train(x): return x",
        "def train(x): return x\nif __name__ == '__main__':\n    print(train(2))",
    ),
    "step options": (
        "import lockgate\n@lockgate.step\ndef train(x): return x",
        "import lockgate\n@lockgate.step(slow=True, timeout_s=60)\ndef train(x): return x",
    ),
    "step from its module": (
        "def train(x): return x",
        "from lockgate.pipeline.step import step as mark\n@mark\ndef train(x): return x",
    ),
    "order of constants": (
        "A = 1\nB = 2\ndef train(): return A, B",
        "B = 2\nA = 1\ndef train(): return A, B",
    ),
    "argument hides a function": (
        "def features(): return 1\ndef train(features): return features",
        "def features(): return 2\ndef train(features): return features",
    ),
    "local hides a function": (
        "def rows(): return 1\ndef train():\n    rows = 3\n    return rows",
        "def rows(): return 2\ndef train():\n    rows = 3\n    return rows",
    ),
    "comprehension target hides a function": (
        "def row(): return 1\ndef train(x): return [row for row in x]",
        "def row(): return 2\ndef train(x): return [row for row in x]",
    ),
    "handler hides a function": (
        "def e(): return 1\ndef train():\n    try: pass\n    except ValueError as e: return e",
        "def e(): return 2\ndef train():\n    try: pass\n    except ValueError as e: return e",
    ),
    "pattern hides a function": (
        "def rest(): return 1\ndef train(x):\n    match x:\n        case [_, *rest]: return rest",
        "def rest(): return 2\ndef train(x):\n    match x:\n        case [_, *rest]: return rest",
    ),
    "enclosing function hides": (
        "def n(): return 1\ndef train():\n    n = 0\n    def f():\n        nonlocal n\n        n += 1\n    return f",
        "def n(): return 2\ndef train():\n    n = 0\n    def f():\n        nonlocal n\n        n += 1\n    return f",
    ),
    "unrelated registration": (
        "A = []\nB = []\nB.append(1)\ndef train(): return A",
        "A = []\nB = []\nB.append(2)\ndef train(): return A",
    ),
    "unrelated library value": (
        "import re\nA = re.compile('a')\ndef train(): return 1",
        "import re\nA = re.compile('b')\ndef train(): return 1",
    ),
    "library value made of a shared container": (
        "import pandas\nA = ['x']\nB = pandas.Index(A)\ndef train(): return A",
        "import pandas\nA = ['x']\nB = pandas.Index(A, name='b')\ndef train(): return A",
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_edits_that_mean_nothing_to_the_step(case: str) -> None:
    one, two = SAME[case]
    assert of(one).parts == of(two).parts


DIFFERENT = {
    "number becomes text": ("def train(): return 1", "def train(): return '1'"),
    "true becomes one": ("def train(): return True", "def train(): return 1"),
    "int becomes float": ("def train(): return 1", "def train(): return 1.0"),
    "return annotation": ("def train(): return 1", "def train() -> int: return 1"),
    "keyword-only": ("def train(a, b=1): return a", "def train(a, *, b=1): return a"),
    "docstring that is read": (
        "def h():\n    'a'\ndef train(): return h.__doc__",
        "def h():\n    'b'\ndef train(): return h.__doc__",
    ),
    "exchanged aliases": (
        "from math import sin as f, cos as g\ndef train(x): return f(x) - g(x)",
        "from math import cos as f, sin as g\ndef train(x): return f(x) - g(x)",
    ),
    "annotation of a dispatching function": (
        "import functools\n@functools.singledispatch\ndef h(x): return 0\n@h.register\ndef _(x: int): return 1\n"
        "def train(x): return h(x)",
        "import functools\n@functools.singledispatch\ndef h(x): return 0\n@h.register\ndef _(x: str): return 1\n"
        "def train(x): return h(x)",
    ),
    "parent that registers its children": (
        "ALL = []\nclass P:\n    def __init_subclass__(cls): ALL.append(cls)\nclass C(P):\n    x = 1\n"
        "def train(): return [c.x for c in ALL]",
        "ALL = []\nclass P:\n    def __init_subclass__(cls): ALL.append(cls)\nclass C(P):\n    x = 2\n"
        "def train(): return [c.x for c in ALL]",
    ),
    "attribute set on a function": (
        "def h(): return h.n\nh.n = 1\ndef train(): return h()",
        "def h(): return h.n\nh.n = 2\ndef train(): return h()",
    ),
    "attribute set on a class": (
        "class C: n = 1\nC.n = 2\ndef train(): return C.n",
        "class C: n = 1\nC.n = 3\ndef train(): return C.n",
    ),
    "setattr with a constant": (
        "class C: n = 1\nsetattr(C, 'n', 2)\ndef train(): return C.n",
        "class C: n = 1\nsetattr(C, 'n', 3)\ndef train(): return C.n",
    ),
    "function marked by a function of the project": (
        "def mark(f): f.n = 1\ndef h(): return 0\nmark(h)\ndef train(): return h.n",
        "def mark(f): f.n = 2\ndef h(): return 0\nmark(h)\ndef train(): return h.n",
    ),
    "change through an alias": (
        "A = [1]\nB = A\nB.append(2)\ndef train(): return A",
        "A = [1]\nB = A\nB.append(3)\ndef train(): return A",
    ),
    "change by a kept call": (
        "A = {'x': 1}\n_ = A.pop('x')\ndef train(): return A",
        "A = {'x': 1}\n_ = A.pop('y')\ndef train(): return A",
    ),
    "change by a function that is called": (
        "A = []\ndef fill(): A.append(1)\nfill()\ndef train(): return A",
        "A = []\ndef fill(): A.append(2)\nfill()\ndef train(): return A",
    ),
    "change of an element in a loop": (
        "A = [[1]]\nfor a in A: a.append(2)\ndef train(): return A",
        "A = [[1]]\nfor a in A: a.append(3)\ndef train(): return A",
    ),
    "setting of a library": (
        "import numpy as np\nnp.seterr(all='raise')\ndef train(): return np",
        "import numpy as np\nnp.seterr(all='warn')\ndef train(): return np",
    ),
    "setting of a library, kept": (
        "import numpy as np\nold = np.seterr(all='raise')\ndef train(): return np",
        "import numpy as np\nold = np.seterr(all='warn')\ndef train(): return np",
    ),
    "environment variable": (
        "import os\nos.environ['A'] = '1'\ndef train(): return 1",
        "import os\nos.environ['A'] = '2'\ndef train(): return 1",
    ),
    "setting by a function of the project": (
        "import random\ndef prepare(): random.seed(1)\nprepare()\ndef train(): return 1",
        "import random\ndef prepare(): random.seed(2)\nprepare()\ndef train(): return 1",
    ),
    "order of effects": (
        "A = []\nA.append(1)\nA.append(2)\ndef train(): return A",
        "A = []\nA.append(2)\nA.append(1)\ndef train(): return A",
    ),
    "value taken before or after a rebinding": (
        "X = 1\nY = X\nX = 2\ndef train(): return X, Y",
        "X = 1\nX = 2\nY = X\ndef train(): return X, Y",
    ),
    "which definition is last": (
        "def h(): return 1\ndef h(): return 2\ndef train(): return h()",
        "def h(): return 2\ndef h(): return 1\ndef train(): return h()",
    ),
    "global set by a function": (
        "def init():\n    global N\n    N = 1\ndef train():\n    init()\n    return N",
        "def init():\n    global N\n    N = 2\ndef train():\n    init()\n    return N",
    ),
    "shadowed builtin": ("def train(x): return max(x)", "def max(x): return 1\ndef train(x): return max(x)"),
    "star from outside": ("def train(x): return sum(x)", "from numpy import *\ndef train(x): return sum(x)"),
    "walrus": (
        "def train(x): return [y := v for v in x]",
        "def train(x): return [y := v + 1 for v in x]",
    ),
    "globals": (
        "def h(): return 1\ndef train(): return globals()['h']()",
        "def h(): return 2\ndef train(): return globals()['h']()",
    ),
    "names bound through globals": (
        "N = 0\nglobals()['N'] = 1\ndef train(): return N",
        "N = 0\nglobals()['N'] = 2\ndef train(): return N",
    ),
    "eval": ("N = 1\ndef train(): return eval('N')", "N = 2\ndef train(): return eval('N')"),
    "exec": ("N = 1\nexec('N = 2')\ndef train(): return N", "N = 1\nexec('N = 3')\ndef train(): return N"),
    "default of a lambda": (
        "N = 1\nh = lambda x=N: x\ndef train(): return h()",
        "N = 2\nh = lambda x=N: x\ndef train(): return h()",
    ),
    "decorator argument": (
        "import functools\n@functools.lru_cache(1)\ndef h(): return 1\ndef train(): return h()",
        "import functools\n@functools.lru_cache(2)\ndef h(): return 1\ndef train(): return h()",
    ),
    "metaclass": (
        "class M(type): n = 1\nclass C(metaclass=M): pass\ndef train(): return C.n",
        "class M(type): n = 2\nclass C(metaclass=M): pass\ndef train(): return C.n",
    ),
    "starred assignment": (
        "A, *B = 1, 2, 3\ndef train(): return B",
        "A, *B = 1, 2, 4\ndef train(): return B",
    ),
    "del": ("N = 1\nM = 2\ndef train(): return N", "N = 1\nM = 2\ndel N\ndef train(): return N"),
    "with block": (
        "import io\nwith io.StringIO('a') as f:\n    T = f.read()\ndef train(): return T",
        "import io\nwith io.StringIO('b') as f:\n    T = f.read()\ndef train(): return T",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_edits_that_change_the_step(case: str) -> None:
    one, two = DIFFERENT[case]
    assert of(one).digest != of(two).digest


ACROSS = {
    "module as a value": ("import a\ndef train(n): return getattr(a, n)", "a"),
    "module handed on": ("import a\ndef pick(m): return m.x\ndef train(): return pick(a)", "a"),
    "vars of a module": ("import a\ndef train(): return vars(a)['x']", "a"),
    "dict of a module": ("import a\ndef train(): return a.__dict__['x']", "a"),
    "import by constant name": ("import importlib\ndef train(): return importlib.import_module('a').x", "a"),
    "import by name": ("import importlib\ndef train(n): return importlib.import_module(n).x", "every module"),
    "dunder import": ("def train(n): return __import__(n).x", "every module"),
    "modules of sys": ("import sys\ndef train(n): return sys.modules[n].x", "every module"),
}


@pytest.mark.parametrize("case", ACROSS)
def test_what_names_cannot_tell_takes_whole_modules_and_says_so(case: str) -> None:
    source, named = ACROSS[case]
    one, two = of(source, a="x = 1\ny = 1\n"), of(source, a="x = 1\ny = 2\n")
    assert one.digest != two.digest
    assert any(named in sentence for sentence in one.dynamic), one.dynamic
    assert "all of a.py" in one.parts


def test_getattr_with_a_constant_is_no_more_than_an_attribute() -> None:
    source = "import a\ndef train(): return getattr(a, 'x')"
    assert of(source, a="x = 1\ny = 1\n").digest == of(source, a="x = 1\ny = 2\n").digest
    assert of(source, a="x = 1\n").digest != of(source, a="x = 2\n").digest


def test_a_module_that_answers_for_unknown_names_counts_whole() -> None:
    source = "import a\ndef train(): return a.anything"
    found = of(source, a="def __getattr__(name): return 1\n")
    assert found.dynamic == ("a.py is asked for 'anything' dynamically: all of a.py counts",)
    assert found.digest != of(source, a="def __getattr__(name): return 2\n").digest


def test_a_name_set_from_another_module_counts() -> None:
    source = "import a, b\ndef train(): return a.x"
    assert (
        of(source, a="", b="import a\na.x = 1\n").digest != of(source, a="", b="import a\na.x = 2\n").digest
    )


def test_a_function_replaced_from_another_module_counts() -> None:
    source = "import a, b\ndef train(): return a.h()"
    one = of(source, a="def h(): return 1\n", b="import a\na.h = lambda: 2\n")
    two = of(source, a="def h(): return 1\n", b="import a\na.h = lambda: 3\n")
    assert one.digest != two.digest
    assert "module statements in b.py" in one.parts


def test_a_module_imported_only_inside_the_function_has_its_effects_counted() -> None:
    source = "A = []\ndef train():\n    import b\n    return A"
    one, two = (of(source, b=f"import model\nmodel.A.append({n})\n") for n in (1, 2))
    assert one.digest != two.digest


def test_the_order_of_imports_with_effects_counts() -> None:
    registry = "A = []\n"
    one = of("import b, c\nfrom r import A\ndef train(): return A", r=registry, b="import r\nr.A.append(1)\n",
             c="import r\nr.A.append(2)\n")  # fmt: skip
    two = of("import c, b\nfrom r import A\ndef train(): return A", r=registry, b="import r\nr.A.append(1)\n",
             c="import r\nr.A.append(2)\n")  # fmt: skip
    assert {label for label in one.parts if one.parts[label] != two.parts[label]} == {"order of imports"}


def test_the_last_of_two_star_imports_wins_and_so_their_order_counts() -> None:
    a, b = "x = 1\n", "x = 2\n"
    one = of("from a import *\nfrom b import *\ndef train(): return x", a=a, b=b)
    two = of("from b import *\nfrom a import *\ndef train(): return x", a=a, b=b)
    assert one.digest != two.digest


def test_a_star_import_above_or_below_a_definition_is_not_the_same() -> None:
    one = of("from a import *\ndef x(): return 1\ndef train(): return x()", a="def x(): return 2\n")
    two = of("def x(): return 1\nfrom a import *\ndef train(): return x()", a="def x(): return 2\n")
    assert one.digest != two.digest


def test_exchanging_what_two_imports_of_the_project_lead_to_counts() -> None:
    a = "def f(): return 1\ndef g(): return 2\n"
    one = of("from a import f as x, g as y\ndef train(): return x() - y()", a=a)
    two = of("from a import g as x, f as y\ndef train(): return x() - y()", a=a)
    assert one.digest != two.digest


def test_importing_the_same_thing_by_another_way_changes_nothing() -> None:
    deep = {"p/__init__.py": "from .a import f\n", "p/a.py": "def f(): return 1\n"}
    models = [
        "from p.a import f\ndef train(): return f()",
        "from p import f\ndef train(): return f()",
    ]
    one, two = (close({**deep, "model.py": text}) for text in models)
    assert one.parts == two.parts


def test_a_package_init_counts_only_by_names_and_effects() -> None:
    model = "from p.a import f\ndef train(): return f()"
    files = {"p/a.py": "def f(): return 1\n", "model.py": model}
    plain = close({**files, "p/__init__.py": "VERSION = 1\ndef g(): return 1\n"})
    other = close({**files, "p/__init__.py": "VERSION = 2\n"})
    acting = close({**files, "p/__init__.py": "from . import a\na.f = lambda: 2\n"})
    assert plain.parts == other.parts
    assert "p/__init__.py" in plain.modules
    assert acting.digest != plain.digest


def test_circular_imports_end() -> None:
    files = {
        "model.py": "import a\ndef train(): return a.f()\n",
        "a.py": "import b\nfrom b import g\ndef f(): return g()\n",
        "b.py": "import a\nfrom a import *\ndef g(): return a.f()\n",
    }
    assert "g() in b.py" in close(files).parts


def test_packages_without_init_files_and_relative_imports_from_above() -> None:
    files = {
        "p/q/model.py": "from .. import top\nfrom ..r.low import f\ndef train(): return f(top.N)\n",
        "p/top.py": "N = 1\n",
        "p/r/low.py": "def f(x): return x\n",
    }
    assert {"N in p/top.py", "f() in p/r/low.py"} <= set(close(files, "p.q.model:train").parts)


def test_a_step_may_be_named_by_a_reexport() -> None:
    files = {"p/__init__.py": "from .m import train\n", "p/m.py": "def train(): return 1\n"}
    assert "train() in p/m.py" in close(files, "p:train").parts


def test_a_module_that_is_not_python_is_named_with_its_line() -> None:
    with pytest.raises(BadSource) as caught:
        of("import a\ndef train(): return a.x", a="x = 1\ny = = 2\n")
    assert "a.py line 2" in caught.value.message


def test_a_module_nobody_reaches_may_be_broken() -> None:
    assert of("def train(): return 1", broken="x = = 1").parts


@pytest.mark.parametrize(
    ("call", "remedy"),
    [("model:trian", "'train'"), ("modle:train", "'model'"), ("model:nothing_like_it", "train")],
)
def test_an_unknown_step_is_met_with_near_matches(call: str, remedy: str) -> None:
    with pytest.raises(NoSuchStep) as caught:
        close({"model.py": "def train(): return 1\n"}, call)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("source", ["train = 3", "class train: pass", "async def train(): pass"])
def test_only_a_plain_function_is_a_step(source: str) -> None:
    with pytest.raises(BadStep):
        of(source)


def test_options_must_be_literals_and_known() -> None:
    head = "import lockgate\nSLOW = True\n"
    with pytest.raises(BadStep, match="not literals"):
        of(head + "@lockgate.step(slow=SLOW)\ndef train(): return 1")
    with pytest.raises(BadStep) as caught:
        of(head + "@lockgate.step(slwo=True)\ndef train(): return 1")
    assert "'slow'" in caught.value.remedy


def test_steps_in_a_module_are_found_in_source_order() -> None:
    source = b"import lockgate\n@lockgate.step\ndef b(): ...\ndef c(): ...\n@lockgate.step(slow=True)\ndef a(): ..."
    assert steps_in(SourceTree({"m.py": source}), "m") == ("m:b", "m:a")
