"""The table of finished rounds under the run on the Training page. Strings of HTML, no Gradio."""

from __future__ import annotations

from collections.abc import Sequence

from feedback_ui.shared.html import table
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.markdown import escape
from feedback_ui.shared.presenters import duration
from rlhf.analysis import run_table
from rlhf.analysis.run_table import FinishedRound
from rlhf.runs.results import Estimate
from storage.core.records import Run

COLUMNS = ("run", "method", "adapter", "pairs", "judgments", "accuracy", "win_rate", "win_rate_by_reward_model", "kl", "time", "memory")
NUMBERS = range(COLUMNS.index("accuracy"), len(COLUMNS))
METHODS = {"ppo": "PPO", "rloo": "RLOO", "grpo": "GRPO", "dpo": "DPO", "sft": "SFT"}
KINDS = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA", "peanut": "PEANuT", "ia3": "(IA)³"}


def section(words: Translator, runs: Sequence[Run]) -> str:
    """The table, in the order of the runs; empty without a finished round. Rounds that cannot be read are named under it."""
    rounds, unreadable = run_table.finished(runs)
    if not rounds and not unreadable:
        return ""
    heads = [words(f"rounds.{name}") for name in COLUMNS]
    rows = table(heads, [_row(words, one) for one in rounds], caption=words("rounds.title"), numbers=NUMBERS) if rounds else ""
    reasons = [escape(words("rounds.unreadable", run=one.id, problem=one.problem)) for one in unreadable]
    missing = "".join(f'<p class="rl-notice rl-bad" data-testid="round-unreadable">{reason}</p>' for reason in reasons)
    note = f'<p class="rl-muted">{words("rounds.same_judgments")}</p>'
    return f'<section class="rl-card rl-rounds" data-testid="rounds"><h2>{words("rounds.title")}</h2>{rows}{missing}{note}</section>'


def _row(words: Translator, one: FinishedRound) -> list[str]:
    simulated = f'<br><span class="rl-muted">{words("rounds.simulated", number=one.simulated)}</span>' if one.simulated else ""
    return [
        escape(one.id),
        METHODS[one.method],
        _adapter(words, one),
        f"{one.pairs:,}{simulated}",
        f"<code>{escape(one.judgments)}</code>" if one.judgments else "",
        _estimate(words, one.result.heldout_accuracy),
        _estimate(words, one.result.win_rate),
        _estimate(words, one.result.win_rate_by_reward_model),
        "" if one.result.kl is None else words("run.nats", nats=one.result.kl),
        "" if one.result.minutes is None else duration(words, one.result.minutes * 60),
        "" if one.result.peak_memory_gib is None else f"{one.result.peak_memory_gib:.1f} GiB",
    ]


def _adapter(words: Translator, one: FinishedRound) -> str:
    name = KINDS.get(one.adapter.kind) or words("rounds.adapter_prompt")
    large = ", ".join(words(f"rounds.adapter_{part}", count=number) for part, number in run_table.size(one.adapter).items())
    return f'{name}<br><span class="rl-muted">{large}</span>' if large else name


def _estimate(words: Translator, figure: Estimate | None) -> str:
    if figure is None:
        return ""
    ends = words("rounds.from_to", low=f"{figure.low:.0%}", high=f"{figure.high:.0%}")
    return f'{figure.value:.0%}<br><span class="rl-muted">{ends}</span>'
