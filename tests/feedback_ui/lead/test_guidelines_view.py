"""Versions of the guidelines."""

import re

from lead_page import EN

from feedback_ui.lead import guidelines_view
from storage.core.records import Guidelines


def test_versions_are_numbered_from_the_oldest_and_the_newest_is_on_display():
    versions = [Guidelines(number, "# text", None, "2026-01-01T00:00:00+00:00") for number in (9, 5, 2)]
    rows = guidelines_view.guideline_list(EN, versions, {}).split("<tr>")[2:]
    assert [re.search(r'data-row="(\d)" aria-label="View: (\d)"', row).groups() for row in rows] == [("9", "3"), ("5", "2"), ("2", "1")]
    assert ["on display" in row for row in rows] == [True, False, False]
