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
from feedback_ui.shared.presenters import duration, empty_state, notice
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
from storage.exchange.detect import Recognised
from storage.exchange.import_writer import Report
from storage.exchange.imports import Import, left_behind
from storage.people.accounts import Account, in_order
from storage.people.audit import AuditEntry

LETTERS = "ABCDEFGHI"

PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""The queue priority of each choice."""

EXCLUSION_RULES = ("gold accuracy", "too fast", "inconsistent", "asked by the annotator", "other")
"""The rules that are offered; they are stored in English and shown in the reader's language."""

SHOWN_ROW_ERRORS = 50


# ---- small pieces


def who(words: Translator, names: Mapping[int, str], annotator_id: int | None) -> Markup:
    """An annotator's name, or that the program did it."""
    if annotator_id is None or annotator_id not in names:
        return tag("span", words("lead.by_program"), class_="rl-muted")
    return fragment(names[annotator_id])


def letters(comparison: Comparison, tiers: Tiers) -> str:
    """Tiers as text such as `B > A = C`; letters follow the order of the completions in the comparison."""
    letter = {completion.id: LETTERS[i] for i, completion in enumerate(comparison.completions)}
    return " > ".join(" = ".join(sorted(letter.get(i, "?") for i in tier)) for tier in tiers)


class BadOrder(ValueError):
    """The text is not an order of these answers; the message says why."""


def tiers_of(words: Translator, order: str, comparison: Comparison) -> Tiers:
    """`B > A = C` as tiers of completion ids.

    Raises:
        BadOrder: a letter is missing, repeated or unknown, or the text is not an order.
    """
    ids = {LETTERS[i]: completion.id for i, completion in enumerate(comparison.completions)}
    known = ", ".join(ids)
    tiers = [[part.strip().upper() for part in tier.split("=")] for tier in order.split(">")]
    typed = [letter for tier in tiers for letter in tier]
    if strange := [letter for letter in typed if letter not in ids]:
        raise BadOrder(words("lead.gold.strange", found=strange[0] or "∅", known=known))
    if twice := [letter for letter in ids if typed.count(letter) > 1]:
        raise BadOrder(words("lead.gold.twice", found=", ".join(twice)))
    if missing := [letter for letter in ids if letter not in typed]:
        raise BadOrder(words("lead.gold.missing", found=", ".join(missing)))
    return tuple(tuple(ids[letter] for letter in tier) for tier in tiers)


# ---- a comparison, opened


def conversation(words: Translator, prompt: Prompt) -> Markup:
    """The turns of a prompt; speakers are named only if there is more than one turn."""
    several = len(prompt.messages) > 1
    return fragment(
        *(
            fragment(
                tag("p", words("lead.turn." + message["role"]), class_="rl-small rl-muted") if several else EMPTY,
                _prose(markdown.render(message["content"], words)),
            )
            for message in prompt.messages
        )
    )


def _prose(body: str) -> Markup:
    """Text that a model or a user wrote."""
    return tag("div", body, class_="rl-prose", dir="auto")


def answers(words: Translator, comparison: Comparison, policies: Mapping[int, PolicyVersion]) -> Markup:
    """The answers with their letters and policy versions."""
    articles = (
        tag(
            "article",
            tag("h4", LETTERS[i], " ", tag("span", _author(completion, policies), class_="rl-muted")),
            _prose(markdown.render(completion.text, words) or words("lead.empty_answer")),
            class_="rl-panel rl-answer",
        )
        for i, completion in enumerate(comparison.completions)
    )
    return tag("div", *articles, class_="rl-answers")


def _author(completion: Completion, policies: Mapping[int, PolicyVersion]) -> str:
    version = policies.get(completion.policy_version_id)
    return version.name if version else ""


def shown_comparison(words: Translator, comparison: Comparison, policies: Mapping[int, PolicyVersion]) -> Markup:
    return tag("section", conversation(words, comparison.prompt), answers(words, comparison, policies), class_="rl-comparison")


# ---- prompts


def prompt_counts(words: Translator, counts: Sequence[tuple[str, str, int]]) -> Markup:
    """How many prompts of each kind there are, by split."""
    if not counts:
        return empty_state(words("lead.prompts.none"))
    by_kind: dict[str, dict[str, int]] = {}
    for kind, split, number in counts:
        by_kind.setdefault(kind, {})[split] = number
    rows = [
        [kind.replace("_", " "), *(f"{of.get(split, 0):,}" for split in ("train", "heldout")), f"{sum(of.values()):,}"]
        for kind, of in sorted(by_kind.items())
    ]
    if len(rows) > 1:
        total = [sum(n for _, s, n in counts if s in splits) for splits in (("train",), ("heldout",), ("train", "heldout"))]
        rows.append([tag("strong", words("lead.prompts.all")), *(tag("strong", f"{n:,}") for n in total)])
    heads = [words(f"lead.prompts.{name}") for name in ("kind", "train", "heldout", "all")]
    return table(heads, rows, caption=words("lead.prompts.counts"), numbers=(1, 2, 3), cards=False)


def import_report(words: Translator, report: Report, recognised: Recognised | None = None) -> Markup:
    """The result of an import, how its format was recognised, what was not kept, and each invalid row with its reason."""
    summary = words("lead.prompts.added", count=report.prompts)
    if report.prompts_known:
        summary += " " + words("lead.prompts.known", count=report.prompts_known)
    if recognised and recognised.format != "prompts":
        as_what = words("lead.prompts.recognised", format=recognised.format, evidence=recognised.evidence)
        summary = f"{as_what} {summary} {_brought(words, report)}."
    if report.left:
        summary += " " + words("lead.prompts.left", names=left_behind(report.left))
    if not report.wrong:
        return notice(summary)
    shown = report.wrong_rows[:SHOWN_ROW_ERRORS]
    rows = (tag("li", f"{words('lead.prompts.line', line=line)}: {reason}") for line, reason in shown)
    more = report.wrong - len(shown)
    return fragment(
        notice(summary),
        notice(words("lead.prompts.wrong", count=report.wrong), "warn"),
        tag("ul", *rows, class_="rl-errors"),
        muted(words("lead.prompts.more_wrong", count=more)) if more > 0 else EMPTY,
    )


def running_imports(words: Translator, running: Sequence[RunningImport], *, acts: bool) -> Markup:
    """How far each import is that is under way, with a button to stop it."""
    return fragment(*(tag("p", _how_far(words, i), " ", _stop(words, i) if acts else "", class_="rl-muted") for i in running))


def _how_far(words: Translator, running: RunningImport) -> str:
    key = "taken_back" if running.taking_back else "importing"
    said = words(f"lead.prompts.{key}", source=running.source, done=f"{running.done:,}")
    if running.seconds_left is None:
        return said
    left = words("run.left", time=duration(words, running.seconds_left))
    return f"{said} {words('lead.prompts.of_rows', total=f'{running.total:,}')}, {left}"


def _stop(words: Translator, running: RunningImport) -> Markup | str:
    if running.taking_back or running.stop_requested:
        return ""
    return button("stop", running.id, words("lead.prompts.stop"), running.source)


def import_list(words: Translator, imports: Sequence[Import], names: Mapping[int, str], *, acts: bool) -> Markup:
    """Every import, newest first; empty if there is none, because the form above says what to do."""
    if not imports:
        return EMPTY
    rows = [
        [
            str(i.id),
            with_note(when(i.created_at), who(words, names, i.by_id)),
            with_note(i.source, i.format),
            _brought(words, i.report),
            fragment(words("lead.prompts.undone"), " ", when(i.undone_at)) if i.undone_at else "",
            button("undo", i.id, words("lead.prompts.undo"), str(i.id)) if acts and not i.undone_at else "",
        ]
        for i in imports
    ]
    heads = ["#", *(words(f"lead.prompts.{name}") for name in ("imported_at", "source", "brought", "import_state")), ""]
    listed = table(heads, rows, caption=words("lead.prompts.imports_title"), numbers=(0,))
    return tag("section", tag("p", words("lead.prompts.imports_title"), class_="rl-subheading"), listed)


def _brought(words: Translator, report: Report) -> str:
    counts = {
        "prompts": report.prompts,
        "comparisons": report.comparisons,
        "judgments": report.judgments,
        "labels": report.labels,
        "wrong_rows": report.wrong,
    }
    return ", ".join(words(f"lead.prompts.of_{name}", count=number) for name, number in counts.items() if number) or "0"


# ---- batches


def batch_list(
    words: Translator, batches: Sequence[Batch], policies: Mapping[int, PolicyVersion], names: Mapping[int, str], *,
    notes: Mapping[str, str], seconds_per_comparison: float | None, acts: bool,
) -> Markup:  # fmt: skip
    """Every batch, newest first, with its progress and the time left."""
    if not batches:
        return empty_state(words("lead.batches.none"))
    waits = _waits(batches, seconds_per_comparison, notes)
    rows = []
    for batch in batches:
        open_ = batch.generated < batch.requested and batch.cancelled_at is None
        note = notes.get(str(batch.id), "") if open_ else ""
        state = note or _state(words, batch, waits.get(batch.id))
        versions = ", ".join(policies[i].name if i in policies else f"#{i}" for i in batch.policy_ids)
        rows.append(
            [
                str(batch.id),
                with_note(when(batch.created_at), who(words, names, batch.by_id)),
                with_note(versions, sampled(words, batch.completions, batch.sampling)),
                words("lead.batches.priority." + _priority(batch.priority)),
                fragment(
                    progress(words, batch.generated, batch.requested),
                    tag("span", state, class_=f"rl-small {'rl-warn' if note else 'rl-muted'}"),
                ),
                button("cancel", batch.id, words("lead.batches.cancel"), f"{batch.id}") if open_ and acts else "",
            ]
        )
    heads = ["#", *(words(f"lead.batches.{name}") for name in ("asked_at", "who_answers", "priority_head", "state")), ""]
    return table(heads, rows, caption=words("lead.batches.list"), numbers=(0,))


def progress(words: Translator, made: int, asked: int) -> Markup:
    summary = words("lead.batches.made", made=f"{made:,}", asked=f"{asked:,}")
    return fragment(tag("progress", class_="rl-progress", max=asked, value=made, aria_label=summary), summary, tag("br"))


def sampled(words: Translator, answers: int, sampling: Sampling) -> str:
    parts = [words("lead.batches.answers_each", count=answers), words("lead.batches.at_temperature", value=f"{sampling.temperature:g}")]
    if sampling.top_p < 1:
        parts.append(f"top-p {sampling.top_p:g}")
    if sampling.top_k:
        parts.append(f"top-k {sampling.top_k}")
    return " · ".join([*parts, words("lead.batches.at_most", count=sampling.max_new_tokens)])


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


def _state(words: Translator, batch: Batch, wait_s: float | None) -> str:
    if batch.cancelled_at is not None:
        return words("lead.batches.cancelled")
    if batch.generated >= batch.requested:
        return words("lead.batches.done")
    return words("lead.batches.left", time=duration(words, wait_s)) if wait_s else words("lead.batches.waiting")


def _priority(priority: int) -> str:
    return "high" if priority > 0 else "low" if priority < 0 else "normal"


# ---- gold


def gold_list(
    words: Translator, comparisons: Sequence[Comparison], known: Mapping[int, Tiers], results: Mapping[int, tuple[int, int]], *, acts: bool
) -> Markup:
    """Every gold comparison with its known order and the annotators' results, the hardest first."""
    if not comparisons:
        return empty_state(words("lead.gold.none"))

    def share(comparison: Comparison) -> float:
        judged, right = results.get(comparison.id, (0, 0))
        return right / judged if judged else 2.0

    rows = [
        [
            str(c.id),
            tag("span", c.prompt.text, class_="rl-line-clamp"),
            tag("span", letters(c, known[c.id]), class_="rl-order"),
            _results(words, *results.get(c.id, (0, 0))),
            button("open", c.id, words("lead.gold.open"), str(c.id)) if acts else "",
        ]
        for c in sorted(comparisons, key=lambda c: (share(c), c.id))
    ]
    heads = ["#", *(words(f"lead.gold.{name}") for name in ("prompt", "known", "fared")), ""]
    return table(heads, rows, caption=words("lead.gold.list"), numbers=(0,))


def _results(words: Translator, judged: int, right: int) -> str:
    if not judged:
        return tag("span", words("lead.gold.not_judged"), class_="rl-muted")
    return words("lead.gold.right", right=f"{right:,}", count=judged)


# ---- exclusions


def rule(words: Translator, name: str) -> str:
    """A rule's name, translated if it is one of `EXCLUSION_RULES`."""
    return words(f"lead.rule.{name.replace(' ', '_')}") if name in EXCLUSION_RULES else name


def exclusion_list(words: Translator, exclusions: Sequence[Exclusion], names: Mapping[int, str], *, acts: bool) -> Markup:
    if not exclusions:
        return empty_state(words("lead.exclusions.none"))
    rows = [
        [
            str(e.id),
            with_note(when(e.created_at), who(words, names, e.by_id)),
            fragment(tag("strong", rule(words, e.rule)), tag("br"), e.reason),
            f"{e.judgments:,}",
            fragment(words("lead.exclusions.lifted"), " ", when(e.lifted_at)) if e.lifted_at else words("lead.exclusions.holds"),
            button("lift", e.id, words("lead.exclusions.lift"), str(e.id)) if acts and not e.lifted_at else "",
        ]
        for e in exclusions
    ]
    heads = ["#", *(words(f"lead.exclusions.{name}") for name in ("made", "why", "votes", "state")), ""]
    return table(heads, rows, caption=words("lead.exclusions.list"), numbers=(0, 3))


# ---- guidelines


def guideline_preview(words: Translator, draft: str) -> Markup:
    body = markdown.render(draft, words)
    return _prose(body) if body else muted(words("lead.guidelines.preview_empty"))


def guideline_version(words: Translator, number: int, guidelines: Guidelines) -> Markup:
    """One version of the guidelines, for reading."""
    title = tag("p", f"{words('lead.guidelines.version')} {number} · ", when(guidelines.created_at), class_="rl-subheading")
    return tag("section", title, tag("div", markdown.render(guidelines.text, words), class_="rl-prose"), class_="rl-panel")


def guideline_list(words: Translator, versions: Sequence[Guidelines], names: Mapping[int, str]) -> Markup:
    if not versions:
        return empty_state(words("lead.guidelines.none"))
    numbers = range(len(versions), 0, -1)
    rows = [
        [
            f"{number}",
            when(g.created_at),
            who(words, names, g.by_id),
            words("lead.guidelines.holds") if g is versions[0] else "",
            button("view", g.id, words("lead.guidelines.view"), f"{number}"),
        ]
        for number, g in zip(numbers, versions, strict=True)
    ]
    heads = [words(f"lead.guidelines.{name}") for name in ("version", "published_at", "by")] + ["", ""]
    return table(heads, rows, caption=words("lead.guidelines.list"), numbers=(0,))


# ---- accounts


def account_list(words: Translator, accounts: Sequence[Account], *, acts: bool) -> Markup:
    if not accounts:
        return EMPTY
    rows = [
        [
            a.name,
            ", ".join(words(f"roles.{role}") for role in in_order(a.roles)),
            when(a.created_at),
            words("lead.accounts.disabled") if a.disabled else words("lead.accounts.enabled"),
            button("edit", a.id, words("lead.accounts.edit"), a.name) if acts else "",
        ]
        for a in accounts
    ]
    heads = [words(f"lead.accounts.{name}") for name in ("name", "roles", "since", "state")] + [""]
    return table(heads, rows, caption=words("lead.accounts.list"))


def heading(title: str) -> Markup:
    return tag("h3", title, class_="rl-heading")


def reload_notice(words: Translator, message: str) -> Markup:
    """A notice with a link that reloads the page."""
    return tag("p", message, " ", tag("a", words("lead.reload"), href=""), class_="rl-notice rl-warn", role="status")


# ---- audit


def audit_list(words: Translator, entries: Sequence[AuditEntry], names: Mapping[int, str]) -> Markup:
    if not entries:
        return empty_state(words("lead.audit.none"))
    rows = [
        [
            when(e.at),
            e.who or tag("span", words("lead.by_program"), class_="rl-muted"),
            words(f"lead.audit.act.{e.act.replace(' ', '_')}"),
            f"{words(f'lead.audit.subject.{e.subject}')} {_subject(e, names)}",
            tag("span", detail, class_="rl-muted") if (detail := _detail(words, e)) else "",
        ]
        for e in entries
    ]
    heads = [words(f"lead.audit.{name}") for name in ("at", "who", "did", "what", "detail")]
    return table(heads, rows, caption=words("lead.audit.list"))


def _subject(entry: AuditEntry, names: Mapping[int, str]) -> str:
    """The name of an account, or the id of any other subject."""
    return names.get(int(entry.subject_id), entry.subject_id) if entry.subject == "account" else entry.subject_id


def _detail(words: Translator, entry: AuditEntry) -> str:
    """The details of an entry: settings as their differences from the defaults, a batch as a translated count, others unchanged."""
    if entry.subject == "settings":
        usual = json.loads(json.dumps(asdict(ProjectSettings())))
        changed = {name: value for name, value in json.loads(entry.detail).items() if value != usual.get(name)}
        changes = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in changed.items()]
        return ", ".join(changes) or words("lead.audit.usual")
    if entry.subject == "batch":
        numbers = [int(part) for part in entry.detail.split() if part.isdigit()]
        if entry.act == "cancelled":
            return words("lead.audit.made_of", made=numbers[0], asked=numbers[1])
        return words("lead.audit.comparisons", count=numbers[0])
    if entry.act == "excluded":
        rule_name, _, reason = entry.detail.partition(": ")
        return f"{rule(words, rule_name)}: {reason}"
    return entry.detail
