"""An undo takes an import out of everything that counts, and deletes nothing."""

import pytest

from storage.content import prompts
from storage.core.database import StoreError
from storage.exchange import import_records, trl, undos
from storage.judging import exclusions, queue
from tests.storage.exchange.test_imports import counts, row, votes


def test_undo_takes_everything_out_and_deletes_nothing(world, bring, tmp_path):
    store = world.store
    import_id, _ = bring(row(choice=0), row("And?", choice=1), row("Waits?"), row("Gold?", choice=0, gold=True))
    before = counts(store)
    assert world.rank(world.ann) is not None
    undone = undos.undo(store, import_id, by=world.bob.id)
    assert (undone.judgments, undone.comparisons, undone.prompts) == (3, 4, 4)
    assert counts(store) == before | {"judgments": before["judgments"] + 1, "presentations": before["presentations"] + 1}
    assert votes(store) == [] and queue.depth(store) == 0 and world.next(world.bob) is None
    assert prompts.of_split(store) == [] and trl.write(store, tmp_path / "x").written == 0
    (exclusion,) = exclusions.all_exclusions(store)
    assert (exclusion.rule, exclusion.by_id, exclusion.judgments) == ("import undone", world.bob.id, 3)
    kept = import_records.get(store, import_id)
    assert kept.undone_at and store.value("SELECT undone_by_id FROM imports") == world.bob.id


def test_an_undone_import_cannot_be_undone_again_nor_one_that_never_was(store, bring):
    import_id, _ = bring(row(choice=0))
    undos.undo(store, import_id)
    with pytest.raises(StoreError, match="undone before"):
        undos.undo(store, import_id)
    with pytest.raises(StoreError, match="There is no import 7"):
        undos.undo(store, 7)


def test_rows_that_others_use_survive_an_undo(world, bring):
    store = world.store
    known = world.prompt("Known?")
    shared = world.comparison(2, world.prompt("Shared?"))
    first, _ = bring(row("Known?", choice=0), row("Why?", choice=0, annotator="Ann"), row("Collected?", choice=0))
    collected = store.value("SELECT id FROM prompts WHERE messages LIKE '%Collected%'")
    world.comparison(2, collected)
    bring(row("Why?", choice=1, annotator="Bob"))
    undone = undos.undo(store, first)
    assert (undone.judgments, undone.comparisons, undone.prompts) == (3, 2, 0)
    assert [name for name, _ in votes(store)] == ["Bob"]
    assert {prompt.id for prompt in prompts.of_split(store)} >= {known, collected, store.value("SELECT max(id) FROM prompts")}
    # Bob's comparison has the vote that it needs, and is not asked for again.
    assert store.value("SELECT count(*) FROM queue") == 2 and world.next(world.ann) == shared


def test_prompts_come_back_with_a_second_import_and_go_with_it(store, bring):
    first, _ = bring({"prompt": "One?"}, {"prompt": "Two?"}, format="prompts")
    undos.undo(store, first)
    assert prompts.of_split(store) == []
    second, report = bring({"prompt": "Two?"}, {"prompt": "Three?"}, {"prompt": "Two?"}, format="prompts")
    assert (report.prompts, report.prompts_known, report.reused) == (2, 0, [(2, 2)])
    assert [prompt.text for prompt in prompts.of_split(store)] == ["Two?", "Three?"]
    assert undos.undo(store, second).prompts == 2 and prompts.of_split(store) == []


def test_a_prompt_that_two_imports_name_goes_with_the_last_of_them(store, bring):
    first, _ = bring({"prompt": "One?"}, {"prompt": "Two?"}, format="prompts")
    second, report = bring({"prompt": "Two?"}, format="prompts")
    assert (report.prompts, report.prompts_known) == (0, 1)
    assert undos.undo(store, first).prompts == 1
    assert [prompt.text for prompt in prompts.of_split(store)] == ["Two?"]
    assert undos.undo(store, second).prompts == 1 and prompts.of_split(store) == []


def test_votes_come_back_with_a_second_import(store, bring):
    first, _ = bring(row(choice=0), name="a.jsonl")
    undos.undo(store, first)
    bring(row(choice=0), name="a.jsonl")
    assert [tiers for _, tiers in votes(store)] == [((3,), (4,))]
    assert [prompt.text for prompt in prompts.of_split(store)] == ["Why?"]
