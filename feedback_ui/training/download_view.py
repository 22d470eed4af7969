"""Presenter of what can be downloaded from a run. No Gradio."""

from __future__ import annotations

from markupsafe import Markup

from feedback_ui.shared.html import muted, run_file, tag
from feedback_ui.shared.i18n import Translator
from rlhf.runs.run_files import Missing
from storage.core.records import Run

MIB = 1 << 20


def section(translate: Translator, run: Run, *, adapter: int | Missing, points: int) -> Markup:
    """Links to the run's files, or why there are none.

    Args:
        adapter: the size of the adapter in bytes, or why there is none.
        points: how many values of metrics the run has logged.
    """
    if isinstance(adapter, int):
        of_adapter = _link(translate("download.adapter", size=f"{adapter / MIB:.1f} MiB"), run, "adapter.zip")
    else:
        of_adapter = muted(translate(f"download.no_adapter.{adapter}"))
    of_metrics = (
        _link(translate("download.metrics", count=points), run, "metrics.csv") if points else muted(translate("download.no_metrics"))
    )
    return tag(
        "section", tag("h2", translate("download.title")), of_adapter, of_metrics, muted(translate("download.charts")),
        class_="rl-card rl-downloads", data_testid="downloads",
    )  # fmt: skip


def _link(text: str, run: Run, file: str) -> Markup:
    return tag("p", tag("a", text, class_="rl-small-button", href=run_file(run.id, file)))
