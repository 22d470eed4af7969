"""Ranks that train one run together: each call by itself, and two processes beside one."""

import pytest
import torch
from ranks import together, trained

from rlhf.models.ranks import Ranks, RanksError, join


def test_shares_follow_each_other_and_differ_by_one_row_at_most():
    rows = list(range(7))
    assert [rows[Ranks(rank, 3).share(7)] for rank in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [rows[:1][Ranks(rank, 2).share(1)] for rank in range(2)] == [[], [0]]
    assert rows[Ranks().share(7)] == rows


def test_a_single_process_sends_nothing_and_gets_back_the_same_objects(tmp_path):
    alone, x = Ranks(), torch.ones(2, 3)
    assert alone.alone and alone.sum(x) is alone.gather(x) is alone.gather_padded(x, left=True) is x
    assert (alone.total(3), alone.mean({"a": 0.5})) == (3, {"a": 0.5})
    alone.sum_gradients([torch.nn.Parameter(x)])
    alone.tell("fit", lambda: pytest.fail("made for nobody"), {"reward": tmp_path / "missing"})


def test_without_a_launcher_a_process_is_alone_and_more_processes_than_gpus_are_refused(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join("cpu") == Ranks()
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RanksError, match="3 processes on this machine, which has 2 GPUs: set --processes to at most that many"):
        join("auto")


@pytest.mark.slow
def test_two_processes_learn_as_one_does_from_the_same_batches(tiny_folder, tmp_path):
    """PPO, the reward model's fit and DPO over gloo.

    The bound is 2e-4 of each value, or 1e-5. It is not 0: a product of a matrix with half as many rows is computed in other blocks, and
    sums of two shares are added in another order, so that the last bits of float32 differ and the next updates start from that.
    """
    alone = trained(Ranks(), tiny_folder, tmp_path / "alone")
    first, second = together(tiny_folder, tmp_path)
    for rank, found in enumerate((first, second)):
        calls = found.pop("calls")
        assert calls["place"] == [rank, 2]
        assert calls["gathered"] == calls["halves"] == [10, 11, 20, 21, 22]
        assert calls["bools"] == [False, False, False, True, True]
        assert calls["right"] == [[10, 11, 0], [20, 21, 22]] and calls["left"] == [[0, 10, 11], [20, 21, 22]]
        assert calls["none of mine"] == [20] and calls["sum"] == [30, 32] and calls["total"] == 2.0
        assert calls["mean"] == {"a": 1.5, "b": 4.0} and calls["gradient"] == [2.0, 10.0, None]
        if rank:
            assert calls["task"] == ["fit", {"text": "ä", "list": [1, None]}, None, "end"]
            assert calls["files"] == {"weights": list(range(256)) * 40, "empty": []}
    assert first == second, "all ranks know the same metrics and have the same weights"
    assert alone.keys() == first.keys()
    for name, metrics in alone.items():
        assert len(first[name]) == len(metrics)
        for step, (one, two) in enumerate(zip(metrics, first[name], strict=True)):
            # While the value head alone learns, the KL is 0 but for rounding, and its root is what is left of that.
            one.pop("objective/sqrt_kl", None), two.pop("objective/sqrt_kl", None)
            assert two == pytest.approx(one, rel=2e-4, abs=1e-5), f"{name}, step {step}"
