"""Simulated annotators: marked as such everywhere, each comparison once, and a stopped run keeps what it has written."""

import json
import random
from dataclasses import replace

import pytest
from learning import user
from round_play import Rounds

from rlhf.serving.completion_source import GeneratedCompletion
from rlhf.simulation.judges import LabelRule
from rlhf.simulation.simulate import Plan, SimulationError, judge_comparison, simulate
from storage.content import comparisons, policies, prompts
from storage.core.records import Sampling
from storage.exchange import trl
from storage.judging import judgments
from storage.people import annotators

SAMPLING = Sampling(max_new_tokens=9)


@pytest.fixture
def base(store):
    prompts.add(store, [prompts.NewPrompt(user(f"Q{i}"), "test", "train") for i in range(4)], source="test")
    return policies.ensure_base(store, "m")


class FakeModel:
    def __init__(self, *, dies_after=10**9):
        self.n, self.calls, self.dies_after, self.same = 0, [], dies_after, set()

    def __call__(self, asked, sampling, seed, on_progress=lambda: None):
        self.calls.append((len(asked), seed, sampling))
        if len(self.calls) > self.dies_after:
            raise KeyboardInterrupt
        drawn = []
        for _, prompt in asked:
            self.n += 1
            drawn.append(
                GeneratedCompletion("same" if prompt.text in self.same else "word " * (1 + self.n % 3) + f"x{self.n}", "stop", 0.1)
            )
        return drawn


def plan(judgments=10, *, judge="concise", flip=0.0, seed=0, n=3, words=()):
    return Plan(LabelRule(judge, words), judgments, n, flip, seed, SAMPLING)


def test_as_many_judgments_as_asked_shared_by_annotators_marked_as_simulated(store, base):
    model, seen = FakeModel(), []
    simulate(store, model, base, plan(40), progress=lambda done, total: seen.append((done, total)))
    found = judgments.active(store, kinds=("simulated",))
    assert len(found) == 40 == len({j.judgment.comparison_id for j in found})
    assert judgments.active(store) == [], "no person said anything"
    by_name = [sum(j.annotator.name == f"sim-concise-0-{i}" for j in found) for i in (1, 2, 3)]
    assert by_name == [14, 13, 13]
    assert {a.kind for a in annotators.all_annotators(store)} == {"simulated"}
    assert {a.rule for a in annotators.all_annotators(store)} == {'{"judge": "concise", "words": [], "flip": 0.0}'}
    assert seen == [(32, 40), (40, 40)]
    assert [n for n, _, _ in model.calls] == [64, 16] and {s for _, _, s in model.calls} == {SAMPLING}


def test_they_judge_by_the_rule(store, base):
    simulate(store, FakeModel(), base, plan(20))
    for j in judgments.active(store, kinds=("simulated",)):
        lengths = [[len(j.completions[i].text.split()) for i in tier] for tier in j.judgment.tiers]
        flat = [n for tier in lengths for n in tier]
        assert flat == sorted(flat) and all(len(set(tier)) == 1 for tier in lengths)


def test_ties_are_counted(store, base):
    ties = simulate(store, FakeModel(), base, plan(12, judge="lexical", words=("nothing",)))
    assert ties == 12
    assert all(len(j.judgment.tiers) == 1 for j in judgments.active(store, kinds=("simulated",)))


def test_label_noise_has_its_probability(store, base):
    simulate(store, FakeModel(), base, plan(1))
    comparison = comparisons.get(store, 1)
    right = judge_comparison(comparison, plan(flip=0.0), random.Random(0))
    rng = random.Random(1)
    turned = sum(judge_comparison(comparison, plan(flip=0.2), rng) != right for _ in range(2000))
    assert abs(turned / 2000 - 0.2) < 3 * (0.16 / 2000) ** 0.5


def test_an_export_of_human_data_leaves_them_out(store, base, tmp_path):
    simulate(store, FakeModel(), base, plan(5))
    assert trl.write(store, tmp_path / "human.jsonl").written == 0
    written = trl.write(store, tmp_path / "all.jsonl", include_simulated=True).written
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert written == len(rows) > 0
    assert {r["annotator_kind"] for r in rows} == {"simulated"}


def test_what_was_judged_before_an_interruption_stays(store, base):
    with pytest.raises(KeyboardInterrupt):
        simulate(store, FakeModel(dies_after=1), base, plan(50))
    assert len(judgments.active(store, kinds=("simulated",))) == 32
    simulate(store, FakeModel(), base, plan(18))
    assert len(judgments.active(store, kinds=("simulated",))) == 50


def test_comparisons_that_are_there_are_judged_before_any_are_made(store, base):
    simulate(store, FakeModel(), base, plan(3))
    judged_already = {j.judgment.comparison_id for j in judgments.active(store, kinds=("simulated",))}
    simulate(store, FakeModel(), base, plan(2, seed=1))
    again = judgments.active(store, kinds=("simulated",))
    assert len(again) == 5 and len({j.judgment.comparison_id for j in again} - judged_already) == 2


def test_comparisons_that_are_to_decide_about_peoples_rounds_are_judged_only_where_asked(store):
    play = Rounds(store)
    found = play.round("r1")
    one, two = play.deciding(found, "--")
    other = play.comparison(play.base, play.base, purpose="collect")
    simulate(store, FakeModel(), play.base, plan(1))
    assert [j.judgment.comparison_id for j in judgments.active(store, kinds=("simulated",))] == [other]
    simulate(store, FakeModel(), play.base, replace(plan(2), deciding=True))
    assert {j.judgment.comparison_id for j in judgments.active(store, kinds=("simulated",))} == {one, two, other}


def test_the_same_plan_on_the_same_store_says_the_same(store, base, tmp_path):
    from storage.core.database import Database

    def tiers(database):
        prompts.add(database, [prompts.NewPrompt(user(f"Q{i}"), "test", "train") for i in range(4)], source="test")
        simulate(database, FakeModel(), policies.ensure_base(database, "m"), plan(30, flip=0.3, seed=5))
        return [j.judgment.tiers for j in judgments.active(database, kinds=("simulated",))]

    other = Database(tmp_path / "other" / "rankloop.db")
    assert tiers(store) == tiers(other)
    other.close()


def test_without_prompts_it_is_refused(store):
    with pytest.raises(SimulationError, match="rankloop import"):
        simulate(store, FakeModel(), policies.ensure_base(store, "m"), plan(1))


def test_a_model_with_identical_answers_is_refused(store, base):
    model = FakeModel()
    model.same = {f"Q{i}" for i in range(4)}
    with pytest.raises(SimulationError, match="--temperature"):
        simulate(store, model, base, plan(1))


def test_one_prompt_that_always_gets_the_same_answer_does_not_end_it(store, base):
    model = FakeModel()
    model.same = {"Q0"}
    simulate(store, model, base, plan(9))
    simulate(store, model, base, plan(1))
    assert len(judgments.active(store, kinds=("simulated",))) == 10


def test_another_rule_under_the_same_names_is_refused_with_what_to_do(store, base):
    simulate(store, FakeModel(), base, plan(1))
    with pytest.raises(SimulationError, match="--seed"):
        simulate(store, FakeModel(), base, plan(1, flip=0.2))
    simulate(store, FakeModel(), base, plan(1, flip=0.2, seed=1))
