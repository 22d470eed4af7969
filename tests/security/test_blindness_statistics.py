"""A statistician who judges 400 comparisons and keeps every number of every reply: nothing predicts who wrote which answer.

Base and tuned answers are drawn from one distribution, so that whatever predicts the policy comes from the app. A feature
is any number in a reply, the length of a reply without the texts, how opaque names sort, or how long the reply took.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rlhf.serving.completion_source import GeneratedCompletion
from rlhf.serving.filler import write_comparisons
from storage.content import policies, prompts
from storage.core.records import ProjectSettings, Sampling
from storage.project import rounds, settings
from tests.security.blind_site import BASE, TUNED, blind_site

COMPARISONS = 400

FALSE_ALARM = 1e-6
"""Probability that a run without any leak finds one, over all features together (Bonferroni)."""

WORDS = ("bread", "rises", "because", "yeast", "eats", "sugar", "and", "leaves", "gas", "that", "lifts", "the", "dough", "while", "warm")


def answers_of(rng: random.Random):
    """A generator for which the policy makes no difference to what is said, but to all that lies around it."""

    def generate(requests, sampling, seed, on_progress=lambda: None) -> list[GeneratedCompletion]:
        return [completion(policy, " ".join(rng.choices(WORDS, k=rng.randint(5, 30))) + f" {rng.random()}.") for policy, _ in requests]

    def completion(policy, text: str) -> GeneratedCompletion:
        # Whether an answer was cut off is shown with it, as a part of what it says.
        finish_reason = rng.choice(("length", "stop"))
        if policy.name == TUNED:
            return GeneratedCompletion(f" {text}\r\n", finish_reason, 9.0 + rng.random(), seed=1)
        return GeneratedCompletion(text, finish_reason, rng.random(), seed=2)

    return generate


def fill(site, rng: random.Random) -> None:
    """As the policy server does it: the tuned version first, then the base."""
    base, tuned = site.policies()
    site.put_deciding("Which is better?")
    found = rounds.of_run(site.store, "round-9")
    deciding = random.Random(5)
    new_prompts = [prompts.NewPrompt(({"role": "user", "content": f"Question {n}?"},), split="train") for n in range(COMPARISONS)]
    prompts.add(site.store, new_prompts, source="test")
    stored = prompts.of_split(site.store)
    for start in range(0, COMPARISONS, 8):
        chosen = [(prompt, tuned, base) for prompt in stored[start : start + 8]]
        decides = {place: found for place in range(len(chosen)) if deciding.random() < 0.5}
        write_comparisons(site.store, answers_of(rng), chosen, sampling=Sampling(), seed=start, decides=decides)


@pytest.fixture(scope="module")
def features_and_truth(tmp_path_factory):
    """The same shuffles in each run of this test."""
    shuffler = random.Random(14)
    with pytest.MonkeyPatch.context() as patched, blind_site(tmp_path_factory.mktemp("statistics") / "rankloop.db") as site:
        site.join("Ann")
        fill(site, random.Random(7))
        settings.change(site.store, ProjectSettings(ideal_answers=True), None)
        patched.setattr(random, "SystemRandom", lambda: shuffler)
        yield observed(site)


def numbers_in(reply: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a reply, by the way to it: those that are values, and those that stand in texts."""
    if isinstance(reply, dict):
        for key, value in reply.items():
            yield from numbers_in(value, f"{path}.{key}")
    elif isinstance(reply, list):
        for n, value in enumerate(reply):
            yield from numbers_in(value, f"{path}.{n}")
    elif isinstance(reply, bool | int | float):
        yield path, float(reply)
    elif isinstance(reply, str):
        for n, number in enumerate(re.findall(r"\d+", reply)):
            yield f"{path}#{n}", float(number[:15])


def without_texts(reply: Any) -> Any:
    """A reply without what is there to be read, which differs by itself."""
    if isinstance(reply, dict):
        return {key: without_texts(value) for key, value in reply.items() if key not in ("answers", "sources", "turns", "prompt")}
    return [without_texts(item) for item in reply] if isinstance(reply, list) else reply


def observed(site) -> tuple[list[dict[str, float]], list[bool], list[bool]]:
    """What an annotator can note of each comparison, whether the first answer was the tuned version's, and whether it decides a round."""
    features, truth, decides = [], [], []
    view = site.call("Ann", "next_comparison")
    for n in range(COMPARISONS):
        truth.append(site.tuned_first("Ann"))
        decides.append(site.decides("Ann"))
        noted = blanks_of(view)
        about = {"presentation_id": view["presentation_id"]}
        calls = {
            "next": ("next_comparison", {}),
            "renew": ("renew", about),
            # What is refused is answered in words: who is named there, and in which order?
            "first twice": ("judge", about | {"choice": "rank", "tiers": [[0, 0]]}),
            "second twice": ("judge", about | {"choice": "rank", "tiers": [[1, 1]]}),
            "one alone": ("judge", about | {"choice": "rank", "tiers": [[0]]}),
            "judged": ("judge", about | {"choice": "a" if n % 2 else "b"}),
            "renew after": ("renew", about),
            "history": ("past_judgments", {}),
        }
        for name, (function, data) in calls.items():
            started = time.perf_counter()
            reply = site.send("Ann", function, data)
            noted[f"{name} took"] = time.perf_counter() - started
            bare = without_texts(reply.json())
            noted[f"{name} length"] = len(json.dumps(bare))
            noted |= {f"{name}{path}": number for path, number in numbers_in(bare)}
            if name == "judged":
                view = reply.json()["next"]
        newest = reply.json()["rows"][0]
        noted["token"] = order_of(str(about["presentation_id"]))
        noted["history token"] = order_of(str(newest["id"]))
        opened = site.send("Ann", "past_judgment", {"judgment_id": newest["id"]}).json()
        noted["opened length"] = len(json.dumps(without_texts(opened)))
        noted |= {f"opened{path}": number for path, number in numbers_in(without_texts(opened))}
        features.append(with_differences(noted))
    return features, truth, decides


def blanks_of(view: dict) -> dict[str, float]:
    """What is not read of the two answers: blanks around them, and how their lines end."""
    differences = {}
    for key in ("answers", "sources"):
        around = [len(text) - len(text.strip()) for text in view[key]]
        ends = [text.count("\r") for text in view[key]]
        differences |= {f"blanks around {key}": around[0] - around[1], f"ends of lines in {key}": ends[0] - ends[1]}
    return differences


def order_of(token: str) -> float:
    """Where a name stands among others of its length, as a fraction."""
    return sum(ord(letter) / 128 ** (n + 1) for n, letter in enumerate(token[:12]))


def with_differences(noted: dict[str, float]) -> dict[str, float]:
    """What was said of the first answer less what was said of the second: ids that rise tell them apart so."""
    first = {key.removeprefix("first"): value for key, value in noted.items() if key.startswith("first twice")}
    second = {key.removeprefix("second"): value for key, value in noted.items() if key.startswith("second twice")}
    return noted | {f"first less second{key}": first[key] - second[key] for key in first.keys() & second.keys()}


def p_value(values: Sequence[float], truth: Sequence[bool]) -> float:
    """How likely values that tell so much, one way or the other, are by chance: the smaller of two tests, doubled.

    Above the median or not, by Fisher's exact test; and ranks, by Mann and Whitney's.
    """
    values, truth = np.asarray(values), np.asarray(truth)
    if len(set(values)) < 2 or truth.all() or not truth.any():
        return 1.0
    above = values > np.median(values) if (values > np.median(values)).any() else values >= np.median(values)
    table = [[np.sum(above & truth), np.sum(above & ~truth)], [np.sum(~above & truth), np.sum(~above & ~truth)]]
    ranks = stats.mannwhitneyu(values[truth], values[~truth]).pvalue
    return min(1.0, 2 * min(stats.fisher_exact(table).pvalue, ranks))


def telling(features: Sequence[dict[str, float]], truth: Sequence[bool]) -> dict[str, float]:
    """The features that predict the policy, with their p-values; a feature that is only there sometimes is one, too."""
    names = sorted(set(itertools.chain.from_iterable(features)))
    p_values = {}
    for name in names:
        there = [name in noted for noted in features]
        p_values[f"{name} is there"] = p_value([float(item) for item in there], truth)
        pairs = [(noted[name], tuned) for noted, tuned in zip(features, truth, strict=True) if name in noted]
        p_values[name] = p_value(*zip(*pairs, strict=True))
    bound = FALSE_ALARM / len(p_values)
    return {name: p for name, p in p_values.items() if p < bound}


@pytest.mark.slow
def test_nothing_that_an_annotator_can_note_predicts_who_wrote_an_answer(features_and_truth):
    features, truth, _ = features_and_truth
    assert len(truth) == COMPARISONS and 150 < sum(truth) < 250
    assert len(set(itertools.chain.from_iterable(features))) > 30
    assert telling(features, truth) == {}


@pytest.mark.slow
def test_nothing_that_an_annotator_can_note_predicts_which_comparisons_decide_a_round(features_and_truth):
    features, _, decides = features_and_truth
    assert 150 < sum(decides) < 250
    assert telling(features, decides) == {}


@pytest.mark.slow
def test_the_statistician_finds_a_leak_where_there_is_one(features_and_truth):
    features, truth, _ = features_and_truth
    rng = random.Random(3)
    ids = [noted | {"id": tuned - 0.5 + rng.gauss(0, 0.8)} for noted, tuned in zip(features, truth, strict=True)]
    assert set(telling(ids, truth)) == {"id"}


def first_is_tuned(store) -> list[bool]:
    """By comparison, whether the tuned version's completion has the lower id."""
    tuned = policies.by_name(store, TUNED).id
    rows = store.rows(
        "SELECT link.comparison_id, c.policy_version_id FROM comparison_completions link JOIN completions c ON c.id = link.completion_id "
        "ORDER BY link.comparison_id, c.id"
    ).fetchall()
    return [pair[0]["policy_version_id"] == tuned for pair in zip(rows[::2], rows[1::2], strict=True)]


def test_ids_do_not_follow_the_order_in_which_policies_are_asked(world_of_writes):
    for name, sides in world_of_writes.items():
        assert len(sides) == COMPARISONS, name
        assert stats.binomtest(sum(sides), len(sides)).pvalue > 1e-4, (name, sum(sides))


@pytest.fixture
def world_of_writes(tmp_path):
    """By writer, which completion came first, in 400 comparisons each."""
    from storage.core.database import Database
    from storage.exchange import imports

    written = {}
    store = Database(tmp_path / "filled.db")
    for name in (BASE, TUNED):
        store.insert("policy_versions", {"name": name, "kind": "external", "base_model": name, "created_at": "x"})
    base, tuned = policies.by_name(store, BASE), policies.by_name(store, TUNED)
    new_prompts = [prompts.NewPrompt(({"role": "user", "content": f"Question {n}?"},)) for n in range(COMPARISONS)]
    prompts.add(store, new_prompts, source="test")
    rng = random.Random(7)
    for n, prompt in enumerate(prompts.of_split(store)):
        write_comparisons(store, answers_of(rng), [(prompt, tuned, base)], sampling=Sampling(), seed=n)
    written["filler"] = first_is_tuned(store)
    store.close()
    store = Database(tmp_path / "imported.db")
    imports.import_rows(
        store, [{"prompt": f"Q{n}", "completions": ["a", "b"], "models": [TUNED, BASE]} for n in range(COMPARISONS)], "plain"
    )
    written["import"] = first_is_tuned(store)
    store.close()
    return written
