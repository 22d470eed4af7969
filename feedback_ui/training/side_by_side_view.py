"""Presenters of runs that are laid side by side: their figures with intervals, and their options, the differing ones first. No Gradio."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, NOTHING, fragment, interval, muted, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, notice, pair_counts
from feedback_ui.training import config_view, round_view, run_view, verdict_view
from rlhf.analysis import run_table, run_verdict
from rlhf.analysis.round_story import State
from rlhf.config import Option
from rlhf.runs import results
from rlhf.runs.results import Estimate
from storage.core.records import Run

FEWEST, MOST = 2, 4
"""How many runs can be laid side by side."""

EVEN = 0.5

PREFIX, SEPARATOR = "compare", "~"
"""An address is `#training/compare~RUN~RUN`: the id of a run has no `~`. `assets/events.js` writes it too."""


def address(run_ids: Sequence[str]) -> str:
    return f"#training/{SEPARATOR.join([PREFIX, *(quote(run_id, safe='') for run_id in run_ids)])}"


def runs_of_address(part: str) -> list[str]:
    """The ids in an address's part `r1~r2`, each once."""
    return [*dict.fromkeys(filter(None, part.split(SEPARATOR)))]


def title(run: Run) -> str:
    return run.name or run.id


def titles(runs: Sequence[Run]) -> list[str]:
    """The name of each run, with its id where two have the same name."""
    names = [title(run) for run in runs]
    return [f"{name} ({run.id})" if names.count(name) > 1 and name != run.id else name for name, run in zip(names, runs, strict=True)]


def warnings(translate: Translator, runs: Sequence[Run], unknown: Sequence[str], left_out: Sequence[str]) -> Markup:
    """What is not shown, and why figures of these runs may not be compared."""
    snapshots = {run_table.snapshot_or_empty(run).sha256 for run in runs} - {""}
    unreadable = [(title(run), why) for run in runs if (why := run_view.problem(run))]
    return fragment(
        notice(translate("side_by_side.unknown", runs=", ".join(unknown)), "warn") if unknown else EMPTY,
        notice(translate("side_by_side.left_out", most=MOST, runs=", ".join(left_out)), "warn") if left_out else EMPTY,
        *(notice(translate("side_by_side.unreadable", run=name, problem=why), "bad") for name, why in unreadable),
        notice(translate("side_by_side.other_judgments"), "warn") if len(snapshots) > 1 else EMPTY,
    )


# ---- figures


def figures(
    translate: Translator, runs: Sequence[Run], evidence: Mapping[str, Mapping[str, Any]], became: Mapping[str, State] | None = None
) -> Markup:
    """What each run measured, a column a run. A row that no run has is left out.

    Args:
        evidence: by the run's id, the figures of the blind comparisons of its version, as `round_story.evidence` gives them.
        became: by the run's id, what became of its policy version.
    """
    became = became or {}
    measured = [(run, results.of_run_or_empty(run), evidence.get(run.id, {})) for run in runs]
    rows: dict[str, Sequence[str]] = {
        "side_by_side.status": [run_view.status(translate, run) for run in runs],
        "side_by_side.verdict": [
            verdict_view.sentence(translate, run_verdict.of(result, people)) if run.status == "done" and run.result else EMPTY
            for run, result, people in measured
        ],
        "rounds.method": [EMPTY if run_view.problem(run) else run_view.METHOD_NAMES[run_view.method(run)] for run in runs],
        "rounds.pairs": [_pairs(translate, run) for run in runs],
        "rounds.judgments": [_judgments(run) for run in runs],
        **{f"run.figure.{name}": [estimate(translate, getattr(result, name)) for _, result, _ in measured] for name in run_view.ESTIMATES},
        "round.win_rate": [estimate(translate, run_verdict.estimate_of(people)) for _, _, people in measured],
        "run.figure.kl": [EMPTY if r.kl is None else translate("run.nats", nats=r.kl) for _, r, _ in measured],
        "run.figure.time": [EMPTY if r.minutes is None else duration(translate, 60 * r.minutes) for _, r, _ in measured],
        "run.figure.peak_memory": [EMPTY if r.peak_memory_gib is None else f"{r.peak_memory_gib:.1f} GiB" for _, r, _ in measured],
        "run.figure.policy_version": [r.policy_version or EMPTY for _, r, _ in measured],
        "rounds.became": [round_view.state(translate, became[run.id]) if run.id in became else EMPTY for run in runs],
    }
    name = translate("side_by_side.figures")
    shown = [(translate(key), cells) for key, cells in rows.items() if any(cells)]
    return tag(
        "section", tag("h2", name), columns(runs, shown, caption=name), muted(translate("side_by_side.intervals")),
        class_="rl-card rl-compared", data_testid="compared-figures",
    )  # fmt: skip


def _pairs(translate: Translator, run: Run) -> str:
    snapshot = run_table.snapshot_or_empty(run)
    return pair_counts(translate, snapshot.train, snapshot.heldout) if snapshot.sha256 else EMPTY


def _judgments(run: Run) -> Markup:
    snapshot = run_table.snapshot_or_empty(run)
    return tag("code", snapshot.sha256[: run_table.SHOWN_HASH]) if snapshot.sha256 else EMPTY


def estimate(translate: Translator, of: Estimate | None) -> Markup:
    """`58% (47 to 68%)` over its interval on a scale from 0 to 1, with a mark at one half."""
    if of is None:
        return EMPTY
    value, low, high = (f"{100 * number:.0f}" for number in (of.value, of.low, of.high))
    ends = tag("span", translate("side_by_side.ends", low=low, high=high), class_="rl-muted")
    return fragment(tag("strong", f"{value}%"), " ", ends, interval((of.value, of.low, of.high), (EVEN,)))


# ---- options


def options(translate: Translator, runs: Sequence[Run]) -> Markup:
    """The options in which the runs differ, and below them, folded up, all that any of them reads."""
    of_runs = [_options_read(run) for run in runs]
    every = {name: option for of_run in of_runs for name, option in of_run.items()}
    values = {name: [of_run[name].default if name in of_run else _UNREAD for of_run in of_runs] for name in every}
    rows = {name: (translate(f"option.{name}.title"), [_value(translate, value) for value in values[name]]) for name in every}
    differing = [name for name in every if differs(values[name])]
    marked = {rows[name][0] for name in differing}
    heading = translate("side_by_side.options")
    first = columns(runs, [rows[name] for name in differing], caption=heading, marked=marked) if differing else _no_difference(translate)
    groups = {name: config_view.group_of(option) for name, option in every.items()}
    tables = (
        fragment(tag("h3", title), columns(runs, [rows[name] for name in every if groups[name] == group], caption=title, marked=marked))
        for group in config_view.GROUPS
        if group in groups.values() and (title := translate(f"form.group.{group}"))
    )
    summary = tag("summary", translate("side_by_side.show_all", count=len(every)))
    folded = tag("details", summary, *tables, class_="rl-all-options", data_testid="compared-all-options") if every else EMPTY
    return tag("section", tag("h2", heading), first, folded, class_="rl-card rl-compared", data_testid="compared-options")


def _options_read(run: Run) -> dict[str, Option]:
    """The options that the run reads, by name; none where its row cannot be read."""
    return {} if run_view.problem(run) else {option.name: option for option in config_view.read_options(run_view.options_of(run))}


def _no_difference(translate: Translator) -> Markup:
    return muted(translate("side_by_side.no_difference"))


_UNREAD = object()
"""The value of an option that a run does not read."""


def differs(values: Sequence[Any]) -> bool:
    """Whether runs that read an option have different values of it; a run that does not read it has none."""
    read = [value for value in values if value is not _UNREAD]
    return any(value != read[0] for value in read)


def _value(translate: Translator, value: Any) -> str:
    return tag("span", translate("side_by_side.not_read"), class_="rl-muted") if value is _UNREAD else config_view.plain(translate, value)


# ---- the table


def columns(runs: Sequence[Run], rows: Sequence[tuple[str, Sequence[str]]], *, caption: str, marked: Container[str] = ()) -> Markup:
    """A table with a column a run, which scrolls sideways where the page is too narrow.

    Args:
        marked: the names of the rows that are marked as different.
    """
    heads = (
        tag("th", tag("span", class_=f"rl-line rl-line-{number}", aria_hidden="true"), name, scope="col")
        for number, name in enumerate(titles(runs), 1)
    )
    body = (
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(tag("td", cell or NOTHING) for cell in cells),
            class_="rl-differs" if name in marked else None,
        )
        for name, cells in rows
    )
    table = tag(
        "table",
        tag("caption", caption, class_="rl-sr-only"),
        tag("thead", tag("tr", tag("td"), *heads)),
        tag("tbody", *body),
        class_=f"rl-table rl-runs-{len(runs)}",
    )
    return tag("div", table, class_="rl-scrolls", role="region", aria_label=caption, tabindex="0")
