"""Agreement: published figures, cases worked by hand, and what must not change when names do."""

import math
import random

import evalica
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.analysis import agreement
from rlhf.analysis.agreement import Units, alpha_of, alpha_of_coincidences, items, left_share, proportion, report
from storage.analytics import rankings
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database, now
from storage.core.records import Sampling
from storage.judging import exclusions, gold
from storage.people import annotators

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", the data of section C: 4 observers, 12 units.
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
COUNTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3).filter(lambda counts: sum(counts) > 1), min_size=2, max_size=10)
DISTANCES = st.sampled_from(["nominal", "ordinal"])


class Room:
    """People who rank, with verbs; completions are named a, b, c in the comparison's own order."""

    def __init__(self, store):
        self.store = store
        self.policy = policies.ensure_base(store, "hub/tiny")
        self.number = 0

    def comparison(self, size=2):
        self.number += 1
        text = f"Question {self.number}?"
        prompts.add(self.store, [prompts.NewPrompt(({"role": "user", "content": text},), kind="k", split="train")], source="t")
        prompt_id = self.store.value("SELECT max(id) FROM prompts")
        ids = [
            completions.add(
                self.store, prompt_id=prompt_id, policy_version_id=self.policy.id, text=name, sampling=Sampling(), seed=0,
                finish_reason="stop", latency_s=0.1,
            )
            for name in "abcdefghi"[:size]
        ]  # fmt: skip
        return comparisons.get(self.store, comparisons.add(self.store, prompt_id, ids, purpose="collect"))

    def says(self, who, comparison, tiers, *, shown="", purpose="vote", active_s=None, all_bad=False):
        """`says("Ann", c, "a bc")`: a is best, b and c are tied. `shown="ba"`: b stood left."""
        simulated = who.startswith("rule")
        person = annotators.ensure(self.store, who, *(("simulated", "length") if simulated else ()))
        ids = dict(zip("abcdefghi", (c.id for c in comparison.completions), strict=False))
        presentation = {"comparison_id": comparison.id, "annotator_id": person.id, "created_at": now(), "purpose": purpose}
        shown_id = self.store.insert("presentations", presentation | {"slots": [ids[x] for x in shown]}) if shown else None
        return self.store.insert(
            "judgments",
            {
                "comparison_id": comparison.id, "presentation_id": shown_id, "annotator_id": person.id, "verdict": "rank",
                "tiers": [[ids[x] for x in tier] for tier in tiers.split()], "created_at": now(), "purpose": purpose,
                "active_ms": None if active_s is None else round(1000 * active_s), "all_bad": int(all_bad),
            },
        )  # fmt: skip

    def row(self, who, **options):
        return next(row for row in report(self.store, **options).annotators if row.name == who)


@pytest.fixture
def room(store):
    return Room(store)


def test_alpha_of_the_published_example():
    table = pd.DataFrame(KRIPPENDORFF, dtype=float)
    assert evalica.alpha(table, "nominal").alpha == pytest.approx(0.743, abs=5e-4)
    assert evalica.alpha(table, "ordinal").alpha == pytest.approx(0.815, abs=5e-4)


def units(*counts):
    return Units(np.arange(len(counts)), np.array(counts))


def test_alpha_by_hand():
    """Three pairs, two annotators each: first/first, second/second, first/second.

    Coincidences: first-first 2, second-second 2, first-second 1 each way; n = 6, three of each. Observed 2, expected
    (3*3 + 3*3)/5 = 3.6: alpha = 1 - 2/3.6.
    """
    assert alpha_of(units([2, 0, 0], [0, 0, 2], [1, 0, 1]), "nominal") == pytest.approx(1 - 2 / 3.6)


def test_alpha_with_a_tie_by_hand():
    """first/first, tie/second, second/second: n = 6, of first 2, tie 1, second 3.

    Midpoints of the cumulated values 1, 2.5, 4.5: squared distances first-tie 2.25, tie-second 4, first-second 12.25.
    Observed: tie-second both ways, 8. Expected: 2*(2*1*2.25 + 1*3*4 + 2*3*12.25)/5 = 36.
    """
    result = units([2, 0, 0], [0, 1, 1], [0, 0, 2])
    assert alpha_of(result, "ordinal") == pytest.approx(1 - 8 / 36)
    # Nominal: observed 2, expected 2*(2*1 + 1*3 + 2*3)/5 = 4.4.
    assert alpha_of(result, "nominal") == pytest.approx(1 - 2 / 4.4)


@settings(max_examples=25, deadline=None)
@given(COUNTS, DISTANCES)
def test_alpha_from_totals_equals_evalicas(counts, distance):
    result = units(*counts)
    if np.count_nonzero(result.counts.sum(axis=0)) < 2:
        return
    by_totals = alpha_of_coincidences(agreement._coincidences(result.counts).sum(axis=0), distance)
    assert alpha_of(result, distance) == pytest.approx(float(by_totals), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(COUNTS, DISTANCES)
def test_alpha_does_not_change_when_every_pair_is_reversed(counts, distance):
    result = units(*counts)
    if np.count_nonzero(result.counts.sum(axis=0)) < 2:
        return
    assert alpha_of(units(*[c[::-1] for c in counts]), distance) == pytest.approx(alpha_of(result, distance), abs=1e-9)


def test_alpha_of_a_large_table_is_the_same(monkeypatch):
    result = units([2, 1, 0], [0, 1, 3], [1, 0, 1])
    by_library = alpha_of(result, "ordinal")
    monkeypatch.setattr(agreement, "MAX_TABLE_CELLS", 1)
    monkeypatch.setattr("evalica.alpha", None)
    assert alpha_of(result, "ordinal") == pytest.approx(by_library)


def test_the_report_equals_one_worked_out_by_hand(room):
    """The pairs of `test_alpha_by_hand`, as votes."""
    for ann, bob in (("a b", "a b"), ("b a", "b a"), ("a b", "b a")):
        comparison = room.comparison()
        room.says("Ann", comparison, ann)
        room.says("Bob", comparison, bob)
    result = report(room.store)
    assert result.alpha_nominal.value == pytest.approx(1 - 2 / 3.6)
    assert result.alpha_nominal.low is None and "Fewer than 10 comparisons" in result.alpha_nominal.reason
    assert (result.judgments, result.comparisons, result.units) == (6, 3, 3)
    assert (result.unanimous.count, result.unanimous.of) == (2, 3)
    assert [(row.name, row.agreement, row.agreement_units) for row in result.annotators] == [("Ann", 2 / 3, 3), ("Bob", 2 / 3, 3)]


def test_names_and_order_of_annotators_do_not_matter(room, store, tmp_path):
    rng = random.Random(5)
    said = [[rng.choice(["a b", "b a", "ab"]) for _ in range(3)] for _ in range(15)]
    other = Room(Database(tmp_path / "other.db"))
    for tiers in said:
        here, there = room.comparison(), other.comparison()
        for who, says in zip(("Ann", "Bob", "Cat"), tiers, strict=True):
            room.says(who, here, says)
        for who, says in zip(("Zoe", "Yan", "Xia"), reversed(tiers), strict=True):
            other.says(who, there, says)
    one, two = report(room.store), report(other.store)
    assert (one.alpha_nominal, one.alpha_ordinal, one.unanimous) == (two.alpha_nominal, two.alpha_ordinal, two.unanimous)
    assert one.alpha_nominal.low < one.alpha_nominal.value < one.alpha_nominal.high
    other.store.close()


def test_an_undefined_alpha_has_a_reason(room):
    assert report(room.store).alpha_nominal.reason == "No pair has been judged by two annotators yet."
    comparison = room.comparison()
    room.says("Ann", comparison, "a b")
    assert report(room.store).alpha_ordinal.value is None
    room.says("Bob", comparison, "a b")
    assert "without variation" in report(room.store).alpha_nominal.reason


def test_the_interval_resamples_comparisons_and_not_pairs(room):
    """Two people, alike on half of the comparisons and opposite on the others: with nine pairs a comparison as certain as with one."""
    for i in range(12):
        for size, store_of in ((2, "pair"), (4, "four")):
            comparison = room.comparison(size)
            order = "abcd"[:size]
            room.says(f"{store_of} Ann", comparison, " ".join(order))
            room.says(f"{store_of} Bob", comparison, " ".join(order if i % 2 else order[::-1]))
    counted = agreement.latest_votes(rankings.read(room.store))
    result = agreement.units_of(counted)
    sizes = counted.sizes[result.comparison]
    widths = []
    for size in (2, 4):
        of_size = Units(result.comparison[sizes == size], result.counts[sizes == size])
        assert len(of_size.counts) == 12 * math.comb(size, 2)
        drawn = agreement._alpha(of_size, "nominal")
        widths.append(drawn.high - drawn.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.25)


def test_a_ranking_of_three_gives_its_pairs_and_ties_are_ties(room):
    comparison = room.comparison(3)
    room.says("Ann", comparison, "a bc")
    room.says("Bob", comparison, "c b a")
    result = agreement.units_of(agreement.latest_votes(rankings.read(room.store)))
    # Pairs ab, ac, bc: Ann says first, first, tie; Bob says second, second, second.
    assert result.counts.tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 1]]


def test_an_unranked_completion_gives_no_value(room):
    comparison = room.comparison(3)
    room.says("Ann", comparison, "b a")
    room.says("Bob", comparison, "a b c")
    result = agreement.units_of(agreement.latest_votes(rankings.read(room.store)))
    assert result.counts.tolist() == [[1, 0, 1]]
    assert report(room.store).unanimous.count == 0


def test_both_bad_is_a_tie(room):
    comparison = room.comparison()
    room.says("Ann", comparison, "ab")
    room.says("Bob", comparison, "ab", all_bad=True)
    assert report(room.store).unanimous.share == 1.0


def test_of_two_votes_by_one_annotator_the_latest_counts(room):
    comparison = room.comparison()
    room.says("Ann", comparison, "a b")
    room.says("Ann", comparison, "b a")
    room.says("Bob", comparison, "a b")
    result = report(room.store)
    assert (result.judgments, result.unanimous.count, result.unanimous.of) == (2, 0, 1)


def test_simulated_votes_enter_only_when_asked_for(room):
    comparison = room.comparison()
    room.says("Ann", comparison, "a b")
    room.says("rule one", comparison, "b a")
    assert report(room.store).units == 0
    result = report(room.store, include_simulated=True)
    assert (result.units, [row.kind for row in result.annotators]) == (1, ["human", "simulated"])


def test_left_share_by_hand(room):
    """Five preferences, four for the left; the tie and the imported vote say nothing of sides."""
    for shown, tiers in (("ab", "a b"), ("ba", "b a"), ("ab", "a b"), ("ba", "b a"), ("ab", "b a"), ("ab", "ab"), ("", "a b")):
        room.says("Ann", room.comparison(), tiers, shown=shown)
    result = report(room.store).left_share
    # Two-sided, exact: P(0, 1, 4 or 5 of 5) = 2 * (1 + 5) / 32.
    assert (result.share, result.n, result.p_value) == (pytest.approx(0.8), 5, pytest.approx(12 / 32))
    assert room.row("Ann").left_share == result


def test_rankings_of_three_are_left_out_of_the_left_share(room):
    room.says("Ann", room.comparison(3), "a b c", shown="abc")
    assert report(room.store).left_share.n == 0


def test_mirrored_presentations_turn_the_left_share_round(room, tmp_path):
    rng = random.Random(2)
    mirror = Room(Database(tmp_path / "mirror.db"))
    for _ in range(30):
        shown, tiers = rng.choice(["ab", "ba"]), rng.choice(["a b", "a b", "b a", "ab"])
        room.says("Ann", room.comparison(), tiers, shown=shown)
        mirror.says("Ann", mirror.comparison(), tiers, shown=shown[::-1])
    here, there = report(room.store).left_share, report(mirror.store).left_share
    assert here.share == pytest.approx(1 - there.share) and here.p_value == pytest.approx(there.p_value)
    assert here.low == pytest.approx(1 - there.high)
    mirror.store.close()


def test_intervals_of_shares():
    """Wilson's of 8 of 10, and Clopper and Pearson's of 0 of 5: 1 - 0.025^(1/5)."""
    result = proportion(8, 10)
    assert (result.low, result.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert left_share(0, 5).high == pytest.approx(1 - 0.025 ** (1 / 5))
    assert proportion(0, 0).share is None and left_share(0, 0).p_value is None


def test_gold_accuracy_counts_the_ordered_pairs_of_the_gold_answer(room):
    comparison = room.comparison(3)
    a, b, c = (completion.id for completion in comparison.completions)
    lead = annotators.ensure(room.store, "Lead")
    gold.set_answer(room.store, comparison.id, ((a,), (b, c)), lead.id)
    # Known: a over b, a over c. Ann has one of them, the other she ties.
    room.says("Ann", comparison, "ac b", purpose="gold")
    result = room.row("Ann")
    assert (result.gold.count, result.gold.of, result.judgments) == (1, 2, 0)


def test_the_latest_gold_answer_is_used(room):
    comparison = room.comparison()
    a, b = (completion.id for completion in comparison.completions)
    gold.set_answer(room.store, comparison.id, ((a,), (b,)), None)
    gold.set_answer(room.store, comparison.id, ((b,), (a,)), None)
    room.says("Ann", comparison, "b a", purpose="gold")
    assert room.row("Ann").gold.share == 1.0


def test_self_consistency_compares_a_repeat_with_the_first_judgment(room):
    one, two = room.comparison(), room.comparison(3)
    room.says("Ann", one, "a b")
    room.says("Ann", two, "a bc")
    room.says("Bob", two, "c b a")
    room.says("Ann", one, "b a", purpose="repeat")
    room.says("Ann", two, "a b c", purpose="repeat")
    result = room.row("Ann")
    # One pair turned round; of three pairs two the same, one no tie any more.
    assert (result.consistency.count, result.consistency.of) == (2, 4)
    assert result.judgments == 2
    assert room.row("Bob").consistency.of == 0


def test_a_repeat_without_a_first_judgment_is_ignored(room):
    room.says("Ann", room.comparison(), "a b")
    room.says("Ann", room.comparison(), "a b", purpose="repeat")
    assert room.row("Ann").consistency.share is None


def test_agreement_with_others_is_the_mean_share_with_the_same_preference(room):
    one, two, alone = room.comparison(), room.comparison(), room.comparison()
    for who, first, second in (("Ann", "a b", "a b"), ("Bob", "a b", "b a"), ("Cat", "b a", "a b")):
        room.says(who, one, first)
        room.says(who, two, second)
    room.says("Ann", alone, "a b")
    # Ann: one of two others on the first, one of two on the second. Bob: one of two, then none.
    assert [(row.name, row.agreement, row.agreement_units) for row in report(room.store).annotators] == [
        ("Ann", 0.5, 2), ("Bob", 0.25, 2), ("Cat", 0.25, 2),
    ]  # fmt: skip


def test_median_active_time_is_of_the_votes_that_were_timed(room):
    for seconds in (2.0, 30.0, 4.0, None):
        room.says("Ann", room.comparison(), "a b", active_s=seconds)
    room.says("Bob", room.comparison(), "a b")
    assert (room.row("Ann").median_active_s, room.row("Bob").median_active_s) == (4.0, None)


def test_excluded_judgments_are_left_out_and_counted(room):
    comparison = room.comparison()
    room.says("Ann", comparison, "a b")
    wrong = [room.says("Bob", comparison, "b a"), room.says("Bob", room.comparison(), "b a", purpose="gold")]
    lead = annotators.ensure(room.store, "Lead")
    made = exclusions.exclude(room.store, wrong, rule="other", reason="Asleep.", by=lead.id)
    result = report(room.store)
    assert (result.judgments, result.units) == (1, 0)
    assert (room.row("Bob").judgments, room.row("Bob").excluded) == (0, 2)
    exclusions.lift(room.store, made.id, reason="Awake after all.", by=lead.id)
    assert report(room.store).units == 1 and room.row("Bob").excluded == 0


def test_a_correction_takes_the_place_of_what_it_corrects(room):
    comparison = room.comparison()
    old = room.says("Ann", comparison, "a b")
    row = dict(room.store.row("SELECT * FROM judgments WHERE id = ?", [old]))
    tiers = [[c.id] for c in reversed(comparison.completions)]
    room.store.insert("judgments", {k: v for k, v in row.items() if k not in ("id", "counts")} | {"tiers": tiers, "supersedes": old})
    room.says("Bob", comparison, "b a")
    assert report(room.store).unanimous.count == 1


def test_items_come_with_the_lowest_agreement_first(room):
    alike, opposed, mixed, alone = (room.comparison() for _ in range(4))
    for who, *said in (("Ann", "a b", "a b", "a b", "a b"), ("Bob", "a b", "b a", "a b")):
        for comparison, tiers in zip((alike, opposed, mixed, alone), said, strict=False):
            room.says(who, comparison, tiers)
    room.says("Cat", mixed, "b a")
    result = items(room.store)
    # Of three couples one agrees about `mixed`.
    assert [(i.comparison_id, i.annotators, pytest.approx(i.agreement), i.unanimous) for i in result] == [
        (opposed.id, 2, 0.0, False), (mixed.id, 3, 1 / 3, False), (alike.id, 2, 1.0, True),
    ]  # fmt: skip
    assert result[0].prompt == "Question 2?"
    assert [i.comparison_id for i in items(room.store, 1)] == [opposed.id]


def test_an_empty_store_has_an_empty_report(store):
    result = report(store)
    assert (result.judgments, result.annotators, items(store)) == (0, (), [])
    assert result.to_dict()["left_share"] == {"share": None, "low": None, "high": None, "n": 0, "p_value": None}


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.data())
def test_tiers_are_read_as_they_were_written(size, data):
    """Against a reader that walks the lists."""
    written, expected = [], []
    for _ in range(3):
        order = data.draw(st.permutations(range(size)))
        cuts = data.draw(st.sets(st.integers(1, size - 1)))
        tiers = [list(order[i:j]) for i, j in zip([0, *sorted(cuts)], [*sorted(cuts), size], strict=True)]
        written.append(str([[100 + c for c in tier] for tier in tiers]).replace(" ", data.draw(st.sampled_from(["", " "]))))
        expected.append([next(rank for rank, tier in enumerate(tiers) if c in tier) for c in range(size)])
    shown = np.tile(np.arange(100, 100 + size), (3, 1))
    assert rankings._ranks(written, shown).tolist() == expected
