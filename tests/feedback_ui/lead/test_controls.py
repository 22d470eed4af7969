"""No message of an import or export that a page shows names an option of the command line."""

import ast
import re
from pathlib import Path

import pytest
from lead_page import EN

from feedback_ui.lead.controls import by_controls

EXCHANGE = Path(__file__).parents[3] / "storage" / "exchange"
COMMAND_LINE_ONLY = {"native.py", "backup.py"}
"""Modules of verbs that no page has."""

STRICT = re.compile(r"\(--strict\)")
"""Imports of the page never ask for it."""


def texts(path):
    """The texts of a module that are no documentation, with `3` for each value in them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    other = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            other |= {id(part) for part in node.values}
            yield "".join(part.value if isinstance(part, ast.Constant) else "3" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in other:
            yield node.value


def messages():
    found = [text for path in sorted(EXCHANGE.glob("*.py")) if path.name not in COMMAND_LINE_ONLY for text in texts(path)]
    return [text for text in found if re.search(r"--[a-z]", STRICT.sub("", text))]


def test_there_are_messages_that_name_options():
    assert len(messages()) > 12


@pytest.mark.parametrize("message", messages())
def test_each_option_becomes_what_the_page_has(message):
    said = by_controls(EN, message)
    assert not re.search(r"(?<!\()--[a-z]", said), said


def test_a_message_names_the_controls():
    assert by_controls(EN, "not UTF-8 text: name the encoding with --encoding, or --map") == (
        "not UTF-8 text: name the encoding with “Encoding”, or “Field map”"
    )
    assert by_controls(EN, "To import it again, undo that one first: rankloop import --undo 12 --data /srv/a b") == (
        "To import it again, undo that one first: “Undo” beside import 12 below."
    )
    assert "(on the command line)" in by_controls(EN, "longer than 16 MiB: import with a larger --max-row-mib if it is right")
