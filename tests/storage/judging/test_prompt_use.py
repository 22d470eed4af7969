"""Which prompts are in use: a store with prompts of its own does not use the starter prompts, unless somebody asks for them."""

import random

import pytest

from storage.analytics.stats import stats
from storage.content import comparisons, prompt_list, prompts
from storage.content.prompts import NewPrompt
from storage.core.database import Database, StoreError
from storage.core.records import ProjectSettings
from storage.exchange import imports, undos
from storage.judging import judgments, prompt_use, queue
from storage.people import annotators, audit
from storage.project import settings


def user(text):
    return ({"role": "user", "content": text},)


def texts(store, split=None):
    return [prompt.text for prompt in prompts.of_split(store, split)]


def imported(store, *rows, format="prompts"):
    import_id, _ = imports.import_rows(store, list(rows), format, source="file", by=None)
    return import_id


PAIR = {"prompt": "Name a tree.", "chosen": "Oak.", "rejected": "Rose."}


def test_starters_are_in_use_only_in_a_store_without_other_prompts(store):
    prompts.load_starter(store)
    assert len(texts(store)) == 240 and prompts.starters(store).in_use
    import_id = imported(store, {"prompt": "Mine?"}, {"prompt": "Mine too?"})
    assert texts(store) == ["Mine?", "Mine too?"]
    assert [number for _, _, number in prompts.by_kind(store)] == [1, 1]
    assert len(comparisons.prompt_usage(store)) == 2
    assert (stats(store)["prompts"], stats(store)["prompts_in_use"]) == (242, 2)
    undos.undo(store, import_id)
    assert len(texts(store)) == 240


def test_prompts_of_an_imported_comparison_are_the_stores_own(store):
    prompts.load_starter(store)
    imported(store, PAIR, format="trl")
    assert texts(store) == ["Name a tree."]


def test_starters_are_used_or_not_as_the_project_says(store):
    prompts.load_starter(store)
    imported(store, {"prompt": "Mine?"})
    assert prompt_use.use_starters(store, "on").in_use and len(texts(store)) == 241
    assert not prompt_use.use_starters(store, "off").in_use and texts(store) == ["Mine?"]
    assert not prompt_use.use_starters(store, "auto").in_use
    prompt_use.retire(store, [241])
    assert len(texts(store)) == 240
    prompt_use.use_starters(store, "off")
    assert texts(store) == []
    with pytest.raises(StoreError, match="auto, on or off, not 'yes'"):
        settings.change(store, ProjectSettings(starters="yes"), None)


def test_a_starter_prompt_that_is_imported_stays_in_use_until_the_import_is_undone(store):
    prompts.load_starter(store)
    first = texts(store)[0]
    import_id = imported(store, {"prompt": first}, {"prompt": "Mine?"})
    assert texts(store) == [first, "Mine?"]
    undos.undo(store, import_id)
    assert len(texts(store)) == 240 and prompts.starters(store).prompts == 240


def test_an_unreadable_setting_means_auto(store):
    prompts.load_starter(store)
    store.insert("settings", {"values": "x", "by_id": None, "created_at": "2026-01-01"})
    store.connection.conn.execute("DROP TRIGGER settings_are_not_changed")
    store.connection.conn.execute("UPDATE settings SET \"values\" = 'not json'")
    assert prompts.starters(store).in_use
    imported(store, {"prompt": "Mine?"})
    assert texts(store) == ["Mine?"]


def test_waiting_comparisons_of_starters_are_not_shown_until_they_are_in_use_again(store, world):
    prompts.load_starter(store)
    starter = prompts.of_split(store)[0].id
    waiting = world.comparison(prompt_id=starter)
    other = world.comparison(prompt_id=starter)
    assert queue.depth(store) == 2
    own = world.comparison(prompt_id=world.prompt("Mine?"))
    assert (queue.depth(store), queue.least_waiting(store, at_most=9)) == (1, 1)
    assert world.next(world.ann) == own
    world.rank(world.ann)
    assert world.next(world.ann) is None
    prompt_use.use_starters(store, "on")
    assert queue.depth(store) == 2
    # The annotator's cursor had passed them.
    assert world.next(world.ann) == waiting
    world.rank(world.ann)
    assert world.next(world.ann) == other


@pytest.mark.usefixtures("distinct_times")
def test_a_retired_prompt_is_not_shown_and_comes_back(store, world):
    prompt = world.prompt("Mine?")
    waiting = world.comparison(prompt_id=prompt)
    last = world.comparison(prompt_id=world.prompt("Also mine?"))
    assert prompt_use.retire(store, [prompt, prompt]) == 1 and prompt_use.retire(store, [prompt]) == 0
    assert world.next(world.ann) == last
    world.rank(world.ann)
    assert prompt_use.restore(store, [prompt]) == 1
    assert world.next(world.ann) == waiting
    with pytest.raises(StoreError, match="no prompt 77, 78"):
        prompt_use.retire(store, [prompt, 78, 77])
    assert prompt_use.retire(store, [prompt], world.bob.id) == 1
    acts = [(entry.act, entry.subject, entry.subject_id, entry.who) for entry in audit.entries(store) if entry.subject == "prompt"]
    assert acts == [
        ("retired", "prompt", str(prompt), "Bob"), ("restored", "prompt", str(prompt), None), ("retired", "prompt", str(prompt), None),
    ]  # fmt: skip
    prompt_use.restore(store, [prompt])
    assert texts(store) == ["Mine?", "Also mine?"]


def test_votes_on_starters_that_are_not_in_use_are_left_out_of_training_and_counted(store, world):
    prompts.load_starter(store)
    world.comparison(prompt_id=prompts.of_split(store)[0].id)
    world.rank(world.ann)
    assert len(judgments.active(store, for_training=True)) == 1 and prompts.unused_starter_votes(store) == 0
    world.comparison(prompt_id=world.prompt("Mine?"))
    world.rank(world.ann)
    assert [judged.prompt.text for judged in judgments.active(store, for_training=True)] == ["Mine?"]
    assert len(judgments.active(store)) == 2 and prompts.unused_starter_votes(store) == 1
    prompt_use.use_starters(store, "on")
    assert len(judgments.active(store, for_training=True)) == 2 and prompts.unused_starter_votes(store) == 0


def test_votes_on_retired_prompts_still_count(store, world):
    prompt = world.prompt("Mine?")
    world.comparison(prompt_id=prompt)
    world.rank(world.ann)
    prompt_use.retire(store, [prompt])
    assert len(judgments.active(store, for_training=True)) == 1


def test_simulated_annotators_judge_prompts_in_use(store, world):
    prompts.load_starter(store)
    world.comparison(prompt_id=prompts.of_split(store)[0].id)
    assert len(comparisons.without_simulated_judgment(store, 9)) == 1
    world.prompt("Mine?")
    assert comparisons.without_simulated_judgment(store, 9) == []


# Splits.


@pytest.mark.parametrize("number", range(2, 11))
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_few_prompts_have_both_splits(store, number, one_by_one):
    prompts.load_starter(store)
    rng = random.Random(number)
    new = [NewPrompt(user(f"Question {rng.random()}?")) for _ in range(number)]
    for some in [[one] for one in new] if one_by_one else [new]:
        prompts.add(store, some, source="file")
    assert texts(store, "train") and texts(store, "heldout")


def test_of_prompts_that_would_all_be_for_training_the_smallest_digest_is_held_out(store):
    # Of a, b and c none is held out by its digest; c's is the smallest.
    digests = {text: prompts.digest(user(text)) for text in "abc"}
    assert {prompts.split_of(digest) for digest in digests.values()} == {"train"}
    assert min(digests, key=digests.get) == "c"
    imported(store, *({"prompt": text} for text in "abc"))
    assert texts(store, "heldout") == ["c"]


def test_a_single_prompt_is_for_training(store):
    heldout = next(text for text in map(str, range(100)) if prompts.split_of(prompts.digest(user(text))) == "heldout")
    prompts.add(store, [NewPrompt(user(heldout))], source="file")
    assert texts(store, "train") == [heldout]


def test_declared_splits_and_stored_prompts_stay_as_they_are(store):
    prompts.add(store, [NewPrompt(user("a"), split="train"), NewPrompt(user("b"), split="train")], source="file")
    assert texts(store, "train") == ["a", "b"]
    prompts.add(store, [NewPrompt(user("c"))], source="file")
    assert (texts(store, "train"), texts(store, "heldout")) == (["a", "b"], ["c"])


def test_an_older_store_keeps_its_starters_in_use(tmp_path):
    own = Database(tmp_path / "own.db")
    prompts.load_starter(own)
    annotators.ensure(own, "ann", kind="human")
    assert prompts.starters(own) == prompts.Starters(240, True, 0)
    own.close()


def test_an_edited_prompt_is_a_new_one_and_the_old_one_keeps_its_judgments(world):
    store = world.store
    old = world.prompt("Which bel?", kind="bikes", split="heldout")
    first = world.comparison(prompt_id=old)
    assert world.rank(world.ann).comparison_id == first
    second = world.comparison(prompt_id=old)
    new = prompt_use.edit(store, old, "Which bell?", by=world.bob.id)
    assert (new.text, new.kind, new.split) == ("Which bell?", "bikes", "heldout")
    assert texts(store) == ["Which bell?"]
    assert store.value("SELECT source FROM prompts WHERE id = ?", [new.id]) == "test"
    assert world.next(world.bob) is None, "the old one's waiting comparison is not shown"
    assert store.value("SELECT counts FROM judgments WHERE comparison_id = ?", [first]) == 1
    assert comparisons.get(store, second).prompt.text == "Which bel?"
    listed = {found.prompt.id: found for found in prompt_list.search(store)}
    assert (listed[new.id].replaces, listed[old].replaced_by, listed[old].state) == (old, new.id, "retired")
    assert (prompt_list.count_judgments(store, old), prompt_list.count_judgments(store, new.id)) == (1, 0)
    acts = [(entry.act, entry.subject_id, entry.detail, entry.who) for entry in audit.entries(store) if entry.subject == "prompt"]
    assert sorted(acts) == [("edited", str(new.id), str(old), "Bob"), ("retired", str(old), "", "Bob")]


def test_an_edited_prompt_stays_with_its_import_and_an_edited_starter_prompt_stays_one(store):
    prompts.load_starter(store)
    edited = prompt_use.edit(store, 1, "Another question?")
    assert len(texts(store)) == 240 and "Another question?" in texts(store), "the others are still in use"
    assert Database(store.path) and prompts.load_starter(store) == 0, "the old text does not come back"
    import_id = imported(store, {"prompt": "Which bel?"})
    new = prompt_use.edit(store, edited.id + 1, "Which bell?")
    assert texts(store) == ["Which bell?"]
    undos.undo(store, import_id)
    assert new.text not in texts(store)


def test_an_edit_keeps_the_turns_before_the_last(store):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A"}]
    prompts.add(store, [NewPrompt(turns)], source="test")
    assert [m["content"] for m in prompt_use.edit(store, 1, "B").messages] == ["Be brief.", "B"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (" ", "a message is empty"),
        ("one", "prompt 1 has this text already: change it"),
        ("two", "prompt 2 has this text already"),
        ("gone", "prompt 3 has this text already: bring it back"),
        ("x" * 100_001, "its text has 100,001 characters, and 100,000 are allowed"),
        ("\ud83d", "half a surrogate pair"),
    ],
    ids=("empty", "unchanged", "there", "retired", "long", "surrogate"),
)
def test_an_edit_that_makes_no_new_prompt_is_refused(store, text, why):
    prompts.add(store, [NewPrompt(user(one)) for one in ("one", "two", "gone")], source="test")
    prompt_use.retire(store, [3])
    with pytest.raises(StoreError, match=f"The prompt was not changed: .*{why}"):
        prompt_use.edit(store, 1, text)
    assert texts(store) == ["one", "two"] and store.value("SELECT count(*) FROM prompt_edits") == 0
