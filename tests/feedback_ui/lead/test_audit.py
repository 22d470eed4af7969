"""The audit log, newest first and in the reader's language."""

from lead_page import HERE

from storage.core.records import ProjectSettings
from storage.project import guidelines, settings


def test_the_audit_is_paged_newest_first(store, part, people, monkeypatch):
    monkeypatch.setattr("feedback_ui.lead.audit.PAGE_ROWS", 2)
    section = part.audit
    assert "No act is recorded yet" in section.open(HERE)[section.entries]
    for text in ("one", "two", "three"):
        guidelines.publish(store, text, people.local.id)
    first = section.open(HERE)
    assert first[section.entries].count("<tr>") == 3 and first[section.older].interactive and not first[section.newer].interactive
    assert "guidelines 3" in first[section.entries] and "guidelines 1" not in first[section.entries]
    last = section.show_older(first[section.skipped], "", "", HERE)
    assert "guidelines 1" in last[section.entries] and last[section.newer].interactive and not last[section.older].interactive
    assert "guidelines 3" in section.show_newer(last[section.skipped], "", "", HERE)[section.entries]


def test_the_audit_is_filtered_by_person_and_act(store, part, people):
    section = part.audit
    guidelines.publish(store, "one", people.ann.id)
    guidelines.publish(store, "two", people.tom.id)
    settings.change(store, ProjectSettings(overlap=2), people.ann.id)
    opened = section.open(HERE)
    assert ("Ann", people.ann.id) in opened[section.who].choices and ("published", "published") in opened[section.did].choices
    anns = section.filter(people.ann.id, "", HERE)[section.entries]
    assert "guidelines 1" in anns and "settings 1" in anns and "guidelines 2" not in anns
    published = section.filter("", "published", HERE)[section.entries]
    assert "guidelines 1" in published and "guidelines 2" in published and "settings 1" not in published
    assert "guidelines 1" in (both := section.filter(people.ann.id, "published", HERE)[section.entries]) and "settings" not in both
    kept = section.enter("", people.ann.id, "published", HERE)
    assert kept[section.entries] == both
    assert "No act is recorded" in section.filter(people.local.id, "", HERE)[section.entries]


def test_an_address_names_a_person_and_an_act(store, part, people, lead):
    section = part.audit
    guidelines.publish(store, "one", people.ann.id)
    guidelines.publish(store, "two", people.tom.id)
    settings.change(store, ProjectSettings(overlap=2), people.ann.id)

    def at(place):
        shown = section.enter(place, people.tom.id, "changed", HERE)
        values = (shown[section.who].value, shown[section.did].value)
        return values, [name for name in ("guidelines 1", "guidelines 2", "settings 1") if name in shown[section.entries]]

    ann = people.ann.id
    assert at(f"/{ann}/published") == ((ann, "published"), ["guidelines 1"])
    assert at(f"/{ann}") == ((ann, ""), ["guidelines 1", "settings 1"])
    assert at("/all/published") == (("", "published"), ["guidelines 1", "guidelines 2"])
    assert at("/") == (("", ""), ["guidelines 1", "guidelines 2", "settings 1"])
    assert lead.enter(f"audit/{ann}/published", None, HERE)[section.entries] == section.open_at(f"{ann}/published", HERE)[section.entries]
    assert "not here" not in section.open_at("", HERE)[section.entries]


def test_an_address_that_names_nobody_says_so(store, part, people):
    section = part.audit
    guidelines.publish(store, "one", people.ann.id)
    for place in ("/99", "/Ann", "/1/flown", "/²", f"/{10**40}", "/<b>", "/1/published/x"):
        shown = section.enter(place, "", "", HERE)
        assert "that is not here" in shown[section.entries] and "<b>" not in shown[section.entries], place
        assert "" in (shown[section.who].value, shown[section.did].value)
