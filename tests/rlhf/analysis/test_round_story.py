"""The story of a round: each state it can be in, and who decided what when."""

import pytest
from round_play import BASE, Rounds

from rlhf.analysis import round_story
from storage.core.database import StoreError
from storage.project import rounds, runs


@pytest.fixture
def play(store):
    return Rounds(store)


def states(play):
    return {found.run_id: state for found, state in round_story.states(play.store)}


def test_every_state_of_a_round(play):
    for run_id, status in (("running", None), ("lost", "lost")):
        runs.create(play.store, run_id, config={}, seed=1, versions={})
        rounds.create(play.store, run_id, trigger="hand", judges="people", baseline=play.base)
        if status:
            runs.finish(play.store, run_id, status)
    play.round("old", guards=None)
    first, second, third = (play.round(f"r{n}") for n in range(3))
    expected = {"running": "training", "lost": "ended", "old": "unchecked", "r0": "compared", "r1": "waiting", "r2": "waiting"}
    assert states(play) == expected and [*states(play)] == [*reversed(expected)], "newest first"
    rounds.decide(play.store, first.version, "promoted", decided_by="person", reason="Good.")
    assert states(play) == expected | {"r0": "current", "r1": "compared"}
    rounds.decide(play.store, second.version, "promoted", decided_by="person", reason="Better.")
    rounds.decide(play.store, third.version, "rejected", decided_by="person", reason="Worse.")
    assert states(play) == expected | {"r0": "replaced", "r1": "current", "r2": "rejected"}
    rounds.roll_back(play.store, BASE, reason="It swears.")
    assert states(play) == expected | {"r0": "current", "r1": "rolled back", "r2": "rejected"}


def test_the_story_of_an_open_round_says_where_it_stands(play):
    found = play.round("r1")
    play.deciding(found, "wwl-")
    told = round_story.of_round(play.store, found.id)
    assert (told.state, told.baseline, told.asked, told.decisions) == ("compared", "tiny", 4, [])
    assert (told.standing.assessment.units, told.standing.opponent) == (3, play.base)


def test_the_story_of_a_decided_round_names_who_decided(play):
    found = play.round("r1")
    rounds.decide(play.store, found.version, "rejected", decided_by="guards", reason="Empty.")
    rounds.decide(play.store, found.version, "promoted", decided_by="person", reason="No.", by=play.ann.id)
    rounds.roll_back(play.store, BASE, reason="Back.")
    told = round_story.of_round(play.store, found.id)
    assert told.standing is None and told.state == "rolled back"
    assert [(made.decision.act, made.version, made.before, made.who) for made in told.decisions] == [
        ("rejected", "v-r1", "tiny", None),
        ("promoted", "v-r1", "tiny", "Ann"),
        ("rolled back", "tiny", "v-r1", None),
    ]
    with pytest.raises(StoreError, match="no round 9"):
        round_story.of_round(play.store, 9)
