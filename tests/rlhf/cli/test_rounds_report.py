"""What `rankloop rounds` and `rankloop round` print and do, in real stores."""

import pytest
from round_play import BASE, Rounds

import launch
from rlhf.cli import rounds_report
from rlhf.data import pairs
from rlhf.data.pairs import PreferencePair
from rlhf.runs import deciding
from storage.core.data_folder import DataFolder
from storage.core.records import ProjectSettings
from storage.project import rounds, runs, settings


@pytest.fixture
def play(store):
    return Rounds(store)


@pytest.fixture
def rankloop(capsys, store):
    def run(*arguments, status=0):
        assert launch.main([*arguments, "--data", str(store.path.parent)]) == status
        said = capsys.readouterr()
        return said.out if status == 0 else said.err

    return run


def test_without_rounds_the_list_says_what_to_do(rankloop):
    assert rankloop("rounds") == "no rounds yet: judge some comparisons, then `rankloop train`\n"


def test_the_list_has_a_line_for_each_round(play, rankloop):
    play.round("r1"), play.round("r2")
    play.deciding(rounds.all_rounds(play.store)[0], "wwl")
    lines = rankloop("rounds").splitlines()
    assert lines[0].split()[:3] == ["round", "run", "started"]
    assert [line.split()[:2] for line in lines[1:]] == [["2", "r2"], ["1", "r1"]]
    assert "waits for the round before it" in lines[1] and "being compared" in lines[2] and " 3 " in lines[2] and "67%" in lines[2]


def test_the_list_carries_out_what_is_due(play, rankloop):
    """A project without the web app running: the command line decides."""
    settings.change(play.store, ProjectSettings(deciding_annotators=1), by=None)
    play.deciding(play.round("r1"), "wwwwwwwl" * 6)
    line = rankloop("rounds").splitlines()[1]
    assert "current policy" in line and "comparisons" in line and play.current() == "v-r1"


def test_the_story_of_a_round_has_everything_from_its_votes_to_its_decisions(play, rankloop):
    found = play.round("r1")
    runs.set_snapshot(play.store, "r1", {"pairs": 12, "train": 10, "heldout": 2, "simulated": 3, "sha256": "abc123"})
    play.deciding(found, "wwl-")
    told = rankloop("round", "show", "1")
    for part in ("1: being compared", "10 teach · 2 measure; 3 of them from simulated annotators, snapshot abc123", "tiny", "v-r1",
                 "people", "3 judged of 4 asked, with tiny, by 1 annotators", "20 decides",
                 "more comparisons are likely needed"):  # fmt: skip
        assert part in told or (part.startswith("more") and "more comparisons are needed" in told), part
    rankloop("round", "reject", "1", "--reason", "It rambles.")
    assert "rejected v-r1, by the command line, " in rankloop("round", "show", "1") and "It rambles." in rankloop("round", "show", "1")


def test_a_person_decides_with_a_reason_that_is_kept(play, rankloop):
    play.round("r1")
    assert rankloop("round", "promote", "1", "--reason", "It is kinder.") == "the current policy is v-r1\n"
    assert rankloop("round", "rollback", "--reason", "It swears.", "--model", BASE) == "the current policy is tiny\n"
    assert rankloop("round", "rollback", "--reason", "It did not.", "--model", BASE, "--to", "v-r1") == "the current policy is v-r1\n"
    assert [made.reason for made in rounds.decisions(play.store)] == ["It is kinder.", "It swears.", "It did not."]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["show", "7"], "no round 7"),
        (["promote", "1", "--reason", " "], "A decision needs a reason"),
        (["promote", "2", "--reason", "x"], "round 2 has made no policy version"),
        (["rollback", "--reason", "x", "--model", BASE], "nothing to roll back"),
        (["rollback", "--reason", "x", "--to", "v9"], "no policy version v9"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(play, rankloop, arguments, why):
    play.round("r1")
    runs.create(play.store, "r2", config={}, seed=1, versions={})
    rounds.create(play.store, "r2", trigger="hand", judges="people", baseline=play.base)
    assert why in rankloop("round", *arguments, status=2)
    assert rounds.decisions(play.store) == []


def test_a_reason_is_required(play, rankloop, capsys):
    for arguments in (["promote", "1"], ["reject", "1"], ["rollback"]):
        with pytest.raises(SystemExit):
            launch.main(["round", *arguments])
        assert "--reason" in capsys.readouterr().err


def test_from_a_judgment_one_reaches_the_versions_it_went_into(play, rankloop):
    found = play.round("r1")
    play.deciding(found, "w")
    frozen = [PreferencePair(({"role": "user", "content": "Q"},), "a", "b", 1.0, "train", "human", 1)]
    pairs.write_snapshot(frozen, DataFolder(play.store.path.parent).run("r1"))
    assert rankloop("rounds", "--judgment", "1") == "no round learned from judgment 1\n", "the run's row names no snapshot"
    runs.set_snapshot(play.store, "r1", pairs.manifest(frozen).to_json())
    assert rankloop("rounds", "--judgment", "1") == "round 1, run r1, policy version v-r1\n"
    (DataFolder(play.store.path.parent).run("r1") / pairs.PAIRS_FILE).unlink()
    assert "not known of r1" in rankloop("rounds", "--judgment", "1")
    assert "There is no judgment 5" in rankloop("rounds", "--judgment", "5", status=2)


@pytest.mark.parametrize(
    ("votes", "project", "sentence"),
    [
        ("", ProjectSettings(), "undecided: at most 200 more comparisons are needed"),
        ("wwwwwwwl" * 6, ProjectSettings(), "promote, once 2 annotators have judged: so far 1 (setting deciding_annotators)"),
        (
            "wwwwwwwl" * 6,
            ProjectSettings(deciding_annotators=1),
            "promote: it is carried out at once where rankloop runs, and by `rankloop rounds`",
        ),
        ("lllllllw" * 6, ProjectSettings(), "reject, once 2 annotators have judged: so far 1 (setting deciding_annotators)"),
    ],
)
def test_the_verdict_says_what_is_missing(play, votes, project, sentence):
    settings.change(play.store, project, by=None)
    found = play.round("r1")
    play.deciding(found, votes)
    assert rounds_report.verdict(deciding.standing(play.store, found)) == sentence


def test_a_rate_that_is_not_there_is_a_dash():
    assert (
        rounds_report.rate({})
        == rounds_report.rate({"win_rate": None, "low": 0, "high": 1})
        == rounds_report.rate({"win_rate": "x"})
        == "-"
    )
    assert rounds_report.rate({"win_rate": 0.64, "low": 0.52, "high": 0.75}) == "64% (52% to 75%)"
