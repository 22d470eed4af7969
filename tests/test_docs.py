"""Each command in the documents can be run, each link leads to a file and a heading, each name exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from launch import build_parser
from rlhf.config import PRESETS, options
from rlhf.runs import doctor

ROOT = Path(__file__).parents[1]
# The changelog tells of commands, options and files under the names that they had then.
DOCUMENTS = [*sorted(d for d in ROOT.glob("*.md") if d.name != "CHANGELOG.md"), *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {document: document.relative_to(ROOT).as_posix() for document in DOCUMENTS}
TEXTS = {document: document.read_text(encoding="utf-8") for document in DOCUMENTS}

OTHER_PROGRAMS = {
    "--system", "--home-dir", "--shell", "--now", "--init",
    "--upgrade", "--constraint", "--editable", "--url",
    "--apply", "--tasks", "--model", "--continuous-batching", "--enable-lora", "--max-lora-rank", "--max-model-len",
    "--head", "--resources", "--nodelist", "--nodes", "--ntasks", "--cpus-per-task", "--gres", "--time", "--signal", "--output",
    "--open-mode",
}  # fmt: skip
"""Options of useradd, docker, systemctl, pip, lm-eval, `transformers serve`, `vllm serve`, `ray start`, sbatch and srun."""

BENCHMARKS = {
    "--out", "--label-studio", "--turns", "--comparisons", "--seconds", "--quick", "--minutes", "--plots", "--trl", "--only",
    "--seeds", "--pairs", "--budgets", "--clients", "--suite", "--rows", "--round", "--streams", "--shape", "--prompt-tokens",
    "--response-tokens", "--vllm",
}  # fmt: skip

GENERATOR = {"--check"}
"""Of docs/reference/generate.py."""

COMMAND_NAMES = {"rankloop", ".venv/bin/rankloop", "make", "python", "python3", ".venv/bin/python", ".venv/bin/pip"}
"""Programs of this project's own commands, of which each line is checked."""

STRANGE_NAMES = {
    "litestream", "git", "/tmp/trl/bin/pip", "/tmp/ls-venv/bin/pip", "rsync", "curl", "openssl", "lm_eval", "vllm", "ray", "sbatch", "sky",
    "ssh", "scp",
}  # fmt: skip
"""Programs of others that the documents call, whose lines are not checked."""


def commands(text: str) -> list[str]:
    """Every line of the shell blocks, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def parts(command: str) -> list[list[str]]:
    """The commands of a line that `&&` or a pipe joins, each without the variables that stand before it."""
    found = []
    for part in re.split(r"&&|\|", command):
        words = shlex.split(part)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        found.append(words)
    return found


SHOWN = [(NAMES[d], c) for d in DOCUMENTS for c in commands(TEXTS[d])]
PARTS = [(document, words) for document, command in SHOWN for words in parts(command)]


def shown_with(*programs: str) -> list:
    found = [(d, words) for d, words in PARTS if words[0] in programs]
    return [pytest.param(d, words, id=f"{d}: {' '.join(words)}") for d, words in found]


def test_every_command_is_of_a_program_that_is_checked_or_is_of_others():
    assert {words[0] for _, words in PARTS} - COMMAND_NAMES - STRANGE_NAMES - {"printf", "echo"} == set()
    assert len(SHOWN) > 40


@pytest.mark.parametrize(("document", "words"), shown_with("rankloop", ".venv/bin/rankloop"))
def test_every_rankloop_command_is_understood(document, words):
    given = build_parser().parse_args(words[1:])
    assert callable(given.verb)


@pytest.mark.parametrize(("document", "words"), shown_with("make"))
def test_every_make_target_exists(document, words):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {w for w in words[1:] if "=" not in w} <= targets


@pytest.mark.parametrize(("document", "words"), shown_with("make"))
def test_every_make_variable_exists(document, words):
    variables = set(re.findall(r"^([A-Z_]+) \?=", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {w.split("=")[0] for w in words[1:] if "=" in w} <= variables


@pytest.mark.parametrize(("document", "words"), shown_with("python", "python3", ".venv/bin/python"))
def test_every_python_command_runs_a_file_or_module_that_exists(document, words):
    if words[1] == "-m":
        module = words[2]
        assert module in ("pytest", "venv", "pip") or (ROOT / f"{module.replace('.', '/')}.py").is_file()
    else:
        assert (ROOT / words[1]).is_file()


def headings(text: str) -> set[str]:
    """The anchors that a renderer makes of a document's headings."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, flags=re.M)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES.get)
def test_every_link_leads_to_a_file_and_a_heading(document):
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[document]):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in headings(target.read_text(encoding="utf-8"))):
            missing.append(link)
    assert missing == []


def test_every_document_is_in_the_map():
    linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#]+)", TEXTS[ROOT / "docs" / "README.md"])}
    assert {d for d in DOCUMENTS if d.is_relative_to(ROOT / "docs") and d.name != "README.md"} - linked == set()


def test_every_document_that_the_code_names_exists():
    named = set()
    for room in ("launch.py", "feedback_ui", "rlhf", "storage", "benchmarks", "tests", "pyproject.toml"):
        files = (ROOT / room).rglob("*.py") if (ROOT / room).is_dir() else [ROOT / room]
        for file in files:
            named |= set(re.findall(r"\bdocs/[\w/-]+\.(?:md|py)\b", file.read_text(encoding="utf-8")))
    assert len(named) > 5
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def every_action(parser):
    """A verb's own, and those of the verbs under it."""
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for under in action.choices.values():
                yield from every_action(under)


def test_every_option_that_a_document_names_exists():
    known = {f"--{o.name}" for o in options(PRESETS["laptop"])} | OTHER_PROGRAMS | BENCHMARKS | GENERATOR
    verbs = next(a for a in build_parser()._actions if isinstance(a.choices, dict)).choices
    known |= {s for verb in verbs.values() for a in every_action(verb) for s in a.option_strings}
    text = "\n".join(TEXTS.values())
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]+", text)) - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES.get)
def test_every_file_of_the_repository_that_a_document_names_exists(document):
    """Paths from the root such as `rlhf/ppo/trainer.py` or `tests/storage`."""
    rooms = "rlhf|storage|feedback_ui|tests|benchmarks|docs"
    code = " ".join(re.findall(r"`[^`]+`", TEXTS[document]))
    named = {name.rstrip("/.") for name in re.findall(rf"(?<![\w/.])(?:{rooms})/[\w/.-]+", code)}
    assert {name for name in named if not (ROOT / name).exists() and "NNN" not in name} == set()


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.parent.name == "research"], ids=lambda d: d.name)
def test_every_section_of_research_opens_with_its_finding(document):
    """In bold, after the commands that gave it; lab notes and the parts of a section are free."""
    sections = re.split(r"^## ", re.sub(r"```.*?```", "", TEXTS[document], flags=re.S), flags=re.M)[1:]
    headed = [section.split("\n", 1) for section in sections]
    assert [title for title, text in headed if title != "Lab notes" and not text.strip().startswith("**")] == []


def test_readme_and_doctor_agree_on_memory_and_disk():
    text = TEXTS[ROOT / "README.md"]
    assert f"{doctor.NEEDED_MEMORY_GIB:g} GiB of free memory to train" in " ".join(text.split())
    assert f"{doctor.NEEDED_DISK_GIB:g} GiB of disk" in text


def test_the_changelog_has_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog") and "## [Unreleased]" in text
    assert set(re.findall(r"^### (\w+)", text, flags=re.M)) <= {"Upgrade", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_test_that_a_document_names_exists():
    there = {name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), flags=re.M)}
    named = {name for text in TEXTS.values() for name in re.findall(r"`(test_\w+)`", text)}
    assert len(named) > 40
    assert named - there == set()
