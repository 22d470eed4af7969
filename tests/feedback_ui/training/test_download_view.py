"""The links to a run's files, and what stands in their place where there are none."""

import pytest

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import download_view
from tests.feedback_ui.training.test_run_view import a_run

EN, KO = Translator("en"), Translator("ko")


def test_the_files_are_links_with_their_sizes():
    html = download_view.section(EN, a_run(id="r 1"), adapter=3_565_158, points=120)
    assert '<a class="rl-small-button" href="runs/r%201/adapter.zip">Adapter (zip, 3.4 MiB)</a>' in html
    assert 'href="runs/r%201/metrics.csv">Metrics (CSV, 120 values)</a>' in html
    assert "어댑터(zip, 3.4 MiB)" in download_view.section(KO, a_run(), adapter=3_565_158, points=1)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("not_yet", "in its last step"),
        ("at_chance", "before its policy was trained"),
        ("ended", "before it saved one"),
        ("gone", "not there"),
    ],
)
def test_a_run_without_an_adapter_says_why(reason, says):
    html = download_view.section(EN, a_run(), adapter=reason, points=0)
    assert says in html and "adapter.zip" not in html
    assert "has logged no metrics" in html and "metrics.csv" not in html
