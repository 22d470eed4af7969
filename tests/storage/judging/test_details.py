"""The details of a judgment beside its tiers: which are refused, which are stored, and the edit distance."""

import pytest

from storage.content import comparisons, completions
from storage.core.records import Details, Flag, IdealAnswer, Sampling, Timing
from storage.judging import details, judgments, queue
from storage.judging.details import BadJudgment

SHOWN = (1, 2)
BETTER = ((1,), (2,))

WHOLE = Details(
    strength="slightly",
    aspects={1: {"helpful": 5, "정직함": 1}, 2: {"helpful": 2}},
    rationale="더 짧고 정확합니다.",
    ideal=IdealAnswer("Because of Rayleigh scattering.", 2),
    flags=(Flag("unsafe", "a recipe", 1), Flag("broken_prompt")),
    timing=Timing(active_ms=12_000, idle_ms=31_000, client_ms=43_000),
)


@pytest.fixture
def shown(world):
    """Completions 1 and 2 as Ann saw them."""
    world.comparison()
    return queue.next_presentation(world.store, world.ann.id)[1]


def save(world, shown, submitted, tiers=BETTER):
    return judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=tiers, details=submitted)


def of(world, judgment):
    return details.of_judgments(world.store, [judgment.id])[judgment.id]


@pytest.mark.parametrize(
    ("submitted", "why"),
    [
        (Details("hugely"), "Unknown strength 'hugely': choose one of significantly, better, slightly, negligibly"),
        (Details(""), "Unknown strength ''"),
        (Details(["better"]), "Unknown strength"),
        (Details(aspects={3: {"helpful": 1}}), "3 was not shown in this comparison: reload the page"),
        (Details(aspects={"1": {"helpful": 1}}), "'1' was not shown"),
        (Details(aspects={1: {"helpful": 0}}), r"A rating is a number from 1 up, not \[0\]: choose again"),
        (Details(aspects={1: {"helpful": 11}}), "A rating is a number"),
        (Details(aspects={1: {"helpful": 2.5}}), "A rating is a number"),
        (Details(aspects={1: {"helpful": True}}), "A rating is a number"),
        (Details(aspects={1: {"helpful": "5"}}), "A rating is a number"),
        (Details(aspects={1: {"helpful": 5}, 2: {"helpful": None}}), "A rating is a number"),
        (Details(aspects={1: {7: 5}}), "The name of an aspect must be text: reload the page"),
        (Details(aspects={1: {"\ud83d": 5}}), "The name of an aspect has half a surrogate pair"),
        (Details(aspects={1: {"a" * 1001: 5}}), "The name of an aspect has 1,001 characters, at most 1,000 can be stored: shorten it"),
        (Details(aspects={1: dict.fromkeys("abcdefghi", 5)}), "9 aspects are rated, at most 8 are asked for: reload the page"),
        (Details(rationale="x" * 20_001), "The rationale has 20,001 characters, at most 20,000 can be stored: shorten it"),
        (Details(rationale=None), "The rationale must be text: reload the page"),
        (Details(rationale="\ud83d"), "The rationale has half a surrogate pair, which cannot be stored: type it again"),
        (Details(ideal=IdealAnswer("  ")), "The ideal answer is empty: write it, or leave it out"),
        (Details(ideal=IdealAnswer(["x"])), "The ideal answer must be text"),
        (Details(ideal=IdealAnswer("x" * 20_001)), "The ideal answer has 20,001 characters"),
        (Details(ideal=IdealAnswer("\udc00")), "The ideal answer has half a surrogate pair"),
        (Details(ideal=IdealAnswer("x", 3)), "3 was not shown"),
        (Details(flags=(Flag("boring"),)), "Unknown flag 'boring': choose one of unsafe, personal_data, wrong_language, broken_prompt"),
        (Details(flags=(Flag("unsafe", "x" * 1001),)), "The note has 1,001 characters, at most 1,000 can be stored: shorten it"),
        (Details(flags=(Flag("unsafe", None),)), "The note must be text"),
        (Details(flags=(Flag("unsafe", "\ud83d"),)), "The note has half a surrogate pair"),
        (Details(flags=(Flag("unsafe"), Flag("unsafe", "", 3))), "3 was not shown"),
        (Details(timing=Timing(-1, 0, 0)), "Times must be milliseconds, not .-1, 0, 0.: reload the page"),
        (Details(timing=Timing(0, 0.5, 0)), "Times must be milliseconds"),
        (Details(timing=Timing(0, 0, 604_800_001)), "Times must be milliseconds"),
        (Details(timing=Timing(True, 0, 0)), "Times must be milliseconds"),
        (Details(timing=Timing(0, None, 0)), "Times must be milliseconds"),
    ],
)
def test_invalid_details_are_refused_with_a_remedy(submitted, why):
    with pytest.raises(BadJudgment, match=why):
        details.check(submitted, SHOWN, BETTER)


@pytest.mark.parametrize(
    "submitted",
    [
        Details(),
        WHOLE,
        Details(aspects={1: {"helpful": 1, "honest": 10}}),
        Details(aspects={1: dict.fromkeys("abcdefgh", 5)}),
        Details(rationale="x" * 20_000, ideal=IdealAnswer("y" * 20_000), flags=(Flag("personal_data", "z" * 1000),)),
        Details(timing=Timing(0, 0, 604_800_000)),
    ],
)
def test_what_fits_passes_up_to_the_end_of_each_range(submitted):
    details.check(submitted, SHOWN, BETTER)


@pytest.mark.parametrize(
    ("shown", "tiers"),
    [(SHOWN, ((1, 2),)), (SHOWN, ()), ((1, 2, 3), ((1,), (2,), (3,))), ((1, 2, 3), ((1,), (2,)))],
)
def test_a_strength_is_of_one_of_two_answers_over_the_other(shown, tiers):
    with pytest.raises(BadJudgment, match="how much better one of two answers is: leave it out here"):
        details.check(Details("better"), shown, tiers)


def test_details_are_read_as_written(world, shown):
    saved = save(world, shown, WHOLE)
    assert of(world, saved) == WHOLE
    assert (saved.strength, saved.rationale) == ("slightly", "더 짧고 정확합니다.")


def test_empty_details_are_read_as_empty(world, shown):
    assert of(world, save(world, shown, Details())) == Details()
    for table in ("aspect_ratings", "ideal_answers", "flags"):
        assert world.store.value(f"SELECT count(*) FROM {table}") == 0


def test_a_skip_keeps_its_flags_and_its_reason_in_words(world, shown):
    submitted = Details(rationale="I am no doctor.", flags=(Flag("personal_data", " an address "),))
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="skip", skip_reason="unsafe", details=submitted)
    assert of(world, saved) == Details(rationale="I am no doctor.", flags=(Flag("personal_data", "an address"),))


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (["not sure"], "The reason must be text: reload the page"),
        ("x" * 1001, "The reason has 1,001 characters, at most 1,000 can be stored: shorten it"),
        ("\ud83d", "The reason has half a surrogate pair, which cannot be stored: type it again"),
    ],
)
def test_the_reason_of_a_skip_has_a_length_limit(world, shown, reason, why):
    with pytest.raises(BadJudgment, match=why):
        judgments.save(world.store, shown.id, world.ann.id, verdict="skip", skip_reason=reason)
    assert world.store.value("SELECT count(*) FROM judgments") == 0


def test_a_correction_has_its_own_details_and_the_first_keeps_its_own(world, shown):
    first = save(world, shown, WHOLE)
    submitted = Details("better", {1: {"helpful": 3}}, "On reflection.")
    second = judgments.correct(world.store, first.id, world.ann.id, verdict="rank", tiers=BETTER, details=submitted)
    assert details.of_judgments(world.store, [first.id, second.id]) == {first.id: WHOLE, second.id: submitted}


def test_a_refused_judgment_writes_no_details(world, shown):
    submitted = Details(aspects={1: {"helpful": 3}}, flags=(Flag("unsafe", "", 9),))
    with pytest.raises(BadJudgment):
        save(world, shown, submitted)
    for table in ("judgments", "aspect_ratings", "flags"):
        assert world.store.value(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize(
    ("answer", "edited", "distance"),
    [
        ("kitten", "sitting", 3),
        ("same", "same", 0),
        ("", "new", 3),
        ("하늘은 파랗다", "하늘이 파랗다.", 2),
        ("a👍🏽b", "ab", 2),
    ],
)
def test_the_edit_distance_is_counted_in_characters(world, answer, edited, distance):
    prompt_id = world.prompt()
    ids = [world.completion(prompt_id, answer), world.completion(prompt_id, "another")]
    comparisons.add(world.store, prompt_id, ids, purpose="collect")
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    saved = save(world, shown, Details(ideal=IdealAnswer(edited, ids[0])), tiers=((ids[0],), (ids[1],)))
    kept = world.store.row("SELECT * FROM ideal_answers")
    assert tuple(kept) == (saved.id, ids[0], edited, distance)


def test_an_ideal_answer_from_nothing_has_no_distance(world, shown):
    saved = save(world, shown, Details(ideal=IdealAnswer("From scratch.")))
    assert of(world, saved).ideal == IdealAnswer("From scratch.", None)
    assert world.store.value("SELECT edit_distance FROM ideal_answers") is None


def test_many_are_read_in_four_queries_each_with_its_own(world):
    world.comparisons(6)
    submitted = []
    for number in range(6):
        shown = queue.next_presentation(world.store, world.ann.id)[1]
        best, worst = shown.order
        say = Details(
            "better",
            {best: {"helpful": number % 5 + 1}},
            f"reason {number}",
            IdealAnswer(f"ideal {number}", worst),
            (Flag("unsafe", f"note {number}", best),),
        )
        submitted.append((save(world, shown, say, tiers=((best,), (worst,))).id, say))
    statements = []
    world.store.connection.conn.set_trace_callback(statements.append)
    found = details.of_judgments(world.store, [judgment_id for judgment_id, _ in submitted])
    world.store.connection.conn.set_trace_callback(None)
    assert found == dict(submitted)
    assert len(statements) == 4
    assert details.of_judgments(world.store, [999]) == {}


def test_times_stand_beside_the_judgment_client_s_and_server_s(world, shown):
    saved = save(world, shown, Details(timing=Timing(5, 7, 13)))
    row = world.store.row("SELECT active_ms, idle_ms, client_ms, server_ms FROM judgments WHERE id = ?", [saved.id])
    assert tuple(row)[:3] == (5, 7, 13)
    assert 0 <= row["server_ms"] < 60_000


def test_a_completion_that_was_not_shown_is_refused(world, shown):
    stranger = completions.add(
        world.store, prompt_id=1, policy_version_id=world.policy.id, text="x", sampling=Sampling(), seed=1,
        finish_reason="stop", latency_s=1.0,
    )  # fmt: skip
    with pytest.raises(BadJudgment, match=f"{stranger} was not shown"):
        save(world, shown, Details(ideal=IdealAnswer("x", stranger)))
