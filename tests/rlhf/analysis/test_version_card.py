"""What a version's card says, and which limits it names."""

from dataclasses import replace

import pytest
from round_play import BASE, Rounds

from rlhf.analysis import version_card
from rlhf.analysis.version_card import LIMITS, Outcome
from rlhf.config import RoundConfig
from rlhf.runs.results import Estimate, KLStop, LengthReport, RoundResult
from storage.content import policies
from storage.project import rounds, runs


@pytest.fixture
def tuned(store):
    """A version of a finished run that learned from 40 pairs, 30 of them simulated."""
    base = policies.ensure_base(store, "default", name="Small")
    runs.create(store, "r1", config=RoundConfig().to_dict(), seed=7, versions={"torch": "2.13.0"})
    runs.set_snapshot(store, "r1", {"pairs": 40, "train": 32, "heldout": 8, "simulated": 30, "sha256": "ab" * 32})
    result = RoundResult(
        win_rate=Estimate(0.6, 0.45, 0.74, 20), win_rate_by_reward_model=Estimate(0.8, 0.7, 0.9, 20), kl=2.5, rule="sentiment"
    )
    runs.finish(store, "r1", "done", result=result.to_json())
    return policies.register_tuned(store, name=f"{base.name}-r1", base_model="default", adapter_path="runs/r1/policy", run_id="r1")


def named(card):
    return [limit.key for limit in card.limits]


def test_a_tuned_version_has_its_runs_data_figures_and_limits(store, tuned):
    card = version_card.of_version(store, tuned)
    assert (card.base_name, card.base_id, card.licence) == ("SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
    assert card.data.train == 32 and card.result.kl == 2.5 and card.run.seed == 7
    assert named(card) == ["base", "sampled", "few_pairs", "simulated", "proxy", "not_better"]
    words = [limit.in_words() for limit in card.limits]
    assert "30 of 40 pairs come from simulated annotators" in words[3]
    assert words[5] == "No improvement is shown: the interval of “Win rate over the base under the rule” reaches down to 45%."


def test_a_result_that_the_row_does_not_have_yet_is_taken(store, tuned):
    found = RoundResult(win_rate=Estimate(0.8, 0.7, 0.9, 20), stopped_by_kl=KLStop(3, 9.25, 8.0), lengths=LengthReport(64, 2))
    card = version_card.of_version(store, tuned, result=found)
    assert named(card) == ["base", "sampled", "few_pairs", "simulated", "stopped", "left_out"]
    assert "at step 3, because the KL to the base reached 9.2 nats, over its budget of 8" in card.limits[4].in_words()


def test_a_base_and_a_model_from_elsewhere_have_no_run(store, tuned):
    base, external = policies.by_name(store, "Small"), policies.ensure_external(store, "gpt")
    assert named(version_card.of_version(store, base)) == ["base"] and version_card.of_version(store, base).run is None
    card = version_card.of_version(store, external)
    assert named(card) == ["external"] and card.licence == "unknown" and card.base_id is None


def test_a_row_that_cannot_be_read_is_named(store, tuned):
    store.connection.conn.execute("UPDATE runs SET config = '{' WHERE id = 'r1'")
    card = version_card.of_version(store, tuned)
    assert card.config is None and "config of this run cannot be read" in card.limits[-1].in_words()


def test_a_run_that_is_gone_leaves_the_rest(store, tuned):
    card = version_card.of_version(store, replace(tuned, run_id="gone"))
    assert card.run is None and named(card) == ["base"]


def test_every_limit_is_a_sentence():
    assert all(text.endswith((".", "{problem}")) for text in LIMITS.values())


def test_what_was_decided_about_a_version_is_told_with_who_and_why(store):
    play = Rounds(store)
    found = play.round("r1")

    def outcome(version=found.version):
        return version_card.of_version(store, version).outcome

    assert outcome() == Outcome("undecided") and outcome(play.base) is None
    rounds.decide(store, found.version, "rejected", decided_by="guards", reason="Empty answers.")
    assert (outcome().key, outcome().by, outcome().who, outcome().reason) == ("rejected", "guards", None, "Empty answers.")
    rounds.decide(store, found.version, "promoted", decided_by="person", reason="It is fine.", by=play.ann.id)
    assert (outcome().key, outcome().by, outcome().who, outcome().reason) == ("promoted", "person", "Ann", "It is fine.")
    second = play.round("r2").version
    rounds.decide(store, second, "promoted", decided_by="comparisons", reason="42 votes.")
    assert outcome().key == "promoted" and outcome(second).by == "comparisons"
    rounds.roll_back(store, BASE, reason="Too long.")
    assert [(outcome(v).key, outcome(v).reason) for v in (found.version, second)] == [
        ("current_again", "Too long."),
        ("taken_back", "Too long."),
    ]
