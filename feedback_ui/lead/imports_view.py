"""Presenters of imports: what one added or would add, how far a running one is, and the list of all. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from markupsafe import Markup

from feedback_ui.lead.controls import by_controls
from feedback_ui.lead.lead_view import LETTERS, who
from feedback_ui.lead.running_imports import RunningImport
from feedback_ui.shared.errors import for_browser
from feedback_ui.shared.html import EMPTY, button, fragment, muted, table, tag, when, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, notice, sentence
from storage.content.prompts import Starters
from storage.exchange.detect import Recognised, Unrecognised
from storage.exchange.formats import PROMPTS_ALONE
from storage.exchange.import_records import Import
from storage.exchange.import_writer import Report
from storage.exchange.rows import Item, NewComparison, NewLabel
from storage.exchange.tracking import left_behind, read_otherwise

SHOWN_ROW_ERRORS = 50
SHOWN_FIRST_ROWS = 5
SHOWN_REASONS = 20


def import_report(translate: Translator, report: Report, recognised: Recognised | None = None, format: str = "prompts") -> Markup:
    """The result of an import, how its format was recognised, what was not kept, and each invalid row with its reason."""
    summary = translate("lead.prompts.added", count=report.prompts)
    if report.prompts_known:
        summary += " " + translate("lead.prompts.known", count=report.prompts_known)
    if format not in PROMPTS_ALONE:
        summary = f"{_as_what(translate, recognised, format)} {summary} {_brought(translate, report)}."
    return _with_wrong_rows(translate, report, summary)


def preview(
    translate: Translator, report: Report, recognised: Recognised | None, format: str, first: Sequence[Item] = (),
    reasons: Mapping[str, int] = MappingProxyType({}),
) -> Markup:  # fmt: skip
    """What an import of a file would add, its first rows as they are read, and what it would leave out, counted by reason."""
    holds = translate("lead.prompts.would_bring", counts=_brought(translate, report))
    shown = _with_wrong_rows(translate, report, f"{_as_what(translate, recognised, format)} {holds}")
    if len(reasons) < report.wrong:
        often = sorted(reasons.items(), key=lambda counted: (-counted[1], counted[0]))[:SHOWN_REASONS]
        each = (tag("li", f"{count:,} × {_why(translate, reason)}") for reason, count in often)
        shown += fragment(muted(translate("lead.prompts.by_reason")), tag("ul", *each, class_="rl-errors")) if reasons else EMPTY
    if not first:
        return shown
    heads = [translate(f"lead.prompts.{name}") for name in ("first_prompt", "first_answers", "first_verdict")]
    title = translate("lead.prompts.first_rows")
    rows = table(heads, [_as_read(translate, item) for item in first], caption=title)
    return shown + tag("section", tag("p", title, class_="rl-subheading"), rows)


def _as_read(translate: Translator, item: Item) -> list[str]:
    """A row of a file as it is read: the prompt, the answers, and what was said of them."""
    asked = tag("span", item.messages[-1]["content"], class_="rl-line-clamp")
    if isinstance(item, NewLabel):
        return [asked, tag("span", item.completion, class_="rl-line-clamp"), translate(f"lead.prompts.label_{str(item.good).lower()}")]
    if not isinstance(item, NewComparison):
        return [asked, "", ""]
    answers = (tag("span", f"{letter}: {text}", class_="rl-line-clamp") for letter, text in zip(LETTERS, item.completions, strict=False))
    said = (" > ".join(" = ".join(sorted(LETTERS[i] for i in tier)) for tier in vote.tiers) for vote in item.votes)
    return [asked, fragment(*answers), "; ".join(said)]


def starters_would_end(translate: Translator, found: Starters, choice: str) -> Markup:
    """That prompts of the store's own take the starter prompts out of use, and the votes on them; empty where no vote is lost."""
    if not found.votes or not found.in_use or choice != "auto":
        return EMPTY
    return notice(translate("lead.prompts.starters_would_end", count=found.votes), "warn")


def kept(translate: Translator, name: str) -> Markup:
    """That the file of a preview is there, and until when."""
    return fragment(translate("lead.prompts.is_kept", name=name))


def unrecognised(translate: Translator, error: Unrecognised, *, kept: bool = False) -> Markup:
    """That the format of a file is not clear: the fields of its rows, the likely formats, and what to do.

    Args:
        kept: whether the file is still there, so that it need not be chosen again.
    """
    if not error.fields:
        return notice(translate("lead.prompts.no_rows", reason=_why(translate, error.reason)), "bad")
    said = [translate("lead.prompts.unclear", fields=error.fields)]
    if error.likely:
        said.append(translate("lead.prompts.likely", formats=error.likely))
    return notice(" ".join([*said, translate("lead.prompts.choose_format_kept" if kept else "lead.prompts.choose_format")]), "bad")


def refused(translate: Translator, error: Exception) -> Markup:
    """Why a file was not imported, and what to do on the page."""
    return notice(sentence(error, partial(by_controls, translate)), "bad")


def _why(translate: Translator, reason: str) -> str:
    return for_browser(reason, partial(by_controls, translate))


def _as_what(translate: Translator, recognised: Recognised | None, format: str) -> str:
    if recognised is None:
        return translate("lead.prompts.by_map") if format == "map" else translate("lead.prompts.as_chosen", format=format)
    return translate("lead.prompts.recognised", format=recognised.format, evidence=recognised.evidence)


def _with_wrong_rows(translate: Translator, report: Report, summary: str) -> Markup:
    if report.read_as:
        summary += " " + translate("lead.prompts.read_as", names=read_otherwise(report.read_as))
    if report.left:
        summary += " " + translate("lead.prompts.left", names=left_behind(report.left))
    if not report.wrong:
        return notice(summary)
    shown = report.wrong_rows[:SHOWN_ROW_ERRORS]
    rows = (tag("li", f"{translate('lead.prompts.line', line=line)}: {_why(translate, reason)}") for line, reason in shown)
    more = report.wrong - len(shown)
    return fragment(
        notice(summary),
        notice(translate("lead.prompts.wrong", count=report.wrong), "warn"),
        tag("ul", *rows, class_="rl-errors"),
        muted(translate("lead.prompts.more_wrong", count=more)) if more > 0 else EMPTY,
    )


def running_imports(translate: Translator, running: Sequence[RunningImport], *, acts: bool) -> Markup:
    """How far each import is that is under way, with a button to stop it."""
    return fragment(*(tag("p", _how_far(translate, i), " ", _stop(translate, i) if acts else "", class_="rl-muted") for i in running))


def _how_far(translate: Translator, running: RunningImport) -> str:
    key = "rolling_back" if running.rolling_back else "importing"
    text = translate(f"lead.prompts.{key}", source=running.source, done=f"{running.done:,}")
    if running.seconds_left is None:
        return text
    left = translate("run.left", time=duration(translate, running.seconds_left))
    return f"{text} {translate('lead.prompts.of_rows', total=f'{running.total:,}')}, {left}"


def _stop(translate: Translator, running: RunningImport) -> Markup | str:
    if running.rolling_back or running.stop_requested:
        return ""
    return button("stop", running.id, translate("lead.prompts.stop"), running.source)


def import_list(translate: Translator, imports: Sequence[Import], names: Mapping[int, str], *, acts: bool) -> Markup:
    """Every import, newest first; empty if there is none, because the form above says what to do."""
    if not imports:
        return EMPTY
    rows = [
        [
            str(i.id),
            with_note(when(i.created_at), who(translate, names, i.by_id)),
            with_note(i.source, i.format),
            _brought(translate, i.report),
            fragment(translate("lead.prompts.undone"), " ", when(i.undone_at)) if i.undone_at else "",
            button("undo", i.id, translate("lead.prompts.undo"), str(i.id)) if acts and not i.undone_at else "",
        ]
        for i in imports
    ]
    heads = ["#", *(translate(f"lead.prompts.{name}") for name in ("imported_at", "source", "brought", "import_state")), ""]
    listed = table(heads, rows, caption=translate("lead.prompts.imports_title"), numbers=(0,))
    return tag("section", tag("p", translate("lead.prompts.imports_title"), class_="rl-subheading"), listed)


def _brought(translate: Translator, report: Report) -> str:
    counts = {
        "prompts": report.prompts,
        "comparisons": report.comparisons,
        "judgments": report.judgments,
        "labels": report.labels,
        "wrong_rows": report.wrong,
    }
    return ", ".join(translate(f"lead.prompts.of_{name}", count=number) for name, number in counts.items() if number) or "0"
