"""A conversation of the Demo page as HTML: the prompts, and under each the answers beside each other. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from feedback_ui.demo.conversation import LETTERS, Answer, Conversation, Refusal
from feedback_ui.shared import markdown, presenters
from feedback_ui.shared.html import EMPTY, fragment, tag
from feedback_ui.shared.i18n import Translator
from storage.core.records import PolicyVersion


def available(served: Sequence[str], versions: Sequence[PolicyVersion]) -> list[PolicyVersion]:
    """The base and the tuned versions that the server serves: the base first, then the tuned ones, newest first."""
    answering = [version for version in versions if version.name in served and version.kind != "external"]
    return sorted(answering, key=lambda version: (version.kind != "base", -version.id))


def opening_choice(available: Sequence[PolicyVersion], chosen: Sequence[str] | None) -> list[str]:
    """The versions that are chosen when the page opens: those chosen before that still answer, else the base and the newest tuned one."""
    names = [version.name for version in available]
    return [name for name in chosen or () if name in names] or names[:2]


def missing(translate: Translator, available: Sequence[PolicyVersion]) -> Markup:
    """What to do when the base or every tuned version is missing; empty otherwise."""
    kinds = {version.kind for version in available}
    key = "demo.no_base" if "base" not in kinds else "demo.no_tuned" if "tuned" not in kinds else ""
    return presenters.notice(translate(key)) if key else EMPTY


def refused(translate: Translator, refusal: Refusal) -> Markup:
    """Why nothing was done."""
    return presenters.notice(translate(refusal.key, **refusal.values), "warn")


def nothing_yet(translate: Translator) -> Markup:
    return presenters.empty_state(translate("demo.nothing_yet"))


def earlier(translate: Translator, conversation: Conversation, before: int) -> Markup:
    """The turns before that one."""
    return fragment(*(turn(translate, conversation, number) for number in range(before)))


def turn(translate: Translator, conversation: Conversation, number: int, *, writing: bool = False) -> Markup:
    """One prompt with the answers to it, which may be on their way. The names of a blind turn are left out until it has a verdict."""
    of = conversation.turns[number]
    answers = of.answers or (Answer(),) * len(of.order)
    asked_with = translate("demo.asked_with", seed=of.seed, temperature=of.sampling.temperature, tokens=of.sampling.max_new_tokens)
    went_on = of.continued is not None and number + 1 < len(conversation.turns)
    return tag(
        "section",
        tag("h2", translate("demo.turn", number=number + 1), class_="rl-sr-only"),
        tag("div", markdown.render(of.user, translate), class_="rl-asked rl-prose", dir="auto"),
        tag("p", asked_with, class_="rl-muted rl-small"),
        tag(
            "div",
            *(
                _answer(translate, heading(conversation, number, place), answer, of.sampling.max_new_tokens, writing=writing)
                for place, answer in enumerate(answers)
            ),
            class_="rl-answers",
        ),
        tag("p", translate("demo.went_on", answer=LETTERS[of.continued or 0]), class_="rl-muted rl-small") if went_on else EMPTY,
        class_="rl-turn",
        data_testid="demo-turn",
    )


def heading(conversation: Conversation, number: int, place: int) -> str:
    """The version's name; `A` while it is hidden, and `A · name` after the vote."""
    of, name = conversation.turns[number], conversation.name(number, place)
    if conversation.blind:
        return LETTERS[place] if of.verdict is None else f"{LETTERS[place]} · {name}"
    return name if of.continued is None else f"{LETTERS[place]} · {name}"


def _answer(translate: Translator, title: str, answer: Answer, max_tokens: int, *, writing: bool) -> Markup:
    on_its_way = writing and not answer.finish_reason and not answer.problem
    if answer.text or on_its_way or answer.complete:
        body = presenters.answer(translate, answer.text, writing=on_its_way)
    else:
        body = EMPTY if answer.problem else tag("p", translate("demo.not_written"), class_="rl-muted")
    marks = {"length": translate("demo.cut_off", tokens=max_tokens), "stopped": translate("demo.stopped")}
    mark = marks.get(answer.finish_reason)
    about = translate("demo.copy_of", name=title)
    copy = tag("button", translate("demo.copy"), type="button", class_="rl-small-button", data_act="copy", aria_label=about)
    return tag(
        "article",
        tag("h3", title),
        body,
        presenters.notice(mark, "warn") if mark else EMPTY,
        presenters.notice(answer.problem, "bad"),
        # What is copied is the text as it was written, and not what Markdown made of it.
        fragment(tag("div", answer.text, class_="rl-source"), copy) if answer.text and not on_its_way else EMPTY,
        class_="rl-panel rl-answer",
        data_copied=translate("demo.copied"),
    )


def voted(translate: Translator, conversation: Conversation) -> Markup:
    """What became of a blind turn: which answer the visitor preferred, and whose it was."""
    last = len(conversation.turns) - 1
    verdict = conversation.turns[last].verdict
    if verdict is None:
        return EMPTY
    names = {letter.lower(): conversation.name(last, place) for place, letter in enumerate("AB")}
    text = translate(f"demo.verdict.{verdict}", **names)
    return presenters.notice(text if verdict == "none" else f"{text} {translate('demo.vote_saved')}")
