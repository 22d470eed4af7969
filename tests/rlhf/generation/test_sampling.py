"""Tokens are sampled with the right frequencies, and the same again from the same seed."""

import pytest
import torch
from scipy import stats
from tiny import favour
from torch.testing import assert_close

from rlhf.generation import sampling as sampling_module
from rlhf.generation.engine import sample
from rlhf.generation.request import LogitAdjustments
from rlhf.generation.sampling import (
    CDF_BLOCK,
    adjusted,
    combined_seed,
    generator,
    likeliest,
    processed,
    sample_from_weights,
    sample_rows,
    sample_token,
    uniforms,
)
from rlhf.models.lm_head import UnnormalizedSoftmax
from rlhf.models.padding import pad_left
from storage.core.records import Sampling

CPU = torch.device("cpu")
# p at temperature 1: .5, .25, .125, .125
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()


def uniform_numbers(n, seed=1):
    """One random number for each of n rows, as the engine takes them: of one seed, at n positions."""
    return uniforms(torch.full((n,), seed), torch.arange(n))


def sampled_counts(sampling, n=20_000, seed=1):
    return sample_token(LOGITS.expand(n, -1), sampling, uniform_numbers(n, seed))[0].bincount(minlength=4)


def fits(counts, p):
    p = torch.tensor(p, dtype=torch.float64)
    return stats.chisquare(counts.double(), p / p.sum() * counts.sum()).pvalue > 0.001


@pytest.mark.parametrize("temperature, p", [(1.0, [4, 2, 1, 1]), (0.5, [16, 4, 1, 1]), (2.0, [2, 2**0.5, 1, 1])])
def test_tokens_come_as_often_as_softmax_says(temperature, p):
    assert fits(sampled_counts(Sampling(temperature=temperature)), p)


def test_the_check_above_can_fail():
    assert not fits(sampled_counts(Sampling(temperature=1.1)), [4, 2, 1, 1])


@pytest.mark.slow
def test_top_k_keeps_the_likeliest():
    counts = sampled_counts(Sampling(top_k=2))
    assert counts[2:].sum() == 0 and fits(counts[:2], [2, 1])
    assert sampled_counts(Sampling(top_k=1))[0] == 20_000
    assert fits(sampled_counts(Sampling(top_k=99)), [4, 2, 1, 1])


@pytest.mark.slow
def test_top_p_keeps_the_fewest_that_hold_the_mass():
    # .5 and .25 together hold .75 >= .7; a nucleus of .5 is the first alone
    counts = sampled_counts(Sampling(top_p=0.7))
    assert counts[2:].sum() == 0 and fits(counts[:2], [2, 1])
    assert sampled_counts(Sampling(top_p=0.5))[0] == 20_000
    assert sampled_counts(Sampling(top_p=1e-6))[0] == 20_000, "one token is always left"


@pytest.mark.parametrize("smallest", [5e-324, 1e-300, 1e-45, 1e-40, 1.2e-38, 1e-20])
def test_the_smallest_temperatures_and_nuclei_leave_the_likeliest(smallest):
    assert sampled_counts(Sampling(top_p=smallest), 500)[0] == 500
    assert sampled_counts(Sampling(temperature=smallest), 500)[0] == 500
    assert sampled_counts(Sampling(temperature=smallest, top_p=smallest, top_k=1), 500)[0] == 500
    # Also where differences of logits are as large as they come, and where the likeliest is neither first nor alone.
    logits = torch.tensor([[-3e38, 1.0, 3e38, 3e38, -1.0]]).expand(4000, -1)
    tokens, said = sample_token(logits, Sampling(temperature=smallest), uniform_numbers(4000, 0), return_stats=True)
    assert fits(tokens.bincount(minlength=5)[2:4], [1, 1]) and set(tokens.tolist()) == {2, 3}
    assert_close(said.logprobs, torch.full((4000,), 0.5).log())
    assert_close(said.entropy, torch.full((4000,), 2.0).log())


def test_the_numbers_of_a_cold_distribution_are_as_worked_out():
    # Logits 1 and 0 at temperature 1e-4: 1e4 nats apart, so the other has no share and its log-probability is -1e4.
    said = UnnormalizedSoftmax(torch.tensor([[1.0, 0.0]]), 1e-4)
    assert_close(said.logprobs(torch.tensor([1])), torch.tensor([-1e4]))
    assert_close(said.entropy(), torch.tensor([[0.0]]))


def test_weights_that_are_no_numbers_give_some_token_and_no_crash():
    p = torch.full((2, 3 * CDF_BLOCK), float("nan"))
    assert all(0 <= token < 3 * CDF_BLOCK for token in sample_from_weights(p, torch.tensor([0.1, 0.9], dtype=torch.float64)).tolist())


@pytest.mark.parametrize("key", [0, 2**31, 2**63 - 1, 2**63, 2**64, 10**30])
def test_any_seed_gives_a_stream_of_its_own(key):
    assert torch.rand(1, generator=generator(CPU, key)) == torch.rand(1, generator=generator(CPU, key))
    assert torch.rand(1, generator=generator(CPU, key)) != torch.rand(1, generator=generator(CPU, key + 1))


def test_temperature_0_takes_the_likeliest():
    assert sample_token(torch.tensor([[0.1, 0.5, 0.4]]), Sampling(temperature=0), uniform_numbers(1))[0].tolist() == [1]


def test_the_number_drawn_falls_into_a_tokens_share():
    # Shares end at .1, .1, .5 and 1: the second and the last token have none.
    p = torch.tensor([[0.1, 0.0, 0.4, 0.5, 0.0]])
    for u, token in ((0.0, 0), (0.0999, 0), (0.1001, 2), (0.4999, 2), (0.5001, 3), (1 - 2**-53, 3)):
        assert sample_from_weights(p, torch.tensor([u], dtype=torch.float64)).tolist() == [token]


def test_shares_are_found_across_blocks():
    # 2 blocks and a half, equal shares: token i is drawn by u = (i + .5) / n.
    n = 2 * CDF_BLOCK + CDF_BLOCK // 2
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert sample_from_weights(torch.full((n, n), 3.0), u).tolist() == list(range(n))


def test_a_model_is_sampled_from_its_own_distribution(backbone):
    prompt = [5, 6, 7, 8]
    ids, mask = pad_left([prompt], backbone.pad_id)
    with torch.no_grad():
        p = (backbone.forward(ids, mask, keep=1, adapter=None).logits[0, 0].double() / 0.7).softmax(-1)
    result = sample(backbone, [prompt] * 3000, Sampling(temperature=0.7, max_new_tokens=1), 4, adapter=None)
    counts = torch.tensor([s.ids[0] for s in result]).bincount(minlength=len(p)).double()
    common = p * 3000 >= 5
    observed = [*counts[common].tolist(), float(counts[~common].sum())]
    expected = [*(p[common] * 3000).tolist(), float(p[~common].sum() * 3000)]
    assert len(observed) > 20
    assert stats.chisquare(observed, expected).pvalue > 0.001


@pytest.mark.parametrize("model", ["backbone", "eos_pad_backbone"])
def test_the_first_end_token_ends_a_row_and_belongs_to_it(model, request):
    backbone = request.getfixturevalue(model)
    assert (backbone.eos_id == backbone.pad_id) == (model == "eos_pad_backbone")
    favour(backbone, backbone.eos_id, 4.0)
    result = sample(backbone, [[5, 6, 7]] * 64, Sampling(max_new_tokens=12), 1, adapter=None)
    ended = [s for s in result if s.finish_reason == "stop"]
    assert len(ended) > 10, "most rows end early"
    assert len({len(s.ids) for s in ended}) > 3, "and at different lengths"
    for s in ended:
        assert s.ids[-1] == backbone.eos_id and backbone.eos_id not in s.ids[:-1]
    for s in result:
        if s.finish_reason == "length":
            assert len(s.ids) == 12 and backbone.eos_id not in s.ids


def test_greedy_answers_do_not_depend_on_the_company(backbone):
    rows = [[5, 6, 7, 8, 9, 10], [11, 12], [13]]
    greedy = Sampling(temperature=0, max_new_tokens=8)
    together = sample(backbone, rows, greedy, 0, adapter=None)
    assert together == [sample(backbone, [row], greedy, 0, adapter=None)[0] for row in rows]
    assert len({tuple(s.ids) for s in together}) == 3


def test_the_same_key_draws_the_same_and_another_key_does_not(backbone):
    def ids(*key):
        return [s.ids for s in sample(backbone, [[5, 6]] * 4, Sampling(max_new_tokens=8), combined_seed(*key), adapter=None)]

    torch.manual_seed(1)
    first = ids(3, 0)
    torch.manual_seed(2)
    assert ids(3, 0) == first
    assert ids(3, 1) != first and ids(4, 0) != first and ids(3) != first and ids(3, 0, 0) != first


def test_keys_do_not_collide():
    seeds = {combined_seed(*key) for key in [(a, b, c) for a in range(8) for b in range(40) for c in range(4)]}
    assert len(seeds) == 8 * 40 * 4
    assert 0 <= combined_seed(2**31 - 1, 10**6, 3) < 2**63


# Random numbers.


def test_the_numbers_are_those_of_the_published_generator():
    # SplitMix64 with the state 1234567 gives 6457827717110365317 first and 3203168211198807973 second.
    gamma = 0x9E3779B97F4A7C15
    signed = [(1234567 + k * gamma + 2**63) % 2**64 - 2**63 for k in (1, 2)]
    mixed = sampling_module._mix(torch.tensor(signed)).tolist()
    assert [value % 2**64 for value in mixed] == [6457827717110365317, 3203168211198807973]


def test_the_numbers_are_uniform_over_positions_and_over_seeds():
    for u in (uniforms(torch.full((20_000,), 3), torch.arange(20_000)), uniforms(torch.arange(20_000), torch.full((20_000,), 3))):
        assert u.min() >= 0 and u.max() < 1
        assert stats.kstest(u.numpy(), "uniform").pvalue > 0.001
        assert abs(stats.pearsonr(u[:-1].numpy(), u[1:].numpy()).statistic) < 0.03


def test_a_rows_numbers_depend_on_its_seed_and_position_alone():
    seeds, places = torch.tensor([0, -1, 2**63 - 1, 5]), torch.tensor([0, 3, 100_000, 0])
    together = uniforms(seeds, places)
    assert [float(u) for u in together] == [float(uniforms(seeds[i : i + 1], places[i : i + 1])) for i in range(4)]
    assert len(set(together.tolist())) == 4


# Penalties, bias and log-probabilities.


def test_penalties_and_bias_change_the_logits_as_the_protocol_says():
    # Token 1 was sampled twice and token 2 once: presence .5 each, frequency .25 for each time; token 3 has a bias alone.
    changed = adjusted(torch.zeros(4), LogitAdjustments(0.5, 0.25, {3: 2.0, 1: 1.0, 99: 5.0}), [1, 2, 1])
    assert_close(changed, torch.tensor([0.0, 0.0, -0.75, 2.0]))


def test_the_likeliest_tokens_come_with_their_log_probabilities():
    logprob, top = likeliest(LOGITS, 2, 2)
    assert logprob == pytest.approx(-2.0794415) and [token for token, _ in top] == [0, 1]
    assert [value for _, value in top] == pytest.approx([-0.6931472, -1.3862944])
    assert likeliest(LOGITS, 0, 99)[1][0][0] == 0 and len(likeliest(LOGITS, 0, 99)[1]) == 4


def test_rows_with_parameters_of_their_own_are_sampled_as_each_alone():
    """Temperatures from 0 and the smallest on, top-k and top-p on and off, by tensors that nobody looks at."""
    parameters = [(1.0, 0, 1.0), (0.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.6), (0.9, 40, 0.8), (1e-30, 3, 0.5), (2.0, 1, 1.0)]
    logits = 3 * torch.randn(len(parameters), 300, generator=torch.Generator().manual_seed(0))
    temperature, top_k, top_p = (torch.tensor(column)[:, None] for column in zip(*parameters, strict=True))
    off = 2**31
    for seed in range(20):
        u = uniform_numbers(len(parameters), seed)
        tokens, softmax = sample_rows(logits, temperature, top_k.masked_fill(top_k == 0, off), top_p, u)
        for row, (t, k, p) in enumerate(parameters):
            sampling = Sampling(temperature=t, top_k=k, top_p=p)
            alone, said = sample_token(logits[row : row + 1], sampling, u[row : row + 1], return_stats=True)
            assert tokens[row] == alone[0]
            assert_close(softmax.logprobs(tokens)[row], said.logprobs[0], atol=1e-6, rtol=1e-6)
            assert_close(softmax.entropy()[row, 0], said.entropy[0], atol=1e-6, rtol=1e-6)


def test_processed_logits_are_those_of_the_distribution_that_is_sampled():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()

    def probabilities(adjustments=LogitAdjustments(), **sampling):
        return processed(logits, Sampling(**sampling), adjustments, [3]).softmax(-1)

    assert_close(probabilities(), torch.tensor([0.4, 0.3, 0.2, 0.1]))
    # At temperature 1/2 the squares: 16, 9, 4 and 1 of 30.
    assert_close(probabilities(temperature=0.5), torch.tensor([16, 9, 4, 1]) / 30)
    assert_close(probabilities(top_k=2), torch.tensor([4, 3, 0, 0]) / 7)
    # .4 and .3 reach .6; the third is outside.
    assert_close(probabilities(top_p=0.6), torch.tensor([4, 3, 0, 0]) / 7)
    assert_close(probabilities(temperature=0.0), torch.tensor([0.4, 0.3, 0.2, 0.1]))
    # Token 3 stands in the answer: a penalty of ln 10 leaves it .01 of .91.
    assert_close(probabilities(LogitAdjustments(2.302585, 0.0, {})), torch.tensor([40.0, 30, 20, 1]) / 91)
