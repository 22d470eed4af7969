import json

import pytest

from storage.core.database import StoreError
from storage.exchange import kto, trl
from storage.judging import judgments, queue


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_row_for_each_strictly_ordered_pair(world, tmp_path):
    world.comparison(3, world.prompt("Warum? ß", "explain", "heldout"))
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=((2,), (1, 3)))
    path = tmp_path / "pairs.jsonl"
    assert trl.write(world.store, path).written == 2
    common = {
        "prompt": [{"role": "user", "content": "Warum? ß"}],
        "chosen": [{"role": "assistant", "content": "Answer 1"}],
        "chosen_model": "tiny",
        "rejected_model": "tiny",
        "annotator": world.ann.pseudonym,
        "annotator_kind": "human",
        "created_at": world.store.value("SELECT created_at FROM judgments"),
        "kind": "explain",
        "split": "heldout",
    }
    assert lines(path) == [
        common | {"rejected": [{"role": "assistant", "content": "Answer 0"}]},
        common | {"rejected": [{"role": "assistant", "content": "Answer 2"}]},
    ]
    assert "Ann" not in path.read_text(encoding="utf-8")
    assert trl.write(world.store, path, names=True).written == 2
    assert {row["annotator"] for row in lines(path)} == {"Ann"}


def test_skips_undone_and_simulated_ones_stay_out(world, tmp_path):
    one, *_ = world.comparisons(3)
    world.rank(world.ann)
    world.skip(world.ann)
    world.rank(world.ann)
    judgments.undo(world.store, world.ann.id)
    world.rule_ranks(one)
    path = tmp_path / "pairs.jsonl"
    assert trl.write(world.store, path).written == 1
    assert trl.write(world.store, path, include_simulated=True).written == 2
    assert [row["annotator_kind"] for row in lines(path)] == ["human", "simulated"]


def test_nothing_to_write_is_an_empty_file(world, tmp_path):
    assert trl.write(world.store, tmp_path / "pairs.jsonl").written == 0
    assert lines(tmp_path / "pairs.jsonl") == []


def test_a_failure_leaves_the_old_file_and_no_other(world, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "pairs.jsonl"
    path.write_text("old")
    world.comparisons(2)
    world.rank(world.ann)
    world.rank(world.ann)

    def fail_at_the_second(value, *, rows=[]):  # noqa: B006
        rows.append(value)
        if len(rows) == 2:
            raise OSError(28, "No space left on device")
        return '"{}"'

    monkeypatch.setattr(trl, "quoted", fail_at_the_second)
    with pytest.raises(StoreError, match="No space left on device"):
        trl.write(world.store, path)
    assert [item.name for item in folder.iterdir()] == ["pairs.jsonl"]
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_told(world, tmp_path):
    with pytest.raises(StoreError, match="cannot be written .*choose another folder"):
        trl.write(world.store, tmp_path / "nowhere" / "pairs.jsonl")


@pytest.mark.slow
def test_trl_itself_reads_pairs_and_single_answers(world, tmp_path, monkeypatch):
    """Its own helpers take the rows through the forms that its trainers want."""
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    from datasets import load_dataset
    from trl.data_utils import is_conversational, maybe_extract_prompt, maybe_unpair_preference_dataset

    def load(path):
        return load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))

    world.comparisons(1)
    world.rank(world.ann)
    explicit, implicit, single = (tmp_path / f"{name}.jsonl" for name in ("explicit", "implicit", "single"))
    trl.write(world.store, explicit)
    trl.write_implicit(world.store, implicit)
    kto.write(world.store, single)
    (row,) = load(explicit)
    assert is_conversational(row)
    extracted = maybe_extract_prompt(load(implicit)[0])
    assert [extracted[name] for name in ("prompt", "chosen", "rejected")] == [row[name] for name in ("prompt", "chosen", "rejected")]
    singles = load(single)
    assert all(is_conversational(one) for one in singles)
    # What TRL makes of the pair for KTO is what is written for it.
    unpaired = maybe_unpair_preference_dataset(load(explicit).select_columns(["prompt", "chosen", "rejected"]))
    fields = ("prompt", "completion", "label")
    assert [[one[name] for name in fields] for one in singles] == [[one[name] for name in fields] for one in unpaired]
