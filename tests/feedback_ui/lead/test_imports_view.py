"""What an import brought, and how far one is."""

import time

import pytest
from lead_page import EN

from feedback_ui.lead import imports_view
from feedback_ui.lead.running_imports import RunningImport
from storage.exchange.import_writer import Report


def test_the_first_fifty_wrong_rows_are_shown_and_the_others_counted():
    wrong = [(line, f"row <{line}>") for line in range(1, 53)]
    html = imports_view.import_report(EN, Report(prompts=2, wrong=60, wrong_rows=wrong))
    assert html.count("<li>") == 50 and "Line 50: row &lt;50&gt;" in html and "Line 51" not in html
    assert "60 rows were left out" in html and "and 10 more" in html


@pytest.mark.parametrize(
    "state, text, stop",
    [
        ({"done": 5}, "a: 5 rows are imported", True),
        ({"done": 1_000, "total": 2_000}, "a: 1,000 rows are imported of about 2,000, about 60 min left", True),
        ({"done": 5, "stop_requested": True}, "a: 5 rows are imported", False),
        ({"done": 5, "rolling_back": True}, "Rolling back a: 5 rows are deleted", False),
    ],
)
def test_an_import_can_be_stopped_until_that_was_asked(state, text, stop):
    running = RunningImport(1, "a", started=time.monotonic() - 3_600, **state)
    html = imports_view.running_imports(EN, [running], acts=True)
    assert html.startswith(f'<p class="rl-muted">{text} ') and ('data-act="stop"' in html) == stop
    assert "<button" not in imports_view.running_imports(EN, [running], acts=False)
