"""Which versions and prompts new comparisons get: the shares that the project declares, and how deciding prompts are drawn."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from learning import user
from round_play import BASE, Rounds
from scipy import stats

from rlhf.serving.comparison_plan import assign, assign_prompts, current_pair, deciding, plan, policies_now
from storage.content import comparisons, completions, prompts, refusals
from storage.core.records import ProjectSettings, Sampling
from storage.project import rounds

MANY = 4_000


@pytest.fixture
def play(store):
    return Rounds(store)


@pytest.fixture
def rng():
    return random.Random(3)


def add(store, *texts, split="train"):
    prompts.add(store, [prompts.NewPrompt(user(t), "test", split) for t in texts], source="test")
    return {p.text: p for p in prompts.of_split(store)}


def near(count, share):
    """Whether so many of MANY are what this share gives, at one in a million."""
    return stats.binomtest(count, MANY, share).pvalue > 1e-6


def test_the_base_alone_meets_itself(play, rng):
    add(play.store, "Q")
    now = policies_now(play.store, BASE)
    assert (now.current, now.base, now.asked, now.after) == (play.base, play.base, None, 0)
    planned = plan(now, [None] * MANY, ProjectSettings(), rng)
    assert {item.versions for item in planned} == {(play.base, play.base)} and not any(item.decides for item in planned)
    assert near(sum(item.split == "heldout" for item in planned), 0.15)
    assert deciding(now) is None


def test_the_shares_are_those_of_the_settings(play, rng):
    add(play.store, "H", split="heldout")
    first, second = play.round("r1"), play.round("r2")
    rounds.decide(play.store, first.version, "promoted", decided_by="person", reason="Because.")
    now = policies_now(play.store, BASE)
    assert (now.current, now.asked) == (first.version, rounds.get(play.store, second.id))
    project = ProjectSettings(base_share=0.2, heldout_share=0.2, deciding_share=0.4)
    planned = plan(now, [None] * MANY, project, rng)
    asks = [item for item in planned if item.decides]
    assert near(len(asks), 0.4) and {item.versions for item in asks} == {(second.version, first.version)}
    ordinary = [item for item in planned if not item.decides]
    assert near(sum(item.versions == (first.version, play.base) for item in ordinary), 0.6 * 0.2)
    assert near(sum(item.split == "heldout" for item in ordinary), 0.6 * 0.2)
    assert {item.versions for item in ordinary} == {(first.version, play.base), (first.version, first.version)}
    # No run of one kind tells where the other begins.
    kinds = [item.decides is not None for item in planned]
    assert near(sum(a != b for a, b in pairwise(kinds)), 2 * 0.4 * 0.6)
    assert not any(item.decides for item in plan(now, [None] * 100, replace(project, deciding_share=0), rng))


def test_held_out_prompts_never_get_more_than_their_share(play, rng):
    """However the draws fall, and whatever was written before: 12 of the first 16 were on held-out prompts."""
    by_text = add(play.store, "T") | add(play.store, "H", split="heldout")
    for place, text in enumerate("H" * 12 + "T" * 4):
        texts = (f"One {place}", f"Two {place}")
        ids = [
            completions.add(
                play.store, prompt_id=by_text[text].id, policy_version_id=play.base.id, text=answer, sampling=Sampling(), seed=1,
                finish_reason="stop", latency_s=0.1,
            )
            for answer in texts
        ]  # fmt: skip
        comparisons.add(play.store, by_text[text].id, ids, purpose="batch")
    now = policies_now(play.store, BASE)
    assert now.by_split == {"train": 4, "heldout": 12}
    splits = [item.split for item in plan(now, [None] * MANY, ProjectSettings(heldout_share=0.2), rng)]
    assert splits.index("heldout") >= 48, "13 of 65 are a fifth"
    heldout = 12
    for count, split in enumerate(splits, 17):
        heldout += split == "heldout"
        assert split == "train" or heldout <= 0.2 * count


def test_current_pairs_hold_the_current_policy(play, rng):
    version = play.round("r1").version
    assert {current_pair(version, play.base, 0, rng) for _ in range(50)} == {(version, version)}
    assert {current_pair(play.base, play.base, 0.9, rng) for _ in range(50)} == {(play.base, play.base)}


def test_deciding_prompts_are_drawn_uniformly_with_replacement_whatever_was_judged(play, rng):
    found = play.round("r1")
    play.deciding(found, "w" * 5)  # five held-out prompts with a comparison each
    add(play.store, *(f"T{n}" for n in range(20)))
    add(play.store, "fresh", split="heldout")
    item = deciding(policies_now(play.store, BASE))
    assignments, decides = assign(play.store, [item] * MANY, {}, rng)
    assert len(assignments) == MANY and {*decides.values()} == {found} and [*decides] == [*range(MANY)]
    counts = Counter(prompt.text for prompt, *_ in assignments)
    assert len(counts) == 6 and {prompt.split for prompt, *_ in assignments} == {"heldout"}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-6


def test_a_prompt_that_the_model_refuses_is_not_drawn(play, rng):
    play.round("r1")
    by_text = add(play.store, "H1", "H2", split="heldout")
    refusals.add(play.store, by_text["H1"].id, play.base, "too long")
    item = deciding(policies_now(play.store, BASE))
    assert {p.text for p, *_ in assign(play.store, [item] * 50, {}, rng)[0]} == {"H2"}
    refusals.add(play.store, by_text["H2"].id, play.base, "too long")
    assert policies_now(play.store, BASE).asked is None, "ordinary comparisons go on instead"


def test_without_held_out_prompts_nothing_is_asked_about(play):
    play.round("r1")
    add(play.store, "Q")
    assert policies_now(play.store, BASE).asked is None


def test_ordinary_comparisons_take_the_prompt_of_their_split_that_had_the_fewest(play, rng):
    add(play.store, "T1", "T2"), add(play.store, "H1", "H2", split="heldout")
    splits = ("train", "heldout", "train", "train", "heldout")
    drawn = plan(policies_now(play.store, BASE), [None] * len(splits), ProjectSettings(), rng)
    planned = [replace(item, split=split) for item, split in zip(drawn, splits, strict=True)]
    texts = [prompt.text for prompt, *_ in assign(play.store, planned, {}, rng)[0]]
    assert texts == ["T1", "H1", "T2", "T1", "H2"]


@pytest.mark.parametrize(("there", "wanted"), [("train", "heldout"), ("heldout", "train")])
def test_where_a_split_is_empty_the_other_serves(play, rng, there, wanted):
    add(play.store, "Q", split=there)
    planned = [replace(item, split=wanted) for item in plan(policies_now(play.store, BASE), [None], ProjectSettings(), rng)]
    assert [prompt.text for prompt, *_ in assign(play.store, planned, {}, rng)[0]] == ["Q"]


def test_in_turn_every_prompt_is_taken(play):
    add(play.store, "T1"), add(play.store, "H1", split="heldout")
    assigned = assign_prompts(play.store, [(play.base, play.base)] * 3, {})
    assert [prompt.text for prompt, *_ in assigned] == ["T1", "H1", "T1"]


def test_simulated_rounds_are_asked_about_apart(play):
    add(play.store, "H", split="heldout")
    found = play.round("r1", judges="simulated")
    assert policies_now(play.store, BASE).asked is None
    assert policies_now(play.store, BASE, "simulated").asked == found
