"""The leaderboard: closed forms, the library's own figures, and what must not change when names do."""

import math
import random

import evalica
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.analysis import leaderboard as module
from rlhf.analysis.leaderboard import chance, is_finite, leaderboard, smooth, strengths
from rlhf.analysis.style import longer_share
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database, now
from storage.core.records import Sampling
from storage.judging import exclusions
from storage.people import annotators
from storage.project import runs


class Arena:
    """Policy versions that meet, with verbs."""

    def __init__(self, store, base="base"):
        self.store = store
        self.versions = {base: policies.ensure_base(store, base)} if base else {}
        self.asked = 0

    def version(self, name):
        if name not in self.versions:
            self.versions[name] = policies.ensure_external(self.store, name)
        return self.versions[name]

    def meet(self, tiers, times=1, *, who="Ann", prompt=None, lengths=(0, 0)):
        """`meet("x y", 3)`: three votes, each on a prompt of its own, say that x's answer is better than y's; `"xy"` is a tie.

        One letter a version, `b` is the base. `lengths` fills the answers, in the order of their letters, up to so many characters.
        """
        for _ in range(times):
            prompt_id = prompt or self.prompt()
            letters = sorted(tiers.replace(" ", ""))
            ids = {}
            for n, letter in enumerate(letters):
                text = f"{letter}{n}".ljust(lengths[n] if n < len(lengths) else 0, ".")
                ids.setdefault(letter, []).append(completions.add(
                    self.store, prompt_id=prompt_id, policy_version_id=self.version("base" if letter == "b" else letter).id,
                    text=text, sampling=Sampling(), seed=0, finish_reason="stop", latency_s=0.1,
                ))  # fmt: skip
            comparison_id = comparisons.add(self.store, prompt_id, [i for each in ids.values() for i in each], purpose="versus")
            person = annotators.ensure(self.store, who, *(("simulated", "length") if who == "rule" else ()))
            said = [[ids[letter].pop() for letter in tier] for tier in tiers.split()]
            self.store.insert(
                "judgments",
                {"comparison_id": comparison_id, "annotator_id": person.id, "verdict": "rank", "tiers": said, "created_at": now()},
            )

    def prompt(self):
        self.asked += 1
        asked = prompts.NewPrompt(({"role": "user", "content": f"Question {self.asked}?"},), kind="k", split="train")
        prompts.add(self.store, [asked], source="t")
        return self.store.value("SELECT max(id) FROM prompts")

    def standing(self, name, **options):
        return next(s for s in leaderboard(self.store, **options).standings if s.name == name)


@pytest.fixture(autouse=True)
def fewer_replicates(monkeypatch):
    monkeypatch.setattr(module, "REPLICATES", 200)


@pytest.fixture
def arena(store):
    return Arena(store)


def counts(*results):
    """`counts((0, 1, 6, 2, 3))`: 0 beat 1 six times, lost twice and tied three times."""
    number = 1 + max(max(i, j) for i, j, *_ in results)
    result = np.zeros((number, number, 3))
    for i, j, won, lost, tied in results:
        result[i, j] += (won, lost, tied)
        result[j, i] += (lost, won, tied)
    return result


# ---- strengths


def test_two_versions_without_ties_have_the_odds_of_their_wins():
    first, second = strengths(counts((0, 1, 60, 40, 0)), "bradley_terry")
    assert first - second == pytest.approx(math.log(60 / 40), abs=1e-5)


def test_two_versions_with_ties_have_the_odds_of_their_wins():
    """Davidson's model of two has as many parameters as outcomes: the fitted odds are those seen."""
    first, second = strengths(counts((0, 1, 60, 30, 10)), "newman")
    assert first - second == pytest.approx(math.log(2), abs=1e-5)


def test_a_tie_as_half_a_win_each_way():
    first, second = strengths(counts((0, 1, 60, 30, 10)), "bradley_terry")
    assert first - second == pytest.approx(math.log(65 / 35), abs=1e-5)


def test_three_versions_are_as_strong_as_the_library_says():
    result = counts((0, 1, 8, 3, 4), (1, 2, 5, 6, 2), (0, 2, 9, 4, 1))
    W = evalica.Winner
    library = evalica.newman(
        [0, 0, 0, 1, 1, 1, 0, 0, 0], [1, 1, 1, 2, 2, 2, 2, 2, 2], [W.X, W.Y, W.Draw] * 3,
        weights=[8.0, 3, 4, 5, 6, 2, 9, 4, 1], tolerance=1e-10, limit=10_000,
    ).scores  # fmt: skip
    logs = np.log([library[0], library[1], library[2]])
    assert strengths(result, "newman") == pytest.approx(logs - logs.mean(), abs=1e-4)


def test_an_oscillating_newman_iteration_is_not_used():
    """Two versions without a tie: the library comes back with equal strengths after every step it was given."""
    W = evalica.Winner
    assert evalica.newman([0, 0], [1, 1], [W.X, W.Y], weights=[60.0, 40.0], limit=1000).scores[0] == pytest.approx(1.0)
    # One tie in ten thousand pairs swings as well, for longer than anybody waits.
    for result in (counts((0, 1, 60, 40, 0)), counts((0, 1, 6000, 4000, 1))):
        first, second = strengths(result, "newman")
        assert first - second == pytest.approx(math.log(1.5), abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=3, max_size=3), st.permutations(range(3)))
def test_other_names_permute_the_strengths(results, order):
    result = counts(*[(i, j, *each) for (i, j), each in zip(((0, 1), (0, 2), (1, 2)), results, strict=True)])
    there = strengths(result[np.ix_(order, order)], "newman")
    assert there == pytest.approx(strengths(result, "newman")[list(order)], abs=1e-3)


def test_strengths_are_finite_only_if_no_set_of_versions_always_won():
    assert is_finite(counts((0, 1, 3, 1, 0), (1, 2, 3, 1, 0)), "newman")
    assert not is_finite(counts((0, 1, 3, 0, 0)), "newman")
    # In Davidson's model a tie does not hold a version back that never lost; as half a win it does.
    assert not is_finite(counts((0, 1, 3, 0, 2)), "newman")
    assert is_finite(counts((0, 1, 3, 0, 2)), "bradley_terry")


def test_half_a_win_each_way_is_added_for_compared_versions():
    result = counts((0, 1, 5, 0, 0), (1, 2, 0, 0, 0))
    assert smooth(result, result.sum(axis=-1) > 0)[0, 1].tolist() == [5.5, 0.5, 0.0]
    assert smooth(result, result.sum(axis=-1) > 0)[1, 2].tolist() == [0.0, 0.0, 0.0]


# ---- the board


def test_scores_are_elo_points_over_the_base(arena):
    arena.meet("x b", 20)
    arena.meet("b x", 10)
    result = arena.standing("x")
    assert result.score.value == pytest.approx(1000 + 400 * math.log10(2), abs=0.01)
    assert result.over_base.value == pytest.approx(2 / 3, abs=1e-5)
    assert (result.rank, result.votes, result.wins, result.ties, result.losses) == (1, 30, 20, 0, 10)
    base = arena.standing("base")
    assert (base.score.value, base.over_base, base.rank) == (1000.0, None, 2)
    board = leaderboard(arena.store)
    assert (board.references, board.connected, board.smoothed, board.method) == (("base",), True, False, "bradley_terry")


def test_the_interval_holds_the_score_and_narrows_with_votes(arena):
    arena.meet("x b", 20)
    arena.meet("b x", 10)
    arena.meet("xb", 4)
    wide = arena.standing("x").score
    assert wide.low < wide.value < wide.high
    # By the delta method: the standard error of the log odds is sqrt(1/20 + 1/10), so 1.96 * 67 points to each side.
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * 400 / math.log(10) * math.sqrt(0.15), rel=0.2)
    arena.meet("x b", 60)
    arena.meet("b x", 30)
    narrow = arena.standing("x").score
    assert narrow.high - narrow.low < 0.7 * (wide.high - wide.low)


def test_the_interval_resamples_prompts_and_not_votes(arena, tmp_path):
    """The same votes, ten to a prompt and all of one mind there: much less is known."""
    store = Database(tmp_path / "clustered.db")
    clustered = Arena(store)
    for n in range(12):
        prompt = clustered.prompt()
        clustered.meet("x b" if n % 3 else "b x", 4, prompt=prompt)
    arena.meet("x b", 32)
    arena.meet("b x", 16)
    together, apart = clustered.standing("x").score, arena.standing("x").score
    assert together.value == pytest.approx(apart.value, abs=0.01)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    store.close()


def test_too_few_prompts_give_no_interval(arena):
    arena.meet("x b", 5)
    arena.meet("b x", 4)
    result = arena.standing("x")
    assert (result.score.low, result.score.high, result.over_base.low) == (None, None, None)


def test_a_ranking_of_three_gives_three_pairs_and_one_vote(arena):
    arena.meet("x yb", 1)
    board = leaderboard(arena.store)
    assert (board.judgments, board.pairs, board.prompts) == (1, 3, 1)
    assert [(s.name, s.votes, s.wins, s.ties, s.losses) for s in sorted(board.standings, key=lambda s: s.name)] == [
        ("base", 1, 0, 1, 1), ("x", 1, 2, 0, 0), ("y", 1, 0, 1, 1),
    ]  # fmt: skip


def test_an_unranked_completion_is_compared_with_none(arena):
    arena.meet("x b")
    row = arena.store.row("SELECT * FROM judgments")
    shown = [r[0] for r in arena.store.rows("SELECT completion_id FROM comparison_completions ORDER BY position")]
    arena.store.insert("judgments", {k: row[k] for k in ("comparison_id", "verdict", "created_at")} | {
        "annotator_id": annotators.ensure(arena.store, "Bob").id, "tiers": [[shown[0]]], "partial": 1,
    })  # fmt: skip
    assert leaderboard(arena.store).pairs == 1


def test_a_version_against_itself_is_left_out(arena):
    arena.meet("x x", 5)
    arena.meet("y xx", 1)
    board = leaderboard(arena.store)
    assert (board.judgments, board.pairs) == (1, 2)
    assert {s.name: s.votes for s in board.standings} == {"x": 1, "y": 1}


def test_the_win_matrix_counts_a_tie_as_half(arena):
    arena.meet("x b", 5)
    arena.meet("b x", 2)
    arena.meet("xb", 1)
    board = leaderboard(arena.store)
    # Row over column, the base first or last by its score: x has 5 + half of 1 of 8.
    at = {s.name: i for i, s in enumerate(board.standings)}
    assert board.shares[at["x"]][at["base"]] == pytest.approx(5.5 / 8)
    assert board.shares[at["base"]][at["x"]] == pytest.approx(2.5 / 8)
    assert board.shares[at["x"]][at["x"]] is None
    assert board.met[at["x"]][at["base"]] == 8


def test_groups_that_never_met_are_kept_apart(arena):
    arena.meet("x b", 12)
    arena.meet("b x", 6)
    arena.meet("p q", 9)
    arena.meet("q p", 3)
    board = leaderboard(arena.store)
    assert not board.connected and board.references == ("base", None)
    assert [(s.name, s.group, s.rank) for s in board.standings] == [("x", 0, 1), ("base", 0, 2), ("p", 1, 1), ("q", 1, 2)]
    p, q = (s.score.value for s in board.standings[2:])
    assert (p + q) / 2 == pytest.approx(1000, abs=0.01) and p - q == pytest.approx(400 * math.log10(3), abs=0.01)
    assert board.standings[2].over_base is None
    assert board.shares[0][2] is None and board.met[0][2] == 0
    assert [group["policies"] for group in board.to_dict()["groups"]] == [["x", "base"], ["p", "q"]]


def test_a_version_that_won_everything_has_a_finite_score_that_says_so(arena):
    arena.meet("x b", 10)
    board = leaderboard(arena.store)
    assert board.smoothed
    assert arena.standing("x").score.value == pytest.approx(1000 + 400 * math.log10(10.5 / 0.5), abs=0.05)


def test_only_ties_give_equal_scores(arena):
    arena.meet("xb", 12)
    result = arena.standing("x").score
    assert (result.value, result.low, result.high) == (pytest.approx(1000, abs=0.01),) * 3


def test_few_ties_are_half_wins_and_many_are_davidsons(arena):
    arena.meet("x b", 30)
    arena.meet("b x", 20)
    arena.meet("xb", 10)
    assert leaderboard(arena.store).method == "newman"
    assert arena.standing("x").score.value == pytest.approx(1000 + 400 * math.log10(1.5), abs=0.05)


def test_a_version_without_votes_is_not_listed(arena):
    arena.version("idle")
    assert leaderboard(arena.store).standings == ()
    arena.meet("x b", 2)
    assert {s.name for s in leaderboard(arena.store).standings} == {"x", "base"}


def test_simulated_votes_enter_only_when_asked_for(arena):
    arena.meet("x b", 3)
    arena.meet("b x", 5, who="rule")
    assert leaderboard(arena.store).judgments == 3
    result = arena.standing("x", include_simulated=True)
    assert (result.wins, result.losses) == (3, 5)


def test_excluded_votes_do_not_count(arena):
    arena.meet("x b", 3)
    exclusions.exclude(arena.store, [1], rule="other", reason="Asleep.", by=None)
    assert leaderboard(arena.store).judgments == 2


def test_with_several_base_models_the_most_compared_one_is_the_reference(arena):
    other = policies.ensure_base(arena.store, "newer")
    arena.versions["n"] = other
    arena.meet("n b", 2)
    arena.meet("x n", 9)
    assert leaderboard(arena.store).references == ("newer",)


def test_a_tuned_version_is_known_by_its_name(arena):
    runs.create(arena.store, "r1", config={}, seed=0, versions={})
    arena.versions["t"] = policies.register_tuned(
        arena.store, name="tuned-1", base_model="base", adapter_path="runs/r1/policy", run_id="r1"
    )
    arena.meet("t b", 2)
    assert (arena.standing("tuned-1").kind, arena.standing("base").kind) == ("tuned", "base")


def test_figures_are_the_same_each_time(arena):
    rng = random.Random(4)
    for _ in range(40):
        arena.meet(rng.choice(["x b", "b x", "xb", "x y", "y b"]))
    assert leaderboard(arena.store) == leaderboard(arena.store)


def test_the_chance_of_winning_is_that_of_the_scale():
    assert chance(1000) == 0.5 and chance(1400) == pytest.approx(10 / 11) and chance(1100) == pytest.approx(0.64, abs=0.001)


def test_an_empty_store_has_an_empty_board(store):
    board = leaderboard(store)
    assert (board.standings, board.judgments, board.connected, board.references) == ((), 0, True, ())


def test_replicates_in_which_a_version_is_missing_are_finite(arena):
    """`y` met somebody once: most draws of the prompts leave it out or give it only wins."""
    arena.meet("x b", 8)
    arena.meet("b x", 7)
    arena.meet("y b", 1)
    result = arena.standing("y").score
    assert all(map(math.isfinite, (result.value, result.low, result.high)))


# ---- style taken out


def test_answers_alike_in_style_have_the_same_scores_with_it_taken_out(arena):
    arena.meet("x b", 20)
    arena.meet("b x", 10)
    arena.meet("bx", 6)
    plain, controlled = (leaderboard(arena.store, control_style=on) for on in (False, True))
    assert plain.style is None
    assert [s.score.value for s in controlled.standings] == pytest.approx([s.score.value for s in plain.standings], abs=0.1)
    assert controlled.standings[0].score.low == pytest.approx(plain.standings[0].score.low, abs=30)
    assert controlled.standings[1].score.low == controlled.standings[1].score.high == 1000.0
    assert [(effect.chance, effect.pairs) for effect in controlled.style] == [(None, 0)] * 4


def test_a_version_that_wins_by_length_alone_is_no_better_with_length_taken_out(arena):
    """Votes prefer an answer twice as long in four of five, whoever wrote it; x writes twice as long as the base."""
    for tiers, times in (("x b", 80), ("b x", 20)):
        arena.meet(tiers, times, lengths=(20, 40))
    # The second of the base's own answers is better, and longer; then better, and shorter.
    arena.meet("b b", 80, lengths=(20, 40))
    arena.meet("b b", 20, lengths=(40, 20))
    assert arena.standing("x").score.value == pytest.approx(1000 + 400 * math.log10(4), abs=1)
    board = leaderboard(arena.store, control_style=True)
    x = next(s for s in board.standings if s.name == "x")
    assert x.score.value == pytest.approx(1000, abs=10)
    assert x.score.low < 1000 < x.score.high
    length = board.style[0]
    assert (length.name, length.pairs) == ("length", 200)
    assert length.chance == pytest.approx(0.8, abs=0.01) and 0.7 < length.low < 0.75 and 0.85 < length.high < 0.9


def test_groups_and_a_version_that_won_everything_with_style_taken_out(arena):
    arena.meet("x b", 12, lengths=(20, 30))
    arena.meet("p q", 8)
    arena.meet("q p", 4)
    plain, controlled = (leaderboard(arena.store, control_style=on) for on in (False, True))
    assert plain.smoothed and controlled.smoothed
    assert [(s.name, s.group, s.rank) for s in controlled.standings] == [(s.name, s.group, s.rank) for s in plain.standings]
    p, q = (next(s.score for s in controlled.standings if s.name == name) for name in "pq")
    assert p.value + q.value == pytest.approx(2000) and p.value - q.value == pytest.approx(400 * math.log10(2), abs=0.1)
    assert p.high - p.value == pytest.approx(q.value - q.low)
    assert all(math.isfinite(s.score.value) for s in controlled.standings)


def test_the_share_of_votes_for_the_longer_answer(arena):
    assert longer_share(arena.store).share is None
    arena.meet("x y", 3, lengths=(9, 2))
    arena.meet("y x", lengths=(9, 2))
    # A tie, two answers of one length, and three answers say nothing of it.
    arena.meet("xy", lengths=(9, 2))
    arena.meet("x y")
    arena.meet("x y z", lengths=(9,))
    arena.meet("y x", 2, who="rule", lengths=(9, 2))
    found = longer_share(arena.store)
    assert (found.count, found.of, found.share) == (3, 4, 0.75)
    found = longer_share(arena.store, include_simulated=True)
    assert (found.count, found.of) == (3, 6)
