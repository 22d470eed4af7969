from storage.content import prompt_list, prompts
from storage.judging import prompt_use


def test_the_list_has_the_state_of_each_prompt(store, world):
    prompts.load_starter(store)
    mine = world.prompt("Wie heißt der größte Baum?", kind="facts")
    world.comparison(prompt_id=mine)
    gone = world.prompt("Gone?")
    prompt_use.retire(store, [gone])
    found = prompt_list.search(store, "GRÖSSTE")
    assert [(f.prompt.id, f.prompt.kind, f.source, f.state, f.comparisons, f.is_starter) for f in found] == [
        (mine, "facts", "test", "in_use", 1, False)
    ]
    assert [f.state for f in prompt_list.search(store, "gone?")] == ["retired"]
    every = prompt_list.search(store)
    assert (len(every), every[0].prompt.id, every[1].state) == (242, mine, "unused_starter")
    assert prompt_list.search(store, limit=1) == every[:1] and prompt_list.count(store) == 242 and prompt_list.count(store, "größte") == 1
