"""Converts a judgment from the browser, which names slots, to the arguments of the store, which name completions. The input is untrusted.

Whether a judgment fits the project and the comparison is checked by `storage.judging.judgments` and `storage.judging.details`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.core.records import Details, Flag, IdealAnswer, Timing
from storage.judging.judgments import BadJudgment

PAIR = {"a": [[0], [1]], "b": [[1], [0]]}
"""The tiers of slots for the buttons of a comparison of two answers."""


def judgment_arguments(act: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The arguments of `judgments.save` and `judgments.correct` for a judgment on answers that were shown in this order.

    Raises:
        BadJudgment: the page's data are not a valid judgment.
    """
    try:
        choice = act["choice"]
        if choice == "skip":
            return {"verdict": "skip", "skip_reason": act.get("reason"), "details": _details_of_skip(act, order)}
        tiers = tuple(tuple(_at(order, slot) for slot in tier) for tier in _slots(act, choice, len(order)))
        return {"verdict": "rank", "tiers": tiers, "all_bad": choice == "both_bad", "details": _details(act, order)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadJudgment("The page sent an invalid judgment: reload the page.") from error


def _slots(act: Mapping[str, Any], choice: str, shown: int) -> Sequence[Sequence[int]]:
    if choice in ("tie", "both_bad"):
        return [range(shown)]
    if choice == "rank":
        tiers: Sequence[Sequence[int]] = act["tiers"]
        return tiers
    if shown != 2:
        raise ValueError(f"{choice!r} is for two answers")
    return PAIR[choice]


def _at(order: Sequence[int], slot: Any) -> int:
    if type(slot) is not int or not 0 <= slot < len(order):
        raise ValueError(f"there is no slot {slot!r}")
    return order[slot]


def _details(act: Mapping[str, Any], order: Sequence[int]) -> Details:
    aspects = {_at(order, int(slot)): dict(ratings) for slot, ratings in (act.get("aspects") or {}).items()}
    ideal = act.get("ideal")
    return Details(
        strength=act.get("strength"),
        aspects=aspects,
        rationale=act.get("rationale") or "",
        ideal=None if ideal is None else IdealAnswer(ideal["text"], _slot_or_none(order, ideal.get("slot"))),
        flags=_flags(act, order),
        timing=_timing(act),
    )


def _details_of_skip(act: Mapping[str, Any], order: Sequence[int]) -> Details:
    """A skip has a rationale and flags only; ratings and an ideal answer belong to a ranking."""
    return Details(rationale=act.get("rationale") or "", flags=_flags(act, order), timing=_timing(act))


def _flags(act: Mapping[str, Any], order: Sequence[int]) -> tuple[Flag, ...]:
    flags = act.get("flags") or ()
    return tuple(Flag(flag["kind"], flag.get("note") or "", _slot_or_none(order, flag.get("slot"))) for flag in flags)


def _slot_or_none(order: Sequence[int], slot: Any) -> int | None:
    return None if slot is None else _at(order, slot)


def _timing(act: Mapping[str, Any]) -> Timing | None:
    timing = act.get("timing")
    return None if timing is None else Timing(timing["active_ms"], timing["idle_ms"], timing["client_ms"])
