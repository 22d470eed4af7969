"""Finished rounds side by side: which are listed, and what a terminal shows."""

from dataclasses import replace

import pytest

from rlhf.analysis import run_table
from rlhf.cli import report
from rlhf.config import AdapterConfig, RoundConfig
from storage.core.records import Run


def share(value, low, high):
    return {"value": value, "low": low, "high": high, "cases": 40}


def a_round(run_id="r1", *, status="done", config=None, created="2026-11-02T10:00:00.000+00:00", **result):
    values = {
        "heldout_accuracy": share(0.71, 0.62, 0.79),
        "win_rate": share(0.64, 0.55, 0.72),
        "win_rate_by_reward_model": share(0.8, 0.7, 0.9),
        "kl": 2.851,
        "minutes": 23.34,
        "peak_memory_gib": 1.94,
    } | result
    return Run(
        run_id,
        status,
        (config or RoundConfig()).to_dict(),
        0,
        {},
        {"pairs": 320, "train": 272, "heldout": 48, "simulated": 300, "sha256": "3f2a91c0" * 8},
        None,
        1.0,
        None,
        False,
        None,
        None,
        created,
        created,
        created,
        None,
        values if status == "done" else None,
    )


def test_only_rounds_that_ended_well_are_compared():
    made = [a_round("r1"), a_round("r2", status="failed"), a_round("r3", status="running")]
    found, unreadable = run_table.finished(made)
    assert [one.id for one in found] == ["r1"] and unreadable == []
    assert (found[0].method, found[0].judgments, found[0].train, found[0].heldout, found[0].simulated) == ("ppo", "3f2a91c", 272, 48, 300)


def test_a_round_of_before_there_were_methods_was_ppo_on_lora():
    old = a_round()
    del old.config["method"]
    old.config["adapter"] = {"rank": 8, "alpha": 16, "top_layers": 10}
    (found,), _ = run_table.finished([old])
    assert (found.method, found.adapter) == ("ppo", AdapterConfig("lora", 8, 16, 10))


def test_a_round_that_cannot_be_read_is_named():
    other, broken = a_round("r2"), replace(a_round("r3"), problem="stage of this run cannot be read: the values are invalid.")
    other.config["ppo"]["banana"] = 1
    rounds, unreadable = run_table.finished([other, a_round("r1"), broken])
    assert [one.id for one in rounds] == ["r1"]
    assert unreadable == [
        ("r2", "PPOConfig has no banana: the run was made by another version"),
        ("r3", "stage of this run cannot be read: the values are invalid."),
    ]
    shown = report.comparison([other, a_round("r1"), broken]).splitlines()
    assert shown[2].startswith("r2 is not in the table, because its row cannot be read: PPOConfig has no banana")
    assert shown[3].startswith("r3 is not in the table")
    assert report.comparison([other]) == shown[2]


@pytest.mark.parametrize(
    "adapter, large",
    [
        (AdapterConfig("dora", rank=4, top_layers=10), {"rank": 4, "layers": 10}),
        (AdapterConfig("lora", rank=4), {"rank": 4}),
        (AdapterConfig("ia3", top_layers=10), {"layers": 10}),
        (AdapterConfig("prompt", top_layers=10, virtual_tokens=20), {"virtual_tokens": 20}),
    ],
)
def test_an_adapter_is_as_large_as_its_kind_says(adapter, large):
    assert run_table.size(adapter) == large


def test_a_terminal_shows_a_line_a_round():
    dpo = replace(RoundConfig(method="dpo"), adapter=AdapterConfig("ia3"))
    lines = report.comparison([a_round("r1"), a_round("r2", config=dpo, win_rate=None)]).splitlines()
    assert lines[0].split("  ")[0] == "run" and "held-out" not in lines[0] and "judgments" in lines[0]
    first = [cell for cell in lines[1].split("  ") if cell]
    assert [cell.strip() for cell in first] == [
        "r1",
        "ppo",
        "lora rank 16 layers 10",
        "272 teach · 48 measure (300 simulated)",
        "3f2a91c",
        "71% (62 to 79)",
        "64% (55 to 72)",
        "80% (70 to 90)",
        "2.85",
        "23.3",
        "1.9",
    ]
    second = [cell.strip() for cell in lines[2].split("  ") if cell.strip()]
    assert second[:3] == ["r2", "dpo", "ia3"] and second[6] == "-"
    assert report.comparison([a_round(status="failed")]) == ""
