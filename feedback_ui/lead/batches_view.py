"""Presenters of the batches of comparisons that were asked for, with their progress and the time left. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.lead.lead_view import who
from feedback_ui.shared.html import EMPTY, button, fragment, muted, table, tag, when, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, empty_state, notice, prompt_kind
from rlhf.serving.batch_plan import Outlook
from storage.core.records import Batch, PolicyVersion, PromptFilter, Sampling

PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""The queue priority of each choice."""


def outlook(
    translate: Translator, found: Outlook, *, count: int, answers: int, wanted: int, seconds_per_answer: float | None
) -> Markup:  # fmt: skip
    """What a batch would do if it were requested now. The time is said only where it was measured."""
    aside = translate("lead.batches.set_aside", count=found.set_aside) if found.set_aside else ""
    if not found.prompts:
        return notice(" ".join(filter(None, [translate("lead.batches.no_prompt_chosen"), aside])), "warn")
    asked = translate("lead.batches.would_write", comparisons=f"{count:,}", answers=answers, total=f"{count * answers:,}")
    if seconds_per_answer:
        asked += f" ≈ {duration(translate, seconds_per_answer * count * answers)}"
    sentences = [
        translate("lead.batches.on_prompts", count=found.prompts),
        translate("lead.batches.teach_measure", teach=f"{found.teaching:,}", measure=f"{found.measuring:,}"),
        translate("lead.batches.judgments_wanted", count=count * wanted),
        aside,
        "" if seconds_per_answer else translate("lead.batches.time_unknown"),
    ]
    return tag("div", tag("p", tag("strong", asked)), muted(" ".join(filter(None, sentences))), role="status")


def batch_list(
    translate: Translator, batches: Sequence[Batch], policies: Mapping[int, PolicyVersion], names: Mapping[int, str], *,
    notes: Mapping[str, str], seconds_per_answer: float | None, acts: bool, assigns: bool = False,
) -> Markup:  # fmt: skip
    """Every batch, newest first, with its progress and the time left.

    Args:
        assigns: whether there are accounts to which a batch can be given.
    """
    if not batches:
        return empty_state(translate("lead.batches.none"))
    waits = _waits(batches, seconds_per_answer, notes)
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
                with_note(prompts_in_words(translate, batch.prompts), judgments_of(translate, batch, names)),
                with_note(versions, sampled(translate, batch.completions, batch.sampling)),
                translate("lead.batches.priority." + _priority(batch.priority)),
                fragment(
                    progress(translate, batch.generated, batch.requested),
                    tag("span", state, class_=f"rl-small {'rl-warn' if note else 'rl-muted'}"),
                ),
                fragment(
                    button("cancel", batch.id, translate("lead.batches.cancel"), f"{batch.id}") if open_ and acts else EMPTY,
                    " ",
                    button("assign", batch.id, translate("lead.batches.assign"), f"{batch.id}") if assigns and acts else EMPTY,
                ),
            ]
        )
    heads = ["#", *(translate(f"lead.batches.{name}") for name in ("asked_at", "prompts", "who_answers", "priority_head", "state")), ""]
    return table(heads, rows, caption=translate("lead.batches.list"), numbers=(0,))


def progress(translate: Translator, made: int, asked: int) -> Markup:
    summary = translate("lead.batches.made", made=f"{made:,}", asked=f"{asked:,}")
    return fragment(tag("progress", class_="rl-progress", max=asked, value=made, aria_label=summary), summary, tag("br"))


def prompts_in_words(translate: Translator, chosen: PromptFilter) -> str:
    """The prompts of a batch, as text: `kind bikes · held out · import 3`."""
    parts = [
        translate("lead.batches.of_kind", kind=prompt_kind(translate, chosen.kind)) if chosen.kind else "",
        translate(f"lead.prompts.{chosen.split}") if chosen.split else "",
        translate("lead.batches.of_import", number=chosen.import_id) if chosen.import_id else "",
        translate("lead.batches.with_text", text=chosen.text) if chosen.text else "",
    ]
    return " · ".join(filter(None, parts)) or translate("lead.batches.every_prompt")


def judgments_of(translate: Translator, batch: Batch, names: Mapping[int, str]) -> str:
    """How many judgments each comparison of a batch needs, and who gets them."""
    wanted = translate("lead.batches.judgments_each", count=batch.wanted) if batch.wanted else ""
    who_judges = ", ".join(sorted(names.get(i, f"#{i}") for i in batch.annotator_ids))
    return " · ".join(filter(None, [wanted, translate("lead.batches.only_for", names=who_judges) if who_judges else ""]))


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


def _waits(batches: Sequence[Batch], seconds_per_answer: float | None, notes: Mapping[str, str]) -> dict[int, float]:
    """Seconds until each batch is complete, in the order of the queue; batches that are stuck are skipped."""
    if not seconds_per_answer:
        return {}
    open_ = [b for b in batches if b.generated < b.requested and b.cancelled_at is None and str(b.id) not in notes]
    waits, ahead = {}, 0
    for batch in sorted(open_, key=lambda b: (-b.priority, b.id)):
        ahead += (batch.requested - batch.generated) * batch.completions
        waits[batch.id] = ahead * seconds_per_answer
    return waits


def _state(translate: Translator, batch: Batch, wait_s: float | None) -> str:
    if batch.cancelled_at is not None:
        return translate("lead.batches.cancelled")
    if batch.generated >= batch.requested:
        return translate("lead.batches.done")
    return translate("lead.batches.left", time=duration(translate, wait_s)) if wait_s else translate("lead.batches.waiting")


def _priority(priority: int) -> str:
    return "high" if priority > 0 else "low" if priority < 0 else "normal"
