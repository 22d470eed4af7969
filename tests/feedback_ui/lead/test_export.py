"""A lead exports judgments on the page and downloads the file."""

import pytest
from lead_page import HERE, sign_in
from waiting import until

from feedback_ui.lead.export import OPTIONS
from feedback_ui.lead.running_exports import RunningExports
from feedback_ui.server.auth import AccessRefused
from storage.exchange import formats


@pytest.fixture
def section(part, monkeypatch):
    monkeypatch.setattr(part.export, "exports", RunningExports())
    return part.export


def followed(section, asking=HERE):
    def there():
        update = section.follow("", asking)
        return update if section.start_button in update and update[section.start_button].interactive else None

    return until(there)


def test_a_file_is_written_and_stays_until_it_is_fetched(store, section, people, judge, waiting):
    judge(people.ann)
    opened = section.open(HERE)
    assert opened[section.status] == "" and not opened[section.timer].active and opened[section.asking].visible
    begun = section.start("trl", ["names"], HERE)
    assert begun[section.timer].active
    update = followed(section)
    assert "1 row" in update[section.status] and "Not kept, with the number of times: " in update[section.status]
    assert update[section.timer].active, "the page goes on looking until the file is fetched"
    assert section.status not in section.follow(update[section.status], HERE), "an unchanged status is not sent again"
    # It is there after a reload, too.
    assert section.open(HERE)[section.status] == update[section.status]
    section.exports.of(people.local.id).path.unlink()
    update = section.follow(update[section.status], HERE)
    assert "was downloaded" in update[section.status] and not update[section.timer].active


def test_each_format_has_the_options_that_fit(section):
    def options(format, chosen=()):
        shown = section.choose_format(format, list(chosen), HERE)[section.options]
        return [name for _, name in shown.choices] if shown.visible else [], shown.value

    assert options("csv", ["names", "raw_cells"]) == (list(OPTIONS), ["names", "raw_cells"])
    assert options("trl", ["names", "raw_cells"]) == (["include_simulated", "names", "strict", "packed"], ["names"])
    assert options("parquet")[0] == ["include_simulated", "names", "strict"]
    assert options("native", ["names"]) == ([], [])
    assert section.format.choices == [(name, name) for name in formats.WRITABLE]
    assert "earlier turns" in section.choose_format("trl", [], HERE)[section.holds]


def test_what_does_not_fit_is_refused(section):
    assert "“CSV cells unchanged, formulas too” is for CSV" in section.start("trl", ["raw_cells"], HERE)[section.status]
    for format in ("docx", "../x", "", None):
        assert "annot be exported: choose one of" in section.start(format, [], HERE)[section.status]


def test_only_leads_export_and_see_their_own_alone(store, auth, section, people, judge, waiting):
    judge(people.ann)
    lead = sign_in(store, auth, "Lea", "lead")
    other, researcher, annotator = (sign_in(store, auth, name, name) for name in ("lead", "researcher", "annotator"))
    section.start("trl", [], lead)
    assert "1 row" in followed(section, lead)[section.status]
    assert section.open(other)[section.status] == section.open(researcher)[section.status] == ""
    assert not section.open(researcher)[section.asking].visible
    for refused in (lambda: section.start("trl", [], researcher), lambda: section.stop(researcher), lambda: section.open(annotator)):
        with pytest.raises(AccessRefused):
            refused()
    section.stop(lead)
