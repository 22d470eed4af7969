"""Rows have a limit of tokens: longer answers are cut by one rule, prompts without room are left out and named, batches are bounded."""

import pytest
import tiny
import torch
from learning import user
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config

from rlhf.config import PRESETS, ConfigError, RewardConfig, with_options
from rlhf.data.demonstrations import Demonstration
from rlhf.data.pairs import PreferencePair
from rlhf.generation.sampling import collect_sequences, generator, sample, stream
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import NothingFits, PromptTooLong, batches, ended_answer, fits, fitting_data, in_parts
from rlhf.ppo import ptx
from rlhf.ppo.trainer import PPO
from rlhf.reward import model as reward_model
from rlhf.reward.model import RewardModel
from rlhf.trl_methods import dpo
from rlhf.worker import work
from storage.core.records import Prompt, Sampling
from storage.project import runs

CPU = torch.device("cpu")


def gpt2(context=64):
    """Learned positions: a row one token too long is an IndexError."""
    tok = tiny.tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tok), n_embd=32, n_layer=2, n_head=4, n_positions=context, bos_token_id=None, eos_token_id=tok.eos_token_id
    )
    return Backbone(AutoModelForCausalLM.from_config(config), tok)


def pair(prompt, chosen, rejected, judgment=1, split="train"):
    return PreferencePair(user(prompt), chosen, rejected, 1.0, split, "human", judgment)


def prompt(number, text, split="train"):
    return Prompt(number, user(text), "test", split)


def test_a_long_answer_is_cut_at_its_end_so_that_the_row_fills_the_limit(backbone):
    backbone.limit_rows(40)
    prompt_ids = backbone.encode(user("Hi"))
    # One token a byte: <|user|>, H, i, <|end|>, <|assistant|>.
    assert len(prompt_ids) == 5
    model = RewardModel(backbone, RewardConfig(), seed=0)
    long, just, short = (backbone.encode_answer("x" * n) for n in (100_000, 34, 33))
    row = model.row(prompt_ids, long)
    assert len(row.ids) == 40 and row.ids[5:] == [*long[:34], backbone.eos_id]
    assert model.row(prompt_ids, just).ids == row.ids and len(model.row(prompt_ids, short).ids) == 39
    # A policy does not learn to stop where an answer was cut.
    assert ended_answer(backbone, prompt_ids, "x" * 100_000) == long[:34]
    assert ended_answer(backbone, prompt_ids, "x" * 34) == [*long[:34], backbone.eos_id]
    [row] = dpo.rows(backbone, [pair("Hi", "x" * 100_000, "no")])
    assert row["chosen_ids"] == long[:34] and row["rejected_ids"] == [*backbone.encode_answer("no"), backbone.eos_id]
    [shown] = ptx.encode(backbone, [Demonstration(user("Hi"), "x" * 100_000)])
    assert len(shown.ids) == 39 and shown.ids[-1] == long[0]


def test_the_limit_is_never_above_the_models_context_less_a_learned_prompt(backbone):
    assert backbone.context == backbone.max_length == 512
    for limit, virtual, expected in ((2048, 0, 512), (2048, 16, 496), (100, 16, 100)):
        backbone.limit_rows(limit, virtual_tokens=virtual)
        assert backbone.max_length == expected
    assert fits(backbone, [1] * 90, 9) and not fits(backbone, [1] * 91, 9), "prompt, answer and its end"
    backbone.context = None
    backbone.limit_rows(2048)
    assert backbone.max_length == 2048


def config(**values):
    return with_options(PRESETS["tiny"], {"max-length": 40, **{k.replace("_", "-"): v for k, v in values.items()}})


def test_what_does_not_fit_is_counted_and_named(backbone):
    backbone.limit_rows(40)
    long, room_for_2, none_left = "q" * 60, "q" * 34, "q" * 36
    snapshot = [
        pair("Hi", "x" * 50, "y", judgment=1),
        pair("Hi", "x" * 50, "y" * 35, judgment=2),
        pair(long, "a", "b", judgment=3),
        pair(none_left, "a", "b", judgment=4, split="heldout"),
        pair(room_for_2, "a", "bc", judgment=5, split="heldout"),
    ]
    ideals = [Demonstration(user("Hi"), "z" * 50), Demonstration(user(long), "a")]
    # 8 new tokens and the end: a prompt of 31 tokens, 28 of them its text's, is the longest.
    train, heldout = [prompt(1, "Hi"), prompt(2, "q" * 28), prompt(3, "q" * 29)], [prompt(4, long, "heldout"), prompt(5, "Hi", "heldout")]
    left = fitting_data(backbone, config(), snapshot, ideals, train, heldout)
    assert [p.judgment_id for p in left.snapshot] == [1, 2, 5]
    assert [d.text for d in left.demonstrations] == ["z" * 50]
    assert ([p.id for p in left.train], [p.id for p in left.heldout]) == ([1, 2], [5])
    report = left.report
    # The 50 of "x", which two pairs have, the 35 of "y", and the ideal answer.
    assert (report.max_length, report.cut_answers, report.judgments, report.demonstrations, report.prompts) == (40, 3, [3, 4], 1, [3, 4])
    assert report.in_words() == (
        "over 40 tokens: 3 answers cut at their end, pairs of 2 judgments left out (3, 4), 1 ideal answers left out, "
        "2 prompts left out (3, 4)"
    )
    everything = fitting_data(backbone, config(), snapshot[:1], [], train[:1], [])
    assert everything.report.cut_answers == 1
    assert not fitting_data(backbone, config(), [pair("Hi", "a", "b")], [], train[:1], []).report


def test_a_round_of_which_nothing_fits_says_the_numbers(backbone):
    backbone.limit_rows(40)
    for args, name in (
        (([pair("q" * 60, "a", "b")], [], [prompt(1, "Hi")]), "none of 1 preference pairs on training prompts"),
        (([pair("Hi", "a", "b")], [], [prompt(1, "q" * 60)]), "none of 1 training prompts"),
        (([pair("Hi", "a", "b")], [Demonstration(user("q" * 60), "a")], [prompt(1, "Hi")]), "none of 1 ideal answers"),
    ):
        with pytest.raises(NothingFits, match=f"{name} leaves room .* within 40 tokens: raise --max-length"):
            fitting_data(backbone, config(), *args, [])


def test_answers_longer_than_a_row_are_refused_before_anything_starts():
    assert config(sampling_max_new_tokens=38).max_length == 40
    with pytest.raises(ConfigError, match="--sampling-max-new-tokens 39: leaves no room .* --max-length 40"):
        config(sampling_max_new_tokens=39)


def test_batches_are_bounded_by_rows_and_by_tokens_with_padding():
    assert list(batches([5, 1, 3, 2], 2)) == [[1, 3], [2, 0]]
    assert list(batches([4, 4, 10, 100, 4], 32, 20)) == [[0, 1, 4], [2], [3]]
    assert list(batches([], 2)) == []
    # 32 rows of 2,048 tokens: 4 at a time.
    assert [len(b) for b in batches([2048] * 32, 32)] == [4] * 8
    # Ordinary rows are batched by their number alone.
    assert [len(b) for b in batches([256] * 64, 32)] == [32, 32]


def test_a_batch_in_parts_has_the_same_result_and_gradients(backbone):
    backbone.add_adapter("reward", RewardConfig().adapter, seed=0)
    model = RewardModel(backbone, RewardConfig(epochs=1, depth=1.0), seed=0)
    ids = torch.randint(0, 200, (6, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < torch.tensor([9, 4, 5, 9, 7, 6])[:, None]
    found = []
    sizes = []

    def raw(*rows):
        sizes.append(len(rows[0]))
        return model(*rows)

    for limit in (8192, 18):
        backbone.base.zero_grad()
        scores = in_parts(raw, ids, mask, torch.full((6,), 3), max_tokens=limit)
        scores.square().sum().backward()
        gradients = [p.grad.clone() for n, p in backbone.parameters("reward").items() if p.grad is not None]
        found.append((scores.detach(), gradients))
    # The second time two rows at once, and each part again in the backward pass.
    assert sizes == [6, 2, 2, 2, 2, 2, 2]
    assert_close(found[0][0], found[1][0])
    assert len(found[0][1]) > 0 and any(g.abs().max() > 0 for g in found[0][1])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_scores_of_long_rows_are_those_of_each_alone(backbone, monkeypatch):
    model = RewardModel(backbone, RewardConfig(epochs=0), seed=0)
    prompt_ids = backbone.encode(user("Hi"))
    rows = [model.row(prompt_ids, backbone.encode_answer(c * n)) for c, n in zip("abcdef", (300, 2, 400, 9, 350, 1), strict=True)]
    widths = []
    features = model.backbone.hidden
    monkeypatch.setattr(model.backbone, "hidden", lambda ids, *a, **k: widths.append(tuple(ids.shape)) or features(ids, *a, **k))
    together = model.score(rows)
    assert max(b * t for b, t in widths) <= 8192
    assert_close(together, torch.cat([model.score([row]) for row in rows]), atol=1e-5, rtol=1e-4)


def test_rows_end_where_learned_positions_do():
    backbone = gpt2()
    tiny.favour(backbone, backbone.eos_id, -100.0)
    rng = generator(CPU, 0)
    sequences = sample(backbone, [[5] * 60, [5] * 10, [6] * 63], Sampling(max_new_tokens=30), rng)
    # 60 tokens of a prompt leave positions for 4 more; the token after the last position is sampled but never read.
    assert [len(s.ids) for s in sequences] == [5, 30, 2] and {s.finish_reason for s in sequences} == {"length"}
    alone = sample(backbone, [[5] * 10], Sampling(max_new_tokens=30, temperature=0), generator(CPU, 0))[0]
    beside = sample(backbone, [[5] * 10, [6] * 63], Sampling(max_new_tokens=30, temperature=0), generator(CPU, 0))[0]
    assert alone == beside
    with pytest.raises(PromptTooLong, match="64 tokens leaves no room .* context of 64"):
        collect_sequences(stream(backbone, [[5] * 64], Sampling(max_new_tokens=3), rng), 1, backbone.eos_token_ids)


def test_a_prompt_that_fills_a_row_is_refused_wherever_it_enters_training():
    """Positions beyond the last one are an IndexError of an embedding, deep inside the first pass."""
    backbone = gpt2()
    backbone.limit_rows(64)
    prompt, settings = [5] * 64, config(max_length=64)
    reward = RewardModel(backbone, RewardConfig(epochs=0), seed=0)
    refused = "a prompt of 64 tokens leaves no room for an answer within 64 tokens: raise --max-length .*context is 64"
    for enter in (
        lambda: reward.row(prompt, [7, 8]),
        lambda: reward.text_row(prompt, "Yes"),
        lambda: ended_answer(backbone, prompt, "Yes"),
        lambda: PPO(backbone, reward, [[7], prompt], settings.ppo, settings.adapter, sampling=settings.sampling, seed=0),
    ):
        with pytest.raises(PromptTooLong, match=refused):
            enter()
    assert backbone.adapters == [], "before anything is built"
    # One token less, and the row is full: no answer is left, and its end stands at the last position.
    assert len(reward.row(prompt[1:], [7, 8]).ids) == 64
    assert reward.score([reward.row(prompt[1:], [7, 8])]).isfinite().all()


def test_ppo_at_the_limit_reads_every_position_of_learned_ones_and_no_more():
    backbone = gpt2()
    settings = config(max_length=64)
    backbone.limit_rows(settings.max_length)
    prompts = [[5] * (64 - 1 - 8), [7, 8]]
    assert all(fits(backbone, p, 8) for p in prompts)
    assert not fits(backbone, [*prompts[0], 5], 8)
    reward = RewardModel(backbone, RewardConfig(epochs=0), seed=0)
    PPO(backbone, reward, prompts, settings.ppo, settings.adapter, sampling=settings.sampling, seed=0).step()


def test_fine_tuning_reads_long_answers_cut(backbone, tmp_path):
    backbone.limit_rows(60)
    pairs = [pair(f"Q{i}", "x" * 5000, "no " * 3000, judgment=i) for i in range(4)]
    settings = RewardConfig(epochs=1, batch_size=2)
    model = reward_model.fit(backbone, pairs, settings, seed=0, scratch=tmp_path, report=lambda *_: None)
    assert model.head.weight.isfinite().all()


@pytest.mark.parametrize("method", ["ppo", pytest.param("dpo", marks=pytest.mark.slow)])
def test_a_round_counts_what_it_cut_and_left_out(empty_world, method, caplog):
    from rlhf.runs.jobs import Jobs

    world = empty_world.fill()
    world.judge(world.prompt("A very long answer?", "train"), "good " * 20_000, "bad")
    lengthy = world.prompt("word " * 200, "train")
    world.judge(lengthy, "good", "bad")
    jobs = Jobs(world.store, world.folder)
    run_id = jobs.create(world.config(method=method, max_length=200)).id
    work(jobs.store, jobs.folder, run_id)
    done = runs.get(world.store, run_id)
    left_out = done.result["lengths"]["judgments"]
    assert len(left_out) == 1
    assert done.result["lengths"] == {
        "max_length": 200, "cut_answers": 1, "judgments": left_out, "demonstrations": 0, "prompts": [lengthy.id],
    }  # fmt: skip
    assert done.result["pairs"] == {"train": 7, "heldout": 3}
    assert f"over 200 tokens: 1 answers cut at their end, pairs of 1 judgments left out ({left_out[0]}), 1 prompts left out" in caplog.text
