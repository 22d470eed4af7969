"""What several sections of the Lead page show: names, headings, and a comparison with its answers. HTML, no Gradio.

Each section has a view of its own beside it. Text that users typed is escaped or rendered as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from markupsafe import Markup

from feedback_ui.shared import markdown
from feedback_ui.shared.html import EMPTY, fragment, tag
from feedback_ui.shared.i18n import Translator
from storage.core.records import Comparison, Completion, PolicyVersion, Prompt, Tiers

LETTERS = "ABCDEFGHI"


def who(translate: Translator, names: Mapping[int, str], annotator_id: int | None) -> Markup:
    """An annotator's name; rankloop itself if there is none."""
    if annotator_id is None or annotator_id not in names:
        return tag("span", translate("lead.by_program"), class_="rl-muted")
    return fragment(names[annotator_id])


def heading(title: str) -> Markup:
    """A title above a panel; a paragraph, because the Lead page has no headings above it."""
    return tag("p", title, class_="rl-subheading")


def letters(comparison: Comparison, tiers: Tiers) -> str:
    """Tiers as text such as `B > A = C`; letters follow the order of the completions in the comparison."""
    letter = {completion.id: LETTERS[i] for i, completion in enumerate(comparison.completions)}
    return " > ".join(" = ".join(sorted(letter.get(i, "?") for i in tier)) for tier in tiers)


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


def answers(
    translate: Translator, comparison: Comparison, policies: Mapping[int, PolicyVersion], under: Callable[[int], Markup] | None = None
) -> Markup:
    """The answers with their letters and policy versions.

    Args:
        under: what stands under the name of the answer with this index, where answers can be chosen: each is then reached by Tab.
    """
    articles = (
        tag(
            "article",
            tag("p", LETTERS[i], " ", tag("span", _author(completion, policies), class_="rl-muted"), class_="rl-answer-name"),
            under(i) if under else EMPTY,
            _prose(markdown.render(completion.text, translate) or translate("lead.empty_answer")),
            class_="rl-panel rl-answer",
            tabindex=0 if under else None,
            data_answer=LETTERS[i] if under else None,
        )
        for i, completion in enumerate(comparison.completions)
    )
    return tag("div", *articles, class_="rl-answers")


def _author(completion: Completion, policies: Mapping[int, PolicyVersion]) -> str:
    version = policies.get(completion.policy_version_id)
    return version.name if version else ""
