import pytest

from storage.content import comparisons, completions
from storage.core.database import StoreError
from storage.core.records import Sampling
from storage.judging import judgments


def test_a_comparison_comes_back_whole_and_in_order(world):
    prompt_id = world.prompt("Why?", "explain", "heldout")
    late, early = world.completion(prompt_id, "late"), world.completion(prompt_id, "early")
    found = comparisons.get(world.store, comparisons.add(world.store, prompt_id, [early, late], purpose="blind"))
    assert (found.prompt.text, found.prompt.split, found.purpose) == ("Why?", "heldout", "blind")
    assert [(item.id, item.text) for item in found.completions] == [(early, "early"), (late, "late")]
    assert Sampling(**found.completions[0].sampling) == Sampling(temperature=0.7, top_p=1.0, top_k=0, max_new_tokens=48)
    assert (found.completions[0].seed, found.completions[0].finish_reason, found.completions[0].latency_s) == (
        11,
        "stop",
        1.5,
    )
    assert found.completions[0].policy_version_id == world.policy.id


def test_a_completion_needs_its_prompt(world):
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        world.completion(99)


@pytest.mark.parametrize("size", [2, 9])
def test_two_to_nine_completions_fit(world, size):
    assert len(comparisons.get(world.store, world.comparison(size)).completions) == size


@pytest.mark.parametrize("size", [0, 1, 10])
def test_fewer_or_more_do_not(world, size):
    with pytest.raises(StoreError, match="2 to 9 different completions"):
        world.comparison(size)
    assert world.store.value("SELECT count(*) FROM comparisons") == 0


def test_refuses_repeats_and_other_prompts_completions(world):
    mine, other = world.prompt("mine"), world.prompt("other")
    first, second, foreign = world.completion(mine), world.completion(mine), world.completion(other)
    with pytest.raises(StoreError, match="different completions"):
        comparisons.add(world.store, mine, [first, first], purpose="collect")
    with pytest.raises(StoreError, match="Only 2 of the completions"):
        comparisons.add(world.store, mine, [first, second, foreign], purpose="collect")
    with pytest.raises(StoreError, match="Only 1 of the completions"):
        comparisons.add(world.store, mine, [first, 999], purpose="collect")
    with pytest.raises(StoreError, match="no comparison 1 "):
        comparisons.get(world.store, 1)


def test_without_simulated_judgment_is_oldest_first_and_blind_to_people(world):
    one, two, three = world.comparisons(3)
    world.rule_ranks(two)
    assert world.rank(world.ann).comparison_id == one
    assert [item.id for item in comparisons.without_simulated_judgment(world.store, 5)] == [one, three]
    assert [item.id for item in comparisons.without_simulated_judgment(world.store, 1)] == [one]
    judgments.undo(world.store, world.rule.id)
    assert [item.id for item in comparisons.without_simulated_judgment(world.store, 5)] == [one, two, three]


def test_prompt_usage_counts_comparisons(world):
    used, unused = world.prompt("used"), world.prompt("unused")
    world.comparison(3, used)
    world.comparison(2, used)
    assert comparisons.prompt_usage(world.store) == {used: 2, unused: 0}


def test_loading_many_takes_a_fixed_number_of_queries(world):
    ids = world.comparisons(20)
    statements = []
    world.store.connection.conn.set_trace_callback(statements.append)
    found = comparisons.many(world.store, ids)
    world.store.connection.conn.set_trace_callback(None)
    assert [item.id for item in found] == ids
    assert len(statements) == 3
    assert completions.of_comparisons(world.store, []) == {}
