"""From tiers to preference pairs, the split that keeps them apart, and the snapshot that freezes them."""

import hashlib
import json

import pytest
from learning import user

from rlhf.data import pairs
from rlhf.data.pairs import NotEnoughPairs, PreferencePair
from rlhf.runs.jobs import Jobs
from rlhf.stages.snapshot import take_snapshot
from storage.core.records import Annotator, Completion, JudgedComparison, Judgment, Prompt, Sampling
from storage.judging import judgments, queue
from storage.people import annotators


def judged(tiers, texts, *, split="train", kind="human", verdict="rank", strength=None, annotator_id=1):
    completions = {i: Completion(i, 1, 1, text, Sampling(), 0, "stop", 0.1) for i, text in texts.items()}
    judgment = Judgment(7, 1, None, 1, verdict, tiers, False, None, None, "2026-01-01", strength=strength)
    return JudgedComparison(judgment, Annotator(annotator_id, "Ann", kind, None), Prompt(1, user("Q"), "test", split), completions)


def summary(found):
    return [(p.chosen, p.rejected) for p in found]


def pair(split="train", kind="human", n=0):
    return PreferencePair(user("Q\u2028 \u00e9"), f"yes {n}\n", "no", 1.0, split, kind, n)


def test_two_ranked_completions_are_one_pair():
    found = pairs.derive([judged(((2,), (1,)), {1: "one", 2: "two"}, split="heldout", kind="simulated")])
    assert found == [PreferencePair(user("Q"), "two", "one", 1.0, "heldout", "simulated", 7)]


def test_every_strict_order_is_a_pair_and_ties_are_none():
    found = pairs.derive([judged(((2,), (1, 4), (3,)), {1: "a", 2: "b", 3: "c", 4: "d"})])
    assert summary(found) == [("b", "a"), ("b", "d"), ("b", "c"), ("a", "c"), ("d", "c")]
    assert pairs.derive([judged(((1, 2),), {1: "a", 2: "b"})]) == []
    assert pairs.derive([judged((), {1: "a", 2: "b"}, verdict="skip")]) == []


def test_a_ranking_of_k_weighs_as_if_each_completion_were_in_one_pair():
    """1 / (K - 1): each of K completions stands in K - 1 pairs."""
    texts = {1: "a", 2: "b", 3: "c", 4: "d"}

    def weights(*tiers):
        return [p.weight for p in pairs.derive([judged(tiers, texts)])]

    assert weights((1,), (2,)) == [1.0]
    assert weights((1,), (2,), (3,)) == [1 / 2] * 3
    assert weights((2,), (1, 4), (3,)) == [1 / 3] * 5
    assert weights((3,), (2,)) == [1.0], "what was left out of the ranking does not count"


def test_ties_make_pairs_where_they_are_asked_for():
    texts = {1: "a", 2: "b", 3: "c", 4: "b"}
    one = judged(((3,), (1, 2, 4)), texts)
    found = pairs.derive([one], ties=True)
    assert [(p.chosen, p.rejected, p.tie) for p in found] == [
        ("c", "a", False),
        ("c", "b", False),
        ("c", "b", False),
        ("a", "b", True),
        ("a", "b", True),
    ], "not the pair of equal texts"
    assert {p.weight for p in found} == {1 / 3}
    assert [(p.tie, p.weight) for p in pairs.derive([judged(((1, 2),), texts)], ties=True)] == [(True, 1.0)]
    assert pairs.derive([judged(((1, 2),), texts, split="heldout")], ties=True) == [], "accuracy is about preferences"
    assert pairs.derive([judged((), texts, verdict="skip")], ties=True) == []


def test_a_strength_stays_with_its_pair():
    assert pairs.derive([judged(((1,), (2,)), {1: "a", 2: "b"}, strength="slightly")])[0].strength == "slightly"


def test_votes_weigh_as_their_annotators_do():
    texts = {1: "a", 2: "b", 3: "c"}
    everyone = [judged(((1,), (2,), (3,)), texts, annotator_id=1), judged(((1,), (2,)), texts, annotator_id=2)]
    assert [p.weight for p in pairs.derive(everyone, annotator_weights={1: 1.5})] == [0.75, 0.75, 0.75, 1.0]


def test_ties_are_no_preference_pairs():
    tied = PreferencePair(user("Q"), "a", "b", 1.0, "train", "human", 1, True)
    with pytest.raises(
        NotEnoughPairs, match="^2 teach · 0 measure: a round needs 3 .* Judge 1 more comparisons on training prompts, or pass --min-pairs 2"
    ):
        pairs.require([pair()] * 2 + [tied] * 5, 3)
    with pytest.raises(NotEnoughPairs, match="training prompts"):
        pairs.require([pair("heldout")] * 3 + [tied], 1)
    summary = pairs.manifest([pair(), tied, tied])
    assert summary.pairs == summary.train == 1 and summary.ties == 2
    assert "ties" not in pairs.manifest([pair()]).to_json()
    assert "labels" not in pairs.manifest([pair()]).to_json() and pairs.manifest([pair()], labels=3).labels == 3


def test_identical_texts_make_no_pair():
    assert summary(pairs.derive([judged(((1,), (2,), (3,)), {1: "a", 2: "a", 3: "b"})])) == [("a", "b"), ("a", "b")]


def test_simulated_judgments_are_included_only_on_request(judged):
    ann = annotators.ensure(judged.store, "Ann")
    comparison, presentation = queue.next_presentation(judged.store, ann.id)
    order = presentation.order
    judgments.save(judged.store, presentation.id, ann.id, verdict="rank", tiers=((order[1],), (order[0],)))
    people = pairs.of_store(judged.store, include_simulated=False)
    assert [p.annotator_kind for p in people] == ["human"]
    text = {c.id: c.text for c in comparison.completions}
    assert summary(people) == [(text[order[1]], text[order[0]])]
    everybody = pairs.of_store(judged.store, include_simulated=True)
    assert sorted(p.annotator_kind for p in everybody) == ["human"] + ["simulated"] * 9
    assert {p.split for p in everybody} == {"train", "heldout"}


def test_too_few_pairs_are_refused_with_numbers():
    refusal = r"^3 teach · 73 measure: a round needs 20 .* Judge 17 more comparisons on training prompts, or pass --min-pairs 3\."
    with pytest.raises(NotEnoughPairs, match=refusal) as refused:
        pairs.require([pair()] * 3 + [pair("heldout")] * 73, 20)
    assert (refused.value.found, refused.value.needed) == (3, 20), "pairs that measure do not count"
    with pytest.raises(NotEnoughPairs, match=r"^0 teach · 0 measure: .* Judge 20 more comparisons on training prompts\. Ties") as caught:
        pairs.require([], 20)
    assert "--min-pairs" not in str(caught.value), "there is nothing to go down to"
    pairs.require([pair()] * 20, 20)


def test_pairs_on_held_out_prompts_alone_are_refused():
    with pytest.raises(NotEnoughPairs, match="training prompts"):
        pairs.require([pair("heldout")] * 20, 20)


@pytest.mark.parametrize(
    ("heldout", "warning"), [(0, "no pair measures"), (1, "1 measure: with fewer than 20"), (19, "19 measure"), (20, None)]
)
def test_few_pairs_that_measure_are_warned_of(heldout, warning):
    found = pairs.few_measure(heldout)
    assert found is None if warning is None else (found or "").startswith(warning)


def test_a_snapshot_comes_back_as_it_was_frozen(tmp_path):
    frozen = [pair(n=1), pair("heldout", "simulated", 2), pair("heldout", n=3)]
    pairs.write_snapshot(frozen, tmp_path / "run")
    assert pairs.read_snapshot(tmp_path / "run") == frozen
    data = (tmp_path / "run" / "pairs.jsonl").read_bytes()
    assert [json.loads(line)["chosen"] for line in data.decode().split("\n")[:-1]] == ["yes 1\n", "yes 2\n", "yes 3\n"]
    assert pairs.manifest(pairs.read_snapshot(tmp_path / "run")).to_json() == {
        "pairs": 3,
        "train": 1,
        "heldout": 2,
        "simulated": 1,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["pairs.jsonl"]


def test_a_snapshot_keeps_ties_and_strengths(tmp_path):
    frozen = [
        PreferencePair(user("Q"), "a", "b", 0.5, "train", "human", 1, True),
        pair(),
        PreferencePair(user("Q"), "a", "b", 1.0, "train", "human", 1, False, "better"),
    ]
    pairs.write_snapshot(frozen, tmp_path)
    assert pairs.read_snapshot(tmp_path) == frozen


def test_a_snapshot_from_before_ties_and_strengths_is_read_with_its_hash(tmp_path):
    line = (
        '{"prompt": [{"role": "user", "content": "Q"}], "chosen": "a", "rejected": "b", "weight": 1.0, "split": "train", '
        '"annotator_kind": "human", "judgment_id": 3}\n'
    )
    (tmp_path / "pairs.jsonl").write_text(line)
    frozen = pairs.read_snapshot(tmp_path)
    assert frozen == [PreferencePair(user("Q"), "a", "b", 1.0, "train", "human", 3, False, None)]
    assert pairs.manifest(frozen).sha256 == hashlib.sha256(line.encode()).hexdigest()


def test_a_round_freezes_ties_and_weights_where_it_is_told_to(judged, tmp_path, monkeypatch):
    prompt = judged.prompt("Tied?", "train")
    sim = annotators.ensure(judged.store, "sim", kind="simulated", rule='{"judge": "sentiment", "words": [], "flip": 0.0}')
    comparison, (first, second) = judged.comparison(prompt, "one", "two")
    judgments.add_simulated(judged.store, comparison, sim.id, tiers=((first, second),))
    monkeypatch.setattr("rlhf.data.reliability.weights", lambda store, include_simulated: {sim.id: 0.5} if include_simulated else {})

    run = Jobs(judged.store, judged.folder).create(judged.config())

    def frozen(folder, **options):
        return take_snapshot(judged.store, run.id, judged.config(**options), tmp_path / folder)

    plain = frozen("plain")
    assert [p.tie for p in plain] == [False] * 9 and {p.weight for p in plain} == {1.0}
    told = frozen("told", reward_ties="soft", reward_annotator_weights=True)
    assert [p.tie for p in told] == [False] * 9 + [True] and {p.weight for p in told} == {0.5}


def test_a_split_holds_its_own_pairs():
    every = [pair(n=1), pair("heldout", n=2), pair(n=3)]
    assert [p.judgment_id for p in pairs.of_split(every, "train")] == [1, 3]
    assert [p.judgment_id for p in pairs.of_split(every, "heldout")] == [2]
