"""The locks of `.ci/lock`: the check that CI runs can fail, and passes."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("lock", ROOT / ".ci" / "lock.py")
lock = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lock)

A, B = f"    --hash=sha256:{'a' * 64}", f"    --hash=sha256:{'b' * 64}"
GOOD = {"run": f"# Said.\nnumpy==2.0 \\\n{A} \\\n{B}\ntorch==1.0 ; sys_platform == 'linux' \\\n{A}\n", "cpu": f"torch==1.0+cpu \\\n{B}\n"}


def test_the_locks_of_this_project_are_whole():
    lock.check(lock.project(), lock.constraints(), {kind: (lock.LOCKS / f"{kind}.txt").read_text() for kind in lock.HEADERS})


def test_every_lock_is_one_that_is_checked_and_installed():
    assert {path.stem for path in lock.LOCKS.iterdir()} == set(lock.HEADERS)
    assert set(re.findall(r"\$\(LOCK\)/([\w-]+)\.txt|\.ci/lock/([\w-]+)\.txt", (ROOT / "Makefile").read_text())) == {
        ("", kind) if kind == "tools" else (kind, "") for kind in lock.HEADERS
    }


@pytest.mark.parametrize(
    ("required", "locks", "complaint"),
    [
        (["numpy==2.1"], GOOD, "numpy==2.1 is locked at 2.0"),
        (["Scipy>=1"], GOOD, "Scipy>=1 is in no lock"),
        ([], {"run": f"numpy>=2.0 \\\n{A}\n"}, "not pinned"),
        ([], {"run": "numpy==2.0\n"}, "has no sha256"),
        ([], {"run": f"numpy==2.0 \\\n{A} \\\n    --hash=md5:{'a' * 32}\n"}, "something that is none"),
        ([], GOOD | {"cpu": f"torch==1.1+cpu \\\n{B}\n"}, "locked at 1.1 here and at 1.0 elsewhere"),
        ([], {"run": f"git+https://example.org/x \\\n{A}\n"}, "not pinned"),
    ],
)
def test_what_is_missing_or_differs_is_named(required, locks, complaint):
    with pytest.raises(lock.LockError, match=re.escape(complaint)):
        lock.check(required, [], locks)


def test_what_is_whole_passes():
    lock.check(["numpy==2.0", "torch>=0.9", "torch==1.0"], ["NumPy==2.0"], GOOD)
