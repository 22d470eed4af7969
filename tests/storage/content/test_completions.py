"""The text of a completion as annotators get it."""

import pytest

from storage.content.completions import as_shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Yes.", "Yes."),
        (" Yes.", "Yes."),
        ("Yes. \n\n", "Yes."),
        ("\r\n\r\nYes.\r\nNo.\r", "Yes.\nNo."),
        ("\n   Yes.\n\n  No.", "Yes.\n\n  No."),
        # In Markdown a block of code.
        ("\n    x = 1\n    y = 2\n", "    x = 1\n    y = 2"),
        ("  ", ""),
        ("", ""),
    ],
)
def test_surrounding_blanks_and_line_ends_are_removed(text, shown):
    assert as_shown(text) == shown
    assert as_shown(as_shown(text)) == shown
