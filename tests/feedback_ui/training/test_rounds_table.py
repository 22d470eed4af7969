"""Finished rounds as the Training page shows them, in both languages."""

from dataclasses import replace

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import rounds_table, run_view
from rlhf.config import AdapterConfig, RoundConfig
from storage.core.records import Run

EN, KO = Translator("en"), Translator("ko")


def a_round(run_id="r1", config=None, *, status="done", created="2026-11-02T10:00:00.000+00:00", simulated=0, stage=None, **result):
    share = {"value": 0.71, "low": 0.62, "high": 0.79, "cases": 40}
    values = {"heldout_accuracy": share, "win_rate_by_reward_model": share, "kl": 2.851, "minutes": 23.3, "peak_memory_gib": 1.94} | result
    return Run(
        run_id,
        status,
        (config or RoundConfig()).to_dict(),
        0,
        {},
        {"pairs": 1320, "train": 1120, "heldout": 200, "simulated": simulated, "sha256": "3f2a91c0" * 8},
        stage,
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


def cells(html):
    body = html.split("<tbody>")[1].split("</tbody>")[0]
    return [[cell.split("</div>")[0] for cell in row.split("<div>")[1:]] for row in body.split("<tr>")[1:]]


def test_a_name_stands_above_the_run_s_id():
    (row,) = cells(rounds_table.section(EN, [replace(a_round(), name="Lower <KL>")]))
    assert row[0] == '<span class="rl-run-title">Lower &lt;KL&gt;</span><br><span class="rl-muted">r1</span>'


def test_nothing_is_shown_before_a_round_has_finished():
    assert rounds_table.section(EN, []) == ""
    assert rounds_table.section(EN, [a_round(status="running"), a_round(status="failed")]) == ""


def test_a_row_shows_the_data_and_the_results_of_a_round():
    (row,) = cells(rounds_table.section(EN, [a_round(simulated=1000)]))
    small = '<br><span class="rl-muted">'
    assert row == [
        "r1",
        "PPO",
        f"LoRA{small}rank 16, top 10 layers</span>",
        f"1,120 teach · 200 measure{small}1,000 simulated</span>",
        "<code>3f2a91c</code>",
        f"71%{small}62% to 79%</span>",
        "",
        f"71%{small}62% to 79%</span>",
        "2.85 nats",
        "23 min",
        "1.9 GiB",
    ]


def test_the_newest_round_stands_first_and_every_method_and_kind_has_its_name():
    configs = [
        RoundConfig(method="dpo", adapter=AdapterConfig("ia3", top_layers=1)),
        RoundConfig(method="grpo", adapter=AdapterConfig("prompt")),
        RoundConfig(method="rloo", adapter=AdapterConfig("rslora")),
        RoundConfig(method="sft", adapter=AdapterConfig("dora")),
        RoundConfig(adapter=AdapterConfig("peanut")),
    ]
    made = [a_round(f"r{i}", config, created=f"2026-11-0{i + 1}T10:00:00.000+00:00") for i, config in enumerate(configs)][::-1]
    rows = cells(rounds_table.section(EN, made))
    assert [row[:2] for row in rows] == [["r4", "PPO"], ["r3", "SFT"], ["r2", "RLOO"], ["r1", "GRPO"], ["r0", "DPO"]]
    assert [row[2].split("<")[0] for row in rows] == ["PEANuT", "DoRA", "rsLoRA", "Learned prompt", "(IA)³"]
    assert "16 vectors" in rows[3][2] and "top 1 layer<" in rows[4][2]
    korean = cells(rounds_table.section(KO, made))
    assert korean[3][2].startswith("학습된 프롬프트") and "상위 1개 층" in korean[4][2]


def test_a_round_that_cannot_be_read_is_named_under_the_table():
    other = a_round("r<2>")
    other.config["banana"] = 1
    for shown in (rounds_table.section(EN, [a_round(), other]), rounds_table.section(EN, [other])):
        assert "r&lt;2&gt; is not in this table, because its row cannot be read: RoundConfig has no banana" in shown
    assert "<table" not in shown
    assert "RoundConfig has no banana" in rounds_table.section(KO, [other])


def test_a_row_escapes_its_values():
    assert "<b>" not in rounds_table.section(EN, [a_round("<b>")])


def test_a_run_whose_options_cannot_be_read_is_named_and_not_resumed():
    good, bad = a_round(status="failed"), a_round(status="failed")
    bad.config["ppo"]["banana"] = 1
    assert run_view.is_resumable(good) and not run_view.is_resumable(bad)
    assert "PPOConfig has no banana" in run_view.progress(EN, bad) and "banana" not in run_view.progress(EN, good)


def test_the_stage_that_trains_the_policy_has_the_name_of_the_method():
    run = a_round(config=RoundConfig(method="grpo"), status="running", stage="grpo")
    html = run_view.steps(EN, run)
    assert 'data-stage="grpo" aria-current="step">GRPO<' in html and "PPO" not in html
    assert html.count("rl-done") == 2


def test_what_became_of_each_version_is_the_last_column():
    rows = cells(rounds_table.section(EN, [a_round(), a_round()], {"r1": "rolled back"}))
    assert [row[-1] for row in rows] == ["promoted, rolled back since"] * 2
    (row,) = cells(rounds_table.section(EN, [a_round()], {"another": "current"}))
    assert row[-1] == ""
