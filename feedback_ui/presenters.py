"""What the Compare, Demo and Data pages show, made of records: plain strings and dicts, without Gradio.

A run has presenters of its own in `run_view` and `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_ui import markdown
from rlhf.pairs import PreferencePair
from storage.records import Comparison, Message, PolicyVersion, Presentation

ROLES = {"system": "Instructions", "user": "Person", "assistant": "Assistant"}


def duration(seconds: float) -> str:
    """A time span as one says it: `20 s`, `4 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def counted(number: int, noun: str) -> str:
    """`1 judgment`, `1,204 judgments`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def sentence(error: Exception) -> str:
    """An error's message as a reader's sentence. A name or an address at its start stays as it is."""
    said = str(error).strip() or type(error).__name__
    if said.split()[0].isalpha():
        said = said[0].upper() + said[1:]
    return said if said.endswith((".", "!", "?")) else said + "."


def judged_so_far(count: int) -> str:
    return "Nothing judged yet" if not count else f"{count:,} judged"


# ---- Compare


def comparison_view(comparison: Comparison, presentation: Presentation, judged: int) -> dict[str, Any]:
    """A comparison as the browser may know it: blind. No id of a completion or a policy leaves the server."""
    texts = {completion.id: completion.text for completion in comparison.completions}
    return {
        "state": "comparison",
        "presentation_id": presentation.id,
        "kind": comparison.prompt.kind.replace("_", " ").capitalize(),
        "turns": turns(comparison.prompt.messages),
        "answers": [markdown.render(texts[completion_id]) for completion_id in presentation.order],
        "count": judged_so_far(judged),
    }


def turns(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """Every turn of a conversation; who speaks is only said where more than one does."""
    several = len(messages) > 1
    return [
        {"role": ROLES.get(m["role"], m["role"].capitalize()) if several else "", "html": markdown.render(m["content"])}
        for m in messages
    ]


def dry_queue_view(note: str, judged: int) -> dict[str, Any]:
    """Every comparison there is has been judged by this annotator."""
    return {"state": "empty", "title": "No comparison is waiting", "note": note, "count": judged_so_far(judged)}


def waiting_note(*, ready: bool, filling: bool, seconds_per_comparison: float | None, note: str) -> str:
    """How long until the next comparison, in words, from the policy server's status."""
    if not ready:
        said = note or "The model is being loaded."
    elif filling and seconds_per_comparison:
        said = f"The model is writing new answers: about {duration(seconds_per_comparison)}."
    elif filling:
        said = "The model is writing new answers."
    else:
        return note or "The model is not writing new answers. Every prompt may have been used: import more prompts."
    return f"{said} This page fills by itself."


def server_down_note(error: Exception) -> str:
    return f"{sentence(error)} Until then no new answers are written; this page keeps trying."


# ---- Demo


def answer(text: str, *, writing: bool = False) -> str:
    """One pane of the Demo page, while it is written and after."""
    body = markdown.render(text)
    state = ' aria-busy="true"' if writing else ""
    if not body:
        body = "<p class='rl-muted'>Writing…</p>" if writing else "<p class='rl-muted'>The answer is empty.</p>"
    return f'<div class="rl-prose" dir="auto"{state}>{body}</div>'


def answer_cut_short(text: str, error: Exception) -> str:
    """What had come before the policy server went away, and why no more comes."""
    return (answer(text) if text else "") + notice(sentence(error), "bad")


def missing_versions(base: str | None, tuned: Sequence[str]) -> str:
    """What to do when a model to compare is not there; empty when all is well."""
    if base is None:
        return "The policy server has no base model yet. It may still be loading: come back in a moment."
    if not tuned:
        return "No tuned version exists yet. Train one on the Training page; until then only the base model answers."
    return ""


def served_versions(served: Sequence[str], versions: Sequence[PolicyVersion]) -> tuple[str | None, list[str]]:
    """The base to compare with and the tuned versions, newest first, among the models that the server has."""
    newest_first = sorted(versions, key=lambda version: version.id, reverse=True)
    known = [version for version in newest_first if version.name in served]
    base = next((version.name for version in known if version.kind == "base"), None)
    tuned = [version.name for version in known if version.kind == "tuned"]
    return base, tuned


# ---- Training


def pairs_available(derived: Sequence[PreferencePair]) -> str:
    """What a round could learn from now: people's pairs and simulated ones, apart."""
    simulated = sum(pair.annotator_kind == "simulated" for pair in derived)
    people = len(derived) - simulated
    if not derived:
        return notice("No preference pairs yet: judge some comparisons on the Compare page first.")
    said = f"{counted(people, 'preference pair')} from people"
    return notice(
        f"{said}, {simulated:,} from simulated annotators (used only if included)." if simulated else f"{said}."
    )


# ---- small pieces of HTML that pages share


def notice(message: str, tone: str = "muted") -> str:
    """A line for the reader: `tone` is muted, warn or bad."""
    return f'<p class="rl-notice rl-{tone}" role="status">{markdown.escape(message)}</p>' if message else ""


def figures(pairs: Mapping[str, str]) -> str:
    """Names beside values, as a row of quiet figures."""
    cells = "".join(
        f"<div><dt>{markdown.escape(name)}</dt><dd>{markdown.escape(value)}</dd></div>" for name, value in pairs.items()
    )
    return f'<dl class="rl-figures">{cells}</dl>'


# ---- Data

NOTHING_YET = (
    "Nothing is stored yet. Import prompts or start with the packaged ones; "
    "comparisons appear once the model has answered."
)


def overview(stats: Mapping[str, Any]) -> str:
    """The store at a glance. People's judgments and simulated ones never add up to one number."""
    if not stats["prompts"]:
        return f'<div class="rl-hollow"><p>{NOTHING_YET}</p></div>'
    by_status = stats["runs"]
    groups = {
        "Judgments": {
            "by people": f"{stats['judgments']['human']:,}",
            "simulated": f"{stats['judgments']['simulated']:,}",
            "comparisons waiting": f"{stats['queue_depth']:,}",
        },
        "Annotators": {
            "people": f"{stats['annotators']['human']:,}",
            "simulated": f"{stats['annotators']['simulated']:,}",
        },
        "Material": {
            "prompts": f"{stats['prompts']:,}",
            "completions": f"{stats['completions']:,}",
            "comparisons": f"{stats['comparisons']:,}",
            "policy versions": f"{stats['policy_versions']:,}",
        },
        "Runs": {status: f"{number:,}" for status, number in by_status.items()} or {"none yet": "0"},
    }
    return "".join(
        f'<section class="rl-card" data-testid="data-{title.lower()}"><h3>{title}</h3>{figures(numbers)}</section>'
        for title, numbers in groups.items()
    )
