"""Prompts that a model refuses: one row for each model, replaced by a newer reason, and gone when it is to be asked again."""

from learning import user

from storage.content import policies, prompts, refusals


def test_a_refusal_is_of_one_prompt_and_one_model(store):
    prompts.add(store, [prompts.NewPrompt(user(text)) for text in ("one", "two")], source="test")
    one, two = prompts.of_split(store)
    base, outside = policies.ensure_base(store, "m"), policies.ensure_external(store, "x")
    refusals.add(store, one.id, base, "too long")
    refusals.add(store, one.id, base, "no system role")
    refusals.add(store, one.id, outside, "filtered " * 100)
    refusals.add(store, two.id, outside, "filtered")
    assert refusals.by_model(store) == {"m": {one.id}, "x": {one.id, two.id}}
    found = {(r.prompt_id, r.base_model): r.reason for r in refusals.all_refusals(store)}
    assert found[one.id, "m"] == "no system role" and len(found[one.id, "x"]) == refusals.MAX_REFUSAL_CHARS
    assert refusals.clear(store, [two.id]) == 1 and refusals.by_model(store) == {"m": {one.id}, "x": {one.id}}
    assert refusals.clear(store) == 2 and refusals.all_refusals(store) == []
