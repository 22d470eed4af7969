"""The table of finished rounds under the run on the Training page. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, table, tag, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration
from rlhf.analysis import run_table
from rlhf.analysis.run_table import FinishedRound
from rlhf.runs.results import Estimate
from storage.core.records import Run

COLUMNS = ("run", "method", "adapter", "pairs", "judgments", "accuracy", "win_rate", "win_rate_by_reward_model", "kl", "time", "memory")
NUMBER_COLUMNS = range(COLUMNS.index("accuracy"), len(COLUMNS))
METHOD_NAMES = {"ppo": "PPO", "rloo": "RLOO", "grpo": "GRPO", "dpo": "DPO", "sft": "SFT"}
ADAPTER_NAMES = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA", "peanut": "PEANuT", "ia3": "(IA)³"}


def section(words: Translator, runs: Sequence[Run]) -> Markup:
    """The table, in the order of the runs; empty without a finished round. Rounds that cannot be read are named under it."""
    rounds, unreadable = run_table.finished(runs)
    if not rounds and not unreadable:
        return EMPTY
    heads = [words(f"rounds.{name}") for name in COLUMNS]
    rows = table(heads, [_row(words, one) for one in rounds], caption=words("rounds.title"), numbers=NUMBER_COLUMNS) if rounds else EMPTY
    missing = (
        tag("p", words("rounds.unreadable", run=one.id, problem=one.problem), class_="rl-notice rl-bad", data_testid="round-unreadable")
        for one in unreadable
    )
    note = tag("p", words("rounds.same_judgments"), class_="rl-muted")
    return tag("section", tag("h2", words("rounds.title")), rows, *missing, note, class_="rl-card rl-rounds", data_testid="rounds")


def _row(words: Translator, one: FinishedRound) -> list[str]:
    return [
        one.id,
        METHOD_NAMES[one.method],
        _adapter(words, one),
        with_note(f"{one.pairs:,}", words("rounds.simulated", number=one.simulated) if one.simulated else ""),
        tag("code", one.judgments) if one.judgments else EMPTY,
        _estimate(words, one.result.heldout_accuracy),
        _estimate(words, one.result.win_rate),
        _estimate(words, one.result.win_rate_by_reward_model),
        "" if one.result.kl is None else words("run.nats", nats=one.result.kl),
        "" if one.result.minutes is None else duration(words, one.result.minutes * 60),
        "" if one.result.peak_memory_gib is None else f"{one.result.peak_memory_gib:.1f} GiB",
    ]


def _adapter(words: Translator, one: FinishedRound) -> Markup:
    name = ADAPTER_NAMES.get(one.adapter.kind) or words("rounds.adapter_prompt")
    sizes = run_table.size(one.adapter).items()
    return with_note(name, ", ".join(words(f"rounds.adapter_{part}", count=number) for part, number in sizes))


def _estimate(words: Translator, estimate: Estimate | None) -> Markup:
    if estimate is None:
        return EMPTY
    return with_note(f"{estimate.value:.0%}", words("rounds.from_to", low=f"{estimate.low:.0%}", high=f"{estimate.high:.0%}"))
