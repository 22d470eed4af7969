"""Presenters of the gold comparisons, and the orders that are typed for them. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.lead.lead_view import LETTERS, answers, conversation, letters
from feedback_ui.shared.html import NOTHING, button, fragment, muted, table, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state
from storage.core.records import Comparison, PolicyVersion, Tiers


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


def ordering(
    translate: Translator, comparison: Comparison, policies: Mapping[int, PolicyVersion], known: Tiers | None
) -> Markup:  # fmt: skip
    """A comparison whose answers can be ordered where they stand: `assets/gold_order.js` does it."""
    place_of = {completion_id: place for place, tier in enumerate(known or (), start=1) for completion_id in tier}
    places = range(1, len(comparison.completions) + 1)

    def buttons(index: int) -> Markup:
        letter, now = LETTERS[index], place_of.get(comparison.completions[index].id)
        each = (
            tag(
                "button", str(place), type="button", class_="rl-small-button rl-place", data_place=place,
                aria_pressed=str(place == now).lower(), aria_label=translate("lead.gold.place", letter=letter, place=place),
            )
            for place in places
        )  # fmt: skip
        return tag("div", muted(translate("lead.gold.place_head")), *each, class_="rl-places")

    return tag(
        "section",
        conversation(translate, comparison.prompt),
        muted(translate("lead.gold.how", count=len(comparison.completions))),
        answers(translate, comparison, policies, buttons),
        tag(
            "p",
            fragment(translate("lead.gold.order"), ": "),
            tag("strong", letters(comparison, known) if known else NOTHING, class_="rl-order", data_order_now=True, role="status"),
            " ",
            tag("button", translate("lead.gold.save"), type="button", class_="rl-small-button", data_save_order=True),
        ),
        class_="rl-comparison",
        data_order=comparison.id,
    )


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
