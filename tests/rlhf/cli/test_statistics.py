"""`rankloop agreement` and `rankloop leaderboard`, as somebody at a terminal meets them."""

import json

import pytest

import launch
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import now
from storage.core.records import Sampling
from storage.judging import exclusions
from storage.people import annotators


@pytest.fixture
def data(store):
    return str(store.path.parent)


def votes(store, *rows):
    """`votes(store, ("tuned", "base", "Ann:1 Bob:0 Cat:="))`: a comparison each; Ann prefers the first, Bob the second, Cat neither."""
    for number, (first, second, output) in enumerate(rows):
        asked = prompts.NewPrompt(({"role": "user", "content": f"Q{number}?"},), kind="k", split="train")
        prompts.add(store, [asked], source="t")
        prompt_id = store.value("SELECT max(id) FROM prompts")
        ids = [
            completions.add(
                store, prompt_id=prompt_id, policy_version_id=_version(store, name), text=name, sampling=Sampling(), seed=0,
                finish_reason="stop", latency_s=0.1,
            )
            for name in (first, second)
        ]  # fmt: skip
        comparison_id = comparisons.add(store, prompt_id, ids, purpose="versus")
        for who, says in (each.split(":") for each in output.split()):
            person = annotators.ensure(store, who, *(("simulated", "concise") if who == "rule" else ()))
            shown = {"comparison_id": comparison_id, "annotator_id": person.id, "slots": ids, "created_at": now()}
            tiers = {"1": [[ids[0]], [ids[1]]], "0": [[ids[1]], [ids[0]]], "=": [ids]}[says]
            store.insert("judgments", {
                "comparison_id": comparison_id, "presentation_id": store.insert("presentations", shown), "annotator_id": person.id,
                "verdict": "rank", "tiers": tiers, "created_at": now(), "active_ms": 12_300,
            })  # fmt: skip


def _version(store, name):
    return (policies.ensure_base if name == "base" else policies.ensure_external)(store, name).id


def run(capsys, *arguments):
    assert launch.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_agreement_as_json(capsys, data, store):
    """The pairs of `test_alpha_by_hand`, and a simulated vote that stays outside."""
    votes(store, ("tuned", "base", "Ann:1 Bob:1"), ("tuned", "base", "Ann:0 Bob:0 rule:1"), ("tuned", "base", "Ann:1 Bob:0"))
    result = json.loads(run(capsys, "agreement", "--json", "--data", data))
    assert result["alpha_nominal"]["value"] == pytest.approx(1 - 2 / 3.6)
    assert set(result["alpha_ordinal"]) == {"value", "low", "high", "reason"}
    assert (result["comparisons"], result["units"], result["judgments"]) == (3, 3, 6)
    assert (result["unanimous"]["count"], result["unanimous"]["of"]) == (2, 3) and result["unanimous"]["share"] == pytest.approx(2 / 3)
    # The first completion stood left each time and won three of six: no sign of a side at all.
    assert (result["left_share"]["share"], result["left_share"]["n"], result["left_share"]["p_value"]) == (0.5, 6, 1.0)
    assert [(a["name"], a["judgments"], a["median_active_s"], a["left_share"]["n"]) for a in result["annotators"]] == [
        ("Ann", 3, pytest.approx(12.3), 3), ("Bob", 3, pytest.approx(12.3), 3),
    ]  # fmt: skip
    with_rule = json.loads(run(capsys, "agreement", "--json", "--include-simulated", "--data", data))
    assert (with_rule["judgments"], [a["kind"] for a in with_rule["annotators"]]) == (7, ["human", "human", "simulated"])


def test_agreement_as_text(capsys, data, store):
    votes(store, *[("tuned", "base", f"Ann:{i % 2} Bob:{int(i % 4 < 2)}") for i in range(12)])
    exclusions.exclude(store, [1], rule="other", reason="Asleep.", by=None)
    output = run(capsys, "agreement", "--data", data)
    lines = [line.split() for line in output.splitlines()]
    assert ["votes", "23", "on", "12", "comparisons"] in lines
    assert ["pairs", "judged", "by", "two", "annotators", "or", "more", "11"] in lines
    assert any(line[:3] == ["Krippendorff's", "alpha,", "ordinal"] and "to" in line for line in lines)
    assert ["annotator", "votes", "excluded", "median", "left", "share", "p", "agreement"] in lines
    assert any(line[:5] == ["Ann", "11", "1", "12.3", "s"] for line in lines)
    assert "--include-simulated" in output and "docs/research/statistics.md" in output


def test_leaderboard_as_json(capsys, data, store):
    votes(store, *[("tuned", "base", f"Ann:{int(i % 3 > 0)}") for i in range(30)], ("tuned", "base", "rule:0"))
    result = json.loads(run(capsys, "leaderboard", "--json", "--data", data))
    tuned, base = result["policies"]
    # Twenty of thirty: odds of two to one, 120.4 points.
    assert (tuned["name"], tuned["rank"], tuned["votes"], tuned["wins"], tuned["ties"], tuned["losses"]) == ("tuned", 1, 30, 20, 0, 10)
    assert tuned["score"]["value"] == pytest.approx(1120.4, abs=0.1) and tuned["score"]["low"] < 1120 < tuned["score"]["high"]
    assert tuned["over_base"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert (base["score"]["value"], base["over_base"]) == (1000.0, None)
    assert result["connected"] and result["groups"] == [{"reference": "base", "policies": ["tuned", "base"]}]
    assert result["matrix"] == {
        "policies": ["tuned", "base"],
        "win_share": [[None, pytest.approx(2 / 3)], [pytest.approx(1 / 3), None]],
        "pairs": [[0, 30], [30, 0]],
    }
    assert json.loads(run(capsys, "leaderboard", "--json", "--include-simulated", "--data", data))["judgments"] == 31


def test_leaderboard_as_text(capsys, data, store):
    votes(store, *[("tuned", "base", "Ann:1")] * 2, *[("x", "y", "Ann:1"), ("x", "y", "Ann:0")])
    output = run(capsys, "leaderboard", "--data", data)
    lines = [line.split() for line in output.splitlines()]
    assert "2 groups without a pair between them: scores of different groups cannot be compared" in output
    assert any(line[:2] == ["1", "tuned"] for line in lines) and ["2", "base", "1000", "2", "0", "0", "2"] in lines
    assert "half a win each way" in output and "Too few prompts for intervals." in output
    assert ["1", "tuned", "100.0%", "(2)"] in lines


def test_leaderboard_without_length_and_markup(capsys, data, store):
    """The answer is the version's name. `tuned` is always the longer one, so that its strength and its length cannot be told apart."""
    votes(store, *[("tuned", "base", f"Ann:{int(i % 3 > 0)}") for i in range(30)])
    output = run(capsys, "leaderboard", "--control-style", "--data", data)
    lines = [line.split() for line in output.splitlines()]
    assert "Length and markup are taken out of the scores." in output
    # With a prior of standard deviation 2, the interval reaches from 1 / (1 + e^3.92) up.
    assert ["an", "answer", "twice", "as", "long", "50.0%", "(1.9", "to", "98.1)", "30"] in lines
    assert any(line[:4] == ["an", "answer", "with", "headers"] and line[-1] == "none" for line in lines)
    result = json.loads(run(capsys, "leaderboard", "--control-style", "--json", "--data", data))
    assert [effect["name"] for effect in result["style"]] == ["length", "headers", "lists", "bold"]
    score = result["policies"][0]["score"]
    assert score["value"] == pytest.approx(1120.4, abs=0.1) and score["low"] < 960 and score["high"] > 1280
    assert json.loads(run(capsys, "leaderboard", "--json", "--data", data))["style"] is None


def test_columns_are_aligned_in_any_script(capsys, data, store):
    votes(store, ("tuned", "base", "김서연:1 Ann:1"))
    ann, korean = (line for line in run(capsys, "agreement", "--data", data).splitlines() if line.startswith(("Ann", "김")))
    # Three letters that take two places each.
    assert ann.index("12.3 s") == korean.index("12.3 s") + 3


@pytest.mark.parametrize("verb", ["agreement", "leaderboard"])
def test_without_votes_each_says_what_to_do(capsys, data, verb):
    output = run(capsys, verb, "--data", data)
    assert "yet: judge" in output and "--include-simulated" in output
    assert "yet: judge" in run(capsys, verb, "--include-simulated", "--data", data)
    assert json.loads(run(capsys, verb, "--json", "--data", data))["judgments"] == 0


@pytest.mark.parametrize("verb", ["agreement", "leaderboard"])
def test_help_says_what_the_options_do(capsys, verb):
    with pytest.raises(SystemExit):
        launch.main([verb, "--help"])
    output = capsys.readouterr().out
    assert "machine-readable" in output and "simulated annotators" in output
