"""DPO, RLOO, GRPO and SFT by TRL: a whole round by each, that each learns what it should, and whose log-probabilities are read."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from learning import scramble, user
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2Config

from feedback_ui.training.charts import POLICY_CHARTS
from rlhf.config import AdapterConfig, ConfigError, DPOConfig, GroupConfig, RoundConfig, SFTConfig, with_options
from rlhf.data.demonstrations import Demonstration, NoDemonstrations
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone, pad_left, pad_right
from rlhf.ppo.rollout import POLICY
from rlhf.runs import plan, progress
from rlhf.runs.jobs import Jobs
from rlhf.runs.progress import Cancelled
from rlhf.trl_methods import dpo, rloo_grpo, sft
from rlhf.trl_methods.trl_policy import Policy
from rlhf.worker import work
from storage.content import comparisons, policies
from storage.core.records import Details, IdealAnswer, Sampling
from storage.judging import judgments, presentations
from storage.people import annotators
from storage.project import runs

KINDS = ["lora", "dora", "peanut", "ia3", "prompt"]
METHODS = ["dpo", "rloo", "grpo", "sft"]
PAIRS = [PreferencePair(user(f"{i}?"), "aaaa", "zzzz", 1.0, "train", "human", i) for i in range(4)]


def plain_logprob(model, prompt, answer, temperature=1.0):
    """Of an answer's tokens by the plain definition, without padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]


def answered(backbone, text):
    return [*backbone.encode_answer(text), backbone.eos_id]


def logprob(backbone, adapter, prompt, text):
    """Of a whole answer, summed, read through one adapter and all by itself."""
    ids, asked = answered(backbone, text), backbone.encode(prompt)
    read, mask = pad_left([[*asked, *ids]], backbone.pad_id)
    with backbone.use_adapter(adapter), torch.no_grad():
        logits = backbone.forward(read, mask, keep=len(ids) + 1).logits[0, :-1]
    return float(logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum())


@pytest.fixture
def policy(backbone):
    backbone.add_adapter(POLICY, AdapterConfig(rank=4, alpha=8), seed=0)
    return backbone


# ---- the policy as TRL sees it


def test_trl_reads_the_policy_and_its_reference_through_one_backbone(policy, tiny_folder):
    scramble(policy, POLICY)
    ids, mask = pad_right([[5, 6, 7, 8], [9, 10]], policy.pad_id)
    fresh = Backbone.load(tiny_folder, "cpu", "float32").base
    ours, reference = Policy(policy, POLICY), Policy(policy, None)
    with torch.no_grad():
        expected = fresh(input_ids=ids, attention_mask=mask.long()).logits[mask]
        assert_close(reference(ids, mask.long()).logits[mask], expected, atol=1e-5, rtol=0)
        assert not torch.allclose(ours(ids, mask.long()).logits[mask], expected, atol=1e-2)
    learned = {id(p) for p in policy.parameters(POLICY).values()}
    with policy.use_adapter(POLICY):
        assert {id(p) for p in Policy(policy, POLICY).parameters() if p.requires_grad} == learned, "the optimiser's weights"


def test_left_padding_changes_nothing_that_trl_reads(policy):
    scramble(policy, POLICY)
    ours = Policy(policy, POLICY)
    ids, mask = pad_left([[5, 6, 7, 8, 9], [10, 11]], policy.pad_id)
    alone = torch.tensor([[10, 11]])
    with torch.no_grad():
        assert_close(ours(ids, mask.long()).logits[1, 3:], ours(alone, torch.ones_like(alone)).logits[0], atol=1e-5, rtol=0)


def test_positions_are_counted_over_real_tokens(tiny_folder):
    """Rotary positions are relative and would hide it: this architecture has absolute ones."""
    tok = tiny.tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tok), n_embd=16, n_layer=2, n_head=2, n_positions=64, tie_word_embeddings=True)
    backbone = Backbone(AutoModelForCausalLM.from_config(config), tok)
    ids, mask = pad_left([[5, 6, 7, 8, 9], [10, 11]], backbone.pad_id)
    alone = torch.tensor([[10, 11]])
    reference = Policy(backbone, None)
    with torch.no_grad():
        assert_close(reference(ids, mask.long()).logits[1, 3:], backbone.base(input_ids=alone).logits[0], atol=1e-5, rtol=0)


def test_training_never_turns_dropout_on(policy):
    ours = Policy(policy, POLICY).train()
    assert ours.training and not any(module.training for module in policy.base.modules())


def test_what_is_generated_is_drawn_at_the_temperature_from_all_tokens(policy):
    """Against the distribution itself: 4,000 first tokens, and a far colder draw that must differ."""
    scramble(policy, POLICY)
    ours = Policy(policy, POLICY, seed=3)
    ids, mask = pad_left([[5, 6, 7]] * 4000, policy.pad_id)

    def first(temperature):
        drawn = ours.generate(ids, mask.long(), GenerationConfig(temperature=temperature, max_new_tokens=1, do_sample=True))
        assert torch.equal(drawn[:, :3], ids)
        return torch.bincount(drawn[:, 3], minlength=len(policy.tokenizer)) / 4000

    with torch.no_grad():
        expected = (ours(ids[:1], mask[:1].long()).logits[0, -1] / 0.7).softmax(-1)
    # Standard deviation of a frequency p is sqrt(p (1 - p) / 4000): half the distance is below the sum of those.
    noise = float((expected * (1 - expected) / 4000).sqrt().sum()) / 2
    assert float((first(0.7) - expected).abs().sum()) / 2 < 1.5 * noise
    assert float((first(0.1) - expected).abs().sum()) / 2 > 4 * noise


def test_two_draws_differ_and_the_same_seed_draws_the_same(policy):
    ids, mask = pad_left([[5, 6, 7], [9]], policy.pad_id)
    wanted = GenerationConfig(temperature=0.7, max_new_tokens=12, do_sample=True)
    one, same = Policy(policy, POLICY, seed=3), Policy(policy, POLICY, seed=3)
    first = one.generate(ids, mask.long(), wanted)
    assert torch.equal(first, same.generate(ids, mask.long(), wanted))
    assert not torch.equal(first, one.generate(ids, mask.long(), wanted))


# ---- each method by itself


@pytest.mark.parametrize("kind", KINDS)
def test_dpo_starts_at_log_2_and_comes_to_prefer_what_was_chosen(backbone, tmp_path, kind):
    """At the start policy and reference are the same, so that the loss is -log sigmoid(0) (Rafailov 2023, eq. 7)."""
    backbone.add_adapter(POLICY, AdapterConfig(kind=kind, rank=4, alpha=8, virtual_tokens=3), seed=0)
    base_before = logprob(backbone, None, PAIRS[0].prompt, "aaaa")
    seen = {}
    start = [logprob(backbone, POLICY, PAIRS[0].prompt, text) for text in ("aaaa", "zzzz")]
    config = DPOConfig(epochs=4, batch_size=2, learning_rate=2e-2, beta=0.5)
    dpo.train(
        backbone, PAIRS, config, seed=0, scratch=tmp_path, on_progress=lambda: None, log=lambda step, logged: seen.update({step: logged})
    )
    assert sorted(seen) == list(range(1, 9)) and plan.updates(replace(RoundConfig(method="dpo"), dpo=config), 4, 0) == 8
    if kind != "prompt":
        assert seen[1]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert seen[8]["loss"] < seen[1]["loss"] and seen[8]["rewards/margins"] > 0.5
    end = [logprob(backbone, POLICY, PAIRS[0].prompt, text) for text in ("aaaa", "zzzz")]
    assert end[0] - end[1] > start[0] - start[1] + 1
    assert logprob(backbone, None, PAIRS[0].prompt, "aaaa") == base_before, "the base is as it was"


def test_dpo_draws_a_pair_as_often_as_it_weighs(policy, tmp_path, monkeypatch):
    """Of 4,000 draws, weights of 3 to 1 give 3,000 to 1,000; the standard deviation is sqrt(4000 * .75 * .25) = 27.4."""
    drawn = []
    monkeypatch.setattr(dpo._Trainer, "train", lambda trainer: drawn.append(list(trainer._get_train_sampler())))

    def draws(*weights):
        pairs = [replace(PAIRS[i % len(PAIRS)], weight=weight) for i, weight in enumerate(weights)]
        dpo.train(policy, pairs, DPOConfig(), seed=0, scratch=tmp_path, on_progress=lambda: None, log=lambda *_: None)
        return drawn[-1]

    assert sorted(draws(0.5, 0.5, 0.5)) == [0, 1, 2], "of equal weight, each once"
    assert abs(sum(i < 2000 for i in draws(*[3.0] * 2000, *[1.0] * 2000)) - 3000) < 3 * 27.4
    assert draws(1.0, 2.0, 1.0) == draws(1.0, 2.0, 1.0)


def test_dpos_log_ratios_are_to_the_base(policy, tmp_path, tiny_folder):
    """rewards/chosen = beta (log pi(chosen) - log ref(chosen)), worked out from plain forwards; the first log is of no update yet."""
    scramble(policy, POLICY)
    pair = PAIRS[0]
    asked, chosen = policy.encode(pair.prompt), answered(policy, pair.chosen)
    reference = plain_logprob(Backbone.load(tiny_folder, "cpu", "float32").base, asked, chosen).sum()
    seen = []
    now = logprob(policy, POLICY, pair.prompt, pair.chosen)
    dpo.train(
        policy,
        [pair],
        DPOConfig(epochs=1, batch_size=1, beta=0.3),
        seed=0,
        scratch=tmp_path,
        on_progress=lambda: None,
        log=lambda _, logged: seen.append(logged),
    )
    assert seen[0]["rewards/chosen"] == pytest.approx(0.3 * (now - float(reference)), abs=1e-3)
    assert seen[0]["logps/chosen"] == pytest.approx(now, abs=1e-3)


def test_sft_learns_the_answer_and_its_end_but_not_the_prompt(policy, tmp_path):
    shown = [Demonstration(user("Hi?"), "abab")]
    (row,) = sft.rows(policy, shown)
    prompt = policy.encode(user("Hi?"))
    assert row["input_ids"] == [*prompt, *answered(policy, "abab")]
    assert row["labels"] == [-100] * len(prompt) + answered(policy, "abab")
    seen = []
    before = logprob(policy, POLICY, user("Hi?"), "abab")
    sft.train(
        policy,
        shown,
        SFTConfig(epochs=8, batch_size=1, learning_rate=2e-2),
        seed=0,
        scratch=tmp_path,
        on_progress=lambda: None,
        log=lambda _, logged: seen.append(logged),
    )
    assert seen[0]["loss"] == pytest.approx(-before / 5, abs=1e-3), "the mean over four letters and the end"
    assert seen[-1]["loss"] < seen[0]["loss"] - 1
    assert logprob(policy, POLICY, user("Hi?"), "abab") > before + 5


def by_group(backbone, method, config, tmp_path, *, scorer, prompts=(user("Hi?"), user("Ho?"))):
    seen = {}
    rloo_grpo.train(
        method,
        backbone,
        prompts,
        scorer,
        config,
        Sampling(0.7, max_new_tokens=6),
        seed=0,
        scratch=tmp_path,
        on_progress=lambda: None,
        log=lambda step, logged: seen.update({step: logged}),
    )
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_group_methods_come_to_say_what_is_paid(policy, tmp_path, method):
    paid = []

    def scorer(prompts, sampled, on_progress):
        assert {tuple(p) for p in prompts} <= {tuple(policy.encode(user(q))) for q in ("Hi?", "Ho?")}
        assert all(s.ids and (s.finish_reason == "stop") == (s.ids[-1] == policy.eos_id) for s in sampled)
        paid.append(torch.tensor([sum(i < 64 for i in s.ids) / len(s.ids) for s in sampled]))
        return paid[-1]

    config = GroupConfig(steps=20, batch_size=32, minibatch_size=8, num_generations=4, learning_rate=2e-2, kl_coef=0.0)
    seen = by_group(policy, method, config, tmp_path, scorer=scorer)
    assert len(paid) == 20 and sorted(seen) == list(range(1, 21)), "one batch and one log a step"
    assert [seen[i + 1]["objective/scores"] for i in range(20)] == pytest.approx([float(p.mean()) for p in paid], abs=1e-5)
    assert float(torch.cat(paid[-3:]).mean()) > float(torch.cat(paid[:3]).mean()) + 0.15
    assert 0 < seen[1]["val/response_length"] <= 6 and 0 <= seen[1]["val/finished"] <= 1


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_the_kl_that_is_logged_is_to_the_base_and_per_completion(policy, tmp_path, tiny_folder, method):
    """k1 of what was drawn for RLOO, k3 for GRPO (Schulman 2020), each summed over a completion's tokens, from plain forwards."""
    scramble(policy, POLICY, scale=0.05)
    reference = Backbone.load(tiny_folder, "cpu", "float32").base
    drawn = []

    def scorer(prompts, sampled, on_progress):
        drawn.extend(zip(prompts, (s.ids for s in sampled), strict=True))
        expected.append([kl_of(p, ids) for p, ids in drawn])
        return torch.arange(len(sampled), dtype=torch.float32)

    def kl_of(prompt, ids):
        with policy.use_adapter(POLICY):
            now = plain_logprob(policy.base, prompt, ids, 0.7)
        log_ratio = now - plain_logprob(reference, prompt, ids, 0.7)
        return float((log_ratio if method == "rloo" else (-log_ratio).exp() - 1 + log_ratio).sum())

    expected = []
    config = GroupConfig(steps=1, batch_size=4, minibatch_size=4, num_generations=2, learning_rate=1e-5, kl_coef=0.05)
    seen = by_group(policy, method, config, tmp_path, scorer=scorer)
    assert seen[1]["objective/kl"] == pytest.approx(sum(expected[0]) / 4, rel=1e-3)
    assert abs(seen[1]["objective/kl"]) > 0.01


def test_a_price_on_kl_keeps_rloo_near_the_base(policy, tmp_path):
    def scorer(prompts, sampled, on_progress):
        return torch.tensor([sum(i < 64 for i in s.ids) / len(s.ids) for s in sampled])

    far = {}
    for kl_coef in (0.0, 5.0):
        policy.delete_adapter(POLICY)
        policy.add_adapter(POLICY, AdapterConfig(rank=4, alpha=8), seed=0)
        config = GroupConfig(steps=6, batch_size=16, minibatch_size=8, num_generations=4, learning_rate=1e-2, kl_coef=kl_coef)
        by_group(policy, "rloo", config, tmp_path, scorer=scorer)
        far[kl_coef] = sum(
            abs(logprob(policy, POLICY, user(q), t) - logprob(policy, None, user(q), t))
            for q in ("Hi?", "Ho?")
            for t in ("aaaa", "zzzz", "0000")
        )
    assert far[5.0] < far[0.0]


@pytest.mark.parametrize("kind", ["ia3", "prompt"])
def test_every_kind_of_adapter_learns_by_groups(backbone, tmp_path, kind):
    backbone.add_adapter(POLICY, AdapterConfig(kind=kind, virtual_tokens=3), seed=0)
    before = {n: p.detach().clone() for n, p in backbone.parameters(POLICY).items()}
    config = GroupConfig(steps=1, batch_size=8, minibatch_size=4, num_generations=2, learning_rate=1e-2)
    seen = by_group(backbone, "grpo", config, tmp_path, scorer=lambda p, s, t: torch.arange(len(s), dtype=torch.float32))
    assert all(not torch.equal(p, before[n]) for n, p in backbone.parameters(POLICY).items())
    assert math.isfinite(seen[1]["objective/kl"])


# ---- a whole round by each


def write_ideal_answers(judged, n=4):
    person = annotators.ensure(judged.store, "Ann")
    for i in range(n):
        comparison, (first, second) = judged.comparison(judged.prompt(f"Question {i}?", "train"), f"good {i}", f"bad {i}")
        shown = presentations.record(judged.store, comparisons.get(judged.store, comparison), person.id)
        said = Details(ideal=IdealAnswer(f"best of all {i}"))
        judgments.save(judged.store, shown.id, person.id, verdict="rank", tiers=((first,), (second,)), details=said)


def tiny_round(judged, method, **options):
    values = {
        "method": method,
        "dpo_batch_size": 4,
        "dpo_epochs": 1,
        "group_steps": 2,
        "group_batch_size": 8,
        "group_minibatch_size": 4,
        "group_num_generations": 2,
        "sft_min_answers": 2,
        "sft_batch_size": 2,
        "sft_epochs": 1,
        "reward_epochs": 0,
    } | options
    return judged.config(**values)


KEPT = {
    "dpo": {"dpo/loss", "dpo/rewards/margins", "dpo/rewards/accuracies"},
    "rloo": {"objective/scores", "objective/kl", "policy/entropy_avg", "val/response_length", "val/finished", "loss/policy_avg"},
    "grpo": {"objective/scores", "objective/kl", "policy/entropy_avg", "val/response_length", "val/finished", "loss/policy_avg"},
    "sft": {"sft/loss", "sft/mean_token_accuracy"},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_round_by_each_method(judged, method):
    if method == "sft":
        write_ideal_answers(judged)
    jobs = Jobs(judged.store, judged.folder)
    run_id = jobs.create(tiny_round(judged, method)).id
    stages = []
    work(judged.store, judged.folder, run_id, lambda stage, *_: stages.append(stage))
    run = runs.get(judged.store, run_id)
    assert run.status == "done", run.error
    assert {"win_rate", "win_rate_by_reward_model", "heldout_accuracy", "kl", "minutes"} <= set(run.result)
    assert list(dict.fromkeys(stages)) == ["snapshot", "reward", method, "evaluate", "register"]
    assert KEPT[method] | {chart.metric for chart in POLICY_CHARTS[method]} <= {m.name for m in runs.metrics(judged.store, run_id)}
    version = policies.by_name(judged.store, run.result["policy_version"])
    assert version.run_id == run_id
    tuned = load_file(judged.folder.run(run_id) / "policy" / "adapter_model.safetensors")
    assert all(w.abs().max() > 0 for name, w in tuned.items() if ".lora_B." in name), "B starts at 0 and must have moved"


@pytest.mark.slow
def test_a_round_that_was_cut_short_ends_as_an_unbroken_one(judged, monkeypatch):
    """The method's stage is repeated whole; once it has ended it is not repeated."""
    jobs = Jobs(judged.store, judged.folder)
    unbroken = jobs.create(tiny_round(judged, "grpo")).id
    work(judged.store, judged.folder, unbroken)

    # Otherwise a cancel is looked for once a second.
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    broken = jobs.create(tiny_round(judged, "grpo")).id
    for where, updates in (("grpo", 12), ("evaluate", 1)):
        seen = []

        def cancel_there(stage, *_, where=where, updates=updates, seen=seen):
            seen.append(stage)
            if seen.count(where) == updates:
                runs.request_cancel(judged.store, broken)

        with pytest.raises(Cancelled):
            work(judged.store, judged.folder, broken, cancel_there)
        assert runs.get(judged.store, broken).status == "cancelled"
        jobs.requeue(broken)
    seen = []
    work(judged.store, judged.folder, broken, lambda stage, *_: seen.append(stage))
    assert seen.count("grpo") == 1, "it was passed over"
    kept = [[m for m in runs.metrics(judged.store, r) if not m.name.startswith(("time/", "grpo/step_time"))] for r in (unbroken, broken)]
    assert [(m.name, m.step, m.value) for m in kept[0]] == [(m.name, m.step, m.value) for m in kept[1]]
    adapters = [judged.folder.run(r) / "policy" / "adapter_model.safetensors" for r in (unbroken, broken)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_cancel_is_heard_between_updates(judged, monkeypatch, method):
    write_ideal_answers(judged)
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    jobs = Jobs(judged.store, judged.folder)
    run_id = jobs.create(tiny_round(judged, method)).id

    def cancel(stage, *_):
        if stage == method:
            runs.request_cancel(judged.store, run_id)

    with pytest.raises(Cancelled):
        work(judged.store, judged.folder, run_id, cancel)
    assert runs.get(judged.store, run_id).stage == method
    assert not (judged.folder.run(run_id) / "tuned").exists()


def test_sft_without_ideal_answers_is_refused_with_what_to_do(judged):
    jobs = Jobs(judged.store, judged.folder)
    with pytest.raises(NoDemonstrations, match=r"^0 ideal answers on training prompts, need 20: .* choose another --method$"):
        jobs.create(tiny_round(judged, "sft", sft_min_answers=20))
    write_ideal_answers(judged, 2)
    with pytest.raises(NoDemonstrations, match=r"^2 ideal answers on training prompts, need 20: .* or pass --sft-min-answers 2$"):
        jobs.create(tiny_round(judged, "sft", sft_min_answers=20))
    jobs.create(tiny_round(judged, "sft", sft_min_answers=2))


@pytest.mark.parametrize(
    "values, said",
    [
        ({"method": "reinforce"}, "--method reinforce: choose one of ppo, rloo, grpo, dpo, sft"),
        ({"group-num-generations": 1}, "--group-num-generations 1: must be at least 2"),
        ({"group-batch-size": 30}, "--group-batch-size 30 is no multiple of --group-minibatch-size 16"),
        ({"group-batch-size": 48, "group-num-generations": 5}, "--group-batch-size 48 is no multiple of --group-num-generations 5"),
        ({"dpo-batch-size": 0}, "--dpo-batch-size 0: must be greater than 0"),
        ({"group-minibatch-size": 0}, "--group-minibatch-size 0: must be greater than 0"),
        ({"group-batch-size": 0}, "--group-batch-size 0"),
    ],
)
def test_figures_that_do_not_go_together_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        with_options(RoundConfig(), values)
