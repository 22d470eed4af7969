"""Presenters of the prompts: their counts, the list, the starter prompts, and prompts that a model refused. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.lead.lead_view import conversation, heading
from feedback_ui.shared.html import EMPTY, button, fragment, muted, table, tag, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state, prompt_kind, starters_left_out
from storage.content.prompt_list import ListedPrompt
from storage.content.prompts import Starters
from storage.content.refusals import Refusal
from storage.core.records import Prompt

SHOWN_PROMPTS = 100


def prompt_counts(translate: Translator, counts: Sequence[tuple[str, str, int]]) -> Markup:
    """How many prompts of each kind there are, by split."""
    if not counts:
        return empty_state(translate("lead.prompts.none"))
    by_kind: dict[str, dict[str, int]] = {}
    for kind, split, number in counts:
        by_kind.setdefault(kind, {})[split] = number
    rows = [
        [prompt_kind(translate, kind), *(f"{of.get(split, 0):,}" for split in ("train", "heldout")), f"{sum(of.values()):,}"]
        for kind, of in sorted(by_kind.items())
    ]
    if len(rows) > 1:
        total = [sum(n for _, s, n in counts if s in splits) for splits in (("train",), ("heldout",), ("train", "heldout"))]
        rows.append([tag("strong", translate("lead.prompts.all")), *(tag("strong", f"{n:,}") for n in total)])
    heads = [translate(f"lead.prompts.{name}") for name in ("kind", "train", "heldout", "all")]
    return table(heads, rows, caption=translate("lead.prompts.counts"), numbers=(1, 2, 3), cards=False)


def starters_now(translate: Translator, found: Starters) -> Markup:
    """Whether the starter prompts are in use, and the votes on them that are left out of training and of statistics."""
    if not found.prompts:
        now = translate("lead.prompts.no_starters")
    elif found.in_use:
        now = translate("lead.prompts.starters_in_use", count=found.prompts)
    else:
        now = translate("lead.prompts.starters_not_in_use", count=found.prompts)
    return fragment(muted(now), EMPTY if found.in_use else starters_left_out(translate, found.votes))


def prompts_listed(translate: Translator, found: Sequence[ListedPrompt], matching: int, *, acts: bool) -> Markup:
    """Prompts with their state, each with a button that retires it or brings it back; a note says how many more there are."""
    if not found:
        return empty_state(translate("lead.prompts.none_found"))
    rows = []
    for one in found:
        act = "restore" if one.state == "retired" else "retire"
        change = button(act, one.prompt.id, translate(f"lead.prompts.{act}"), str(one.prompt.id)) if acts else EMPTY
        rows.append(
            [
                str(one.prompt.id),
                tag("span", one.prompt.text, class_="rl-line-clamp"),
                translate(f"lead.prompts.split_{one.prompt.split}"),
                prompt_kind(translate, one.prompt.kind),
                tag("span", one.source, class_="rl-line-clamp"),
                f"{one.comparisons:,}",
                with_note(translate(f"lead.prompts.state_{one.state}"), _replaced(translate, one)),
                fragment(button("open", one.prompt.id, translate("lead.prompts.open"), str(one.prompt.id)), " ", change),
            ]
        )
    names = ("prompt", "split", "kind", "source", "comparisons", "import_state")
    heads = ["#", *(translate(f"lead.prompts.{name}") for name in names), ""]
    more = matching - len(found)
    rest = muted(translate("lead.prompts.more_prompts", count=more)) if more > 0 else EMPTY
    return fragment(table(heads, rows, caption=translate("lead.prompts.list"), numbers=(0, 5)), rest)


def prompt_opened(translate: Translator, found: ListedPrompt, judged: int) -> Markup:
    """A prompt with all its turns, what is known of it, and which prompts it replaced or was replaced by."""
    prompt = found.prompt
    title = translate("lead.prompts.opened_title", number=prompt.id, kind=prompt_kind(translate, prompt.kind))
    facts = [
        translate(f"lead.prompts.split_{prompt.split}"),
        translate(f"lead.prompts.state_{found.state}"),
        found.source,
        translate("lead.prompts.of_comparisons", count=found.comparisons),
        translate("lead.prompts.of_judgments", count=judged),
        translate("lead.prompts.replaces", number=found.replaces) if found.replaces else "",
        _replaced(translate, found),
    ]
    return tag(
        "section", heading(title), muted(" · ".join(filter(None, facts))), conversation(translate, prompt),
        class_="rl-comparison", data_testid="prompt",
    )  # fmt: skip


def _replaced(translate: Translator, found: ListedPrompt) -> str:
    return translate("lead.prompts.replaced_by", number=found.replaced_by) if found.replaced_by else ""


def refused_prompts(translate: Translator, refused: Sequence[Refusal], asked: Mapping[int, Prompt], *, acts: bool) -> Markup:
    """Prompts that a model refused, with the reason and a button that lets it be asked again; empty if there is none."""
    if not refused:
        return EMPTY
    rows = [
        [
            str(one.prompt_id),
            tag("span", asked[one.prompt_id].text, class_="rl-line-clamp") if one.prompt_id in asked else "",
            one.base_model,
            one.reason,
            button("retry", one.prompt_id, translate("lead.prompts.retry"), str(one.prompt_id)) if acts else "",
        ]
        for one in refused
    ]
    heads = ["#", *(translate(f"lead.prompts.{name}") for name in ("prompt", "model", "reason")), ""]
    title = translate("lead.prompts.refused")
    return tag("section", tag("p", title, class_="rl-subheading"), table(heads, rows, caption=title, numbers=(0,)))
