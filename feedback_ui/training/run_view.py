"""Presenters of one run on the Training page: status, stages, result and samples, as HTML. No Gradio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from markupsafe import Markup

from feedback_ui.shared.errors import browser_message, for_browser, named, without_paths
from feedback_ui.shared.html import EMPTY, fragment, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.markdown import render
from feedback_ui.shared.presenters import duration, empty_state, figures
from rlhf.analysis.run_table import MALFORMED_ROW_ERRORS, config_of
from rlhf.config import ConfigError, RoundConfig
from rlhf.runs import results, scheduler
from rlhf.runs.results import BestOfN, Estimate, RoundResult
from storage.core.records import ACTIVE_STATUSES, RESUMABLE_STATUSES, Run, RunSample

SAMPLING_METHODS = ("ppo", "rloo", "grpo")
"""Methods that sample completions and score them, so that their policy can over-optimise the reward model."""

METHOD_NAMES = {"ppo": "PPO", "rloo": "RLOO", "grpo": "GRPO", "dpo": "DPO", "sft": "SFT"}

STAGES = ("snapshot", "reward", "ppo", "evaluate", "register")

ACTIVITIES = ("base_answers", "fit", "scale_answers", "scores", "heldout_pairs", "policy_answers", "kl", "best_of_n")
"""What a worker says that it does within a stage, where the page has words for it."""


def is_active(run: Run | None) -> bool:
    return run is not None and run.status in ACTIVE_STATUSES


def is_resumable(run: Run | None) -> bool:
    return run is not None and run.status in RESUMABLE_STATUSES and not problem(run)


def asks(run: Run) -> bool:
    """Whether the run has stopped before its policy was trained, because its reward model cannot be told from a coin."""
    return run.status == "cancelled" and results.of_run_or_empty(run).stopped_at_chance is True


def label(translate: Translator, run: Run) -> str:
    """A run's entry in the picker."""
    return " · ".join(filter(None, [run.name, run.id, status(translate, run).lower()]))


def choices(translate: Translator, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The picker's entries, in the order of the runs."""
    return [(label(translate, run), run.id) for run in runs]


def opening_run(runs: Sequence[Run]) -> str | None:
    """The run to show when the page is opened: the active one, otherwise the first, which is the newest."""
    return next((run.id for run in [*filter(is_active, runs), *runs]), None)


def problem(run: Run) -> str:
    """Why the run's row, or the options in it, cannot be read; empty where they can."""
    try:
        config_of(run)
    except ConfigError as error:
        return browser_message(error)
    return ""


def options_of(run: Run) -> RoundConfig:
    """The run's options. Where they cannot be read the page names the run's `problem`, and draws the rest by the defaults."""
    return RoundConfig() if problem(run) else config_of(run)


def learns_from_simulated(run: Run) -> bool:
    return options_of(run).include_simulated


def steps_of(run: Run) -> int | None:
    """The steps that the training of the policy takes, where its metrics are logged once a step."""
    config = options_of(run)
    return {"ppo": config.ppo.steps, "rloo": config.group.steps, "grpo": config.group.steps}.get(config.method)


def progress(translate: Translator, run: Run | None, steps_done: int = 0) -> Markup:
    """Status, what is being done, stages and a bar with the time left.

    Args:
        steps_done: steps that the policy has been trained for.
    """
    if run is None:
        return empty_state(translate("run.none_yet"))
    return tag(
        "section",
        name_and_note(run),
        tag(
            "p",
            tag("strong", status(translate, run), data_testid="run-status"),
            simulated_mark(translate, run),
            tag("span", remark(translate, run, steps_done), class_="rl-muted", data_testid="run-remark"),
            class_="rl-status",
        ),
        job(translate, run),
        steps(translate, run),
        bar(translate, run),
        error(translate, run),
        class_="rl-run",
        data_status=run.status,
        data_run=run.id,
    )


def name_and_note(run: Run) -> Markup:
    """The run's name, and under it the note, line by line; empty without either."""
    name = tag("h2", run.name, data_testid="run-name") if run.name else EMPTY
    note = tag("p", run.note, class_="rl-run-note", dir="auto", data_testid="run-note") if run.note else EMPTY
    return tag("div", name, note, class_="rl-run-named") if run.name or run.note else EMPTY


def status(translate: Translator, run: Run) -> str:
    if asks(run):
        return translate("verdict.waits")
    return translate("run.stopping") if run.cancel_requested and is_active(run) else translate(f"run.status.{run.status}")


def remark(translate: Translator, run: Run, steps_done: int = 0) -> str:
    """The note beside the status: what an active run does, with the time left if it is known; the time taken of an ended one.

    A round that is done says how long it trained, over all its attempts, as its results do.
    """
    if is_active(run):
        left = [translate("run.left", time=duration(translate, run.eta_s))] if run.eta_s else []
        return ", ".join([*doing(translate, run, steps_done), f"{run.progress:.0%}", *left])
    if (minutes := results.of_run_or_empty(run).minutes) is not None:
        return translate("run.took", time=duration(translate, 60 * minutes))
    if run.started_at and run.finished_at:
        took = (datetime.fromisoformat(run.finished_at) - datetime.fromisoformat(run.started_at)).total_seconds()
        # Negative if the clock was set back meanwhile: the duration is unknown then.
        return translate("run.took", time=duration(translate, took)) if took >= 0 else ""
    return ""


def job(translate: Translator, run: Run) -> Markup:
    """What a cluster says about the worker of an active run; empty for a process of this machine."""
    found = scheduler.job_of(run) if is_active(run) else None
    if found is None:
        return EMPTY
    since = f"{datetime.fromisoformat(found.since):%Y-%m-%d %H:%M}"
    text = translate(f"run.job.{found.state}", job=found.id, since=since, message=without_paths(found.message))
    return tag("p", text.strip(), class_="rl-notice rl-warn" if found.state == "unreachable" else "rl-muted", data_testid="run-job")


def doing(translate: Translator, run: Run, steps_done: int) -> list[str]:
    """`["training the policy 3/10 · step 3 of 5"]`, or of an activity within a stage; empty before the first stage."""
    names = stages(run)
    # A queued run that is resumed has the stage at which it stopped.
    if run.stage not in names or run.status == "queued":
        return []
    of_policy = run.stage == method(run)
    total = steps_of(run) if of_policy else None
    if run.activity in ACTIVITIES:
        what = translate(f"run.activity.{run.activity}")
        done, total = run.activity_done or 0, run.activity_count
    else:
        what = translate(f"run.doing.{'policy' if of_policy else run.stage}")
        done = steps_done
    count = f" {min(done, total)}/{total}" if total else ""
    return [translate("run.step_of", what=what + count, step=names.index(run.stage) + 1, of=len(names))]


def method(run: Run) -> str:
    """The run's training method; runs without one are older than the option and used PPO, the default."""
    return options_of(run).method


def tunes_reward(run: Run) -> bool:
    """Whether the reward model is fine-tuned after the probe, and so has metrics by step."""
    return options_of(run).reward.epochs > 0


def stages(run: Run) -> list[str]:
    """The run's stages; the stage that trains the policy has the name of the method."""
    return [method(run) if name == "ppo" else name for name in STAGES]


def steps(translate: Translator, run: Run) -> Markup:
    names = stages(run)
    at = len(names) if run.status == "done" else names.index(run.stage) if run.stage in names else -1
    items = []
    for place, name in enumerate(names):
        state = "done" if place < at else "current" if place == at else "todo"
        current = "step" if state == "current" else None
        items.append(tag("li", translate(f"run.stage.{name}"), class_=f"rl-{state}", data_stage=name, aria_current=current))
    return tag("ol", *items, class_="rl-steps", data_testid="stages")


def bar(translate: Translator, run: Run) -> Markup:
    fraction = 1.0 if run.status == "done" else min(max(run.progress, 0.0), 1.0)
    return tag("progress", class_="rl-progress", max=1, value=f"{fraction:.3f}", aria_label=translate("run.progress"))


def unreadable(translate: Translator, what: str) -> Markup:
    """Shown in place of a row's values that have an unknown form."""
    return tag("p", translate("run.unreadable", what=what), class_="rl-notice rl-bad", role="alert", data_testid="run-unreadable")


def readable(translate: Translator, render_part: Callable[[], Markup]) -> Markup:
    """Renders a part of a run, or an error message: a damaged row must not make the page unusable for other runs."""
    try:
        return render_part()
    except MALFORMED_ROW_ERRORS as problem:
        return unreadable(translate, named(problem))


def error(translate: Translator, run: Run) -> Markup:
    if reason := problem(run):
        return unreadable(translate, reason)
    if run.error and not asks(run):
        message = translate("run.error", error=for_browser(run.error))
        return tag("p", message, class_="rl-notice rl-bad", role="alert", data_testid="run-error")
    if run.status == "lost":
        return tag("p", translate("run.lost"), class_="rl-notice rl-warn", data_testid="run-error")
    return EMPTY


def simulated_mark(translate: Translator, run: Run) -> Markup:
    if not learns_from_simulated(run):
        return EMPTY
    return tag("span", translate("run.simulated_included"), class_="rl-tag", data_testid="simulated-mark")


# ---- result


def interval(translate: Translator, figure: Estimate) -> str:
    """`71% (62% to 79%)` of a fraction with its interval."""
    return translate("run.interval", value=f"{figure.value:.0%}", low=f"{figure.low:.0%}", high=f"{figure.high:.0%}")


ESTIMATES = ("heldout_accuracy", "heldout_accuracy_on_rule", "win_rate", "win_rate_by_reward_model", "win_rate_by_reward_function")
"""Results with an interval, in the order in which they are shown."""


def result(translate: Translator, run: Run | None) -> Markup:
    """The results of a finished round; empty before its end."""
    if run is None or not run.result or run.status != "done":
        return EMPTY
    r = results.of_run(run)
    shown = {translate(f"run.figure.{name}"): interval(translate, figure) for name in ESTIMATES if (figure := getattr(r, name))}
    if r.kl is not None:
        shown[translate("run.figure.kl")] = translate("run.nats", nats=r.kl)
    if r.best_of_n:
        shown |= _best_of_n(translate, r.best_of_n)
    if r.minutes is not None:
        shown[translate("run.figure.time")] = duration(translate, r.minutes * 60)
    if r.peak_memory_gib is not None:
        shown[translate("run.figure.peak_memory")] = f"{r.peak_memory_gib:.1f} GiB"
    if r.policy_version:
        shown[translate("run.figure.policy_version")] = r.policy_version
    return tag(
        "section",
        tag("h2", translate("run.result"), simulated_mark(translate, run)),
        figures(shown),
        tag("p", reading(translate, run, r), class_="rl-muted"),
        class_="rl-card",
        data_testid="result",
    )


def _best_of_n(translate: Translator, beside: BestOfN) -> dict[str, str]:
    """The best-of-n baseline at the same KL: the best of n completions of the base, by the reward model."""
    names = ("win_rate", "win_rate_by_reward_model")
    return {
        translate(f"run.figure.best_of_n.{name}", n=beside.n): interval(translate, estimate)
        for name in names
        if (estimate := getattr(beside, name))
    }


def reading(translate: Translator, run: Run, r: RoundResult) -> str:
    """What the results are based on, and their limits."""
    parts = []
    if stopped := r.stopped_by_kl:
        parts.append(translate("run.reading.stopped_by_kl", step=stopped.step, nats=stopped.kl, budget=stopped.budget))
    if best := r.best_checkpoint:
        parts.append(
            translate("run.reading.best_checkpoint", step=best.step, steps=best.steps, score=best.conservative_score, nats=best.kl)
        )
    if refused := r.template:
        if refused.folded:
            parts.append(translate("run.reading.folded", count=refused.folded))
        if refused.demonstrations:
            parts.append(translate("run.reading.demonstrations_refused", count=refused.demonstrations))
        for name, ids in (("judgments", refused.judgments), ("prompts", refused.prompts)):
            if ids:
                parts.append(translate(f"run.reading.{name}_refused", count=len(ids), ids=results.first_ids(ids)))
        if refused.reasons:
            parts.append(translate("run.reading.refused_because", reasons="; ".join(refused.reasons)))
    if long := r.lengths:
        parts.append(translate("run.reading.lengths", limit=long.max_length))
        if long.cut_answers:
            parts.append(translate("run.reading.cut_answers", count=long.cut_answers))
        if long.demonstrations:
            parts.append(translate("run.reading.demonstrations_too_long", count=long.demonstrations))
        for name, ids in (("judgments", long.judgments), ("prompts", long.prompts)):
            if ids:
                parts.append(translate(f"run.reading.{name}_too_long", count=len(ids), ids=results.first_ids(ids)))
    if r.heldout_accuracy:
        parts.append(translate("run.reading.accuracy", count=r.heldout_accuracy.cases))
    if r.win_rate:
        parts.append(translate("run.reading.rule", count=r.win_rate.cases, rule=r.rule))
    if r.win_rate_by_reward_model:
        name = "proxy" if method(run) in SAMPLING_METHODS else "proxy_not_maximised"
        parts.append(translate(f"run.reading.{name}", count=r.win_rate_by_reward_model.cases))
    if beside := r.best_of_n:
        name = "beyond" if beside.beyond_max_n else "equal"
        parts.append(translate(f"run.reading.best_of_n_{name}", n=beside.n, nats=beside.kl, policy=beside.policy_kl))
    if learns_from_simulated(run):
        parts.append(translate("run.reading.simulated"))
    return " ".join(parts)


# ---- samples


def samples(translate: Translator, rows: Sequence[RunSample]) -> Markup:
    """Completions of the same held-out prompts before and after training."""
    if not rows:
        return EMPTY
    body = (_sample(translate, row) for row in rows)
    return tag("section", tag("h2", translate("run.samples")), *body, class_="rl-samples", data_testid="samples")


def _sample(translate: Translator, row: RunSample) -> Markup:
    after = render(row.after, translate) if row.after is not None else tag("p", translate("run.not_answered_yet"), class_="rl-muted")
    return tag(
        "article",
        tag("div", render(row.prompt, translate), class_="rl-sample-prompt rl-prose", dir="auto"),
        tag(
            "div",
            _answer(translate, "before", row.score_before, render(row.before, translate)),
            _answer(translate, "after", row.score_after, after),
            class_="rl-pair",
        ),
        class_="rl-sample",
    )


def _answer(translate: Translator, when: str, score: float | None, answer: Markup) -> Markup:
    scored = EMPTY if score is None else fragment(" ", tag("span", translate("run.score", score=score), class_="rl-muted"))
    return tag("div", tag("h3", translate(f"run.sample.{when}"), scored), tag("div", answer, class_="rl-prose", dir="auto"))
