"""Whether somebody agrees with the others as at first: thirds by hand, and Newcombe's interval."""

import pytest

from rlhf.analysis import drift
from storage.content import comparisons, completions, policies, prompts
from storage.core.records import Sampling
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import settings


def test_the_interval_is_newcombes():
    # Newcombe 1998, table II, case a: 56/70 - 48/80 has the interval .0524 to .3339; here both have one size, so it is his formula by hand:
    # Wilson 8/10 is .4902 to .9433, 2/10 is .0567 to .5098; -.6 - sqrt((.2 - .0567)^2 + (.9433 - .8)^2), and + sqrt((.5098 - .2)^2 + ...).
    found = drift.between(0.8, 0.2, 10)
    assert (found.low, found.high) == pytest.approx((-0.6 - 0.20266, -0.6 + 0.43812), abs=2e-4)
    assert found.is_clear and not drift.between(0.8, 0.6, 10).is_clear
    assert drift.between(1.0, 0.0, 10).low == -1.0


def test_the_last_third_is_compared_with_the_first(store):
    settings.change(store, settings.ProjectSettings(overlap=2), None)
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": "Q"},), split="train")], source="test")
    version = policies.ensure_base(store, "m")
    for n in range(30):
        ids = [
            completions.add(
                store,
                prompt_id=1,
                policy_version_id=version.id,
                text=f"{n} {side}",
                sampling=Sampling(),
                seed=0,
                finish_reason="stop",
                latency_s=0.1,
            )
            for side in "ab"
        ]
        comparisons.add(store, 1, ids, purpose="collect")
    ann, bob = annotators.ensure(store, "Ann"), annotators.ensure(store, "Bob")
    for annotator in (ann, bob):
        for n in range(30):
            comparison, shown = queue.next_presentation(store, annotator.id)
            a, b = (completion.id for completion in comparison.completions)
            # Bob agrees with Ann in the first 20, and with two of the last ten.
            flipped = annotator is bob and n >= 20 and n not in (22, 25)
            judgments.save(store, shown.id, annotator.id, verdict="rank", tiers=((b,), (a,)) if flipped else ((a,), (b,)))
        if annotator is ann:
            assert drift.of_store(store) == {}, "nobody shares her votes yet"
    found = drift.of_store(store)
    assert set(found) == {ann.id, bob.id}
    assert (found[bob.id].first, found[bob.id].last, found[bob.id].votes) == (1.0, 0.2, 10)
    assert found[bob.id].is_clear and found[bob.id].high < 0
