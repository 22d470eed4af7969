"""Presenters of an export of judgments: how far it is, its file, and what is not in it, by name and count. No Gradio."""

from __future__ import annotations

from functools import partial

from markupsafe import Markup

from feedback_ui.lead.controls import by_controls
from feedback_ui.lead.running_exports import ExportStopped, RunningExport
from feedback_ui.server import download_files
from feedback_ui.shared.html import EMPTY, button, fragment, muted, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, notice, sentence
from storage.core.database import StoreError
from storage.exchange import formats
from storage.exchange.export import Exported
from storage.exchange.things import THINGS
from storage.exchange.tracking import left_behind


def holds(translate: Translator, format: str) -> Markup:
    """What a file of this format holds."""
    if format == formats.NATIVE:
        return muted(translate("lead.exports.native_holds"))
    if written := formats.FORMATS[format].written:
        return muted(translate("lead.exports.holds", names=", ".join(THINGS[thing] for thing in written)))
    return EMPTY


def status(translate: Translator, running: RunningExport | None) -> Markup:
    """How far the last export is, or what came of it; nothing before the first."""
    if running is None:
        return EMPTY
    if not running.is_over:
        return tag("div", tag("p", _how_far(translate, running), " ", _stop(translate, running)), _bar(translate, running), role="status")
    if isinstance(running.error, StoreError):
        kind = "muted" if isinstance(running.error, ExportStopped) else "bad"
        return notice(sentence(running.error, partial(by_controls, translate)), kind)
    if running.error is not None or running.exported is None:
        return notice(translate("lead.exports.failed", file=running.path.name), "bad")
    if not running.path.exists():
        return notice(translate("lead.exports.fetched", file=running.path.name), "muted")
    address = download_files.link(running.path)
    link = tag("a", translate("lead.exports.download", file=running.path.name), href=address, download="", class_="rl-small-button")
    return fragment(
        notice(f"{running.path.name}, {_size(running.size)}: {translate('lead.exports.rows', count=running.exported.written)}"),
        tag("p", link),
        muted(translate("lead.exports.once")),
        summary(translate, running.exported),
    )


def summary(translate: Translator, exported: Exported) -> Markup:
    """What is not in the file, or in it in another form, as the command line says it."""
    said = [translate("lead.exports.left_out", count=exported.left_out, of=f"{exported.judgments:,}")] if exported.left_out else []
    for key, counts in (("lost", exported.lost), ("reshaped", exported.reshaped), ("aside", exported.aside)):
        if counts:
            said.append(translate(f"lead.exports.{key}", names=by_controls(translate, left_behind(counts))))
    return tag("ul", *(tag("li", line) for line in said), class_="rl-errors") if said else EMPTY


def _how_far(translate: Translator, running: RunningExport) -> str:
    if not running.total:
        return translate("lead.exports.begun", file=running.path.name)
    key = "rows_done" if running.wanted.is_native else "judgments_done"
    text = translate(f"lead.exports.{key}", file=running.path.name, done=f"{running.done:,}", total=f"{running.total:,}")
    if running.done >= running.total or running.seconds_left is None:
        return text
    return f"{text}, {translate('run.left', time=duration(translate, running.seconds_left))}"


def _bar(translate: Translator, running: RunningExport) -> Markup:
    share = running.done / running.total if running.total else 0
    return tag("progress", class_="rl-progress", max=1, value=f"{share:.2f}", aria_label=_how_far(translate, running))


def _stop(translate: Translator, running: RunningExport) -> Markup:
    return EMPTY if running.stop_requested else button("stop", 0, translate("lead.exports.stop"), running.path.name)


def _size(size: int) -> str:
    """`312 kB`, `4.5 MB`."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
