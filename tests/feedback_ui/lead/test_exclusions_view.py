"""Exclusions and the names of their rules."""

from lead_page import EN, KO

from feedback_ui.lead import exclusions_view
from storage.core.records import Exclusion

AT = "2026-01-01T00:00:00+00:00"


def test_each_offered_rule_is_translated_and_another_stays_as_it_was_typed():
    for name in exclusions_view.EXCLUSION_RULES:
        english, korean = (exclusions_view.rule(translate, name) for translate in (EN, KO))
        assert "lead.rule" not in english + korean and english != korean, name
    assert exclusions_view.rule(KO, "my <own> rule") == "my <own> rule"


def test_each_exclusion_names_whose_judgments_it_excludes():
    one = Exclusion(1, "other", "why", 3, AT, 2, annotator_ids=(1, 2))
    listed = exclusions_view.exclusion_list(EN, [one], {1: "Zoe", 2: "Ann & Co", 3: "Lead"}, acts=False)
    assert "Ann &amp; Co, Zoe" in listed and ">Annotator</th>" in listed


def test_only_what_holds_can_be_lifted():
    holds, lifted = Exclusion(2, "other", "why", None, AT, 1_500), Exclusion(1, "other", "why", None, AT, 1, lifted_at=AT)
    first, second = exclusions_view.exclusion_list(EN, [holds, lifted], {}, acts=True).split("<tr>")[2:]
    assert "active" in first and "1,500" in first and 'data-act="lift" data-row="2"' in first
    assert "lifted" in second and "<button" not in second
