"""`rankloop prompts`: the list, the search, what is in use, and what was refused."""

import json

import pytest

import launch
from storage.content import comparisons, completions, policies, prompts, refusals
from storage.content.prompts import NewPrompt
from storage.core.records import Sampling
from storage.judging import judgments
from storage.people import annotators


@pytest.fixture
def rankloop(capsys, store):
    def run(verb, *arguments, status=0):
        assert launch.main([verb, "--data", str(store.path.parent), *arguments]) == status
        return capsys.readouterr()

    return run


def add(store, *texts):
    prompts.add(store, [NewPrompt(({"role": "user", "content": text},), split="train") for text in texts], source="my.jsonl")


def judge(store, prompt):
    base = policies.ensure_base(store, "tiny")
    ids = [
        completions.add(
            store,
            prompt_id=prompt.id,
            policy_version_id=base.id,
            text=text,
            sampling=Sampling(),
            seed=0,
            finish_reason="stop",
            latency_s=0.1,
        )
        for text in ("yes", "no")
    ]
    comparison = comparisons.add(store, prompt.id, ids, purpose="collect")
    rule = annotators.ensure(store, "sim", kind="simulated", rule='{"judge": "concise", "words": [], "flip": 0.0}')
    judgments.add_simulated(store, comparison, rule.id, tiers=((ids[0],), (ids[1],)))


def test_lists_prompts_with_their_state(rankloop, store):
    add(store, "Name a fruit,\nplease", "Name a tree")
    said = rankloop("prompts").out.splitlines()
    assert said[0].split() == ["id", "state", "split", "kind", "source", "comparisons", "prompt"]
    assert said[1].split(None, 7)[:7] == ["1", "in", "use", "train", "imported", "my.jsonl", "0"] and said[1].endswith(
        "Name a fruit, please"
    )
    assert "no such prompts" in rankloop("prompts", "--search", "nothing like it").out
    rows = json.loads(rankloop("prompts", "--search", "TREE", "--json").out)
    assert rows == [
        {
            "id": 2, "messages": [{"role": "user", "content": "Name a tree"}], "kind": "imported", "split": "train", "source": "my.jsonl",
            "state": "in_use", "comparisons": 0,
        }
    ]  # fmt: skip


def test_retires_and_brings_back(rankloop, store):
    add(store, "a", "b")
    assert rankloop("prompts", "--retire", "1", "2").out == "2 prompts retired\n"
    assert prompts.of_split(store) == []
    assert rankloop("prompts", "--restore", "2").out == "1 prompts brought back\n"
    assert [p.text for p in prompts.of_split(store)] == ["b"]
    assert "no prompt 3" in rankloop("prompts", "--retire", "3", status=2).err
    assert "cannot be combined" in rankloop("prompts", "--retire", "1", "--restore", "2", status=2).err


def test_an_import_ends_the_use_of_the_starters_and_names_the_votes_that_no_longer_count(rankloop, store, tmp_path):
    prompts.load_starter(store)
    judge(store, prompts.of_split(store)[0])
    file = tmp_path / "my.jsonl"
    file.write_text('{"prompt": "Mine?"}\n')
    assert rankloop("import", str(file)).out.splitlines() == [
        "import 1: 1 prompts added, 0 known already, 0 wrong rows left out",
        "240 starter prompts are not in use; 1 votes on them are left out of training and of figures (--starters on uses them)",
    ]
    assert rankloop("prompts").out.splitlines()[1].startswith("241  in use")
    assert rankloop("prompts", "--starters", "on").out == "240 starter prompts are in use\n"
    assert len(prompts.of_split(store)) == 241
    assert (
        rankloop("prompts", "--starters", "auto").out
        == "240 starter prompts are not in use; 1 votes on them are left out of training and of figures (--starters on uses them)\n"
    )
    assert "1 votes on starter prompts are left out" in rankloop("agreement").out
    assert "1 votes on starter prompts are left out" in rankloop("leaderboard").out
    assert "1 of them are starter prompts" in rankloop("prompts", "--restore", "1", "241").out


def test_refused_prompts_are_listed_with_the_reason_and_asked_again(rankloop, store):
    add(store, "a", "b")
    base = policies.ensure_base(store, "tiny")
    for prompt_id in (1, 2):
        refusals.add(store, prompt_id, base, "System role not supported")
    assert rankloop("prompts", "--refused").out.splitlines()[1].split() == ["2", "tiny", "System", "role", "not", "supported", "b"]
    assert [row["prompt_id"] for row in json.loads(rankloop("prompts", "--refused", "--json", "--search", "a").out)] == [1]
    assert rankloop("prompts", "--retry", "1").out == "1 refusals cleared: the models are asked again\n"
    assert rankloop("prompts", "--retry").out == "1 refusals cleared: the models are asked again\n"
    assert "no prompt was refused" in rankloop("prompts", "--refused").out
