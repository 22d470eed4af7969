"""What is drawn: the right frequencies, the right ends, and the same again from the same key."""

import pytest
import torch
from scipy import stats
from tiny import favour
from torch.testing import assert_close

from rlhf.config import AdapterConfig
from rlhf.generation.sampling import (
    CDF_BLOCK,
    COMPACT_AT,
    DecodeStep,
    GeneratedSequence,
    collect_sequences,
    generator,
    sample,
    sample_from_weights,
    sample_token,
    stream,
)
from rlhf.models.lm_head import UnnormalizedSoftmax, token_logprobs_from_logits
from rlhf.models.padding import pad_left
from storage.core.records import Sampling

CPU = torch.device("cpu")
# p at temperature 1: .5, .25, .125, .125
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()


def sampled_counts(sampling, n=20_000, key=1):
    return sample_token(LOGITS.expand(n, -1), sampling, generator(CPU, key))[0].bincount(minlength=4)


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
    tokens, said = sample_token(logits, Sampling(temperature=smallest), generator(CPU, 0), return_stats=True)
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
    assert sample_token(torch.tensor([[0.1, 0.5, 0.4]]), Sampling(temperature=0), generator(CPU, 0))[0].tolist() == [1]


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
    result = sample(backbone, [prompt] * 3000, Sampling(temperature=0.7, max_new_tokens=1), generator(CPU, 4))
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
    result = sample(backbone, [[5, 6, 7]] * 64, Sampling(max_new_tokens=12), generator(CPU, 1))
    ended = [s for s in result if s.finish_reason == "stop"]
    assert len(ended) > 10, "most rows end early"
    assert len({len(s.ids) for s in ended}) > 3, "and at different lengths"
    for s in ended:
        assert s.ids[-1] == backbone.eos_id and backbone.eos_id not in s.ids[:-1]
    for s in result:
        if s.finish_reason == "length":
            assert len(s.ids) == 12 and backbone.eos_id not in s.ids


def test_rows_that_have_ended_hold_padding(backbone):
    favour(backbone, backbone.eos_id, 4.0)
    steps = list(stream(backbone, [[5, 6, 7]] * 64, Sampling(max_new_tokens=12), generator(CPU, 1)))
    closed = torch.cat([step.tokens[~step.active_rows] for step in steps])
    assert len(closed) > 50 and set(closed.tolist()) == {backbone.pad_id}


def test_rows_that_have_ended_are_soon_read_no_further(backbone):
    favour(backbone, backbone.eos_id, 4.0)
    read = []
    backbone.decoder.layers[0].register_forward_hook(lambda _, given, out: read.append(len(given[0])))
    steps = list(stream(backbone, [[5, 6, 7]] * 64, Sampling(max_new_tokens=12), generator(CPU, 1)))
    still_open = [int(step.active_rows.sum()) for step in steps]
    # After the prompt, which is one for all, each token; never more than were open one token ago over LEAVE_AT.
    assert read[:2] == [1, 64] and still_open[-1] < 20
    assert all(rows <= max(before / COMPACT_AT, 1) for rows, before in zip(read[2:], still_open[1:], strict=False))


def test_a_batch_stops_when_its_last_row_has_ended(backbone):
    favour(backbone, backbone.eos_id, 1e4)
    steps = list(stream(backbone, [[5], [6]], Sampling(max_new_tokens=9), generator(CPU, 0)))
    assert len(steps) == 1
    assert collect_sequences(steps, 2, backbone.eos_token_ids) == [GeneratedSequence([backbone.eos_id], "stop")] * 2


def test_an_end_on_the_last_position_is_a_stop():
    steps = [DecodeStep(torch.tensor([7, 7]), torch.tensor([True, True])), DecodeStep(torch.tensor([2, 9]), torch.tensor([True, True]))]
    ticks = []
    assert collect_sequences(steps, 2, {2}, lambda: ticks.append(1)) == [
        GeneratedSequence([7, 2], "stop"),
        GeneratedSequence([7, 9], "length"),
    ]
    assert len(ticks) == 2


def test_the_padding_after_the_end_is_no_part_of_a_row():
    # Ends on its first token, which is also the padding.
    steps = [DecodeStep(torch.tensor([2, 5]), torch.tensor([True, True])), DecodeStep(torch.tensor([2, 5]), torch.tensor([False, True]))]
    assert collect_sequences(steps, 2, {2}) == [GeneratedSequence([2], "stop"), GeneratedSequence([5, 5], "length")]


def test_drawing_with_a_cache_reads_what_one_whole_forward_reads(backbone):
    """Rows of different lengths in one batch, position by position, against each row alone at once."""
    seen = []
    backbone.base.lm_head.register_forward_hook(lambda _, __, out: seen.append(out.detach().clone()))
    rows = [[5, 6, 7, 8, 9, 10], [11, 12], [13]]
    result = sample(backbone, rows, Sampling(max_new_tokens=6), generator(CPU, 2))
    cached = torch.stack(seen, dim=1)
    for i, (prompt, s) in enumerate(zip(rows, result, strict=True)):
        ids, mask = pad_left([[*prompt, *s.ids]], backbone.pad_id)
        with torch.no_grad():
            alone = backbone.forward(ids, mask, keep=len(s.ids) + 1, adapter=None).logits[:, :-1]
        assert_close(cached[i : i + 1, : len(s.ids)], alone, atol=1e-5, rtol=1e-5)
        drawn_ids = torch.tensor(s.ids)
        stats, read = (token_logprobs_from_logits(logits, drawn_ids, 1.0).logprobs for logits in (cached[i, : len(s.ids)], alone[0]))
        assert_close(stats, read, atol=1e-5, rtol=0)


def test_greedy_answers_do_not_depend_on_the_company(backbone):
    rows = [[5, 6, 7, 8, 9, 10], [11, 12], [13]]
    greedy = Sampling(temperature=0, max_new_tokens=8)
    together = sample(backbone, rows, greedy, generator(CPU, 0))
    assert together == [sample(backbone, [row], greedy, generator(CPU, 0))[0] for row in rows]
    assert len({tuple(s.ids) for s in together}) == 3


def test_the_same_key_draws_the_same_and_another_key_does_not(backbone):
    def ids(*key):
        return [s.ids for s in sample(backbone, [[5, 6]] * 4, Sampling(max_new_tokens=8), generator(CPU, *key))]

    torch.manual_seed(1)
    first = ids(3, 0)
    torch.manual_seed(2)
    assert ids(3, 0) == first
    assert ids(3, 1) != first and ids(4, 0) != first and ids(3) != first and ids(3, 0, 0) != first


def test_keys_do_not_collide():
    seeds = {generator(CPU, *key).initial_seed() for key in [(a, b, c) for a in range(8) for b in range(40) for c in range(4)]}
    assert len(seeds) == 8 * 40 * 4
    assert generator(CPU, 2**31 - 1, 10**6, 3).initial_seed() >= 0


def test_the_stream_can_be_left_at_any_token(backbone):
    tokens = stream(backbone, [[5, 6]], Sampling(max_new_tokens=50), generator(CPU, 0))
    next(tokens)
    tokens.close()
    assert not torch.is_inference_mode_enabled()
    assert backbone.base.lm_head.weight.is_inference() is False


# Prompts in parts.


def drawn_with(backbone, prompts, **options):
    return [step for step in stream(backbone, prompts, Sampling(max_new_tokens=6), generator(CPU, 2), return_stats=True, **options)]


def test_prompts_of_one_part_are_read_as_ever_bit_for_bit(backbone):
    prompts = [[5, 6, 7], [9] * 500, [5, 6, 7]]
    for whole, parted in zip(drawn_with(backbone, prompts), drawn_with(backbone, prompts, in_chunks=True), strict=True):
        assert torch.equal(whole.tokens, parted.tokens) and torch.equal(whole.stats.logprobs, parted.stats.logprobs)


@pytest.mark.parametrize("columns, tokens, parts", [(16, 10**6, 7), (10**6, 48, 7), (50, 10**6, 2), (100, 10**6, 1), (1, 10**6, 100)])
def test_prompts_in_parts_give_what_they_give_whole(backbone, monkeypatch, columns, tokens, parts):
    monkeypatch.setattr("rlhf.generation.sampling.CHUNK_COLUMNS", columns)
    monkeypatch.setattr("rlhf.generation.sampling.CHUNK_TOKENS", tokens)
    # Three distinct prompts of 100 tokens and fewer: 48 tokens in a part are 16 columns.
    prompts = [list(range(5, 105)), [9] * 40, [7] * 3, [9] * 40]
    whole, parted = drawn_with(backbone, prompts), drawn_with(backbone, prompts, in_chunks=True)
    assert parted[: parts - 1] == [None] * (parts - 1)
    for one, other in zip(whole, parted[parts - 1 :], strict=True):
        assert torch.equal(one.tokens, other.tokens) and torch.equal(one.active_rows, other.active_rows)
        assert_close(one.stats.logprobs, other.stats.logprobs, rtol=1e-5, atol=1e-5)


def test_a_learned_prompt_stands_before_the_first_part_alone(backbone, monkeypatch):
    backbone.add_adapter("p", AdapterConfig(kind="prompt", virtual_tokens=4), seed=0)
    whole = drawn_with(backbone, [[5] * 60], adapter="p")
    monkeypatch.setattr("rlhf.generation.sampling.CHUNK_COLUMNS", 25)
    parted = drawn_with(backbone, [[5] * 60], adapter="p", in_chunks=True)
    assert parted[:2] == [None, None]
    assert [step.tokens.tolist() for step in parted[2:]] == [step.tokens.tolist() for step in whole]
