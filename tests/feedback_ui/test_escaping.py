"""Every function that presents something as HTML, with hostile text in every record and in every translation.

The elements must be the same as with harmless text, and every text and attribute must be what was put in. Where a text is Markdown its own
elements come on top: there, each must be one that Markdown may make.
"""

import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

import feedback_ui
from feedback_ui import visitor
from feedback_ui.demo import conversation, demo_view, exports_view, gallery_view, versions_view
from feedback_ui.demo.conversation import Answer, Conversation, Turn
from feedback_ui.demo.gallery_view import GallerySample
from feedback_ui.demo.running_export import RunningExport
from feedback_ui.lead import (
    accounts_view,
    audit_view,
    batches_view,
    exclusions_view,
    export_view,
    gold_view,
    guidelines_view,
    imports_view,
    lead_view,
    prompts_view,
    quality_view,
    section,
)
from feedback_ui.lead.running_exports import RunningExport as ExportOfJudgments
from feedback_ui.lead.running_exports import Wanted
from feedback_ui.lead.running_imports import RunningImport
from feedback_ui.leaderboard import leaderboard_view
from feedback_ui.server.auth import Visitor
from feedback_ui.shared import html, markdown, presenters
from feedback_ui.shared.i18n import Translator
from feedback_ui.training import (
    config_view,
    download_view,
    queue_view,
    round_view,
    rounds_table,
    run_view,
    side_by_side_view,
    triggers_view,
    validation_view,
    verdict_view,
)
from rlhf.analysis.agreement import Agreement, AnnotatorRow, ComparisonAgreement, Share
from rlhf.analysis.drift import Drift
from rlhf.analysis.leaderboard import Leaderboard, ScoreEstimate, Standing
from rlhf.analysis.round_story import Made, Story
from rlhf.analysis.sequential_test import assess
from rlhf.analysis.style import StyleEffect
from rlhf.analysis.target import Outlook as TargetOutlook
from rlhf.analysis.validation import Validation
from rlhf.analysis.version_card import Limit, Outcome, VersionCard
from rlhf.config import RoundConfig
from rlhf.data.pairs import SnapshotManifest
from rlhf.data.reliability import AnnotatorReliability
from rlhf.runs import deciding, triggers
from rlhf.runs.dry_run import DryRun
from rlhf.runs.results import Estimate, RoundResult
from rlhf.runs.token_changes import SampleChange
from rlhf.serving.batch_plan import Outlook
from storage.analytics.stats import DayOfJudging
from storage.content.prompt_list import ListedPrompt
from storage.content.prompts import NewPrompt, Starters
from storage.content.refusals import Refusal
from storage.core.database import StoreError
from storage.core.records import (
    Annotator,
    Batch,
    Comparison,
    Completion,
    Decision,
    Exclusion,
    Guidelines,
    PastJudgment,
    PolicyVersion,
    Prompt,
    QueuedRound,
    Round,
    Run,
    RunSample,
    Sampling,
)
from storage.exchange.detect import Recognised, Unrecognised
from storage.exchange.export import Exported
from storage.exchange.import_records import Import
from storage.exchange.import_writer import Report
from storage.exchange.rows import NewComparison, NewLabel, Vote
from storage.judging.exclusions import Effect
from storage.people.accounts import Account
from storage.people.audit import AuditEntry

NOW = "2026-11-02T10:00:00.000+00:00"
MODULES = (
    presenters, markdown, accounts_view, audit_view, batches_view, exclusions_view, gold_view, guidelines_view, imports_view, lead_view,
    export_view,
    prompts_view, quality_view, section, leaderboard_view, run_view, round_view, rounds_table, validation_view, verdict_view,
    config_view, queue_view, triggers_view, side_by_side_view, download_view, visitor,
    demo_view, exports_view, gallery_view, versions_view,
)  # fmt: skip

FRAGMENTS = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "</td></tr></table>", "javascript:alert(1)",
    "&lt;b&gt;", "&#x27;", "{0}", "{{7*7}}", "%s", "<!--", "]]>", "<", "&", '"', "'", "\n", " ",
)  # fmt: skip
hostile = st.lists(st.sampled_from(FRAGMENTS) | st.text("<>\"'&;=ab ", max_size=5), min_size=1, max_size=6).map("".join)


@dataclass(frozen=True)
class Hostile(Translator):
    """A translator to whose texts somebody has added something."""

    addition: str = ""

    def __call__(self, key, **values):
        return super().__call__(key, **values) + self.addition


def filled(kind, text, name=""):
    """A record of this type with `text` in every string, and harmless values elsewhere."""
    if name in ("date", "at") or name.endswith("_at"):
        return NOW[:10] if name == "date" else NOW
    if kind is str:
        return text
    if kind in (int, float, bool):
        return {int: 1, float: 0.5, bool: True}[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return filled(arguments[0], text, name)
    if origin is tuple:
        return tuple(filled(part, text) for part in arguments if part is not ...)
    if origin in (list, frozenset):
        return origin([filled(arguments[0], text)])
    if origin in (dict, Mapping):
        return {filled(arguments[0], text): filled(arguments[1], text)}
    if typing.is_typeddict(kind):
        return {"role": "user", "content": text}
    assert is_dataclass(kind), kind
    hints = typing.get_type_hints(kind)
    return kind(**{field.name: filled(hints[field.name], text, field.name) for field in fields(kind)})


def a_comparison(text):
    completions = tuple(replace(filled(Completion, text), id=number, policy_version_id=number) for number in (1, 2))
    messages = ({"role": "user", "content": text}, {"role": "assistant", "content": text}, {"role": "user", "content": text})
    return Comparison(1, Prompt(1, messages, text, "train"), completions, text)


def past_judgments(text):
    past = replace(filled(PastJudgment, text), comparison=a_comparison(text))
    judgment = replace(past.judgment, verdict="rank", tiers=((1,), (2,)))
    skipped = replace(past, judgment=replace(judgment, verdict="skip"))
    return [replace(past, judgment=judgment), skipped, replace(past, judgment=judgment, exclusion=None)]


def a_run(text, **changes):
    result, validation = filled(RoundResult, text).to_json(), filled(Validation, text).to_json()
    config = RoundConfig().to_dict() | {"include_simulated": True}
    snapshot = {"pairs": 9, "simulated": 3, "sha256": text * 7}
    values = {
        "id": text, "status": "failed", "config": config, "seed": 0, "versions": {}, "snapshot": snapshot, "stage": "ppo", "progress": 0.5,
        "eta_s": None, "cancel_requested": False, "pid": 1, "heartbeat_at": None, "created_at": NOW, "started_at": NOW, "finished_at": NOW,
        "error": text, "result": result, "validation": validation, "name": text, "note": text,
    }  # fmt: skip
    return Run(**values | changes)


def a_job(text, state):
    return {"scheduler": "ray", "address": text, "id": "rankloop-r1-ab12cd", "state": state, "since": NOW, "message": text}


def a_queued_round(text):
    return QueuedRound(1, "schedule", "people", {"method": text}, 1, NOW, "waiting", None, text, NOW)


def the_triggers(text):
    hold = triggers.Hold("training", text)
    return triggers.Triggers(5, text, 1, 1, datetime.fromisoformat(NOW), ("schedule",), hold, a_queued_round(text))


def a_conversation(text):
    answers = (Answer(text, "stop"), Answer(text, problem=text))
    turn = Turn(text, 3, Sampling(), (0, 1), answers, verdict="a", continued=0)
    return Conversation((text, f"{text}."), True, (turn, turn))


def a_card(text):
    version = filled(PolicyVersion, text)
    limits = (Limit("unread", {"problem": text}), Limit("few_pairs", {"pairs": 3}))
    data, result = filled(SnapshotManifest, text), filled(RoundResult, text)
    outcome = Outcome("promoted", "person", text, text, "2026-11-02T10:00:00.000+00:00")
    return VersionCard(version, text, text, text, a_run(text, versions={text: text}), RoundConfig(seed=3), data, result, limits, outcome)


ASSESSED = assess([1.0, 0.0, 0.5])


def a_decision(text, act, decided_by):
    evidence = {"win_rate": 0.6, "low": 0.5, "high": 0.7, "units": 4} if decided_by == "comparisons" else {}
    return Made(Decision(1, 1, 1, act, decided_by, 1, text, evidence, 2, NOW), text, text, text if decided_by == "person" else None)


def a_story(text, *, opened):
    version = filled(PolicyVersion, text)
    made = [] if opened else [a_decision(text, "rejected", "guards"), a_decision(text, "promoted", "comparisons")]
    made += [] if opened else [a_decision(text, "rolled back", "person")]
    found = Round(1, text, "hand", "people", 1, "passed", 1, NOW, "done", version, None if opened else made[0].decision)
    run = a_run(text, versions={text: text}, config={"model": text, "method": text})
    stands = deciding.Standing(version, ASSESSED, 2, 2, 0.5, 0.05, 200, "comparisons") if opened else None
    snapshot = SnapshotManifest(pairs=3, train=2, heldout=1, simulated=1, sha256=text)
    state = "compared" if opened else "rolled back"
    return Story(found, run, state, snapshot, filled(RoundResult, text), text, made, stands, 5)


def a_board(text, versions):
    estimate = ScoreEstimate(0.6, 0.5, 0.7)
    standings = tuple(
        Standing(i, text, "tuned", 0, i, ScoreEstimate(1000 + i, 900.0, 1100.0), estimate, 4, 2, 1, 1) for i in range(1, versions + 1)
    )
    style = (StyleEffect("length", 0.6, 0.5, 0.7, 3), StyleEffect("bold", None, None, None, 0))
    return Leaderboard(False, 9, 8, 7, "newman", (text,), True, standings, ((None, 0.5, 0.7),) * versions, ((0, 4, 5),) * versions, style)


def exports_of_judgments(text):
    """One that is under way, one that is there, one that is gone, and one that was refused."""
    there = Path(__file__)
    yield ExportOfJudgments(Wanted("trl"), Path(text.replace("/", "") + ".jsonl"), done=1, total=3)
    yield ExportOfJudgments(Wanted("trl"), there, is_over=True, exported=Exported(3, 4, 1, {text: 1}))
    yield ExportOfJudgments(Wanted("native"), there / "gone", is_over=True, exported=Exported(3))
    yield ExportOfJudgments(Wanted("trl"), there, is_over=True, error=StoreError(f"A: {text}"))


STATS = {
    "prompts": 1, "prompts_in_use": 1, "completions": 1, "comparisons": 1, "judgments": {"human": 1, "simulated": 1}, "policy_versions": 1,
    "queue_depth": 1,
    "annotators": {"human": 1, "simulated": 1}, "runs": {"done": 1}, "labels_not_used_in_training": {"human": 1, "simulated": 1},
}  # fmt: skip
DAYS = [DayOfJudging("2026-11-01", 2, 1)]
MARKDOWN = "Markdown"


def error(text):
    return ValueError(f"A: {text}")


CASES = {
    "presenters.answer": (lambda t, w: presenters.answer(w, t, writing=True), MARKDOWN),
    "presenters.server_down": lambda t, w: presenters.server_down(w, error(t)),
    "presenters.pairs_available": lambda t, w: presenters.pairs_available(w, (3, 2), (2, 0), few_measure=20, unused_starter_votes=1),
    "presenters.starters_left_out": lambda t, w: presenters.starters_left_out(w, 2),
    "presenters.notice": lambda t, w: presenters.notice(t),
    "presenters.empty_state": lambda t, w: presenters.empty_state(t),
    "presenters.figures": lambda t, w: presenters.figures({t: t}),
    "presenters.overview": lambda t, w: presenters.overview(w, STATS, DAYS),
    "presenters.judgments_by_day": lambda t, w: presenters.judgments_by_day(w, DAYS),
    "markdown.render": (lambda t, w: markdown.render(t, w), MARKDOWN),
    "lead_view.who": lambda t, w: lead_view.who(w, {1: t}, 1) + lead_view.who(w, {}, None),
    "lead_view.conversation": (lambda t, w: lead_view.conversation(w, a_comparison(t).prompt), MARKDOWN),
    "lead_view.answers": (lambda t, w: lead_view.answers(w, a_comparison(t), {1: filled(PolicyVersion, t)}), MARKDOWN),
    "prompts_view.prompt_counts": lambda t, w: prompts_view.prompt_counts(w, [(t, "train", 2), (f"{t}.", "heldout", 1)]),
    "imports_view.import_report": lambda t, w: imports_view.import_report(w, replace(filled(Report, t), wrong=60)),
    "imports_view.preview": lambda t, w: imports_view.preview(
        w, replace(filled(Report, t), wrong=60), Recognised(t, t), t,
        [
            NewPrompt(a_comparison(t).prompt.messages), NewLabel(a_comparison(t).prompt.messages, t, True),
            NewComparison(a_comparison(t).prompt.messages, (t, t), (t, t), (Vote(((0,), (1,))),)),
        ],
        {t: 3},
    ),
    "imports_view.kept": lambda t, w: imports_view.kept(w, t),
    "imports_view.starters_would_end": lambda t, w: imports_view.starters_would_end(w, Starters(9, True, 2), "auto"),
    "imports_view.unrecognised": lambda t, w: imports_view.unrecognised(w, Unrecognised(t, fields=t, likely=t)),
    "prompts_view.starters_now": lambda t, w: html.fragment(*(prompts_view.starters_now(w, Starters(n, n > 9, 2)) for n in (9, 240))),
    "prompts_view.prompts_listed": lambda t, w: prompts_view.prompts_listed(
        w, [replace(filled(ListedPrompt, t), prompt=a_comparison(t).prompt)], 3, acts=True
    ),
    "prompts_view.prompt_opened": (
        lambda t, w: prompts_view.prompt_opened(w, replace(filled(ListedPrompt, t), prompt=a_comparison(t).prompt), 2), MARKDOWN,
    ),
    "prompts_view.refused_prompts": lambda t, w: prompts_view.refused_prompts(
        w, [filled(Refusal, t)], {1: a_comparison(t).prompt}, acts=True
    ),
    "imports_view.refused": lambda t, w: imports_view.refused(w, StoreError(f"{t}: say --format")),
    "imports_view.running_imports": lambda t, w: imports_view.running_imports(w, [RunningImport(1, t, 0.0, 5, 9)], acts=True),
    "imports_view.import_list": lambda t, w: imports_view.import_list(w, [filled(Import, t)], {1: t}, acts=True),
    "batches_view.batch_list": lambda t, w: batches_view.batch_list(
        w, [replace(filled(Batch, t), requested=9, cancelled_at=None), replace(filled(Batch, t), id=2, policy_ids=(1, 7))],
        {1: filled(PolicyVersion, t)}, {1: t}, notes={"1": t}, seconds_per_answer=2.0, acts=True, assigns=True,
    ),
    "batches_view.outlook": lambda t, w: html.fragment(*(
        batches_view.outlook(w, found, count=4, answers=2, wanted=1, seconds_per_answer=None)
        for found in (Outlook(3, 1, 3, 1), Outlook(0, 1, 0, 0))
    )),
    "batches_view.progress": lambda t, w: batches_view.progress(w, 1, 2),
    "gold_view.ordering": (
        lambda t, w: gold_view.ordering(w, a_comparison(t), {1: filled(PolicyVersion, t)}, ((1,), (2,))), MARKDOWN,
    ),
    "gold_view.gold_list": lambda t, w: gold_view.gold_list(w, [a_comparison(t)], {1: ((1,), (2,))}, {1: (3, 2)}, acts=True),
    "exclusions_view.effect": lambda t, w: exclusions_view.effect(w, Effect(2, 9, 1)) + exclusions_view.effect(w, Effect(0, 9, 0)),
    "exclusions_view.exclusion_list": lambda t, w: exclusions_view.exclusion_list(w, [filled(Exclusion, t)], {1: t}, acts=True),
    "guidelines_view.guideline_preview": (lambda t, w: guidelines_view.guideline_preview(w, t), MARKDOWN),
    "guidelines_view.guideline_version": (lambda t, w: guidelines_view.guideline_version(w, 1, filled(Guidelines, t)), MARKDOWN),
    "guidelines_view.guideline_list": lambda t, w: guidelines_view.guideline_list(w, [filled(Guidelines, t)], {1: t}),
    "accounts_view.account_list": lambda t, w: accounts_view.account_list(w, [filled(Account, t)], acts=True),
    "lead_view.heading": lambda t, w: lead_view.heading(t),
    "accounts_view.reload_notice": lambda t, w: accounts_view.reload_notice(w, t),
    "audit_view.audit_list": lambda t, w: audit_view.audit_list(
        w, [AuditEntry(NOW, t, "created", "account", "1", t), AuditEntry(NOW, None, "excluded", "exclusion", t, t)], {1: t}
    ),
    "quality_view.counts": lambda t, w: quality_view.counts(w, comparisons=1, waiting=1, today=1, report=filled(Agreement, t)),
    "quality_view.overview": lambda t, w: quality_view.overview(w, filled(Agreement, t), filled(Share, t)),
    "quality_view.target": lambda t, w: quality_view.target(w, TargetOutlook(600, None, 4, 7, 1.5, 2, date(2026, 12, 12), 2.5), 3),
    "quality_view.people": lambda t, w: quality_view.people(
        w, [replace(filled(AnnotatorRow, t), agreement_units=30)], {1: Drift(0.9, 0.4, 12, -0.7, -0.1)}, acts=True
    ),
    "quality_view.annotator_table": lambda t, w: quality_view.annotator_table(
        w, [filled(AnnotatorRow, t), replace(filled(AnnotatorRow, t), kind="simulated")], acts=True
    ),
    "quality_view.reliability_table": lambda t, w: quality_view.reliability_table(
        w, [filled(AnnotatorReliability, t), replace(filled(AnnotatorReliability, t), kind="simulated", reliability=None)],
        {1: Drift(0.9, 0.4, 12, -0.7, -0.1)},
    ),
    "quality_view.item_table": lambda t, w: quality_view.item_table(w, [filled(ComparisonAgreement, t)]),
    "quality_view.item": (
        lambda t, w: quality_view.item(w, a_comparison(t), past_judgments(t), {1: filled(PolicyVersion, t)}, {1: t}, acts=True), MARKDOWN,
    ),
    "section.refusal": lambda t, w: section.refusal(error(t)),
    "leaderboard_view.policies": lambda t, w: leaderboard_view.policies(w, a_board(t, 3), with_switch=True),
    "leaderboard_view.own": lambda t, w: leaderboard_view.own(w, {"2026-11-01": 3}, 3, date(2026, 11, 2)),
    "leaderboard_view.everyone": lambda t, w: leaderboard_view.everyone(
        w, [filled(Annotator, t), replace(filled(Annotator, t), id=2, shows_name=False)], 1
    ),
    "run_view.progress": lambda t, w: run_view.progress(w, a_run(t)),
    "run_view.name_and_note": lambda t, w: run_view.name_and_note(a_run(t)),
    "run_view.job": lambda t, w: Markup("").join(
        run_view.job(w, a_run(t, status="running", job=a_job(t, state))) for state in ("submitted", "pending", "running", "unreachable")
    ),
    "run_view.steps": lambda t, w: run_view.steps(w, a_run(t)),
    "run_view.bar": lambda t, w: run_view.bar(w, a_run(t)),
    "run_view.unreadable": lambda t, w: run_view.unreadable(w, t),
    "run_view.readable": lambda t, w: run_view.readable(w, lambda: {}[t]),
    "run_view.error": lambda t, w: run_view.error(w, a_run(t)) + run_view.error(w, a_run(t, problem=t)),
    "run_view.simulated_mark": lambda t, w: run_view.simulated_mark(w, a_run(t)),
    "run_view.result": lambda t, w: run_view.result(w, a_run(t, status="done")),
    "run_view.samples": (lambda t, w: run_view.samples(w, [filled(RunSample, t)]), MARKDOWN),
    "round_view.section": lambda t, w: round_view.section(w, a_story(t, opened=True), [ASSESSED]) + round_view.section(
        w, a_story(t, opened=False), []
    ),
    "queue_view.section": lambda t, w: queue_view.section(
        w, [a_queued_round(t), replace(a_queued_round(t), by_id=None)], [a_queued_round(t)], {1: t}, acts=True
    ),
    "triggers_view.section": lambda t, w: triggers_view.section(w, the_triggers(t), {t: t}),
    "triggers_view.dry_run": lambda t, w: triggers_view.dry_run(
        w, DryRun(t, t, 1, 2, 3, 4, 5, t, 6.0), t
    ),
    "round_view.picture": lambda t, w: round_view.picture(w, [ASSESSED]),
    "verdict_view.section": lambda t, w: verdict_view.section(w, a_run(t, status="done"), a_story(t, opened=True)) + verdict_view.section(
        w, a_run(t, status="cancelled"), None
    ),
    "config_view.marks": lambda t, w: config_view.marks({"x": RoundConfig(model=t)}, ("seed",), t),
    "config_view.section": lambda t, w: config_view.section(w, RoundConfig(model=t)),
    "rounds_table.section": lambda t, w: rounds_table.section(w, [a_run(t, status="done")]),
    "download_view.section": lambda t, w: download_view.section(w, a_run(t), adapter=5, points=9) + download_view.section(
        w, a_run(t), adapter="ended", points=0
    ),
    "side_by_side_view.warnings": lambda t, w: side_by_side_view.warnings(
        w, [a_run(t), a_run(t, problem=t, snapshot={"sha256": "x"})], [t], [t]
    ),
    "side_by_side_view.figures": lambda t, w: side_by_side_view.figures(
        w, [a_run(t, status="done"), a_run(t, id="r2")], {t: {"win_rate": 0.5, "low": 0.4, "high": 0.6, "units": 9}}, {t: "current"}
    ),
    "side_by_side_view.estimate": lambda t, w: side_by_side_view.estimate(w, Estimate(0.5, 0.4, 0.6, 9)),
    "side_by_side_view.options": lambda t, w: side_by_side_view.options(
        w, [a_run(t, config={"model": t}), a_run(t, id="r2", config={"method": "dpo"}), a_run(t, problem=t)]
    ),
    "side_by_side_view.columns": lambda t, w: side_by_side_view.columns([a_run(t)], [(t, [t])], caption=t, marked={t}),
    "validation_view.card": lambda t, w: validation_view.card(w, a_run(t)),
    "validation_view.details": lambda t, w: validation_view.details(w, a_run(t), {1: filled(Annotator, t)}, {1: a_comparison(t)}),
    "demo_view.missing": lambda t, w: demo_view.missing(w, []),
    "demo_view.refused": lambda t, w: demo_view.refused(w, conversation.Refusal("demo.empty_prompt")),
    "demo_view.nothing_yet": lambda t, w: demo_view.nothing_yet(w),
    "demo_view.earlier": (lambda t, w: demo_view.earlier(w, a_conversation(t), 1), MARKDOWN),
    "demo_view.turn": (
        lambda t, w: html.fragment(*(demo_view.turn(w, a_conversation(t), 1, writing=writing) for writing in (False, True))), MARKDOWN,
    ),
    "demo_view.voted": lambda t, w: demo_view.voted(w, a_conversation(t)),
    "gallery_view.none_yet": lambda t, w: gallery_view.none_yet(w),
    "gallery_view.gallery": (
        lambda t, w: gallery_view.gallery(w, [GallerySample(filled(RunSample, t), filled(SampleChange, t))], shaded=True), MARKDOWN,
    ),
    "gallery_view.legend": lambda t, w: gallery_view.legend(w),
    "export_view.holds": lambda t, w: html.fragment(*(export_view.holds(w, format) for format in ("trl", "native"))),
    "export_view.status": lambda t, w: html.fragment(*(export_view.status(w, running) for running in exports_of_judgments(t))),
    "export_view.summary": lambda t, w: export_view.summary(w, Exported(3, 4, 1, {t: 1}, {t: 2}, {t: 3})),
    "exports_view.status": lambda t, w: exports_view.status(w, RunningExport(t, t, 1.0, t, 1, t)),
    "versions_view.none_yet": lambda t, w: versions_view.none_yet(w),
    "versions_view.card": lambda t, w: versions_view.card(w, a_card(t)),
    "versions_view.data": lambda t, w: versions_view.data(w, a_card(t)),
    "versions_view.measured": lambda t, w: versions_view.measured(w, a_card(t)),
    "versions_view.decision": lambda t, w: versions_view.decision(w, a_card(t)),
    "versions_view.lineage": lambda t, w: versions_view.lineage(w, a_card(t)),
    "versions_view.with_missing": lambda t, w: versions_view.with_missing(w, versions_view.none_yet(w), t),
    "visitor.line": lambda t, w: visitor.line(w, Visitor(filled(Annotator, t), frozenset(("lead",)), True)),
    "visitor.store_warnings": lambda t, w: visitor.store_warnings(w, SimpleNamespace(damage=t, files_unchanged=False)),
}  # fmt: skip

SHORTENED = {
    "exports_view.status", "export_view.status", "versions_view.card", "versions_view.lineage",
    "presenters.server_down", "section.refusal", "run_view.readable", "run_view.progress", "run_view.error", "rounds_table.section",
    "round_view.section", "queue_view.section", "triggers_view.section", "imports_view.preview", "imports_view.refused",
    "side_by_side_view.figures",
}  # fmt: skip
"""Views that leave out part of a text: the paths in a message, the end of a hash."""


def cases():
    for name, case in CASES.items():
        make, kind = case if isinstance(case, tuple) else (case, "text")
        yield pytest.param(make, kind, id=name)


class Page(HTMLParser):
    """What a browser would read: elements with the names of their attributes, attributes with their values, and all text."""

    def __init__(self, source):
        super().__init__()
        self.names, self.elements, self.attributes, self.text = [], [], [], ""
        self.feed(str(source))
        self.close()

    def handle_starttag(self, name, attributes):
        # The one class that a text decides, by the length of its words.
        without = [(key, value.replace("rl-long-word", "").strip() if key == "class" and value else value) for key, value in attributes]
        attributes = [(key, value) for key, value in without if (key, value) != ("class", "")]
        self.names.append(name)
        self.elements.append((name, [key for key, _ in attributes]))
        self.attributes += attributes

    def handle_endtag(self, name):
        self.elements.append(f"/{name}")

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.names.append("a comment")

    handle_decl = handle_pi = unknown_decl = handle_comment


def test_every_view_has_its_case():
    views = {
        f"{module.__name__.split('.')[-1]}.{name}"
        for module in MODULES
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
        if typing.get_type_hints(function).get("return") is Markup
    }
    assert views == set(CASES)


def test_every_module_that_makes_elements_is_tested():
    root = Path(feedback_ui.__file__).parent
    makers = {path for path in root.rglob("*.py") if re.search(r"\btag\(", path.read_text(encoding="utf-8"))}
    without_records = {root / name for name in ("app.py", "server/web.py", "shared/html.py", "shared/scripts.py", "shared/theme.py")}
    assert makers - without_records <= {Path(module.__file__) for module in MODULES}


@pytest.mark.parametrize("make, kind", list(cases()))
@given(hostile)
@example("".join(FRAGMENTS))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_hostile_text_stays_text(request, make, kind, text):
    # Marked, so that it can be found again, and for Markdown so that it begins no block.
    text = f"§{text}§"
    page, harmless = Page(made := make(text, Hostile("en", text))), Page(make("x", Hostile("en", "x")))
    assert type(made) is Markup
    for name, value in page.attributes:
        assert name in html.ATTRIBUTES or html.DATA_ATTRIBUTE.fullmatch(name)
        if name in ("href", "action"):
            assert html.ADDRESS.fullmatch(value)
        if name == "style":
            assert html.STYLE.fullmatch(value)
    assert {
        name for element in page.elements if isinstance(element, tuple) for name in element[:1]
    } <= html.ELEMENTS | markdown.ALLOWED_TAGS
    assert "no element" not in page.elements
    if kind == MARKDOWN:
        return
    assert page.elements == harmless.elements
    if request.node.callspec.id not in SHORTENED:
        assert page.text.replace(text, "x") == harmless.text
        # An address may hold a text, quoted as addresses are.
        read = [(name, unquote(value) if name == "href" else value) for name, value in page.attributes]
        assert [(name, value and value.replace(text, "x")) for name, value in read] == harmless.attributes
