"""Presenters of the Compare and History pages: functions from records to the dicts that their scripts take. No Gradio.

The views are blind: they contain no id of the store and nothing that tells a gold comparison or a repeat from a vote. The
browser names an answer by its slot, and a presentation or a judgment by its token (`storage.judging.row_tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

from markupsafe import Markup

from feedback_ui.shared import markdown
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, prompt_kind, sentence
from storage.content.completions import as_shown
from storage.content.prompts import MESSAGE_ROLES
from storage.core.records import Comparison, Details, Guidelines, Judgment, Message, PastJudgment, ProjectSettings, Strength
from storage.judging.judgments import Given

SKIP_REASONS = {
    "I don't know enough": "compare.skip_unsure",
    "Broken prompt": "compare.skip_broken",
    "Unsafe content": "compare.skip_unsafe",
}
"""The predefined skip reasons: the text that is stored, in any language, and the key of its translation."""

STEPS_OF: dict[Strength | None, int] = {None: 0, "significantly": 2, "better": 2, "slightly": 4, "negligibly": 4}
"""The steps of the shortest scale that has a strength."""

WAITING_SHOWN = 100
"""Waiting comparisons are counted up to this number, so that a long queue does not slow each judgment down."""

EXCERPT = 160
"""The length of a prompt in a list, in characters."""


# ---- a comparison


def comparison_view(
    translate: Translator,
    comparison: Comparison,
    order: Sequence[int],
    project: ProjectSettings,
    *,
    presentation: str,
    count: str = "",
    guidelines: dict[str, Any] | None = None,
    practice: bool = False,
) -> dict[str, Any]:
    """A comparison for the browser, with its presentation's token as its id and what `progress` says as its count.

    Args:
        practice: the annotator has judged nothing yet, so that the page may offer its practice comparison first.
    """
    texts = shown_texts(comparison, order)
    view: dict[str, Any] = {
        "state": "comparison",
        "presentation_id": presentation,
        "kind": prompt_kind(translate, comparison.prompt.kind).capitalize(),
        "turns": turns(translate, comparison.prompt.messages, show_system=project.show_system),
        "answers": [markdown.render(text, translate) for text in texts],
        "cut_off": cut_off(comparison, order),
        "inputs": inputs(project),
        "count": count,
        "guidelines": guidelines,
        "practice": practice,
    }
    if project.ideal_answers:
        # The Markdown sources: an annotator may start an ideal answer from one of them.
        view["sources"] = texts
    return view


def shown_texts(comparison: Comparison, order: Sequence[int]) -> list[str]:
    """The answers in the order of their slots, without surrounding whitespace, which could reveal who generated them."""
    texts = {completion.id: as_shown(completion.text) for completion in comparison.completions}
    return [texts[completion_id] for completion_id in order]


def cut_off(comparison: Comparison, order: Sequence[int]) -> list[bool]:
    """Whether each answer ended at its token limit, in the order of their slots: then its last sentence may be half a one."""
    reasons = {completion.id: completion.finish_reason for completion in comparison.completions}
    return [reasons[completion_id] == "length" for completion_id in order]


def inputs(project: ProjectSettings) -> dict[str, Any]:
    """The inputs beside the choice that the project's settings ask for; the strength as the number of its steps for each answer."""
    return {
        "strength": 0 if not project.strength else 4 if project.four_strengths else 2,
        "aspects": list(project.aspects),
        "scale": project.aspect_scale,
        "rationale": project.rationale,
        "min_chars": project.rationale_min_chars,
        "ideal": project.ideal_answers,
        "flags": project.flags,
    }


def turns(translate: Translator, messages: Sequence[Message], *, show_system: bool) -> list[dict[str, str]]:
    """The turns of a conversation; speakers are named only if there is more than one turn."""
    shown = [message for message in messages if show_system or message["role"] != "system"]
    return [
        {
            "role": message["role"],
            "speaker": _speaker(translate, message["role"]) if len(shown) > 1 else "",
            "html": markdown.render(message["content"], translate),
        }
        for message in shown
    ]


def _speaker(translate: Translator, role: str) -> str:
    return translate(f"compare.speaker.{role}") if role in MESSAGE_ROLES else role.capitalize()


def guidelines_view(guidelines: Guidelines | None, known_version: Any) -> dict[str, Any] | None:
    """The current guidelines: a digest of the text, and the HTML unless the browser has that version already."""
    if guidelines is None:
        return None
    version, html = _rendered(guidelines.text)
    return {"id": version} if known_version == version else {"id": version, "html": html}


@lru_cache(maxsize=4)
def _rendered(text: str) -> tuple[str, Markup]:
    return sha256(text.encode()).hexdigest()[:16], markdown.render(text)


# ---- nothing to judge


def progress(translate: Translator, today: Given, *, goal: int = 0, waiting: int | None = None) -> str:
    """What the annotator has done today and what is left: `12 of 40 today · 1 skipped · 63 waiting`.

    Args:
        goal: the project's goal for a day; 0 if it has none.
        waiting: the comparisons that the annotator can still judge, counted up to one more than `WAITING_SHOWN`; None if it is not told.
    """
    ranked = translate("compare.today_of" if goal else "compare.today", number=f"{today.ranks:,}", goal=f"{goal:,}")
    skipped = [translate("compare.skipped", count=today.skips, number=f"{today.skips:,}")] if today.skips else []
    if waiting is None:
        return " · ".join([ranked, *skipped])
    shown = f"{WAITING_SHOWN:,}+" if waiting > WAITING_SHOWN else f"{waiting:,}"
    return " · ".join([ranked, *skipped, translate("compare.waiting", number=shown)])


def empty_queue_view(translate: Translator, note: str, count: str, guidelines: dict[str, Any] | None = None) -> dict[str, Any]:
    """The view for an annotator who has judged every comparison there is."""
    return {
        "state": "empty",
        "title": translate("compare.empty_title"),
        "note": note,
        "count": count,
        "guidelines": guidelines,
    }


def waiting_note(translate: Translator, *, ready: bool, filling: bool, seconds_per_comparison: float | None, note: str) -> str:
    """How long until the next comparison, in words, from the policy server's status."""
    if not ready:
        state = note or translate("compare.model_loading")
    elif filling and seconds_per_comparison:
        state = translate("compare.model_writing_about", time=duration(translate, seconds_per_comparison))
    elif filling:
        state = translate("compare.model_writing")
    else:
        return note or translate("compare.model_idle")
    return f"{state} {translate('compare.fills_by_itself')}"


def server_down_note(translate: Translator, error: Exception) -> str:
    return f"{sentence(error)} {translate('compare.server_down')}"


# ---- past judgments


def past_row(translate: Translator, past: PastJudgment, *, token: str) -> dict[str, Any]:
    """One line of the History page."""
    judgment, details = past.judgment, past.details
    return {
        "id": token,
        "at": judgment.created_at,
        "prompt": excerpt(past.comparison.prompt.text),
        "verdict": verdict(translate, judgment, past.order),
        "marks": marks(translate, judgment, details),
        "excluded": exclusion_view(past),
    }


def exclusion_view(past: PastJudgment) -> dict[str, str] | None:
    """The rule and the reason of a judgment's exclusion; None if it counts."""
    return None if past.exclusion is None else {"rule": past.exclusion.rule, "reason": past.exclusion.reason}


def past_view(translate: Translator, past: PastJudgment, project: ProjectSettings, *, token: str) -> dict[str, Any]:
    """A judgment with its comparison, as the judging component takes it for a correction."""
    details = past.details
    view = with_inputs_for(
        comparison_view(translate, past.comparison, past.order, project, presentation=token), past.comparison, past.order, details
    )
    return view | {
        "judgment_id": token,
        "row": past_row(translate, past, token=token),
        "judgment": act_of(past.judgment, details, past.order),
    }


def with_inputs_for(view: dict[str, Any], comparison: Comparison, order: Sequence[int], details: Details) -> dict[str, Any]:
    """The view with inputs for the details that a judgment has already: they stay editable, even if the project no longer asks for them."""
    wanted = dict(view["inputs"])
    wanted["strength"] = max(wanted["strength"], STEPS_OF[details.strength])
    wanted["ideal"] |= details.ideal is not None
    wanted["flags"] |= bool(details.flags)
    if wanted["rationale"] == "off" and details.rationale:
        wanted["rationale"] = "optional"
    return view | {"inputs": wanted} | ({"sources": shown_texts(comparison, order)} if wanted["ideal"] else {})


def act_of(judgment: Judgment, details: Details, order: Sequence[int]) -> dict[str, Any]:
    """A stored judgment in the form in which the browser sends one."""
    slot_of = {completion_id: slot for slot, completion_id in enumerate(order)}
    return {
        "choice": _choice(judgment, slot_of),
        "reason": judgment.skip_reason,
        "tiers": _tiers(judgment, slot_of),
        "strength": details.strength,
        "aspects": {str(slot_of[completion_id]): dict(ratings) for completion_id, ratings in details.aspects.items()},
        "rationale": details.rationale,
        "ideal": details.ideal and {"text": details.ideal.text, "slot": _slot_or_none(slot_of, details.ideal.completion_id)},
        "flags": [{"kind": flag.kind, "note": flag.note, "slot": _slot_or_none(slot_of, flag.completion_id)} for flag in details.flags],
    }


def _slot_or_none(slot_of: Mapping[int, int], completion_id: int | None) -> int | None:
    return None if completion_id is None else slot_of.get(completion_id)


def _tiers(judgment: Judgment, slot_of: Mapping[int, int]) -> list[list[int]]:
    return [sorted(slot_of[completion_id] for completion_id in tier) for tier in judgment.tiers]


def _choice(judgment: Judgment, slot_of: Mapping[int, int]) -> str:
    tiers = _tiers(judgment, slot_of)
    if judgment.verdict == "skip":
        return "skip"
    if judgment.all_bad and len(tiers) == 1:
        return "both_bad"
    if len(slot_of) > 2:
        return "rank"
    return "tie" if len(tiers) == 1 else "ab"[tiers[0][0]]


def verdict(translate: Translator, judgment: Judgment, order: Sequence[int]) -> str:
    """The judgment as a short text: `B is slightly better`, `2 > 1 = 3`."""
    slot_of = {completion_id: slot for slot, completion_id in enumerate(order)}
    choice = _choice(judgment, slot_of)
    if choice == "skip":
        return translate("history.skipped", reason=skip_reason(translate, judgment.skip_reason or ""))
    if choice == "rank":
        return " > ".join(" = ".join(str(slot + 1) for slot in tier) for tier in _tiers(judgment, slot_of))
    if choice == "both_bad" and len(order) > 2:
        return translate("compare.verdict.all_bad")
    strength = judgment.strength if choice in "ab" else None
    return translate(f"compare.verdict.{choice}_{strength}" if strength else f"compare.verdict.{choice}")


def skip_reason(translate: Translator, reason: str) -> str:
    return translate(SKIP_REASONS[reason]) if reason in SKIP_REASONS else reason


def marks(translate: Translator, judgment: Judgment, details: Details) -> list[str]:
    """A short label for each further part of a judgment, such as a flag or a rationale."""
    shown = [translate(f"compare.flag.{kind}") for kind in dict.fromkeys(flag.kind for flag in details.flags)]
    return shown + [
        translate(f"history.mark.{name}")
        for name, there in (
            ("partial", judgment.partial),
            ("rated", bool(details.aspects)),
            ("reason", bool(details.rationale)),
            ("ideal", details.ideal is not None),
            ("corrected", judgment.supersedes is not None),
        )
        if there
    ]


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1].rstrip() + "…"
