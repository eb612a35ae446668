"""What README, CONTRIBUTING and the pages of docs/ show does run; and the collector behind it is honest."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_blocks import SHOWN_ONLY, Block, BlockFailed, blocks, commands, matches, run_block

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_does_what_it_says(page, tmp_path):
    namespace = {"__name__": "__main__"}
    for block in blocks(page, ROOT):
        assert block.language in SHOWN_ONLY | {"python", "console"}, f"{block.where}: {block.language}?"
        run_block(block, tmp_path, namespace)


def block(body: str, language: str = "console", word: str = "run", rest: str = "") -> Block:
    return Block("page.md:1", language, body, word, rest)


def test_blocks_are_found_with_their_directives(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n<!-- run exit=3 -->\n```console\n$ false\n```\n\n```python\nx = 1\n```\n"
        "<!-- file: a/b.py -->\n```python\ny = 2\n```\n<!-- skip: needs a server -->\n```python\nz\n```\n"
        "<!-- run -->\n\n```console\n$ not marked: a blank line lies between\n```\n"
    )
    assert [
        (each.where, each.language, each.word, each.rest, each.runs) for each in blocks(page, tmp_path)
    ] == [
        ("page.md:4", "console", "run", "exit=3", True),
        ("page.md:8", "python", "", "", True),
        ("page.md:12", "python", "file", "a/b.py", True),
        ("page.md:16", "python", "skip", "needs a server", False),
        ("page.md:21", "console", "", "", False),
    ]


def test_a_page_is_one_story(tmp_path):
    namespace: dict = {}
    run_block(block("import b\nn = b.y\n", "python", "file", "a.py"), tmp_path, namespace)
    run_block(block("y = 2\n", "python", "file", "b.py"), tmp_path, namespace)
    run_block(block("$ python -c 'import a; print(a.n)'\n2\n$ ls *.py\na.py\n...\n"), tmp_path, namespace)
    run_block(
        block("from pathlib import Path\nn = len(list(Path().glob('*.py')))\n", "python", ""),
        tmp_path,
        namespace,
    )
    run_block(block(">>> n\n2\n>>> m = n\n", "python", ""), tmp_path, namespace)
    assert namespace["m"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        block("$ false\n"),
        block("$ true\n", rest="exit=3"),
        block("$ echo one\ntwo\n"),
        block("$ false | true\n"),
        block("$ exit 3\n$ true\n", rest="exit=3"),
        block(">>> 1 + 1\n3\n", "python", ""),
        block("$ true\n", "toml"),
        block("no command\n"),
    ],
)
def test_a_block_that_lies_is_found(wrong, tmp_path):
    with pytest.raises(BlockFailed):
        run_block(wrong, tmp_path, {})


def test_a_python_block_that_fails_is_found(tmp_path):
    with pytest.raises(NameError):
        run_block(block("no_such_name\n", "python", ""), tmp_path, {})


def test_an_expected_failure_passes(tmp_path):
    run_block(block("$ true\n$ echo refused; exit 3\nrefused\n", rest="exit=3"), tmp_path, {})


def test_commands_may_go_on_in_the_next_line():
    assert commands("$ a \\\n    b\nout\n\n$ c\n") == [("a \\\n    b", "out\n\n"), ("c", "")]


def test_dots_stand_for_anything():
    assert matches("took 3 ms\nfrom 1.0.0 \n", "took ... ms\nfrom 1.0.0")
    assert matches("a\nb\nc\n", "a\n...\nc")
    assert not matches("took 3 ms\n", "took ... s")
    assert not matches("a+b\n", "aab")
