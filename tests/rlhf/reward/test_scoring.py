"""PPO's scores, worked out by hand: from a reward model, an ensemble, a penalty, a fixed score, and any Python function."""

import pytest
import torch
from learning import user
from small_ppo import ByteReward
from torch.testing import assert_close

from rlhf.config import AdapterConfig, RewardConfig, ScoringConfig
from rlhf.generation.sampling import GeneratedSequence
from rlhf.reward.model import ADAPTER, RewardModel
from rlhf.reward.scoring import FunctionReward, RewardShaper, scores_of
from rlhf.runs.reward_function import RewardFunctionError
from rlhf.runs.work import Work

TWO = [GeneratedSequence([1, 200], "stop"), GeneratedSequence([1, 2, 3], "length")]
"""The bytes reward gives .5 and 1."""


def test_the_length_penalty_is_per_token():
    assert_close(RewardShaper(ByteReward(), ScoringConfig(length_penalty=0.1))([[5], [6]], TWO), torch.tensor([0.5 - 0.2, 1 - 0.3]))


def test_the_score_of_a_missing_eos_has_no_length_penalty():
    reward_shaper = RewardShaper(ByteReward(), ScoringConfig(length_penalty=0.1, missing_eos_score=-2.0))
    assert_close(reward_shaper([[5], [6]], TWO), torch.tensor([0.3, -2.0]))


def test_one_reward_model_is_its_own_proxy_without_disagreement():
    reward_shaper = RewardShaper(ByteReward(), ScoringConfig(length_penalty=9.0, missing_eos_score=-7.0))
    reward_shaper([[5], [6]], TWO)
    # What is watched is what the reward model says, whatever else is paid.
    assert reward_shaper.metrics == {"objective/proxy_scores": 0.75, "objective/disagreement": 0.0, "objective/conservative_scores": 0.75}


class ThreeHeads(RewardModel):
    """Scores are given; only what is made of them is looked at."""

    def ensemble_scores(self, rows, *, on_progress=lambda: None):
        on_progress()
        return torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 3.0]])


def test_an_ensembles_score_is_its_mean_minus_the_penalty(backbone):
    model = ThreeHeads(backbone, RewardConfig(ensemble=3, std_penalty=0.5), seed=0)
    ticks = []
    reward_shaper = RewardShaper(model)
    scores = reward_shaper([[5], [6]], TWO, Work(ticks.append))
    # Means 2 and 1; standard deviations sqrt(2/3) = .8165 and sqrt(2) = 1.4142, and half of each is taken off.
    assert_close(scores, torch.tensor([2 - 0.408248, 1 - 0.707107]), atol=1e-5, rtol=0)
    assert reward_shaper.metrics["objective/proxy_scores"] == pytest.approx(1.5)
    assert reward_shaper.metrics["objective/disagreement"] == pytest.approx((0.816497 + 1.414214) / 2, abs=1e-5)
    assert reward_shaper.metrics["objective/conservative_scores"] == pytest.approx(1.5 - (0.816497 + 1.414214) / 2, abs=1e-5)
    assert len(ticks) == 1, "each row is read once"


def test_an_ensemble_scores_the_same_in_every_function(backbone):
    config = RewardConfig(adapter=AdapterConfig(rank=2), depth=1.0, ensemble=3, std_penalty=0.5)
    backbone.add_adapter(ADAPTER, config.adapter, seed=9)
    model = RewardModel(backbone, config, seed=9)
    rows = [model.row([5, 6], [7, 8]), model.row([5], [9])]
    said = scores_of(model, rows)
    assert torch.equal(said.scores, model.score(rows)) and (said.disagreement > 0).all()


def test_the_reward_head_starts_at_unit_scale(backbone):
    """N(0, 1/(d + 1)), so that scores of normalised hidden states have about unit scale; d is 32."""
    head = RewardModel(backbone, RewardConfig(ensemble=200), seed=0).head
    assert float(head.weight.detach().std()) == pytest.approx(33**-0.5, rel=0.05)
    assert float(head.weight.detach().mean()) == pytest.approx(0, abs=0.01)
    assert head.bias.detach().abs().sum() == 0


# Any Python function.


def of_function(backbone, function):
    return RewardShaper(FunctionReward(function, "mine:reward", backbone, [user("Hi?"), user("Why?")]))


def test_a_reward_function_gets_conversations_and_texts_and_returns_the_scores(backbone):
    seen = []

    def function(prompts, completions):
        seen.append((prompts, completions))
        return [3.0, -1]

    asked = [backbone.encode(user("Why?")), backbone.encode(user("Hi?"))]
    said = [
        GeneratedSequence([*backbone.encode_answer("Because."), backbone.eos_id], "stop"),
        GeneratedSequence(backbone.encode_answer("Hello"), "length"),
    ]
    assert of_function(backbone, function)(asked, said).tolist() == [3.0, -1.0]
    assert seen == [([[{"role": "user", "content": "Why?"}], [{"role": "user", "content": "Hi?"}]], ["Because.", "Hello"])]


@pytest.mark.parametrize(
    "returned, said",
    [
        ([1.0], "mine:reward gave 1 rewards for 2 completions: return one for each"),
        ([1.0, float("nan")], "mine:reward gave nan"),
        ([1.0, float("-inf")], "mine:reward gave -inf: return finite numbers"),
    ],
)
def test_invalid_results_of_a_reward_function_are_refused(backbone, returned, said):
    asked = [backbone.encode(user("Why?"))] * 2
    with pytest.raises(RewardFunctionError, match=said):
        of_function(backbone, lambda prompts, completions: returned)(asked, [GeneratedSequence([1], "stop")] * 2)
