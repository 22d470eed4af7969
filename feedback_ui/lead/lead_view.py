"""Presenters of the Lead page: functions from records to HTML in the reader's language. No Gradio.

The quality metrics are presented by `quality_view`. Text that users typed is escaped or rendered as Markdown here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from markupsafe import Markup

from feedback_ui.lead.running_imports import RunningImport
from feedback_ui.shared import markdown
from feedback_ui.shared.html import EMPTY, button, fragment, muted, table, tag, when, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, empty_state, notice, starters_left_out
from storage.content.prompt_list import ListedPrompt
from storage.content.prompts import Starters
from storage.content.refusals import Refusal
from storage.core.records import (
    Batch,
    Comparison,
    Completion,
    Exclusion,
    Guidelines,
    PolicyVersion,
    ProjectSettings,
    Prompt,
    Sampling,
    Tiers,
)
from storage.exchange.detect import Recognised, Unrecognised
from storage.exchange.import_writer import Report
from storage.exchange.imports import Import
from storage.exchange.tracking import left_behind
from storage.people.accounts import Account, in_order
from storage.people.audit import AuditEntry

LETTERS = "ABCDEFGHI"

PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""The queue priority of each choice."""

EXCLUSION_RULES = ("gold accuracy", "too fast", "inconsistent", "asked by the annotator", "other")
"""The rules that are offered; they are stored in English and shown in the reader's language."""

SHOWN_ROW_ERRORS = 50


# ---- small pieces


def who(translate: Translator, names: Mapping[int, str], annotator_id: int | None) -> Markup:
    """An annotator's name, or that the program did it."""
    if annotator_id is None or annotator_id not in names:
        return tag("span", translate("lead.by_program"), class_="rl-muted")
    return fragment(names[annotator_id])


def letters(comparison: Comparison, tiers: Tiers) -> str:
    """Tiers as text such as `B > A = C`; letters follow the order of the completions in the comparison."""
    letter = {completion.id: LETTERS[i] for i, completion in enumerate(comparison.completions)}
    return " > ".join(" = ".join(sorted(letter.get(i, "?") for i in tier)) for tier in tiers)


class BadOrder(ValueError):
    """The text is not an order of these answers; the message says why."""


def tiers_of(translate: Translator, order: str, comparison: Comparison) -> Tiers:
    """`B > A = C` as tiers of completion ids.

    Raises:
        BadOrder: a letter is missing, repeated or unknown, or the text is not an order.
    """
    ids = {LETTERS[i]: completion.id for i, completion in enumerate(comparison.completions)}
    known = ", ".join(ids)
    tiers = [[part.strip().upper() for part in tier.split("=")] for tier in order.split(">")]
    typed = [letter for tier in tiers for letter in tier]
    if strange := [letter for letter in typed if letter not in ids]:
        raise BadOrder(translate("lead.gold.strange", found=strange[0] or "∅", known=known))
    if twice := [letter for letter in ids if typed.count(letter) > 1]:
        raise BadOrder(translate("lead.gold.twice", found=", ".join(twice)))
    if missing := [letter for letter in ids if letter not in typed]:
        raise BadOrder(translate("lead.gold.missing", found=", ".join(missing)))
    return tuple(tuple(ids[letter] for letter in tier) for tier in tiers)


# ---- a comparison, opened


def conversation(translate: Translator, prompt: Prompt) -> Markup:
    """The turns of a prompt; speakers are named only if there is more than one turn."""
    several = len(prompt.messages) > 1
    return fragment(
        *(
            fragment(
                tag("p", translate("lead.turn." + message["role"]), class_="rl-small rl-muted") if several else EMPTY,
                _prose(markdown.render(message["content"], translate)),
            )
            for message in prompt.messages
        )
    )


def _prose(body: str) -> Markup:
    """Text that a model or a user wrote."""
    return tag("div", body, class_="rl-prose", dir="auto")


def answers(translate: Translator, comparison: Comparison, policies: Mapping[int, PolicyVersion]) -> Markup:
    """The answers with their letters and policy versions."""
    articles = (
        tag(
            "article",
            tag("h4", LETTERS[i], " ", tag("span", _author(completion, policies), class_="rl-muted")),
            _prose(markdown.render(completion.text, translate) or translate("lead.empty_answer")),
            class_="rl-panel rl-answer",
        )
        for i, completion in enumerate(comparison.completions)
    )
    return tag("div", *articles, class_="rl-answers")


def _author(completion: Completion, policies: Mapping[int, PolicyVersion]) -> str:
    version = policies.get(completion.policy_version_id)
    return version.name if version else ""


def shown_comparison(translate: Translator, comparison: Comparison, policies: Mapping[int, PolicyVersion]) -> Markup:
    return tag("section", conversation(translate, comparison.prompt), answers(translate, comparison, policies), class_="rl-comparison")


# ---- prompts


def prompt_counts(translate: Translator, counts: Sequence[tuple[str, str, int]]) -> Markup:
    """How many prompts of each kind there are, by split."""
    if not counts:
        return empty_state(translate("lead.prompts.none"))
    by_kind: dict[str, dict[str, int]] = {}
    for kind, split, number in counts:
        by_kind.setdefault(kind, {})[split] = number
    rows = [
        [kind.replace("_", " "), *(f"{of.get(split, 0):,}" for split in ("train", "heldout")), f"{sum(of.values()):,}"]
        for kind, of in sorted(by_kind.items())
    ]
    if len(rows) > 1:
        total = [sum(n for _, s, n in counts if s in splits) for splits in (("train",), ("heldout",), ("train", "heldout"))]
        rows.append([tag("strong", translate("lead.prompts.all")), *(tag("strong", f"{n:,}") for n in total)])
    heads = [translate(f"lead.prompts.{name}") for name in ("kind", "train", "heldout", "all")]
    return table(heads, rows, caption=translate("lead.prompts.counts"), numbers=(1, 2, 3), cards=False)


def starters_now(translate: Translator, found: Starters) -> Markup:
    """Whether the starter prompts are in use, and the votes on them that are left out of training and of figures."""
    if found.serve:
        return muted(translate("lead.prompts.starters_in_use", count=found.prompts))
    return fragment(muted(translate("lead.prompts.starters_not_in_use", count=found.prompts)), starters_left_out(translate, found.votes))


SHOWN_PROMPTS = 100


def prompts_listed(translate: Translator, found: Sequence[ListedPrompt], matching: int, *, acts: bool) -> Markup:
    """Prompts with their state, each with a button that retires it or brings it back; a note says how many more there are."""
    if not found:
        return empty_state(translate("lead.prompts.none_found"))
    rows = []
    for one in found:
        act = "restore" if one.state == "retired" else "retire"
        rows.append(
            [
                str(one.prompt.id),
                one.prompt.text,
                translate(f"lead.prompts.split_{one.prompt.split}"),
                one.prompt.kind,
                one.source,
                f"{one.comparisons:,}",
                translate(f"lead.prompts.state_{one.state}"),
                button(act, one.prompt.id, translate(f"lead.prompts.{act}"), str(one.prompt.id)) if acts else "",
            ]
        )
    names = ("prompt", "split", "kind", "source", "comparisons", "import_state")
    heads = ["#", *(translate(f"lead.prompts.{name}") for name in names), ""]
    more = matching - len(found)
    rest = muted(translate("lead.prompts.more_prompts", count=more)) if more > 0 else EMPTY
    return fragment(table(heads, rows, caption=translate("lead.prompts.list"), numbers=(0, 5)), rest)


def refused_prompts(translate: Translator, refused: Sequence[Refusal], asked: Mapping[int, Prompt], *, acts: bool) -> Markup:
    """Prompts that a model refused, with the reason and a button that lets it be asked again; empty if there is none."""
    if not refused:
        return EMPTY
    rows = [
        [
            str(one.prompt_id),
            asked[one.prompt_id].text if one.prompt_id in asked else "",
            one.base_model,
            one.reason,
            button("retry", one.prompt_id, translate("lead.prompts.retry"), str(one.prompt_id)) if acts else "",
        ]
        for one in refused
    ]
    heads = ["#", *(translate(f"lead.prompts.{name}") for name in ("prompt", "model", "reason")), ""]
    title = translate("lead.prompts.refused")
    return tag("section", tag("p", title, class_="rl-subheading"), table(heads, rows, caption=title, numbers=(0,)))


def import_report(translate: Translator, report: Report, recognised: Recognised | None = None, format: str = "prompts") -> Markup:
    """The result of an import, how its format was recognised, what was not kept, and each invalid row with its reason."""
    summary = translate("lead.prompts.added", count=report.prompts)
    if report.prompts_known:
        summary += " " + translate("lead.prompts.known", count=report.prompts_known)
    if format != "prompts":
        summary = f"{_as_what(translate, recognised, format)} {summary} {_brought(translate, report)}."
    return _with_wrong_rows(translate, report, summary)


def preview(translate: Translator, report: Report, recognised: Recognised | None, format: str) -> Markup:
    """What an import of a file would bring, and what it would leave."""
    holds = translate("lead.prompts.would_bring", counts=_brought(translate, report))
    return _with_wrong_rows(translate, report, f"{_as_what(translate, recognised, format)} {holds}")


def unrecognised(translate: Translator, error: Unrecognised) -> Markup:
    """That the format of a file is not clear: the fields of its rows, the likely formats, and what to do."""
    if not error.fields:
        return notice(translate("lead.prompts.no_rows", reason=error.reason), "bad")
    said = [translate("lead.prompts.unclear", fields=error.fields)]
    if error.likely:
        said.append(translate("lead.prompts.likely", formats=error.likely))
    return notice(" ".join([*said, translate("lead.prompts.choose_format")]), "bad")


def _as_what(translate: Translator, recognised: Recognised | None, format: str) -> str:
    if recognised is None:
        return translate("lead.prompts.by_map") if format == "map" else translate("lead.prompts.as_chosen", format=format)
    return translate("lead.prompts.recognised", format=recognised.format, evidence=recognised.evidence)


def _with_wrong_rows(translate: Translator, report: Report, summary: str) -> Markup:
    if report.left:
        summary += " " + translate("lead.prompts.left", names=left_behind(report.left))
    if not report.wrong:
        return notice(summary)
    shown = report.wrong_rows[:SHOWN_ROW_ERRORS]
    rows = (tag("li", f"{translate('lead.prompts.line', line=line)}: {reason}") for line, reason in shown)
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
    key = "taken_back" if running.taking_back else "importing"
    said = translate(f"lead.prompts.{key}", source=running.source, done=f"{running.done:,}")
    if running.seconds_left is None:
        return said
    left = translate("run.left", time=duration(translate, running.seconds_left))
    return f"{said} {translate('lead.prompts.of_rows', total=f'{running.total:,}')}, {left}"


def _stop(translate: Translator, running: RunningImport) -> Markup | str:
    if running.taking_back or running.stop_requested:
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


# ---- batches


def batch_list(
    translate: Translator, batches: Sequence[Batch], policies: Mapping[int, PolicyVersion], names: Mapping[int, str], *,
    notes: Mapping[str, str], seconds_per_comparison: float | None, acts: bool,
) -> Markup:  # fmt: skip
    """Every batch, newest first, with its progress and the time left."""
    if not batches:
        return empty_state(translate("lead.batches.none"))
    waits = _waits(batches, seconds_per_comparison, notes)
    rows = []
    for batch in batches:
        open_ = batch.generated < batch.requested and batch.cancelled_at is None
        note = notes.get(str(batch.id), "") if open_ else ""
        state = note or _state(translate, batch, waits.get(batch.id))
        versions = ", ".join(policies[i].name if i in policies else f"#{i}" for i in batch.policy_ids)
        rows.append(
            [
                str(batch.id),
                with_note(when(batch.created_at), who(translate, names, batch.by_id)),
                with_note(versions, sampled(translate, batch.completions, batch.sampling)),
                translate("lead.batches.priority." + _priority(batch.priority)),
                fragment(
                    progress(translate, batch.generated, batch.requested),
                    tag("span", state, class_=f"rl-small {'rl-warn' if note else 'rl-muted'}"),
                ),
                button("cancel", batch.id, translate("lead.batches.cancel"), f"{batch.id}") if open_ and acts else "",
            ]
        )
    heads = ["#", *(translate(f"lead.batches.{name}") for name in ("asked_at", "who_answers", "priority_head", "state")), ""]
    return table(heads, rows, caption=translate("lead.batches.list"), numbers=(0,))


def progress(translate: Translator, made: int, asked: int) -> Markup:
    summary = translate("lead.batches.made", made=f"{made:,}", asked=f"{asked:,}")
    return fragment(tag("progress", class_="rl-progress", max=asked, value=made, aria_label=summary), summary, tag("br"))


def sampled(translate: Translator, answers: int, sampling: Sampling) -> str:
    parts = [
        translate("lead.batches.answers_each", count=answers),
        translate("lead.batches.at_temperature", value=f"{sampling.temperature:g}"),
    ]
    if sampling.top_p < 1:
        parts.append(f"top-p {sampling.top_p:g}")
    if sampling.top_k:
        parts.append(f"top-k {sampling.top_k}")
    return " · ".join([*parts, translate("lead.batches.at_most", count=sampling.max_new_tokens)])


def _waits(batches: Sequence[Batch], seconds_per_comparison: float | None, notes: Mapping[str, str]) -> dict[int, float]:
    """Seconds until each batch is complete, in the order of the queue; batches that are stuck are skipped."""
    if not seconds_per_comparison:
        return {}
    open_ = [b for b in batches if b.generated < b.requested and b.cancelled_at is None and str(b.id) not in notes]
    waits, ahead = {}, 0
    for batch in sorted(open_, key=lambda b: (-b.priority, b.id)):
        ahead += batch.requested - batch.generated
        waits[batch.id] = ahead * seconds_per_comparison
    return waits


def _state(translate: Translator, batch: Batch, wait_s: float | None) -> str:
    if batch.cancelled_at is not None:
        return translate("lead.batches.cancelled")
    if batch.generated >= batch.requested:
        return translate("lead.batches.done")
    return translate("lead.batches.left", time=duration(translate, wait_s)) if wait_s else translate("lead.batches.waiting")


def _priority(priority: int) -> str:
    return "high" if priority > 0 else "low" if priority < 0 else "normal"


# ---- gold


def gold_list(
    translate: Translator,
    comparisons: Sequence[Comparison],
    known: Mapping[int, Tiers],
    results: Mapping[int, tuple[int, int]],
    *,
    acts: bool,
) -> Markup:
    """Every gold comparison with its known order and the annotators' results, the hardest first."""
    if not comparisons:
        return empty_state(translate("lead.gold.none"))

    def share(comparison: Comparison) -> float:
        judged, right = results.get(comparison.id, (0, 0))
        return right / judged if judged else 2.0

    rows = [
        [
            str(c.id),
            tag("span", c.prompt.text, class_="rl-line-clamp"),
            tag("span", letters(c, known[c.id]), class_="rl-order"),
            _results(translate, *results.get(c.id, (0, 0))),
            button("open", c.id, translate("lead.gold.open"), str(c.id)) if acts else "",
        ]
        for c in sorted(comparisons, key=lambda c: (share(c), c.id))
    ]
    heads = ["#", *(translate(f"lead.gold.{name}") for name in ("prompt", "known", "fared")), ""]
    return table(heads, rows, caption=translate("lead.gold.list"), numbers=(0,))


def _results(translate: Translator, judged: int, right: int) -> str:
    if not judged:
        return tag("span", translate("lead.gold.not_judged"), class_="rl-muted")
    return translate("lead.gold.right", right=f"{right:,}", count=judged)


# ---- exclusions


def rule(translate: Translator, name: str) -> str:
    """A rule's name, translated if it is one of `EXCLUSION_RULES`."""
    return translate(f"lead.rule.{name.replace(' ', '_')}") if name in EXCLUSION_RULES else name


def exclusion_list(translate: Translator, exclusions: Sequence[Exclusion], names: Mapping[int, str], *, acts: bool) -> Markup:
    if not exclusions:
        return empty_state(translate("lead.exclusions.none"))
    rows = [
        [
            str(e.id),
            with_note(when(e.created_at), who(translate, names, e.by_id)),
            fragment(tag("strong", rule(translate, e.rule)), tag("br"), e.reason),
            f"{e.judgments:,}",
            fragment(translate("lead.exclusions.lifted"), " ", when(e.lifted_at)) if e.lifted_at else translate("lead.exclusions.holds"),
            button("lift", e.id, translate("lead.exclusions.lift"), str(e.id)) if acts and not e.lifted_at else "",
        ]
        for e in exclusions
    ]
    heads = ["#", *(translate(f"lead.exclusions.{name}") for name in ("made", "why", "votes", "state")), ""]
    return table(heads, rows, caption=translate("lead.exclusions.list"), numbers=(0, 3))


# ---- guidelines


def guideline_preview(translate: Translator, draft: str) -> Markup:
    body = markdown.render(draft, translate)
    return _prose(body) if body else muted(translate("lead.guidelines.preview_empty"))


def guideline_version(translate: Translator, number: int, guidelines: Guidelines) -> Markup:
    """One version of the guidelines, for reading."""
    title = tag("p", f"{translate('lead.guidelines.version')} {number} · ", when(guidelines.created_at), class_="rl-subheading")
    return tag("section", title, tag("div", markdown.render(guidelines.text, translate), class_="rl-prose"), class_="rl-panel")


def guideline_list(translate: Translator, versions: Sequence[Guidelines], names: Mapping[int, str]) -> Markup:
    if not versions:
        return empty_state(translate("lead.guidelines.none"))
    numbers = range(len(versions), 0, -1)
    rows = [
        [
            f"{number}",
            when(g.created_at),
            who(translate, names, g.by_id),
            translate("lead.guidelines.holds") if g is versions[0] else "",
            button("view", g.id, translate("lead.guidelines.view"), f"{number}"),
        ]
        for number, g in zip(numbers, versions, strict=True)
    ]
    heads = [translate(f"lead.guidelines.{name}") for name in ("version", "published_at", "by")] + ["", ""]
    return table(heads, rows, caption=translate("lead.guidelines.list"), numbers=(0,))


# ---- accounts


def account_list(translate: Translator, accounts: Sequence[Account], *, acts: bool) -> Markup:
    if not accounts:
        return EMPTY
    rows = [
        [
            a.name,
            ", ".join(translate(f"roles.{role}") for role in in_order(a.roles)),
            when(a.created_at),
            translate("lead.accounts.disabled") if a.disabled else translate("lead.accounts.enabled"),
            button("edit", a.id, translate("lead.accounts.edit"), a.name) if acts else "",
        ]
        for a in accounts
    ]
    heads = [translate(f"lead.accounts.{name}") for name in ("name", "roles", "since", "state")] + [""]
    return table(heads, rows, caption=translate("lead.accounts.list"))


def heading(title: str) -> Markup:
    return tag("h3", title, class_="rl-heading")


def reload_notice(translate: Translator, message: str) -> Markup:
    """A notice with a link that reloads the page."""
    return tag("p", message, " ", tag("a", translate("lead.reload"), href=""), class_="rl-notice rl-warn", role="status")


# ---- audit


def audit_list(translate: Translator, entries: Sequence[AuditEntry], names: Mapping[int, str]) -> Markup:
    if not entries:
        return empty_state(translate("lead.audit.none"))
    rows = [
        [
            when(e.at),
            e.who or tag("span", translate("lead.by_program"), class_="rl-muted"),
            translate(f"lead.audit.act.{e.act.replace(' ', '_')}"),
            f"{translate(f'lead.audit.subject.{e.subject}')} {_subject(e, names)}",
            tag("span", detail, class_="rl-muted") if (detail := _detail(translate, e)) else "",
        ]
        for e in entries
    ]
    heads = [translate(f"lead.audit.{name}") for name in ("at", "who", "did", "what", "detail")]
    return table(heads, rows, caption=translate("lead.audit.list"))


def _subject(entry: AuditEntry, names: Mapping[int, str]) -> str:
    """The name of an account, or the id of any other subject."""
    return names.get(int(entry.subject_id), entry.subject_id) if entry.subject == "account" else entry.subject_id


def _detail(translate: Translator, entry: AuditEntry) -> str:
    """The details of an entry: settings as their differences from the defaults, a batch as a translated count, others unchanged."""
    if entry.subject == "settings":
        usual = json.loads(json.dumps(asdict(ProjectSettings())))
        changed = {name: value for name, value in json.loads(entry.detail).items() if value != usual.get(name)}
        changes = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in changed.items()]
        return ", ".join(changes) or translate("lead.audit.usual")
    if entry.subject == "batch":
        numbers = [int(part) for part in entry.detail.split() if part.isdigit()]
        if entry.act == "cancelled":
            return translate("lead.audit.made_of", made=numbers[0], asked=numbers[1])
        return translate("lead.audit.comparisons", count=numbers[0])
    if entry.act == "excluded":
        rule_name, _, reason = entry.detail.partition(": ")
        return f"{rule(translate, rule_name)}: {reason}"
    return entry.detail
