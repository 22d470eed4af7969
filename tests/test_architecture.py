"""The layers: which package may import which, and what the web process never loads."""

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_import_contracts_hold():
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


MODELS = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
SLOW = ("scipy", "evalica", "openai", "matplotlib")
"""Each takes longer to import than most commands run; what needs one imports it in its own function."""

COMMANDS = (*MODELS, *SLOW, "pandas", "plotly", "gradio")
FITS = tuple(name for name in COMMANDS if name != "scipy")
ABSENT = {
    "storage.analytics.stats": (*COMMANDS, "rlhf"),
    **dict.fromkeys(
        [
            "rlhf.runs.jobs", "rlhf.config", "rlhf.serving.client", "rlhf.analysis.agreement", "rlhf.analysis.bootstrap",
            "rlhf.analysis.validation", "launch",
        ],
        COMMANDS,
    ),
    # Their fits of style and reliability are scipy's.
    **dict.fromkeys(["rlhf.analysis.leaderboard", "rlhf.cli.tables"], FITS),
    "feedback_ui.app": (*MODELS, "evalica", "openai", "matplotlib"),
}  # fmt: skip
"""What each module leaves out. Each may load what those before it may, so that one process can load them one after another."""

IMPORT_EACH = """
import importlib, sys
for module, absent in {absent}.items():
    importlib.import_module(module)
    print(*(f"{{module}} loads {{name}}" for name in absent if sys.modules.get(name) is not None))
"""


def test_what_is_imported_leaves_out_what_it_must():
    checked = python(IMPORT_EACH.format(absent=ABSENT))
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.split() == []


@pytest.mark.slow
def test_the_policy_server_leaves_out_what_only_training_and_pages_need():
    checked = python(IMPORT_EACH.format(absent={"rlhf.generation.server": ("trl", "datasets", "pandas", "openai", "matplotlib", "gradio")}))
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.split() == []


def test_pandas_can_be_imported_after_the_store_and_gradio_writes_no_stub_files():
    checked = python(
        "import storage.core, feedback_ui.app, gradio.component_meta, pandas; gradio.component_meta.create_or_modify_pyi(1, 2, 3)"
    )
    assert checked.returncode == 0, checked.stderr


def test_each_may_load_what_those_before_it_may():
    assert all(set(later) <= set(earlier) for earlier, later in pairwise(ABSENT.values()))


FORMATS = "tests/storage/exchange/test_read_formats.py"
"""What each format reads; what it writes is in test_write_formats.py. One table of odd rows serves them all."""

TESTED_ELSEWHERE = {
    # Each is a step of an export, and the runtimes read what it wrote.
    **dict.fromkeys([f"rlhf/deploy/{name}.py" for name in ("formats", "policy")], "tests/rlhf/deploy/test_export.py"),
    **dict.fromkeys(
        [f"rlhf/deploy/runtimes/{name}.py" for name in ("check", "gguf_llama", "gguf_transformers", "hf", "peft_adapter")],
        "tests/rlhf/deploy/test_export.py",
    ),
    # These need packages that `make test` does not install.
    **dict.fromkeys(
        [f"rlhf/deploy/{name}.py" for name in ("graphs", "litert_graph", "saved_model")]
        + [f"rlhf/deploy/runtimes/{name}.py" for name in ("litert_model", "onnx_graph", "openvino_graph", "tf_saved_model")],
        "tests/rlhf/deploy/test_formats_with_packages.py",
    ),
    **dict.fromkeys(
        [f"rlhf/deploy/clients/{name}_client.py" for name in ("gguf", "hf", "litert", "onnx", "openvino", "peft", "savedmodel")],
        "tests/rlhf/deploy/test_clients.py",
    ),
    # Parts of one walk: the front over real projects.
    **dict.fromkeys([f"feedback_ui/projects/{name}.py" for name in ("front", "project_web", "running")], "tests/security/test_projects.py"),
    "feedback_ui/projects/list_page.py": "tests/browser/test_projects.py",
    # The route that sends them.
    "feedback_ui/server/download_files.py": "tests/feedback_ui/server/test_downloads.py",
    "rlhf/cli/deploy.py": "tests/rlhf/deploy/test_export.py",
    **dict.fromkeys(["feedback_ui/demo/exports.py", "feedback_ui/demo/exports_view.py"], "tests/browser/test_demo_page.py"),
    # What ranks other than 0 do is seen from rank 0, in a round of two processes.
    **dict.fromkeys(["rlhf/stages/follow.py", "rlhf/stages/setup.py"], "tests/rlhf/runs/test_rank_processes.py"),
    # The engine's rows, seen from outside.
    "rlhf/generation/lanes.py": "tests/rlhf/generation/test_engine.py",
    **dict.fromkeys(
        [
            f"storage/exchange/{name}.py"
            for name in ("arena", "argilla", "helpsteer3", "hh_rlhf", "labelstudio", "oasst", "plain", "rows", "ultrafeedback")
        ],
        FORMATS,
    ),
    **dict.fromkeys(
        [f"storage/exchange/{name}.py" for name in ("export", "formats", "map_writer", "sft", "sinks")],
        "tests/storage/exchange/test_write_formats.py",
    ),
    # What a vote holds, and whether it is kept or counted.
    "storage/exchange/things.py": "tests/storage/exchange/test_round_trips.py",
    "storage/exchange/kto.py": "tests/storage/judging/test_completion_labels.py",
    # One table of formats, its reader and what recognises its rows: each test goes through all of them.
    **dict.fromkeys(
        [
            f"storage/exchange/{name}.py"
            for name in ("detect", "field_maps", "groups", "mapped", "maps", "paths", "tracking", "trees", "choice_labels", "verdicts")
        ],
        "tests/storage/exchange/test_mapped_formats.py",
    ),
    **dict.fromkeys([f"storage/exchange/{name}.py" for name in ("encodings", "packing")], "tests/storage/exchange/test_files.py"),
    # The two halves of reading one file, in two processes.
    "storage/exchange/parquet_child.py": "tests/storage/exchange/test_files.py",
    "storage/exchange/parquet_rows.py": "tests/storage/exchange/test_files.py",
    "storage/core/unfinished_imports.py": "tests/storage/exchange/test_import_slices.py",
    **dict.fromkeys(["storage/exchange/import_writer.py", "storage/exchange/import_records.py"], "tests/storage/exchange/test_imports.py"),
    # What is left of an import, as ranges of ids, and who does it.
    **dict.fromkeys(["storage/exchange/interrupted.py", "storage/exchange/spans.py"], "tests/storage/exchange/test_publications.py"),
    # Arrays that the statistics count.
    "storage/analytics/rankings.py": "tests/rlhf/analysis/test_agreement.py",
    # The count is compared with the pairs that are derived.
    "storage/judging/pair_counts.py": "tests/rlhf/data/test_pair_counts.py",
    # It is there so that an act reads it once.
    "storage/project/current.py": "tests/feedback_ui/judging/test_reads.py",
    # Dataclasses and numbers, without anything to run.
    "storage/core/records.py": "tests/storage/judging/test_judgments.py",
    "rlhf/serving/limits.py": "tests/security/test_policy_server.py",
    # An import that is under way is followed and stopped as the page does it.
    "feedback_ui/lead/running_imports.py": "tests/feedback_ui/lead/test_prompts.py",
    # What a verb prints is tested where the verb is called.
    **dict.fromkeys([f"rlhf/cli/{name}.py" for name in ("report", "rounds", "tables")], "tests/rlhf/cli/test_cli.py"),
    "rlhf/runs/doctor.py": "tests/rlhf/cli/test_cli.py",
    # The adapters of one type, tested through what holds all types.
    "rlhf/models/adapter_group.py": "tests/rlhf/models/test_adapters.py",
    # A round ends with a result, and a row of an older version is read as one.
    "rlhf/runs/results.py": "tests/rlhf/test_round.py",
    "rlhf/runs/typed_json.py": "tests/test_old_data.py",
    "rlhf/runs/plan.py": "tests/rlhf/trl_methods/test_tuning.py",
    # The interface that both makers of completions have.
    "rlhf/serving/completion_source.py": "tests/rlhf/serving/test_filler.py",
    # Parts of a page that are shown only within it.
    "feedback_ui/data.py": "tests/security/test_blindness_purposes.py",
    "feedback_ui/lead/section.py": "tests/feedback_ui/lead/test_page.py",
    "feedback_ui/shared/html.py": "tests/feedback_ui/lead/test_quality_view.py",
    "feedback_ui/judging/component.py": "tests/feedback_ui/judging/test_compare.py",
    "feedback_ui/judging/judging_view.py": "tests/feedback_ui/judging/test_compare.py",
}
"""Modules whose tests do not stand in the file of their name, and where they do."""


def test_each_module_has_the_test_file_that_a_reader_looks_for_first():
    """`rlhf/ppo/rollout.py` has `tests/rlhf/ppo/test_rollout.py`."""
    modules = {str(path.relative_to(ROOT)): path for room in ("storage", "rlhf", "feedback_ui") for path in (ROOT / room).rglob("*.py")}
    named = {name for name, path in modules.items() if (ROOT / "tests" / Path(name).parent / f"test_{path.name}").is_file()}
    without = {name for name, path in modules.items() if path.name != "__init__.py"} - named - set(TESTED_ELSEWHERE)
    assert not without, f"without tests: {sorted(without)}: write them, or say in TESTED_ELSEWHERE where they are and why"
    gone = {name for name, place in TESTED_ELSEWHERE.items() if name not in modules or not (ROOT / place).is_file()}
    assert not gone, f"in TESTED_ELSEWHERE and not there: {sorted(gone)}"


def test_telemetry_is_off():
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
