"""What PPO may be told beyond the paper, each by hand; off, each leaves every bit as it is."""

from dataclasses import replace

import pytest
import torch
from learning import watch_logprobs
from small_ppo import CONFIG, everything, gradients, policy_of, scrambled, taken, trainer
from torch.nn.functional import pad
from torch.testing import assert_close

from rlhf.config import ScoringConfig
from rlhf.generation import engine
from rlhf.models.lm_head import token_logprobs_from_logits
from rlhf.ppo import trainer as trainer_module
from rlhf.ppo.ppo_math import kl_per_token
from rlhf.ppo.rollout import POLICY, collect
from rlhf.ppo.value_head import ValueHead
from rlhf.reward.model import TokenizedExample
from rlhf.runs.results import KLStop, PolicyOutcome
from rlhf.runs.work import Work

DEMONSTRATIONS = [TokenizedExample([5, 6, 7, 8, 9], 2), TokenizedExample([10, 11, 12], 1), TokenizedExample([13, 14, 15, 16], 3)]


def uneven(ppo):
    """A batch of 8 whose responses end after 1 to 8 tokens."""
    rollout = taken(ppo)
    mask = torch.arange(8)[None] < torch.tensor([8, 3, 1, 7, 2, 5, 4, 6])[:, None]
    mask = mask[:, : rollout.mask.shape[1]] & rollout.mask
    assert len(set(mask.sum(-1).tolist())) > 4
    return rollout._replace(
        mask=mask,
        lengths=torch.stack([rollout.lengths[:, 0], mask.sum(-1)], dim=1),
        **{name: getattr(rollout, name) * mask for name in ("logprobs", "ref_logprobs", "values", "entropy")},
    )


# Gradient accumulation.


@pytest.mark.parametrize("microbatch_size", [1, 3, 5])
def test_gradients_of_microbatches_add_up_to_those_of_the_minibatch(tiny_folder, microbatch_size):
    whole = scrambled(trainer(tiny_folder, replace(CONFIG, entropy_coef=0.1)))
    rollout = uneven(whole)
    metrics, expected = gradients(whole, rollout)
    whole.config = replace(whole.config, microbatch_size=microbatch_size)
    same_metrics, found = gradients(whole, rollout)
    for name, gradient in expected.items():
        assert_close(found[name], gradient, atol=2e-6, rtol=1e-4)
    assert same_metrics == pytest.approx(metrics, abs=1e-5)


def test_a_step_in_microbatches_is_the_step(tiny_folder):
    ends = []
    for microbatch_size in (0, 3):
        # Adam makes much of gradients near 0: a large eps keeps rounding from growing.
        ppo = scrambled(trainer(tiny_folder, replace(CONFIG, microbatch_size=microbatch_size)))
        for group in ppo.optimizer.param_groups:
            group["eps"] = 1.0
        ppo.step()
        ends.append(policy_of(ppo))
    for name, weight in ends[0].items():
        assert_close(ends[1][name], weight, atol=1e-6, rtol=0)


# KL.


def test_k3_by_hand_and_over_response_tokens_only():
    logprobs, ref_logprobs = torch.tensor([[-1.0, -2.0, 50.0]]), torch.tensor([[-1.5, -1.0, -90.0]])
    mask = torch.tensor([[True, True, False]])
    assert_close(kl_per_token(logprobs, ref_logprobs, mask), torch.tensor([[0.5, -1.0, 0.0]]))
    # exp(-.5) - 1 + .5 and exp(1) - 1 - 1
    assert_close(kl_per_token(logprobs, ref_logprobs, mask, estimator="k3"), torch.tensor([[0.106531, 0.718282, 0.0]]))


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_both_estimators_are_the_kl_on_average(estimator):
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    estimates = kl_per_token(p.log()[None], q.log()[None], torch.ones(1, 2, dtype=torch.bool), estimator=estimator)
    # .5 log 2 + .5 log(2/3)
    assert float((p * estimates).sum()) == pytest.approx(0.143841, abs=1e-6)
    assert estimator == "k1" or (estimates >= 0).all()


def test_the_estimator_that_is_asked_for_is_what_is_paid_and_told(tiny_folder):
    k1, k3 = (scrambled(trainer(tiny_folder, replace(CONFIG, kl_estimator=e))).step() for e in ("k1", "k3"))
    assert k1["objective/scores"] == k3["objective/scores"]
    assert k1["objective/kl"] != k3["objective/kl"] > 0
    for metrics in (k1, k3):
        assert metrics["objective/rewards"] == pytest.approx(metrics["objective/scores"] - 0.05 * metrics["objective/kl"], abs=1e-4)
        assert metrics["objective/sqrt_kl"] == pytest.approx(metrics["objective/kl"] ** 0.5)


# Epochs.


@pytest.mark.parametrize("limit, epochs", [(0.0, 4), (1e-9, 1), (1e9, 4)])
def test_epochs_stop_once_the_policy_is_too_far_from_the_one_that_sampled(tiny_folder, monkeypatch, limit, epochs):
    seen = watch_logprobs(monkeypatch)
    metrics = trainer(tiny_folder, replace(CONFIG, epochs=4, early_stopping_kl=limit)).step()
    assert metrics["policy/epochs"] == epochs
    assert len(seen) == 2 * epochs


def test_epochs_stop_by_the_mean_of_the_epoch_that_just_passed(tiny_folder, monkeypatch):
    ppo = trainer(tiny_folder, replace(CONFIG, epochs=4, early_stopping_kl=0.5))
    said = iter([0.1, 0.2, 0.0, 0.9, 0.4, 0.7, 9.0, 9.0])
    monkeypatch.setattr(ppo, "add_gradients", lambda *_: {"policy/approxkl_avg": next(said)})
    # .15, then .45, then .55: after the third the fourth is left out.
    assert ppo.step()["policy/epochs"] == 3


# Entropy.


def test_the_entropy_bonus_is_the_gradient_of_the_mean_entropy(tiny_folder):
    ppo = scrambled(trainer(tiny_folder, replace(CONFIG, entropy_coef=0.3, value_coef=0.0)))
    rollout = uneven(ppo)
    zeros = torch.zeros_like(rollout.logprobs)
    ppo.optimizer.zero_grad(set_to_none=True)
    ppo.add_gradients(rollout, zeros, zeros, torch.arange(8))
    found = {n: p.grad.clone() for n, p in ppo.policy.items()}

    ppo.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    with ppo.backbone.adapter_set.applied(POLICY):
        for i in range(8):
            n = int(rollout.mask[i].sum())
            prompt = rollout.prompts[i][rollout.prompt_mask[i]]
            logits = ppo.backbone.base(input_ids=torch.cat([prompt, rollout.responses[i, :n]])[None]).logits[0, len(prompt) - 1 : -1]
            total = total + torch.distributions.Categorical(logits=logits / 0.7).entropy().sum()
    (-0.3 * total / rollout.mask.sum()).backward()
    for name, p in ppo.policy.items():
        assert_close(found[name], p.grad, atol=1e-5, rtol=1e-3)
    assert max(float(g.abs().max()) for g in found.values()) > 1e-3


# Values.


class ByPrompt:
    """Pays by what was asked, whatever is answered: all of it can be known beforehand."""

    def row(self, prompt_ids, answer_ids):
        return TokenizedExample([*prompt_ids, *answer_ids], len(prompt_ids))

    def score(self, rows, *, on_progress=lambda: None):
        return torch.tensor([float(r.ids[0] >= 15) for r in rows])


def test_values_that_start_from_the_reward_know_what_can_be_known(tiny_folder):
    known = {}
    for start in ("zero", "reward"):
        # lambda 1: returns are what was paid, and do not lean on the values themselves.
        ppo = trainer(tiny_folder, replace(CONFIG, batch_size=64, minibatch_size=16, value_init=start, lam=1.0))
        ppo.reward_shaper.scorer = ByPrompt()
        known[start] = ppo.step()["val/explained_variance"]
    assert known["zero"] == pytest.approx(0, abs=1e-6)
    assert known["reward"] > 0.03


def test_the_fit_is_to_what_was_paid_for_the_rest_and_leaves_the_policy_alone(tiny_folder):
    ppo = trainer(tiny_folder, replace(CONFIG, gamma=0.5))
    before = policy_of(ppo)
    ppo.value_from_scores(Work())
    rollout = ppo.collect(ppo.value_head, Work(), stream=5)
    # The same batch: the mean of the fit is the mean of the returns, a half less for each token before the last.
    lengths = rollout.mask.sum(-1)
    returns = torch.cat([s * 0.5 ** torch.arange(int(n) - 1, -1, -1) for s, n in zip(rollout.scores, lengths, strict=True)])
    assert_close(rollout.values[rollout.mask].mean(), returns.mean(), atol=1e-5, rtol=0)
    assert rollout.values[rollout.mask].std() > 0
    assert all(torch.equal(p, before[n]) for n, p in ppo.policy.items())
    # The step learns from other answers to the same prompts: none whose scores the values have seen.
    learned_from = ppo.collect(ppo.value_head, Work())
    assert torch.equal(learned_from.prompts, rollout.prompts) and not torch.equal(learned_from.responses, rollout.responses)


def test_while_values_warm_up_nothing_else_learns(tiny_folder):
    ppo = trainer(tiny_folder, replace(CONFIG, value_warmup=2))
    before = policy_of(ppo)
    for _ in range(2):
        value = ppo.value_head.weight.clone()
        metrics = ppo.step()
        assert all(torch.equal(p, before[n]) for n, p in ppo.policy.items())
        assert not torch.equal(ppo.value_head.weight, value)
        assert ppo.kl_coef == CONFIG.kl_coef, "a KL of 0 is no reason to lower its price"
        assert metrics["val/ratio"] == pytest.approx(1, abs=1e-5)
    ppo.step()
    assert any(not torch.equal(p, before[n]) for n, p in ppo.policy.items())
    assert ppo.kl_coef < CONFIG.kl_coef


# Over-optimisation.


def test_a_policy_beyond_its_budget_learns_no_more_and_the_run_is_over(tiny_folder, tmp_path):
    ppo = scrambled(trainer(tiny_folder, replace(CONFIG, kl_budget=0.01)))
    before = policy_of(ppo)
    metrics = ppo.step()
    assert metrics["objective/kl"] > 0.01 and ppo.done and ppo.step_done == 1
    assert all(torch.equal(p, before[n]) for n, p in ppo.policy.items())
    assert "loss/policy_avg" not in metrics
    ppo.save(tmp_path / "checkpoint")
    resumed = trainer(tiny_folder, replace(CONFIG, kl_budget=0.01))
    resumed.load(tmp_path / "checkpoint")
    assert resumed.done
    expected = PolicyOutcome(stopped_by_kl=KLStop(step=1, kl=metrics["objective/kl"], budget=0.01))
    assert ppo.finish() == resumed.finish() == expected


@pytest.mark.parametrize("kl_budget", [0.0, 1e9])
def test_within_its_budget_a_run_goes_on_to_its_last_step(tiny_folder, kl_budget):
    ppo = trainer(tiny_folder, replace(CONFIG, kl_budget=kl_budget))
    while not ppo.done:
        ppo.step()
    assert ppo.step_done == CONFIG.steps == 3
    assert ppo.finish() == PolicyOutcome()


class Scripted:
    """Pays every completion of a step alike, by a list."""

    def __init__(self, scores):
        self.left = iter(scores)

    def row(self, prompt_ids, answer_ids):
        return TokenizedExample([*prompt_ids, *answer_ids], len(prompt_ids))

    def score(self, rows, *, on_progress=lambda: None):
        return torch.full((len(rows),), next(self.left))


def test_the_best_policy_is_kept_as_it_was_when_it_was_measured(tiny_folder):
    ppo = trainer(tiny_folder, replace(CONFIG, keep="best"))
    # Before each of 3 steps, and once after the last.
    ppo.reward_shaper.scorer = Scripted([0.0, 6.0, 6.0, 0.0])
    policies = []
    while not ppo.done:
        policies.append(policy_of(ppo))
        ppo.step()
    said = ppo.finish()
    # Smoothed: 3, 4, 4, 3; the earlier of the equals is the policy after one step.
    assert said.best_checkpoint.step == 1 and said.best_checkpoint.steps == 3 and said.best_checkpoint.conservative_score == 6
    assert all(torch.equal(p, policies[1][n]) for n, p in ppo.policy.items())
    assert any(not torch.equal(policies[1][n], policies[2][n]) for n in ppo.policy)


def test_the_last_update_is_measured_before_it_can_be_kept(tiny_folder):
    ppo = trainer(tiny_folder, replace(CONFIG, keep="best"))
    ppo.reward_shaper.scorer = Scripted([0.0, 1.0, 2.0, 3.0])
    while not ppo.done:
        ppo.step()
    last = policy_of(ppo)
    assert ppo.finish().best_checkpoint.step == 3
    assert all(torch.equal(p, last[n]) for n, p in ppo.policy.items())


# Everything at once.

EVERYTHING = replace(
    CONFIG,
    kl_estimator="k3",
    value_init="reward",
    value_warmup=1,
    early_stopping_kl=0.5,
    entropy_coef=0.01,
    ptx_coef=0.5,
    kl_budget=50.0,
    keep="best",
    microbatch_size=3,
    steps=4,
)
EVERY_SCORING = ScoringConfig(missing_eos_score=-1.0, length_penalty=0.01)


@pytest.mark.parametrize("done", [1, 3])
def test_with_every_option_on_a_resumed_run_is_the_unbroken_one_bit_for_bit(tiny_folder, tmp_path, done):
    def start():
        return trainer(tiny_folder, EVERYTHING, learned_reward=True, demonstrations=DEMONSTRATIONS, scoring=EVERY_SCORING)

    unbroken = start()
    for _ in range(done):
        unbroken.step()
    unbroken.save(tmp_path / "checkpoint")
    resumed = start()
    torch.manual_seed(12345)
    assert resumed.load(tmp_path / "checkpoint")
    metrics = [[ppo.step() for _ in range(4 - done)] for ppo in (unbroken, resumed)]
    assert metrics[0] == metrics[1]
    assert everything(unbroken).keys() == everything(resumed).keys()
    assert unbroken.finish() == resumed.finish()
    for name, value in everything(unbroken).items():
        assert torch.equal(everything(resumed)[name], value), name


def test_the_figures_with_every_option_off_are_as_they_ever_were(tiny_folder, monkeypatch):
    """Taken before there were any options, of torch's own samples: an option that is off must not be there.

    Values read a position's hidden state alone then.
    """
    rng = torch.Generator()

    def collected(*arguments, **options):
        rng.manual_seed(arguments[5])
        return collect(*arguments, **options)

    def sampled(logits, asked, u, *, return_stats):
        tokens = torch.multinomial((logits / asked.temperature).softmax(-1), 1, generator=rng)[:, 0]
        return tokens, token_logprobs_from_logits(logits, tokens, asked.temperature)

    monkeypatch.setattr(trainer_module, "collect", collected)
    monkeypatch.setattr(engine, "sample_token", sampled)
    monkeypatch.setattr(ValueHead, "inputs", lambda _, hidden: pad(hidden, (0, 2 * hidden.shape[-1] + 1)))
    ppo = trainer(tiny_folder, learned_reward=True)
    metrics = [ppo.step() for _ in range(3)][-1]
    expected = {
        "loss/policy_avg": -0.04808124,
        "loss/value_avg": 0.37516129,
        "policy/clipfrac_avg": 0.1875,
        "policy/approxkl_avg": 0.02090683,
        "val/ratio": 0.99793643,
        "val/clipfrac_avg": 0.0,
        "policy/grad_norm": 2.26128745,
        "objective/scores": -0.19768675,
        "objective/scores_std": 1.01678419,
        "objective/kl": 0.42805713,
        "objective/kl_coef": 0.04992003,
        "objective/rewards": -0.2190554,
        "policy/entropy_avg": 4.22817135,
        "val/response_length": 8.0,
        "val/finished": 0.0,
        "val/explained_variance": 0.05247533,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert ppo.kl_coef == pytest.approx(0.0498800960, rel=1e-6)
    assert float(sum(p.detach().double().abs().sum() for p in ppo.policy.values())) == pytest.approx(409.70035829, rel=1e-5)
    assert float(ppo.value_head.weight.detach().double().abs().sum()) == pytest.approx(0.24131899, rel=1e-4)
