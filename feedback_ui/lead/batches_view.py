"""Presenters of the batches of comparisons that were asked for, with their progress and the time left. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.lead.lead_view import who
from feedback_ui.shared.html import button, fragment, table, tag, when, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, empty_state
from storage.core.records import Batch, PolicyVersion, Sampling

PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""The queue priority of each choice."""


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
