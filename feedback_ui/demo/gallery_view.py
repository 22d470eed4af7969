"""Held-out prompts before and after tuning, as HTML: scores, and a shade on each token that tuning changed. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from markupsafe import Markup

from feedback_ui.shared import markdown
from feedback_ui.shared.html import EMPTY, fragment, muted, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state, notice
from rlhf.runs.token_changes import AnswerChange, SampleChange, TokenChange, TokenChanges
from storage.core.records import Run, RunSample

Order = Literal["asked", "changed", "gained", "lost"]

ORDERS: tuple[Order, ...] = get_args(Order)

SHADES = (0.1, 0.5, 1.5, 3.0)
"""Absolute log-ratios, in nats, from which a token has the next shade; below the first it has none."""


@dataclass(frozen=True, slots=True)
class GallerySample:
    """One held-out prompt with both answers, and what tuning changed in them, where the run measured it."""

    sample: RunSample
    change: SampleChange | None = None

    @property
    def gain(self) -> float | None:
        """By how much the score rose, in reward units."""
        before, after = self.sample.score_before, self.sample.score_after
        return None if before is None or after is None else after - before


def gallery_samples(samples: Sequence[RunSample], changes: TokenChanges | None) -> list[GallerySample]:
    """The samples of a run with their changes. A change belongs to the sample whose two answers have exactly its texts."""
    change_of = {(change.before.text, change.after.text): change for change in (changes.samples if changes else ())}
    return [GallerySample(sample, change_of.get((sample.before, sample.after or ""))) for sample in samples]


def ordered(samples: Sequence[GallerySample], order: Order) -> list[GallerySample]:
    """In the order asked for. Samples without the figure that decides it come last, in their own order."""

    def key(of: GallerySample) -> float:
        gain = of.gain
        if order == "changed":
            figure = None if of.change is None else of.change.after.per_token
        else:
            figure = gain if order == "gained" or gain is None else -gain
        return float("inf") if figure is None else -figure

    return list(samples) if order == "asked" else sorted(samples, key=key)


def run_choices(translate: Translator, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The entries of the list of runs: each with its policy version, if it has one."""
    made = [(run, (run.result or {}).get("policy_version") or translate(f"run.status.{run.status}").lower()) for run in runs]
    return [(f"{run.id} · {version}", run.id) for run, version in made]


def none_yet(translate: Translator) -> Markup:
    return empty_state(translate("gallery.none_yet"))


def gallery(translate: Translator, samples: Sequence[GallerySample], *, shaded: bool) -> Markup:
    """All samples in their order, under the meaning of the shades."""
    if not samples:
        return none_yet(translate)
    measured = any(of.change for of in samples)
    above = legend(translate) if shaded and measured else EMPTY
    missing = notice(translate("gallery.not_measured")) if shaded and not measured else EMPTY
    title = tag("h2", translate("demo.tab.gallery"), class_="rl-sr-only")
    return fragment(title, above, missing, *(_sample(translate, of, shaded=shaded) for of in samples))


def legend(translate: Translator) -> Markup:
    """What the shades mean."""
    rises, falls = (
        fragment(*(tag("span", f"{sign}{shade:g}", class_=f"rl-token rl-{way}-{level}") for level, shade in enumerate(SHADES, 1)))
        for way, sign in (("up", "+"), ("down", "\N{MINUS SIGN}"))
    )
    return tag(
        "p",
        tag("span", translate("gallery.likelier"), " ", rises),
        " ",
        tag("span", translate("gallery.less_likely"), " ", falls),
        " ",
        tag("span", translate("gallery.unit"), class_="rl-muted"),
        class_="rl-legend-line rl-small",
    )


def _sample(translate: Translator, of: GallerySample, *, shaded: bool) -> Markup:
    sample, change = of.sample, of.change if shaded else None
    before = _text(translate, sample.before, None if change is None else change.before)
    if sample.after is None:
        after = tag("p", translate("run.not_answered_yet"), class_="rl-muted")
    else:
        after = _text(translate, sample.after, None if change is None else change.after)
    return tag(
        "article",
        tag("div", markdown.render(sample.prompt, translate), class_="rl-sample-prompt rl-prose", dir="auto"),
        tag(
            "div",
            _answer(translate, "before", sample.score_before, before),
            _answer(translate, "after", sample.score_after, after),
            class_="rl-pair",
        ),
        _figures(translate, of),
        class_="rl-sample",
        data_testid="gallery-sample",
    )


def _figures(translate: Translator, of: GallerySample) -> Markup:
    parts = [] if of.gain is None else [translate("gallery.gain", gain=f"{of.gain:+.2f}")]
    parts += [translate("gallery.change", nats=of.change.after.per_token)] if of.change else []
    return muted(" · ".join(parts)) if parts else EMPTY


def _answer(translate: Translator, when: str, score: float | None, answer: Markup) -> Markup:
    scored = EMPTY if score is None else fragment(" ", tag("span", translate("run.score", score=score), class_="rl-muted"))
    return tag("div", tag("h3", translate(f"run.sample.{when}"), scored), answer)


def _text(translate: Translator, text: str, change: AnswerChange | None) -> Markup:
    """An answer: as Markdown, or token by token with its shades."""
    if change is None:
        return tag("div", markdown.render(text, translate), class_="rl-prose", dir="auto")
    return tag("p", *(_token(translate, token) for token in change.tokens), class_="rl-prose rl-tokens", dir="auto")


def _token(translate: Translator, token: TokenChange) -> str:
    level = sum(abs(token.log_ratio) >= shade for shade in SHADES)
    text = token.text or translate("gallery.end_of_answer")
    if not level and token.text:
        return text
    way = "up" if token.log_ratio > 0 else "down"
    classes = " ".join(filter(None, ("rl-token", f"rl-{way}-{level}" if level else "", "" if token.text else "rl-end")))
    return tag("span", text, class_=classes, title=translate("gallery.log_ratio", nats=f"{token.log_ratio:+.2f}"))
