"""The theme."""

from feedback_ui.app import launch_options


def test_the_theme_names_no_other_host(assets):
    for file in assets.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//fonts" not in text and "http://" not in text and "https://" not in text, file
    assert launch_options()["theme"]._stylesheets == []
