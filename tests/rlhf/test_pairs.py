"""From tiers to preference pairs, the split that keeps them apart, and the snapshot that freezes them."""

import hashlib
import json

import pytest
from learning import user

from rlhf import pairs
from rlhf.pairs import NotEnoughPairs, PreferencePair
from storage import annotators, judgments, queue
from storage.records import Annotator, Completion, JudgedComparison, Judgment, Prompt, Sampling


def judged(tiers, texts, *, split="train", kind="human", verdict="rank"):
    completions = {i: Completion(i, 1, 1, text, Sampling(), 0, "stop", 0.1) for i, text in texts.items()}
    judgment = Judgment(7, 1, None, 1, verdict, tiers, False, None, None, "2026-01-01")
    return JudgedComparison(judgment, Annotator(1, "Ann", kind, None), Prompt(1, user("Q"), "test", split), completions)


def said(found):
    return [(p.chosen, p.rejected) for p in found]


def pair(split="train", kind="human", n=0):
    return PreferencePair(user("Q\u2028 \u00e9"), f"yes {n}\n", "no", 1.0, split, kind, n)


def test_two_ranked_completions_are_one_pair():
    found = pairs.derive([judged(((2,), (1,)), {1: "one", 2: "two"}, split="heldout", kind="simulated")])
    assert found == [PreferencePair(user("Q"), "two", "one", 1.0, "heldout", "simulated", 7)]


def test_every_strict_order_is_a_pair_and_ties_are_none():
    found = pairs.derive([judged(((2,), (1, 4), (3,)), {1: "a", 2: "b", 3: "c", 4: "d"})])
    assert said(found) == [("b", "a"), ("b", "d"), ("b", "c"), ("a", "c"), ("d", "c")]
    assert pairs.derive([judged(((1, 2),), {1: "a", 2: "b"})]) == []
    assert pairs.derive([judged((), {1: "a", 2: "b"}, verdict="skip")]) == []


def test_identical_texts_teach_nothing():
    assert said(pairs.derive([judged(((1,), (2,), (3,)), {1: "a", 2: "a", 3: "b"})])) == [("a", "b"), ("a", "b")]


def test_people_and_rules_are_not_mixed_unless_asked(judged):
    ann = annotators.ensure(judged.store, "Ann")
    comparison, presentation = queue.next_presentation(judged.store, ann.id)
    order = presentation.order
    judgments.save(judged.store, presentation.id, ann.id, verdict="rank", tiers=((order[1],), (order[0],)))
    people = pairs.of_store(judged.store, include_simulated=False)
    assert [p.annotator_kind for p in people] == ["human"]
    text = {c.id: c.text for c in comparison.completions}
    assert said(people) == [(text[order[1]], text[order[0]])]
    everybody = pairs.of_store(judged.store, include_simulated=True)
    assert sorted(p.annotator_kind for p in everybody) == ["human"] + ["simulated"] * 9
    assert {p.split for p in everybody} == {"train", "heldout"}


def test_too_few_pairs_are_refused_with_numbers():
    with pytest.raises(NotEnoughPairs, match=r"^3 preference pairs, need 20: judge 17 more comparisons, or pass --min-pairs 3\."):
        pairs.require([pair()] * 3, 20)
    with pytest.raises(NotEnoughPairs, match=r"^0 preference pairs, need 20: judge 20 more comparisons\. Ties") as caught:
        pairs.require([], 20)
    assert "--min-pairs" not in str(caught.value), "there is nothing to go down to"
    pairs.require([pair()] * 20, 20)


def test_pairs_on_held_out_prompts_alone_teach_nothing():
    with pytest.raises(NotEnoughPairs, match="training prompts"):
        pairs.require([pair("heldout")] * 20, 20)


def test_a_snapshot_comes_back_as_it_was_frozen(tmp_path):
    frozen = [pair(n=1), pair("heldout", "simulated", 2), pair("heldout", n=3)]
    pairs.write_snapshot(frozen, tmp_path / "run")
    assert pairs.read_snapshot(tmp_path / "run") == frozen
    data = (tmp_path / "run" / "pairs.jsonl").read_bytes()
    assert [json.loads(line)["chosen"] for line in data.decode().split("\n")[:-1]] == ["yes 1\n", "yes 2\n", "yes 3\n"]
    assert pairs.manifest(pairs.read_snapshot(tmp_path / "run")) == {
        "pairs": 3, "train": 1, "heldout": 2, "simulated": 1, "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["pairs.jsonl"]


def test_a_split_holds_its_own_pairs():
    every = [pair(n=1), pair("heldout", n=2), pair(n=3)]
    assert [p.judgment_id for p in pairs.of_split(every, "train")] == [1, 3]
    assert [p.judgment_id for p in pairs.of_split(every, "heldout")] == [2]
