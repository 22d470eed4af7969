"""The audit log, newest first and in the reader's language."""

from lead_page import HERE

from storage.project import guidelines


def test_the_audit_is_paged_newest_first(store, part, people, monkeypatch):
    monkeypatch.setattr("feedback_ui.lead.audit.PAGE_ROWS", 2)
    section = part.audit
    assert "No act is recorded yet" in section.open(HERE)[section.entries]
    for text in ("one", "two", "three"):
        guidelines.publish(store, text, people.local.id)
    first = section.open(HERE)
    assert first[section.entries].count("<tr>") == 3 and first[section.older].interactive and not first[section.newer].interactive
    assert "guidelines 3" in first[section.entries] and "guidelines 1" not in first[section.entries]
    last = section.show_older(first[section.skipped], HERE)
    assert "guidelines 1" in last[section.entries] and last[section.newer].interactive and not last[section.older].interactive
    assert "guidelines 3" in section.show_newer(last[section.skipped], HERE)[section.entries]
