from __future__ import annotations

import pytest

from lockgate.registry.packages.lock import LockUnreadable, Pinned, moved, parse_lock

SECRET_PLACE = "://".join(("https", "user:" + "secret@example.org"))
LOCK = b"""
# written by uv
Zope.Interface==7.2 \\
    --hash=sha256:BB00 \\
    --hash=sha256:aa00
    # via something
numpy[extra]==2.1.0 ; python_version >= "3.12" --hash=sha256:cc00
numpy==2.0.0 ; python_version < "3.12"
torch==2.5.1+cpu
"""


def test_pins_are_read_with_hashes_and_markers_under_normal_names() -> None:
    assert parse_lock(LOCK) == (
        Pinned("numpy", "2.0.0", (), 'python_version < "3.12"'),
        Pinned("numpy", "2.1.0", ("sha256:cc00",), 'python_version >= "3.12"'),
        Pinned("torch", "2.5.1+cpu"),
        Pinned("zope-interface", "7.2", ("sha256:aa00", "sha256:bb00")),
    )


@pytest.mark.parametrize(
    "line",
    [
        "numpy>=2.0",
        "numpy==2.*",
        "numpy",
        "-e .",
        "-r other.txt",
        "./wheels/numpy.whl",
        f"numpy @ {SECRET_PLACE}/numpy.whl",
        "numpy==2.0,<3",
        f"--no-index {SECRET_PLACE}",
        "name = 'numpy'",
        "numpy==2.0 \\",
    ],
)
def test_a_line_that_pins_nothing_makes_the_lock_unreadable_and_tells_no_secret(line: str) -> None:
    if line.endswith("\\"):
        assert parse_lock(line.encode()) == (Pinned("numpy", "2.0"),)
        return
    with pytest.raises(LockUnreadable) as caught:
        parse_lock(f"pyarrow==20.0\n{line}\n".encode())
    assert "environment.lock:2" in caught.value.message and "secret" not in caught.value.message


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"\xff\xfe"])
def test_an_empty_or_binary_lock_is_unreadable(data: bytes) -> None:
    with pytest.raises(LockUnreadable):
        parse_lock(data)


def test_two_locks_differ_by_what_came_went_and_moved() -> None:
    old = [Pinned("a", "1"), Pinned("b", "1"), Pinned("c", "1", marker="x"), Pinned("c", "2", marker="y")]
    new = [Pinned("b", "2"), Pinned("c", "2"), Pinned("d", "1"), Pinned("c", "1")]
    assert moved(old, new) == (("a", "1", ""), ("b", "1", "2"), ("d", "", "1"))
    assert moved(old, old) == ()
