"""The table of finished rounds under the run on the Training page. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, fragment, table, tag, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, pair_counts
from feedback_ui.training import round_view, side_by_side_view
from feedback_ui.training.run_view import METHOD_NAMES
from rlhf.analysis import run_table
from rlhf.analysis.round_story import State
from rlhf.analysis.run_table import FinishedRound
from rlhf.runs.results import Estimate
from storage.core.records import Run

ROUND_COLUMNS = (
    "run",
    "method",
    "adapter",
    "pairs",
    "judgments",
    "accuracy",
    "win_rate",
    "win_rate_by_reward_model",
    "kl",
    "time",
    "memory",
)
NUMBER_COLUMNS = range(ROUND_COLUMNS.index("accuracy"), len(ROUND_COLUMNS))
ADAPTER_NAMES = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA", "peanut": "PEANuT", "ia3": "(IA)³"}


def section(translate: Translator, runs: Sequence[Run], became: Mapping[str, State] | None = None) -> Markup:
    """The table, in the order of the runs; empty without a finished round. Rounds that cannot be read are named under it.

    Args:
        became: by the run's id, what became of its policy version.
    """
    rounds, unreadable = run_table.finished(runs)
    if not rounds and not unreadable:
        return EMPTY
    # Without rounds nothing became of any version, and there is no such column.
    heads = [translate(f"rounds.{name}") for name in (*ROUND_COLUMNS, *(["became"] if became else []))]
    rows = (
        table(
            heads,
            [[*_row(translate, one), *_became(translate, one, became)] for one in rounds],
            caption=translate("rounds.title"),
            numbers=NUMBER_COLUMNS,
        )
        if rounds
        else EMPTY
    )
    missing = (
        tag("p", translate("rounds.unreadable", run=one.id, problem=one.problem), class_="rl-notice rl-bad", data_testid="round-unreadable")
        for one in unreadable
    )
    note = tag("p", translate("rounds.same_judgments"), class_="rl-muted")
    newest = [one.id for one in rounds[: side_by_side_view.MOST]]
    address = side_by_side_view.address(newest)
    link = tag("a", translate("rounds.side_by_side"), class_="rl-small-button", href=address) if len(newest) > 1 else EMPTY
    parts = (tag("h2", translate("rounds.title")), rows, *missing, note, tag("p", link))
    return tag("section", *parts, class_="rl-card rl-rounds", data_testid="rounds")


def _became(translate: Translator, one: FinishedRound, became: Mapping[str, State] | None) -> list[str]:
    if not became:
        return []
    return [round_view.state(translate, became[one.id]) if one.id in became else ""]


def _row(translate: Translator, one: FinishedRound) -> list[str]:
    return [
        fragment(tag("span", one.name, class_="rl-run-title"), tag("br"), tag("span", one.id, class_="rl-muted")) if one.name else one.id,
        METHOD_NAMES[one.method],
        _adapter(translate, one),
        with_note(
            pair_counts(translate, one.train, one.heldout), translate("rounds.simulated", number=one.simulated) if one.simulated else ""
        ),
        tag("code", one.judgments) if one.judgments else EMPTY,
        _estimate(translate, one.result.heldout_accuracy),
        _estimate(translate, one.result.win_rate),
        _estimate(translate, one.result.win_rate_by_reward_model),
        "" if one.result.kl is None else translate("run.nats", nats=one.result.kl),
        "" if one.result.minutes is None else duration(translate, one.result.minutes * 60),
        "" if one.result.peak_memory_gib is None else f"{one.result.peak_memory_gib:.1f} GiB",
    ]


def _adapter(translate: Translator, one: FinishedRound) -> Markup:
    name = ADAPTER_NAMES.get(one.adapter.kind) or translate("rounds.adapter_prompt")
    sizes = run_table.size(one.adapter).items()
    return with_note(name, ", ".join(translate(f"rounds.adapter_{part}", count=number) for part, number in sizes))


def _estimate(translate: Translator, estimate: Estimate | None) -> Markup:
    if estimate is None:
        return EMPTY
    return with_note(f"{estimate.value:.0%}", translate("rounds.from_to", low=f"{estimate.low:.0%}", high=f"{estimate.high:.0%}"))
