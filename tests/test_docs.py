"""What the documents say can be typed, can be typed; what they link to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from launch import build_parser
from rlhf.config import PRESETS, options

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[str]:
    """Every line of a shell block, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


SHOWN = [(d.name, c) for d in DOCUMENTS for c in commands(d.read_text())]


@pytest.mark.parametrize(("document", "command"), [(d, c) for d, c in SHOWN if "rankloop " in c and "pip" not in c])
def test_every_rankloop_command_is_understood(document, command):
    words = shlex.split(command)
    given = build_parser().parse_args(words[words.index(next(w for w in words if w.endswith("rankloop"))) + 1 :])
    assert callable(given.verb)


@pytest.mark.parametrize(("document", "command"), [(d, c) for d, c in SHOWN if c.startswith("make ")])
def test_every_make_target_exists(document, command):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {w for w in command.split()[1:] if "=" not in w} <= targets


@pytest.mark.parametrize(("document", "command"), [(d, c) for d, c in SHOWN if "benchmarks/" in c])
def test_every_benchmark_exists(document, command):
    assert (ROOT / next(w for w in command.split() if w.startswith("benchmarks/"))).is_file()


def test_the_documents_show_commands():
    assert len(SHOWN) > 12


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_link_leads_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    missing = [link for link in links if not link.startswith("http") and not (document.parent / link).exists()]
    assert missing == []


def every_action(parser):
    """A verb's own, and those of the verbs under it."""
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for under in action.choices.values():
                yield from every_action(under)


def test_every_option_that_a_document_names_exists():
    text = "\n".join(d.read_text() for d in DOCUMENTS)
    known = {f"--{o.name}" for o in options(PRESETS["laptop"])}
    verbs = next(a for a in build_parser()._actions if isinstance(a.choices, dict)).choices
    known |= {s for verb in verbs.values() for a in every_action(verb) for s in a.option_strings}
    known |= {"--upgrade", "--constraint", "--editable", "--url"}
    # Of other programs.
    known |= {"--system", "--home-dir", "--shell", "--now", "--init"}
    # Of the benchmarks.
    known |= {"--out", "--label-studio", "--turns", "--seconds", "--quick", "--minutes", "--plots", "--trl", "--only", "--seeds"}
    known |= {"--pairs", "--budgets"}
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", text)) <= known


def test_the_changelog_has_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog") and "## [Unreleased]" in text
    assert set(re.findall(r"^### (\w+)", text, flags=re.M)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_test_that_a_document_names_exists():
    there = {name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), flags=re.M)}
    named = {name for document in DOCUMENTS for name in re.findall(r"`(test_\w+)`", document.read_text())}
    assert len(named) > 40
    assert named - there == set()
