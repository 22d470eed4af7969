"""Finding judgments again: what is listed, how it is filtered and paged, and the details of each."""

import pytest

from storage.content import comparisons, prompts
from storage.content.prompts import NewPrompt
from storage.core.database import StoreError
from storage.core.records import Details, Flag, Timing
from storage.judging import exclusions, gold, history, judgments, queue


def compare(world, question="Why is the sky blue?", *answers, messages=None):
    if messages is None:
        prompt_id = world.prompt(question)
    else:
        prompts.add(world.store, [NewPrompt(messages)], source="test")
        prompt_id = world.store.value("SELECT id FROM prompts WHERE digest = ?", [prompts.digest(messages)])
    ids = [world.completion(prompt_id, answer) for answer in answers or ("Answer 0", "Answer 1")]
    return comparisons.add(world.store, prompt_id, ids, purpose="collect")


def rank(world, annotator, details=None):
    shown = queue.next_presentation(world.store, annotator.id)[1]
    tiers = tuple((item,) for item in shown.order)
    return judgments.save(world.store, shown.id, annotator.id, verdict="rank", tiers=tiers, details=details or Details())


def ids_of(world, annotator=None, **filters):
    annotator = annotator or world.ann
    return [past.judgment.id for past in history.of_annotator(world.store, annotator.id, **filters)]


def test_nobody_has_a_history_before_the_first_judgment(world):
    assert history.of_annotator(world.store, world.ann.id) == []
    assert history.of_annotator(world.store, 99) == []
    assert history.of_comparison(world.store, 1) == []


def test_one_s_own_newest_first_with_all_it_was_about(world):
    one = compare(world, "Why?", "Because.", "So.")
    compare(world)
    details = Details("better", {2: {"helpful": 4}}, "Shorter.", None, (Flag("unsafe", "note", 1),), Timing(1, 2, 3))
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    first = rank(world, world.ann, details)
    compare(world)
    rank(world, world.bob)
    second = world.skip(world.ann)
    newer, older = history.of_annotator(world.store, world.ann.id)
    assert (newer.judgment, older.judgment) == (second, first)
    assert (older.details, older.exclusion) == (details, None)
    assert older.comparison == comparisons.get(world.store, one)
    assert older.order == shown.order
    assert history.get(world.store, first.id) == older


def test_what_was_corrected_or_taken_back_is_not_listed_but_can_be_read(world):
    for _ in range(3):
        compare(world)
    first, _, third = rank(world, world.ann), rank(world, world.ann), rank(world, world.ann)
    judgments.undo(world.store, world.ann.id)
    corrected = judgments.correct(world.store, first.id, world.ann.id, verdict="skip", skip_reason="not sure")
    assert ids_of(world) == [corrected.id, 2]
    assert ids_of(world, verdict="rank") == [2]
    assert history.get(world.store, first.id).judgment.tiers == first.tiers
    assert history.get(world.store, third.id).judgment.id == third.id
    assert not history.get(world.store, third.id).judgment.counts


def test_a_judgment_that_is_not_there_is_told(world):
    with pytest.raises(StoreError, match="There is no judgment 9: reload the page"):
        history.get(world.store, 9)


def test_pages_meet_without_gap_or_overlap(world):
    for _ in range(5):
        compare(world)
    ids = [rank(world, world.ann).id for _ in range(5)][::-1]
    pages = [ids_of(world, before_id=before, limit=2) for before in (None, ids[1], ids[3])]
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    assert ids_of(world, before_id=ids[-1]) == []
    assert ids_of(world, limit=0) == []


def test_filters_are_met_all_at_once(world):
    for _ in range(4):
        compare(world)
    plain = rank(world, world.ann)
    flagged = rank(world, world.ann, Details(flags=(Flag("unsafe"),), rationale="a recipe"))
    skipped = world.skip(world.ann)
    both = rank(world, world.ann, Details(flags=(Flag("wrong_language"), Flag("broken_prompt")), rationale="a riddle"))
    exclusions.exclude(world.store, [plain.id, both.id], rule="too fast", reason="r", by=None)
    assert ids_of(world, verdict="rank") == [both.id, flagged.id, plain.id]
    assert ids_of(world, verdict="skip") == [skipped.id]
    assert ids_of(world, flagged=True) == [both.id, flagged.id]
    assert ids_of(world, excluded=True) == [both.id, plain.id]
    assert ids_of(world, excluded=True, flagged=True) == [both.id]
    assert ids_of(world, flagged=True, text="recipe") == [flagged.id]
    assert ids_of(world, flagged=True, verdict="skip") == []
    assert ids_of(world, text="  ") == [both.id, skipped.id, flagged.id, plain.id]


def test_text_is_found_in_the_prompt_in_an_answer_and_in_the_rationale(world):
    compare(world, "Why is the sky blue?", "Rayleigh scattering.", "God knows.")
    compare(world, "하늘은 왜 파란가요?", "빛의 산란 때문입니다.", "몰라요.")
    sky = rank(world, world.ann, Details(rationale="It names the physics."))
    korean = rank(world, world.ann, Details(rationale="더 정확합니다."))
    for text in ("sky", "SKY BLUE", "rayleigh", "god KNOWS", "Physics", " the sky "):
        assert ids_of(world, text=text) == [sky.id], text
    for text in ("하늘", "산란", "몰라요", "정확"):
        assert ids_of(world, text=text) == [korean.id], text
    assert ids_of(world, text="?") == [korean.id, sky.id]
    assert ids_of(world, text="nowhere") == []


def test_upper_and_lower_case_are_one_beyond_ascii_too(world):
    compare(world, "Über Ärger", "ΣΟΦΙΑ", "Straße")
    saved = rank(world, world.ann)
    for text in ("über", "ÄRGER", "σοφια", "STRASSE"):
        assert ids_of(world, text=text) == [saved.id], text


def test_json_keys_are_not_searched(world):
    compare(world, 'Say "hi"\nthen\\stop')
    saved = rank(world, world.ann)
    for text in ("role", "content", "user", '"}', "\\n"):
        assert ids_of(world, text=text) == [], text
    for text in ('say "hi"', 'hi"\nthen', "then\\stop"):
        assert ids_of(world, text=text) == [saved.id], text


def test_wildcards_are_searched_literally(world):
    compare(world, "100% sure", "a_b", "x")
    compare(world, "1000 sure", "aXb", "x")
    percent, _ = rank(world, world.ann), rank(world, world.ann)
    for text in ("100%", "a_b"):
        assert ids_of(world, text=text) == [percent.id], text


def test_every_turn_of_a_conversation_is_searched(world):
    compare(
        world,
        messages=[
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": "First question"},
            {"role": "assistant", "content": "Earlier reply"},
            {"role": "user", "content": "Second question"},
        ],
    )
    saved = rank(world, world.ann)
    for text in ("terse", "first", "earlier REPLY", "second"):
        assert ids_of(world, text=text) == [saved.id], text


def test_judgments_of_others_are_never_found(world):
    compare(world, "Why?")
    rank(world, world.bob, Details(rationale="secret", flags=(Flag("unsafe"),)))
    assert ids_of(world) == ids_of(world, text="secret") == ids_of(world, flagged=True) == []


def test_the_exclusion_that_holds_stands_beside_it(world):
    compare(world)
    saved = rank(world, world.ann)
    first = exclusions.exclude(world.store, [saved.id], rule="too fast", reason="0.2 s", by=None)
    second = exclusions.exclude(world.store, [saved.id], rule="gold accuracy", reason="50 %", by=None)
    assert history.get(world.store, saved.id).exclusion == first
    exclusions.lift(world.store, first.id, reason="no", by=None)
    assert history.get(world.store, saved.id).exclusion == second
    exclusions.lift(world.store, second.id, reason="no", by=None)
    assert history.get(world.store, saved.id).exclusion is None
    assert ids_of(world, excluded=True) == []


def test_everybody_s_on_one_comparison_oldest_first(world):
    one, two = compare(world), compare(world)
    by_rule = world.rule_ranks(one)
    by_ann, other = rank(world, world.ann), rank(world, world.bob)
    assert (by_ann.comparison_id, other.comparison_id) == (one, two)
    assert [past.judgment.id for past in history.of_comparison(world.store, one)] == [by_rule, by_ann.id]
    judgments.undo(world.store, world.ann.id)
    assert [past.judgment.id for past in history.of_comparison(world.store, one)] == [by_rule]


def test_an_imported_one_stands_in_the_order_in_which_it_was_made(world):
    one = compare(world)
    source = world.store.insert("imports", {"format": "csv", "source": "a.csv", "report": "{}", "created_at": "2026-01-01"})
    values = {"comparison_id": one, "annotator_id": world.bob.id, "verdict": "rank", "tiers": ((2,), (1,)), "import_id": source}
    imported = world.store.insert("judgments", {**values, "created_at": "2025-12-31"})
    past = history.get(world.store, imported)
    assert (past.order, past.judgment.presentation_id, past.details) == ((1, 2), None, Details())
    assert ids_of(world, world.bob) == [imported]


def test_gold_is_listed_like_any_other(world):
    one = compare(world)
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    gold.set_answer(world.store, one, ((1,), (2,)), by=None)
    saved = judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=((1,), (2,)))
    assert ids_of(world) == [saved.id]


def test_a_long_history_is_read_by_index(world):
    plan = world.store.rows("EXPLAIN QUERY PLAN SELECT j.id " + history._ACTIVE + "ORDER BY j.id DESC LIMIT 20", {"annotator": 1})
    steps = [row["detail"] for row in plan]
    assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], steps
