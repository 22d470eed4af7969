"""The gallery: which change belongs to which sample, the orders, and the shade of a token."""

import pytest

from feedback_ui.demo import gallery_view
from feedback_ui.demo.gallery_view import GallerySample, gallery_samples, ordered
from feedback_ui.shared.i18n import Translator
from rlhf.runs.token_changes import AnswerChange, SampleChange, TokenChange, TokenChanges
from storage.core.records import RunSample

EN = Translator("en")


def change(*ratios, text="x"):
    return AnswerChange([TokenChange(text, ratio) for ratio in ratios])


def sample(name, before, after, ratios=None):
    own = RunSample(name, "b", "x" * len(ratios or "x"), before, after)
    return GallerySample(own, None if ratios is None else SampleChange(1, change(0.0), change(*ratios)))


def test_a_change_belongs_to_the_sample_with_exactly_its_texts():
    samples = [RunSample("p", "xx", "x", 0.0, 1.0), RunSample("q", "xx", "other", 0.0, 1.0), RunSample("r", "xx", None, 0.0, None)]
    found = gallery_samples(samples, TokenChanges(1.0, [SampleChange(4, change(0.1, 0.2), change(0.3))]))
    assert [of.change and of.change.prompt_id for of in found] == [4, None, None]
    assert [of.change for of in gallery_samples(samples, None)] == [None] * 3


def test_orders():
    samples = [
        sample("first", 1, 1.5, [0.1, -0.1]),
        sample("second", 0, 2, [0.5, 2.5]),
        sample("third", 1, 0),
        sample("fourth", None, 3, [9]),
    ]
    names = {order: [of.sample.prompt for of in ordered(samples, order)] for order in gallery_view.ORDERS}
    assert names == {
        "asked": ["first", "second", "third", "fourth"],
        "changed": ["fourth", "second", "first", "third"],
        "gained": ["second", "first", "third", "fourth"],
        "lost": ["third", "first", "second", "fourth"],
    }


@pytest.mark.parametrize(
    "ratio, classes",
    [(0.05, None), (0.1, "rl-token rl-up-1"), (-0.7, "rl-token rl-down-2"), (1.5, "rl-token rl-up-3"), (-3.0, "rl-token rl-down-4")],
)
def test_a_token_has_the_shade_of_its_log_ratio(ratio, classes):
    html = gallery_view.gallery(EN, [sample("p", 0, 1, [ratio])], shaded=True)
    shown = f'<span class="{classes}" title="{ratio:+.2f} nats">x</span>' if classes else '<p class="rl-prose rl-tokens" dir="auto">x</p>'
    assert shown in html


def test_the_end_of_an_answer_is_shown():
    after = AnswerChange([TokenChange("x", 0.0), TokenChange("", -2.0)])
    of = GallerySample(RunSample("p", "x", "x", 0, 1), SampleChange(1, change(0.0), after))
    html = gallery_view.gallery(EN, [of], shaded=True)
    assert '<span class="rl-token rl-down-3 rl-end" title="-2.00 nats">end</span>' in html
    assert "Score changed by +1.00 · Changed by 1.00 nats per token" in html


def test_without_shades_answers_are_markdown():
    of = GallerySample(RunSample("p", "**b**", "x", 0, 1), SampleChange(1, change(2.0), change(2.0)))
    html = gallery_view.gallery(EN, [of], shaded=False)
    assert "<strong>b</strong>" in html and "rl-token" not in html


def test_a_run_without_measured_changes_says_so():
    assert "did not measure" in gallery_view.gallery(EN, [sample("p", 0, 1)], shaded=True)
    assert "did not measure" not in gallery_view.gallery(EN, [sample("p", 0, 1)], shaded=False)
    assert "No answers yet" in gallery_view.gallery(EN, [], shaded=True)
