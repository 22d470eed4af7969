"""The plan of the house, held by machines: who may import whom, and what a page never loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_floors_are_kept():
    checked = python("import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None, no_cache=True))")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "11 kept, 0 broken" in checked.stdout


def test_the_command_line_leaves_sql_and_models_to_the_floors_below():
    """launch.py is no package, so import-linter cannot hold it to the same contracts."""
    nodes = list(ast.walk(ast.parse((ROOT / "launch.py").read_text())))
    imported = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    assert "storage" in imported
    assert not imported & {"sqlite3", "sqlite_utils", "peft", "torch", "transformers", "trl", "gradio"}


@pytest.mark.parametrize(
    "module, absent",
    [
        ("feedback_ui.app", ["torch", "transformers", "peft", "trl"]),
        ("launch", ["torch", "transformers", "peft", "trl", "gradio"]),
        ("rlhf.runs.jobs", ["torch", "transformers", "gradio"]),
        ("rlhf.config", ["torch", "transformers", "gradio"]),
        ("rlhf.serving.client", ["torch", "transformers", "gradio"]),
        ("rlhf.analysis.agreement", ["torch", "transformers", "gradio"]),
        ("rlhf.analysis.leaderboard", ["torch", "transformers", "gradio"]),
        ("rlhf.cli.tables", ["torch", "transformers", "gradio"]),
        ("rlhf.analysis.validation", ["torch", "transformers", "gradio"]),
        ("storage.analytics.stats", ["torch", "transformers", "gradio", "rlhf"]),
    ],
)
def test_what_is_imported_leaves_out_what_it_must(module, absent):
    checked = python(f"import sys, {module}; print(*(n for n in {absent!r} if n in sys.modules))")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.split() == []


def test_nothing_is_sent_home_by_the_engine():
    code = "import os; os.environ.pop('HF_HUB_DISABLE_TELEMETRY', None); import rlhf; print(os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    assert python(code).stdout.strip() == "1"


@pytest.mark.parametrize(
    "name, raises", [("rlhf.round", True), ("storage", True), ("launch", True), ("launchpad", False), ("transformers", False)]
)
def test_warnings_from_our_own_modules_are_errors(name, raises):
    """The filter in pyproject.toml, by the name of the module that a warning comes from."""
    scope = {"__name__": name}
    exec("import warnings\ndef warn(): warnings.warn('old', DeprecationWarning)", scope)
    if raises:
        with pytest.raises(DeprecationWarning):
            scope["warn"]()
    else:
        with pytest.warns(DeprecationWarning):
            scope["warn"]()
