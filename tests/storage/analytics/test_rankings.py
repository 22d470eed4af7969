"""Which rankings the statistics read."""

from storage.analytics import rankings
from storage.content import prompts
from storage.exchange import imports
from storage.judging import prompt_use


def test_votes_on_starter_prompts_are_read_while_these_serve(world, store):
    starter = world.prompt("Starter?")
    store.connection.conn.execute("UPDATE prompts SET starter = 1 WHERE id = ?", [starter])
    world.comparison(prompt_id=starter)
    world.rank(world.ann)
    assert len(rankings.read(store).judgment) == 1
    imports.import_rows(store, [{"prompt": "Theirs?", "completions": ["x", "y"], "choice": 0, "annotator": "bo"}], "plain")
    read = rankings.read(store)
    assert prompts.unused_starter_votes(store) == 1
    assert [store.value("SELECT comparison_id FROM judgments WHERE id = ?", [item]) for item in read.judgment.tolist()] == [2]
    prompt_use.use_starters(store, "on")
    assert len(rankings.read(store).judgment) == 2
