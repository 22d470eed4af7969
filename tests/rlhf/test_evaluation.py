"""Intervals against published values, win rates by hand, and scores that come back in the order they were asked."""

import pytest
import torch
from learning import user

from rlhf import evaluation
from rlhf.config import AdapterConfig, RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.evaluation import SampledCompletion, accuracy_on_rule, accuracy_on_votes, by_prompt, mean_by_prompt, proportion, win_rate
from rlhf.reward.model import ADAPTER, RewardModel
from rlhf.runs.results import BestOfN, Estimate
from rlhf.simulation.judges import LabelRule
from storage.core.records import Prompt, Sampling


def answer(prompt_id, text):
    return SampledCompletion(prompt_id, [1], text, "stop")


def pair(chosen, rejected):
    return PreferencePair(user("Q"), chosen, rejected, 1.0, "heldout", "human", 1)


@pytest.mark.parametrize(
    "successes, cases, low, high",
    # Newcombe 1998, table I, method 3 (the score method without continuity correction)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(successes, cases, low, high):
    result = proportion(successes, cases)
    assert result.value == successes / cases and result.cases == cases
    assert result.low == pytest.approx(low, abs=5e-5) and result.high == pytest.approx(high, abs=5e-5)


def test_no_cases_are_no_estimate():
    assert proportion(0, 0) is None
    assert mean_by_prompt({}) is None
    assert accuracy_on_votes(torch.empty(0), torch.empty(0)) is None
    assert win_rate({}, {}) is None


def test_win_rate_is_over_all_pairs_of_answers_and_a_tie_is_half():
    # Prompt 1: 3 beats 1, ties 3; 2 beats 1, loses to 3: 2.5 of 4. Prompt 2: loses: 0 of 1. Mean of .625 and 0.
    tuned = [answer(1, "3"), answer(1, "2"), answer(2, "5")]
    base = [answer(1, "1"), answer(1, "3"), answer(2, "9")]
    result = win_rate(*(by_prompt(answers, [float(a.text) for a in answers]) for answers in (tuned, base)))
    assert result.value == pytest.approx(0.3125)
    assert result.cases == 2
    assert (result.low, result.high) == (0.0, 0.625)


def test_prompts_are_the_cases_however_many_answers_they_have():
    result = mean_by_prompt({i: [float(i < 40)] * 7 for i in range(80)})
    assert result.value == 0.5 and result.cases == 80
    # Normal approximation of 80 fair coins: .5 +- 1.96 sqrt(.25 / 80) = +- .1096
    assert result.low == pytest.approx(0.39, abs=0.02) and result.high == pytest.approx(0.61, abs=0.02)
    assert mean_by_prompt({i: [float(i < 40)] for i in range(80)}) == result, "the same each time"


def test_one_prompt_has_no_spread_to_resample():
    assert mean_by_prompt({1: [1.0, 0.0]}) == Estimate(0.5, 0.5, 0.5, 1)


def test_accuracy_on_votes_counts_strict_preferences():
    result = accuracy_on_votes(torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 2.0, 4.0, -1.0]))
    assert (result.value, result.cases) == (0.5, 4)


def test_accuracy_on_a_rule_is_against_the_rule_and_not_the_vote():
    every = [pair("a", "a b"), pair("a b", "a"), pair("a", "b"), pair("a b", "a")]
    chosen, rejected = torch.tensor([1.0, 1.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 0.0, 2.0])
    # The first agrees; in the second the vote went against the rule; the rule ties the third; the model ties the fourth.
    result = accuracy_on_rule(every, chosen, rejected, LabelRule("concise"))
    assert (result.value, result.cases) == (pytest.approx(1 / 3), 3)


def test_pair_scores_are_those_of_the_chosen_and_the_rejected(backbone):
    config = RewardConfig(depth=1.0)
    backbone.add_adapter(ADAPTER, AdapterConfig(rank=2), seed=0)
    model = RewardModel(backbone, config, seed=0)
    every = [pair("yes", "no, and a long one"), pair("so", "la")]
    chosen, rejected = evaluation.pair_scores(backbone, model, every)

    def score(text):
        return model.score([model.row(backbone.encode(user("Q")), backbone.encode_answer(text))])[0]

    torch.testing.assert_close(chosen, torch.stack([score("yes"), score("so")]), atol=1e-5, rtol=0)
    torch.testing.assert_close(rejected, torch.stack([score("no, and a long one"), score("la")]), atol=1e-5, rtol=0)
    assert [len(x) for x in evaluation.pair_scores(backbone, model, [])] == [0, 0]


def test_answers_come_in_the_order_of_the_prompts(backbone, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 4)
    prompts = [Prompt(i, user(f"Q{i}"), "test", "heldout") for i in (5, 3, 9)]
    answers_ = evaluation.sample_completions(backbone, None, prompts, Sampling(max_new_tokens=6), per_prompt=3, seed=1)
    assert [a.prompt_id for a in answers_] == [5, 5, 5, 3, 3, 3, 9, 9, 9]
    assert len({a.text for a in answers_}) == 9, "each is a draw of its own, in every batch"
    assert answers_ == evaluation.sample_completions(backbone, None, prompts, Sampling(max_new_tokens=6), per_prompt=3, seed=1)
    assert answers_[0].text == backbone.decode(answers_[0].ids)


def test_best_of_n_takes_the_highest_score():
    answers_ = [SampledCompletion(1, [i], str(i), "stop") for i in range(6)]
    assert [a.text for a in evaluation.best_of(answers_, 3, [1.0, 5.0, 2.0, 7.0, 7.0, 0.0])] == ["1", "3"]
    assert evaluation.best_of(answers_, 1, [0.0] * 6) == answers_


def test_best_of_n_samples_n_answers_for_each_selected_one(backbone):
    seen = []

    def low_first_tokens(prompts, sampled, on_progress):
        seen.extend(zip(prompts, sampled, strict=True))
        return torch.tensor([-float(s.ids[0]) for s in sampled])

    prompts = [Prompt(i, user(f"Q{i}"), "test", "heldout") for i in (5, 3)]
    chosen, said = evaluation.best_of_n(
        backbone, low_first_tokens, prompts, Sampling(max_new_tokens=4), kl=0.65, max_n=9, per_prompt=2, seed=1
    )
    # Best of 4 is at .6363 nats, best of 5 at .8094.
    assert said == BestOfN(4, pytest.approx(0.636294, abs=1e-6), policy_kl=0.65, max_n=9, beyond_max_n=False)
    assert [a.prompt_id for a in chosen] == [5, 5, 3, 3]
    assert [p for p, _ in seen] == [backbone.encode(p.messages) for p in prompts for _ in range(8)]
    groups = [[s.ids[0] for _, s in seen[i : i + 4]] for i in range(0, 16, 4)]
    assert [a.ids[0] for a in chosen] == [min(g) for g in groups]
    _, said = evaluation.best_of_n(backbone, low_first_tokens, prompts, Sampling(max_new_tokens=4), kl=0.7, max_n=4, per_prompt=1, seed=1)
    assert (said.n, said.beyond_max_n) == (4, True)
