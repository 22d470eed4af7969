"""Packages of one format alone: installed once, found again by their pins, and never half."""

import subprocess
import sys

import pytest

from rlhf.deploy import packages
from rlhf.deploy.packages import COMPLETE, PackagesError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKLOOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def wheel(tmp_path):
    """A package in a folder, which pip installs without an index."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "only_here.py").write_text("VALUE = 7\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "only-here"\nversion = "1"\n'
    )
    # A backend of a few lines, so that nothing has to be fetched to build it.
    (folder / "backend.py").write_text(
        "import zipfile\n"
        "def build_wheel(out, config=None, metadata=None):\n"
        "    name = 'only_here-1-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(out + '/' + name, 'w') as made:\n"
        "        made.writestr('only_here.py', 'VALUE = 7\\n')\n"
        "        made.writestr('only_here-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: only-here\\nVersion: 1\\n')\n"
        "        made.writestr('only_here-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        made.writestr('only_here-1.dist-info/RECORD', '')\n"
        "    return name\n"
    )
    return str(folder)


def test_they_are_installed_once_and_seen_by_a_process(wheel):
    said = []
    folder = packages.install([wheel], said.append)
    assert folder == packages.install([wheel], said.append) and len(said) == 1 and str(folder) in said[0]
    found = subprocess.run(
        [sys.executable, "-c", "import only_here; print(only_here.VALUE)"],
        env=packages.environment_with(folder),
        capture_output=True,
        text=True,
    )
    assert found.stdout == "7\n", found.stderr
    with pytest.raises(ImportError):
        import only_here  # noqa: F401


def test_a_build_that_was_broken_off_is_built_again(wheel):
    folder = packages.install([wheel], lambda line: None)
    (folder / COMPLETE).unlink()
    (folder / "only_here.py").unlink()
    packages.install([wheel], lambda line: None)
    assert (folder / "only_here.py").exists() and (folder / COMPLETE).exists()


def test_what_cannot_be_installed_is_named_and_leaves_nothing():
    with pytest.raises(PackagesError, match=r"cannot be installed \(.*no-such-package"):
        packages.install(["no-such-package-of-anybody==1.0"], lambda line: None)
    assert not [*packages.folder_of([]).parent.iterdir()]


def test_a_format_without_packages_needs_no_folder():
    assert packages.install([], pytest.fail) is None
