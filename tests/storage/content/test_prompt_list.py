from storage.content import prompt_list, prompts
from storage.core.records import PromptFilter
from storage.exchange import imports
from storage.judging import prompt_use


def test_the_list_has_the_state_of_each_prompt(store, world):
    prompts.load_starter(store)
    mine = world.prompt("Wie heißt der größte Baum?", kind="facts")
    world.comparison(prompt_id=mine)
    gone = world.prompt("Gone?")
    prompt_use.retire(store, [gone])
    found = prompt_list.search(store, PromptFilter("GRÖSSTE"))
    assert [(f.prompt.id, f.prompt.kind, f.source, f.state, f.comparisons, f.is_starter) for f in found] == [
        (mine, "facts", "test", "in_use", 1, False)
    ]
    assert [f.state for f in prompt_list.search(store, PromptFilter("gone?"))] == ["retired"]
    every = prompt_list.search(store)
    assert (len(every), every[0].prompt.id, every[1].state) == (242, mine, "unused_starter")
    assert prompt_list.search(store, limit=1) == every[:1]
    assert prompt_list.count(store) == 242 and prompt_list.count(store, PromptFilter("größte")) == 1
    assert prompt_list.count(store, state="unused_starter") == 240 and prompt_list.count(store, state="retired") == 1


def test_prompts_are_chosen_by_kind_split_import_and_text(store, world):
    one = world.prompt("Which bell is loud?", kind="bikes")
    two = world.prompt("Which tyre is wide?", kind="bikes", split="heldout")
    other = world.prompt("Which bell is old?", kind="churches")
    gone = world.prompt("Which lock?", kind="bikes")
    prompt_use.retire(store, [gone])
    imported, report = imports.import_rows(store, [{"prompt": "Which chain?", "kind": "bikes"}], "prompts", source="typed", by=None)
    added = store.value("SELECT max(id) FROM prompts")
    assert report.prompts == 1 and prompt_list.kinds(store) == ["bikes", "churches"]
    cases = {
        PromptFilter(): {one, two, other, added},
        PromptFilter(kind="bikes"): {one, two, added},
        PromptFilter(kind="bikes", split="heldout"): {two},
        PromptFilter("BELL"): {one, other},
        PromptFilter("bell", kind="bikes"): {one},
        PromptFilter(import_id=imported): {added},
        PromptFilter(kind="nothing"): set(),
    }
    for chosen, ids in cases.items():
        assert prompt_list.ids_in_use(store, chosen) == ids, chosen
        assert {f.prompt.id for f in prompt_list.search(store, chosen, state="in_use")} == ids, chosen
        assert prompt_list.count(store, chosen, state="in_use") == len(ids)
    assert [f.prompt.id for f in prompt_list.search(store, PromptFilter(kind="bikes"), state="retired")] == [gone]


def test_starter_prompts_that_are_not_in_use_are_not_chosen(store, world):
    prompts.load_starter(store)
    assert len(prompt_list.ids_in_use(store, PromptFilter())) == 240
    mine = world.prompt("Mine?")
    assert prompt_list.ids_in_use(store, PromptFilter()) == {mine}
