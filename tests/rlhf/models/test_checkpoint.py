"""A folder is replaced whole, and an optimiser goes on as if nothing had been."""

import pytest
import torch

from rlhf.models.checkpoint import STATE_FILE, latest_checkpoint, load_optimizer, replace_folder, save_optimizer


def fill(folder, text):
    (folder / STATE_FILE).write_text(text)


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "checkpoint"
    assert latest_checkpoint(folder) is None
    for text in ("first", "second"):
        with replace_folder(folder) as part:
            assert list(part.iterdir()) == []
            fill(part, text)
        assert (latest_checkpoint(folder) / STATE_FILE).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_was_cut_short_leaves_the_old_one(tmp_path):
    folder = tmp_path / "checkpoint"
    with replace_folder(folder) as part:
        fill(part, "first")
    with pytest.raises(KeyboardInterrupt), replace_folder(folder) as part:
        fill(part, "second")
        raise KeyboardInterrupt
    assert (latest_checkpoint(folder) / STATE_FILE).read_text() == "first"


def test_between_two_names_the_old_one_is_the_latest(tmp_path):
    old = tmp_path / "checkpoint.old"
    old.mkdir()
    fill(old, "first")
    assert latest_checkpoint(tmp_path / "checkpoint") == old
    (tmp_path / "checkpoint").mkdir()
    assert latest_checkpoint(tmp_path / "checkpoint") == old, "a folder without its last file is not complete"


def test_an_optimiser_goes_on_bit_for_bit(tmp_path):
    def made():
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        return weight, torch.optim.AdamW([weight], lr=0.1)

    def step(weight, optimizer, gradient):
        weight.grad = torch.tensor(gradient)
        optimizer.step()

    one, first = made()
    step(one, first, [0.5, 1.0])
    save_optimizer(first, tmp_path / "optimizer.safetensors")
    other, second = made()
    other.data.copy_(one.data)
    load_optimizer(second, tmp_path / "optimizer.safetensors")
    step(one, first, [-1.0, 3.0])
    step(other, second, [-1.0, 3.0])
    assert torch.equal(one, other)
    _, fresh = made()
    assert fresh.state_dict()["state"] == {}
