"""Ideal answers as demonstrations: which ones count, and what is learned from them, against the plain definition."""

import pytest
import torch
from learning import scramble, user
from torch.testing import assert_close

from rlhf.config import AdapterConfig, RoundConfig
from rlhf.data import demonstrations
from rlhf.data.demonstrations import Demonstration, NoDemonstrations
from rlhf.generation.sampling import generator
from rlhf.ppo import ptx
from rlhf.ppo.actor_critic import ActorCritic, forward_logprobs
from rlhf.ppo.rollout import POLICY
from rlhf.ppo.value_head import ValueHead
from rlhf.reward.model import TokenizedExample
from storage.core.records import Details, IdealAnswer
from storage.judging import exclusions, judgments, queue
from storage.people import annotators

CPU = torch.device("cpu")


def written(world, annotator, question, split, ideal):
    _, (first, second) = world.comparison(world.prompt(question, split), f"{question} yes", f"{question} no")
    _, shown = queue.next_presentation(world.store, annotator.id)
    said = Details(ideal=IdealAnswer(ideal) if ideal else None)
    return judgments.save(world.store, shown.id, annotator.id, verdict="rank", tiers=((first,), (second,)), details=said)


def test_ideal_answers_on_training_prompts_that_count_are_demonstrations(empty_world):
    person = annotators.ensure(empty_world.store, "Ann")
    written(empty_world, person, "One?", "train", "First.")
    written(empty_world, person, "Two?", "heldout", "Held out.")
    written(empty_world, person, "Three?", "train", None)
    left_out = written(empty_world, person, "Four?", "train", "Excluded.")
    written(empty_world, person, "Five?", "train", "Fifth,\u2028on two lines.")
    exclusions.exclude(empty_world.store, [left_out.id], rule="by hand", reason="test", by=None)
    found = demonstrations.of_store(empty_world.store)
    assert found == [Demonstration(user("One?"), "First."), Demonstration(user("Five?"), "Fifth,\u2028on two lines.")]

    demonstrations.write_snapshot(found, empty_world.folder.root)
    assert demonstrations.read_snapshot(empty_world.folder.root) == found


def test_too_few_demonstrations_are_refused_with_a_remedy():
    with pytest.raises(NoDemonstrations, match="--ppo-ptx-coef: 0 ideal answers on training prompts, need 1: .* or set --ppo-ptx-coef 0"):
        demonstrations.require([], RoundConfig())


def test_a_demonstration_is_prompt_answer_and_end(backbone):
    (row,) = ptx.encode(backbone, [Demonstration(user("Hi?"), "Yo")])
    prompt = backbone.encode(user("Hi?"))
    assert row == TokenizedExample([*prompt, *backbone.encode_answer("Yo"), backbone.eos_id], len(prompt))


ROWS = [TokenizedExample([5, 6, 7, 8, 9], 2), TokenizedExample([10, 11, 12], 1), TokenizedExample([13, 14, 15, 16], 3)]
"""3, 2 and 1 tokens of answer."""


def plain_nll(backbone, row, temperature):
    ids = torch.tensor([row.ids])
    logits = backbone.base(input_ids=ids).logits[0, row.start - 1 : -1]
    return torch.nn.functional.cross_entropy(logits / temperature, ids[0, row.start :], reduction="sum")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_loss_is_the_cross_entropy_of_the_answers_tokens(backbone, temperature):
    with torch.no_grad():
        expected = sum(plain_nll(backbone, row, temperature) for row in ROWS)
        batch = ptx.tokens(backbone, ROWS)
        said = forward_logprobs(backbone, None, batch, temperature, adapter=None).logprobs
        assert_close(-said.sum(), expected, atol=1e-4, rtol=1e-5)
        assert batch.mask.sum(-1).tolist() == [3, 2, 1]


@pytest.mark.parametrize("at_once", [3, 1, 2])
def test_the_gradient_is_that_of_the_mean_over_tokens_however_many_rows_are_read_at_once(backbone, at_once):
    backbone.add_adapter(POLICY, AdapterConfig(rank=4), seed=0)
    scramble(backbone, POLICY)
    with backbone.adapter_set.applied(POLICY):
        plain = sum(plain_nll(backbone, row, 0.7) for row in ROWS) / 6
    (0.5 * plain).backward()
    expected = {n: p.grad.clone() for n, p in backbone.parameters(POLICY).items()}
    for p in backbone.parameters(POLICY).values():
        p.grad = None
    model = ActorCritic(backbone, ValueHead(backbone.hidden_size, 4), trained=POLICY, temperature=0.7)
    batches = [ptx.tokens(backbone, ROWS[start : start + at_once]) for start in range(0, 3, at_once)]
    loss = ptx.add_gradients(model, batches, 0.5, adapter=POLICY)
    assert loss == pytest.approx(float(plain), abs=1e-4)
    for name, p in backbone.parameters(POLICY).items():
        assert_close(p.grad, expected[name], atol=1e-5, rtol=1e-3)
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3


def test_an_epoch_goes_through_the_demonstrations_before_it_repeats_one():
    rows = [TokenizedExample([i], 0) for i in range(5)]
    batches = [ptx.batch(rows, number, 2, generator(CPU, 1)) for number in range(5)]
    ids = [[row.ids[0] for row in batch] for batch in batches]
    assert sorted(i for batch in ids for i in batch) == sorted(2 * [*range(5)])
    assert len({*ids[0], *ids[1]}) == 4
    assert sorted(row.ids[0] for row in ptx.batch(rows, 0, 99, generator(CPU, 1))) == [*range(5)], "no more at once than there are"
