"""Settings are saved as versions."""

import docstring_parser
import gradio as gr
from lead_page import EN, HERE

from feedback_ui.lead.settings import ELSEWHERE
from storage.core.records import ProjectSettings
from storage.project import settings


def filled(section, **changes):
    """The form's values as they open, with some typed anew."""
    opened = section.open(HERE)
    values = {field: opened[field].value if isinstance(opened[field], gr.Dropdown) else opened[field] for field in section.fields.values()}
    return values | {section.fields[name]: value for name, value in changes.items()}


def test_settings_are_saved_as_a_version(store, part):
    section = part.settings
    html = section.change(filled(section, overlap=3, gold_share=0.1, aspects="helpful, honest ,", rationale="required", flags=False), HERE)
    assert "Saved" in html
    assert settings.current(store) == ProjectSettings(
        overlap=3, gold_share=0.1, aspects=("helpful", "honest"), rationale="required", flags=False
    )
    assert settings.current(store) == section_values(section)


def section_values(section):
    """The values that the opened form would save."""
    from feedback_ui.lead.settings import _value

    values = filled(section)
    return ProjectSettings(**{name: _value(EN, name, values[field]) for name, field in section.fields.items()})


def test_invalid_settings_are_refused_and_not_saved(store, part):
    section = part.settings
    assert "overlap must be 1 to 20" in section.change(filled(section, overlap=0), HERE)
    assert "Share of gold is empty" in section.change(filled(section, gold_share=None), HERE)
    assert settings.current(store) == ProjectSettings()


def test_every_setting_is_in_the_form_with_its_docstring_as_help(part):
    helps = {p.arg_name: p.description for p in docstring_parser.parse_from_object(ProjectSettings).params}
    assert set(part.settings.fields) == set(helps) - {*ELSEWHERE}
    for name, help_ in helps.items():
        assert EN(f"lead.settings.{name}.help") == help_
        if name in ELSEWHERE:
            continue
        assert part.settings.fields[name].info.key == f"lead.settings.{name}.help"


def test_a_target_has_a_day(store, part):
    section = part.settings
    assert "Saved" in section.change(filled(section, target_judgments=600, target_date=" 2026-12-12 "), HERE)
    assert (settings.current(store).target_judgments, settings.current(store).target_date) == (600, "2026-12-12")
    assert section.open(HERE)[section.fields["target_date"]] == "2026-12-12"
    assert "written as 2026-12-12, not &#39;soon&#39;" in section.change(filled(section, target_date="soon"), HERE)
    assert "Saved" in section.change(filled(section, target_date=None), HERE) and settings.current(store).target_date == ""
