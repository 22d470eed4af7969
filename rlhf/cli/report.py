"""Runs, imports and counts as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.analysis import run_table, run_verdict, validation
from rlhf.data import pairs
from rlhf.runs import results
from rlhf.runs.metric_table import TIME
from rlhf.runs.results import Estimate, RoundResult
from rlhf.safe_output import one_line
from storage.content.prompt_list import ListedPrompt
from storage.content.prompts import Starters
from storage.content.refusals import Refusal
from storage.core.records import Metric, Run
from storage.exchange.export import Exported
from storage.exchange.import_records import Import
from storage.exchange.import_writer import Report
from storage.exchange.tracking import left_behind, read_otherwise


def table(run: Run, metrics: Sequence[Metric], votes: Mapping[str, Any] | None = None) -> str:
    """The results of a finished run, one a line, with 95% intervals.

    Args:
        votes: the evidence of the blind comparisons of its version (`round_story.evidence`), if there were any.
    """
    result, snapshot = results.of_run(run), pairs.manifest_of_run(run)
    rule = f"the rule {result.rule!r}" if result.rule else "the rule"
    seconds = {m.name.removeprefix(TIME): m.value for m in metrics if m.name.startswith(TIME)}
    stages = ", ".join(f"{stage} {spent / 60:.1f}" for stage, spent in seconds.items())
    rows = [
        ("run", f"{titled(run.id, run.name)} ({run.status})"),
        ("note", run.note),
        ("verdict", run_verdict.of(result, votes).in_words()),
        (
            "preference pairs",
            pairs.in_words(snapshot.train, snapshot.heldout)
            + (f"; {snapshot.simulated} of them from simulated annotators" if snapshot.simulated else "")
            + (f"; {snapshot.labels} answers labelled good or bad left out" if snapshot.labels else "")
            + (f"; {snapshot.demo_votes} votes of the Demo page left out" if snapshot.demo_votes else ""),
        ),
        ("reward model, cross-validated accuracy of its probe", _cross_validated(run)),
        ("reward model from elsewhere, agreement with held-out votes", _outside(run)),
        ("reward model, held-out accuracy against the votes", estimate(result.heldout_accuracy, "pairs")),
        (f"reward model, held-out accuracy against {rule}", estimate(result.heldout_accuracy_on_rule, "pairs")),
        (f"win rate over the base under {rule}", estimate(result.win_rate, "held-out prompts")),
        ("win rate over the base under the reward model (a proxy)", estimate(result.win_rate_by_reward_model, "held-out prompts")),
        ("win rate over the base under the reward function", estimate(result.win_rate_by_reward_function, "held-out prompts")),
        ("KL to the base, per held-out completion", None if result.kl is None else f"{result.kl:.2f} nats"),
        ("training began at", result.started_from),
        ("KL to that version, per held-out completion", None if result.kl_to_start is None else f"{result.kl_to_start:.2f} nats"),
        *_checkpoint_rows(result, rule),
        ("chat template", result.template.in_words() if result.template else None),
        ("lengths", result.lengths.in_words() if result.lengths else None),
        ("time", None if result.minutes is None else f"{result.minutes:.1f} min ({stages})"),
        ("peak memory", None if result.peak_memory_gib is None else f"{result.peak_memory_gib:.1f} GiB"),
        ("policy version", result.policy_version),
    ]
    return aligned([(name, value) for name, value in rows if value])


def _cross_validated(run: Run) -> str | None:
    """`68.4% (63.1 to 73.9; 412 pairs)`, or without an interval where there are too few prompts for one."""
    report = validation.of_run(run)
    accuracy = report.accuracy if report else None
    if accuracy is None:
        return None
    if accuracy.low is None or accuracy.high is None:
        return f"{100 * accuracy.value:.1f}% ({accuracy.pairs} pairs of {accuracy.prompts} prompts: too few for an interval)"
    return estimate(Estimate(accuracy.value, accuracy.low, accuracy.high, accuracy.pairs), "pairs")


def _outside(run: Run) -> str | None:
    """`skywork, weight 0.5: 68.4% (63.1 to 73.9; 89 pairs)`"""
    report = validation.of_run(run)
    if report is None or report.outside is None:
        return None
    outside = report.outside
    return f"{outside.name}, weight {outside.weight:g}: {estimate(outside.agreement, 'pairs') or 'no held-out pairs'}"


def _checkpoint_rows(result: RoundResult, rule: str) -> list[tuple[str, str | None]]:
    """Rows of early stopping, of checkpoint selection, and of the best-of-n baseline."""
    rows: list[tuple[str, str | None]] = []
    if stopped := result.stopped_by_kl:
        rows.append(("PPO ended early", f"step {stopped.step}: KL {stopped.kl:.2f} nats, budget {stopped.budget:g}"))
    if best := result.best_checkpoint:
        scores = f"conservative score {best.conservative_score:.2f}, KL {best.kl:.2f}"
        rows.append(("best checkpoint", f"after step {best.step} of {best.steps}: {scores}"))
    if best_of_n := result.best_of_n:
        name = f"best of {best_of_n.n} over the base"
        lower_kl = f"; the policy's KL is {best_of_n.policy_kl:.2f}, more than best of {best_of_n.max_n} reaches"
        rows += [
            (f"{name}, KL", f"{best_of_n.kl:.2f} nats" + (lower_kl if best_of_n.beyond_max_n else "")),
            (f"{name}, win rate under {rule}", estimate(best_of_n.win_rate, "held-out prompts")),
            (f"{name}, win rate under the reward model", estimate(best_of_n.win_rate_by_reward_model, "held-out prompts")),
            (f"win rate over the best of {best_of_n.n} under {rule}", estimate(best_of_n.policy_win_rate, "held-out prompts")),
        ]
    return rows


def titled(run_id: str, name: str) -> str:
    """`20261127-101200-ab12 Lower KL`, or the id alone of a run without a name."""
    return f"{run_id} {name}".rstrip()


def estimate(result: Estimate | None, cases: str) -> str | None:
    """`71.2% (62.0 to 79.1; 160 pairs)`."""
    if result is None:
        return None
    return f"{100 * result.value:.1f}% ({100 * result.low:.1f} to {100 * result.high:.1f}; {result.cases} {cases})"


def overview(runs: Sequence[Run]) -> str:
    """One line a run, the newest first."""
    if not runs:
        return "no runs yet: judge some comparisons, then `rankloop train`"
    return aligned(
        [
            (
                titled(run.id, run.name),
                f"{run.status:<10} {run.created_at[:16].replace('T', ' ')}  {100 * run.progress:3.0f}%  "
                + str(run.problem or results.of_run_or_empty(run).policy_version or run.error or run.stage or ""),
            )
            for run in runs
        ]
    )


def comparison(runs: Sequence[Run]) -> str:
    """The finished rounds side by side, the newest first, then those that cannot be read; empty where there is none."""
    rounds, unreadable = run_table.finished(runs)
    missing = [one_line(f"{one.id} is not in the table, because its row cannot be read: {one.problem}") for one in unreadable]
    if not rounds:
        return "\n".join(missing)
    heads = ("run", "method", "adapter", "pairs", "judgments", "accuracy", "win rate, rule", "win rate, reward model", "KL", "min", "GiB")
    rows = [
        (
            titled(one.id, one.name),
            one.method,
            " ".join([one.adapter.kind, *(f"{name} {n}" for name, n in run_table.size(one.adapter).items())]),
            pairs.in_words(one.train, one.heldout) + (f" ({one.simulated} simulated)" if one.simulated else ""),
            one.judgments,
            *(
                f"{100 * e.value:.0f}% ({100 * e.low:.0f} to {100 * e.high:.0f})" if e else "-"
                for e in (one.result.heldout_accuracy, one.result.win_rate, one.result.win_rate_by_reward_model)
            ),
            *(
                "-" if number is None else f"{number:.{digits}f}"
                for number, digits in ((one.result.kl, 2), (one.result.minutes, 1), (one.result.peak_memory_gib, 1))
            ),
        )
        for one in rounds
    ]
    lines = [columns([heads, *([str(cell) for cell in row] for row in rows)])]
    note = "Rounds with equal `judgments` were trained on the same votes and evaluated on the same held-out pairs."
    return "\n".join([*lines, *missing, "", note])


def imported(import_id: int | None, result: Report, *, prompts_only: bool) -> str:
    """The counts of an import, in one line."""
    left_out = f"{result.wrong} wrong rows left out"
    if result.read_as:
        left_out += f"\nread {read_otherwise(result.read_as)}"
    if result.left:
        left_out += f"\nnot kept, with the number of times: {left_behind(result.left)}"
    if result.numbering:
        left_out += f"\nnot kept, because these only number or repeat others, or are blank: {left_behind(result.numbering)}"
    if import_id is None:
        remedy = "correct the rows that are listed" if result.wrong else "the file has nothing that this format can hold"
        return f"nothing imported, {left_out}\n{remedy}, or describe its fields with --format or --map"
    if prompts_only:
        return f"import {import_id}: {result.prompts} prompts added, {result.prompts_known} known already, {left_out}"
    gold = f", {result.gold} known answers" if result.gold else ""
    labels = f", {result.labels} labels good or bad (kept, not used in training)" if result.labels else ""
    return (
        f"import {import_id}: {result.comparisons} comparisons added, {result.judgments} judgments{labels}{gold}, "
        f"{result.prompts} new prompts, {left_out}{_outdated(result)}"
    )


def _outdated(result: Report) -> str:
    """Judgments outdated by a later one of the same annotator, and the rows that only their order in the file could tell apart."""
    if not result.outdated:
        return ""
    text = f"; {result.outdated} judgments do not count, because the same annotator judged the comparison again later"
    if not result.undated:
        return text
    rows = ", ".join(f"row {line} ({one_line(name)})" for line, name in result.undated_rows[:10])
    return f"{text}; {result.undated} of them have equal or no times, so the later row counts: {rows}"


def exported(result: Exported, unit: str, path: Path) -> str:
    """The counts of an export, and what is not in the file by name."""
    lines = [f"{result.written} {unit} written to {path}"]
    if result.left_out:
        lines[0] += f"; {result.left_out} of {result.judgments} judgments are not in it"
    for heading, counts in (
        ("not kept, with the number of times", result.lost),
        ("kept in another form", result.reshaped),
        ("not exported", result.aside),
    ):
        if counts:
            lines.append(f"{heading}: {left_behind(counts)}")
    return "\n".join(lines)


def imports(all_imports: Sequence[Import]) -> str:
    """One line an import, the newest first."""
    if not all_imports:
        return "no imports yet"
    return aligned(
        [
            (
                f"{i.id}  {i.created_at[:16].replace('T', ' ')}  {i.format}",
                f"{i.source}: {i.report.prompts} prompts, {i.report.comparisons} comparisons, {i.report.judgments} judgments"
                + (f", {i.report.labels} labels" if i.report.labels else "")
                + (f" (undone {i.undone_at[:16].replace('T', ' ')})" if i.undone_at else ""),
            )
            for i in all_imports
        ]
    )


EXCERPT_CHARS = 60
"""Characters of a prompt in a list; a longer one ends in an ellipsis there."""


def prompts(found: Sequence[ListedPrompt]) -> str:
    """One line a prompt: its id, state, split, kind, source, comparisons, and the beginning of its last turn."""
    if not found:
        return "no such prompts"
    heads = ("id", "state", "split", "kind", "source", "comparisons", "prompt")
    rows = [
        (
            str(one.prompt.id),
            one.state.replace("_", " "),
            one.prompt.split,
            one.prompt.kind,
            one.source,
            str(one.comparisons),
            _excerpt(one.prompt.text),
        )
        for one in found
    ]
    return columns([heads, *rows])


def starters(found: Starters) -> str:
    """Whether the starter prompts are in use, and how many votes on them are left out of training and of statistics."""
    if found.in_use:
        return f"{found.prompts} starter prompts are in use"
    left_out = f"; {found.votes} votes on them are left out of training and of figures" if found.votes else ""
    return f"{found.prompts} starter prompts are not in use{left_out} (--starters on uses them)"


def refusals(found: Sequence[tuple[Refusal, str]]) -> str:
    """One line a prompt that a model refused: its id, the model, the reason, and the beginning of its last turn."""
    if not found:
        return "no prompt was refused"
    rows = [(str(one.prompt_id), one.base_model, one.reason, _excerpt(prompt)) for one, prompt in found]
    return columns([("id", "model", "reason", "prompt"), *rows])


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the heads."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def counts(nested: Mapping[str, Any]) -> str:
    """Nested counts, one a line."""
    rows = []
    for name, value in nested.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}, {part}", str(count)) for part, count in value.items()]
        else:
            rows.append((name, str(value)))
    return aligned([(name.replace("_", " "), value) for name, value in rows])


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, one a line."""
    rows = [(one_line(name), one_line(value)) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
