"""What a project asks: versions, ranges, and what a new overlap does to comparisons that are there."""

from dataclasses import asdict, replace
from datetime import datetime, timedelta

import pytest

from storage.content import batches, comparisons, refusals
from storage.core.database import StoreError
from storage.core.records import ProjectSettings, Sampling
from storage.judging import exclusions, gold, queue
from storage.project import settings

ALL_DIFFERENT = ProjectSettings(
    3, 30, 0.1, 0.2, False, ("helpful", "정직함"), 7, "required", 50, True, False, False, 2_000, False, "on", 0.2, 0.18, 0.4, 3, 0.01, 90,
    True, 40,
    50, "0 3 * * *", {"preset": "tiny", "ppo-steps": 7, "ppo-kl-coef": 0.1, "include-simulated": True, "ppo-kl-target": None},
    600, "2026-12-12",
)  # fmt: skip


def wanted(store):
    return [row["wanted"] for row in store.rows("SELECT wanted FROM comparisons ORDER BY id")]


def waiting(store):
    return [row["comparison_id"] for row in store.rows("SELECT comparison_id FROM queue ORDER BY position")]


def overlap(world, number):
    settings.change(world.store, replace(settings.current(world.store), overlap=number), by=None)


def test_before_the_first_change_the_defaults_apply(store):
    assert settings.current(store) == ProjectSettings()
    assert settings.problem(ProjectSettings()) is None


def test_what_was_changed_comes_back_with_who_and_each_change_is_a_version(world):
    settings.change(world.store, ProjectSettings(overlap=2), by=world.ann.id)
    settings.change(world.store, ALL_DIFFERENT, by=world.bob.id)
    assert settings.current(world.store) == ALL_DIFFERENT
    assert all(getattr(ALL_DIFFERENT, name) != value for name, value in asdict(ProjectSettings()).items())
    assert [row["by_id"] for row in world.store.rows("SELECT by_id FROM settings ORDER BY id")] == [world.ann.id, world.bob.id]


def test_settings_of_older_and_newer_versions_are_read_as_far_as_they_are_known(store):
    store.insert("settings", {"values": {"overlap": 4, "colour": "blue"}, "created_at": "2026-01-01"})
    assert settings.current(store) == ProjectSettings(overlap=4)
    store.insert("settings", {"values": {"aspects": ["kind"]}, "created_at": "2026-01-02"})
    assert settings.current(store) == ProjectSettings(aspects=("kind",))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"overlap": 0}, "overlap must be 1 to 20 judgments, not 0"),
        ({"overlap": 21}, "overlap must be 1 to 20 judgments, not 21"),
        ({"overlap": 2.5}, "overlap must be a whole number, not 2.5"),
        ({"overlap": True}, "overlap must be a whole number, not True"),
        ({"overlap": "2"}, "overlap must be a whole number, not '2'"),
        ({"lease_minutes": 0}, "a lease lasts 1 minute to 24 hours, not 0 minutes"),
        ({"lease_minutes": 1441}, "a lease lasts 1 minute to 24 hours, not 1441 minutes"),
        ({"lease_minutes": None}, "lease_minutes must be a whole number, not None"),
        ({"gold_share": -0.01}, "gold_share must be 0 to 0.5, not -0.01"),
        ({"gold_share": 0.51}, "gold_share must be 0 to 0.5, not 0.51"),
        ({"repeat_share": 0.51}, "repeat_share must be 0 to 0.5, not 0.51"),
        ({"repeat_share": float("nan")}, "repeat_share must be 0 to 0.5, not nan"),
        ({"aspects": tuple("abcdefghi")}, "aspects must be at most 8 different names"),
        ({"aspects": ("kind", "kind")}, "aspects must be at most 8 different names"),
        ({"aspects": ("kind", " ")}, "an aspect has no name"),
        ({"aspects": (1,)}, "an aspect has no name"),
        ({"aspect_scale": 1}, "the highest rating must be 2 to 10, not 1"),
        ({"aspect_scale": 11}, "the highest rating must be 2 to 10, not 11"),
        ({"rationale": "maybe"}, "rationale must be off, optional or required, not 'maybe'"),
        ({"rationale_min_chars": 0}, "the shortest rationale must be 1 to 2000 characters, not 0"),
        ({"rationale_min_chars": 2001}, "the shortest rationale must be 1 to 2000 characters, not 2001"),
        ({"text_max_chars": 999}, "the longest text must be 1000 to 10000000 characters, not 999"),
        ({"text_max_chars": 10_000_001}, "the longest text must be 1000 to 10000000 characters, not 10000001"),
        ({"rationale_min_chars": 1.5}, "rationale_min_chars must be a whole number, not 1.5"),
        ({"base_share": 0.91}, "base_share must be 0 to 0.9, not 0.91"),
        ({"heldout_share": 0.21}, "heldout_share must be 0.1 to 0.2, not 0.21"),
        ({"heldout_share": 0.09}, "heldout_share must be 0.1 to 0.2, not 0.09"),
        ({"deciding_share": -0.1}, "deciding_share must be 0 to 0.9, not -0.1"),
        ({"deciding_error": 0}, "deciding_error must be 0.001 to 0.2, not 0"),
        ({"deciding_annotators": 0}, "deciding_annotators must be 1 to 20, not 0"),
        ({"deciding_annotators": 21}, "deciding_annotators must be 1 to 20, not 21"),
        ({"deciding_most": 9}, "deciding_most must be 10 to 5000 comparisons, not 9"),
        ({"retrain_after_judgments": -1}, "retrain_after_judgments must be 0 to 1000000, not -1"),
        ({"retrain_after_judgments": 1_000_001}, "retrain_after_judgments must be 0 to 1000000, not 1000001"),
        ({"retrain_after_judgments": 2.5}, "retrain_after_judgments must be a whole number, not 2.5"),
        ({"retrain_schedule": 3}, "retrain_schedule must be text, not 3"),
        ({"retrain_schedule": "0 25 * * *"}, "the schedule '0 25 * * *' cannot be read: bad hour"),
        ({"retrain_options": ["tiny"]}, "retrain_options must be option names with a text, a number, true, false or null each"),
        ({"retrain_options": {"preset": ["tiny"]}}, "retrain_options must be option names with a text, a number, true, false or null each"),
        ({"retrain_options": {"preset": "x" * 10_000}}, "retrain_options must have at most 10,000 characters"),
        ({"deciding_most": 5_001}, "deciding_most must be 10 to 5000 comparisons, not 5001"),
        ({"four_strengths": 4}, "four_strengths must be true or false, not 4"),
        ({"daily_goal": -1}, "the daily goal must be 0 to 1000 judgments, not -1"),
        ({"daily_goal": 1001}, "the daily goal must be 0 to 1000 judgments, not 1001"),
        ({"target_judgments": -1}, "the target must be 0 to 10000000 judgments, not -1"),
        ({"target_judgments": 10_000_001}, "the target must be 0 to 10000000 judgments, not 10000001"),
        ({"target_judgments": 1.5}, "target_judgments must be a whole number, not 1.5"),
        ({"target_judgments": 6, "target_date": "12 December"}, "the day of the target must be written as 2026-12-12, not '12 December'"),
        ({"target_judgments": 6, "target_date": "20261212"}, "the day of the target must be written as 2026-12-12, not '20261212'"),
        ({"target_judgments": 6, "target_date": "2026-02-30"}, "the day of the target must be written as 2026-12-12, not '2026-02-30'"),
        ({"target_judgments": 6, "target_date": 7}, "the day of the target must be written as 2026-12-12, not 7"),
        ({"target_date": "2026-12-12"}, "the day of the target needs a number of judgments"),
        ({"daily_goal": 1.5}, "daily_goal must be a whole number, not 1.5"),
    ],
)
def test_what_is_out_of_range_is_refused_and_nothing_changes(store, change, why):
    with pytest.raises(StoreError) as refused:
        settings.change(store, replace(ProjectSettings(), **change), by=None)
    assert str(refused.value) == f"Settings not saved: {why}."
    assert store.value("SELECT count(*) FROM settings") == 0


@pytest.mark.parametrize(("stored", "read"), [(0.0, 0.1), (0.3, 0.2), (0.12, 0.12)])
def test_a_held_out_share_from_before_its_bounds_is_read_as_the_nearest_and_the_rest_stays(store, stored, read):
    store.insert("settings", {"values": {"heldout_share": stored, "overlap": 3}, "by_id": None, "created_at": "2026-01-01"})
    now = settings.current(store)
    assert (now.heldout_share, now.overlap) == (read, 3)


@pytest.mark.parametrize(
    "change",
    [
        {
            "overlap": 1, "lease_minutes": 1, "gold_share": 0, "repeat_share": 0, "aspects": (), "aspect_scale": 2,
            "rationale_min_chars": 1, "text_max_chars": 1_000, "daily_goal": 0, "target_judgments": 0,
        },
        {
            "overlap": 20, "lease_minutes": 1440, "gold_share": 0.5, "repeat_share": 0.5, "aspects": tuple("abcdefgh"),
            "aspect_scale": 10, "rationale_min_chars": 2000, "text_max_chars": 10_000_000, "daily_goal": 1_000,
            "target_judgments": 10_000_000, "target_date": "2999-12-31",
        },
    ],
)  # fmt: skip
def test_the_ends_of_each_range_are_in_it(store, change):
    changed = replace(ProjectSettings(), **change)
    settings.change(store, changed, by=None)
    assert settings.current(store) == changed


def test_a_name_with_half_a_surrogate_pair_is_refused(store):
    with pytest.raises(StoreError, match="half a surrogate pair, which cannot be stored: type it again"):
        settings.change(store, ProjectSettings(aspects=("\ud83d",)), by=None)
    assert settings.current(store) == ProjectSettings()


def test_more_overlap_opens_judged_comparisons_again_and_less_closes_them(world):
    one, two = world.comparisons(2)
    assert world.rank(world.ann).comparison_id == one
    assert waiting(world.store) == [two]
    overlap(world, 2)
    assert (waiting(world.store), wanted(world.store)) == ([two, one], [2, 2])
    assert world.rank(world.bob).comparison_id == two
    overlap(world, 1)
    assert (waiting(world.store), wanted(world.store)) == ([], [1, 1])


def test_a_new_overlap_leaves_a_batch_that_said_how_many_it_wants(world):
    def of_batch(number):
        batch = batches.request(world.store, [world.policy.id], completions=2, sampling=Sampling(), count=1, wanted=number, by=None)
        prompt_id = world.prompt()
        ids = [world.completion(prompt_id, f"{batch.id} {n}") for n in range(2)]
        return comparisons.add(world.store, prompt_id, ids, purpose="batch", wanted=number, batch_id=batch.id)

    of_batch(3), of_batch(None), world.comparison()
    overlap(world, 2)
    assert wanted(world.store) == [3, 2, 2]


def test_less_overlap_lets_those_finish_who_hold_a_lease(world):
    overlap(world, 2)
    one = world.comparison()
    assert (world.next(world.ann), world.next(world.bob)) == (one, one)
    overlap(world, 1)
    assert (world.rank(world.ann).counts, world.rank(world.bob).counts) == (True, True)
    assert tuple(world.store.row("SELECT human_ranks, leased FROM comparisons")) == (2, 0)


def test_another_change_leaves_the_queue_unchanged(world):
    world.comparisons(3)
    world.skip(world.ann)
    before = [tuple(row) for row in world.store.rows("SELECT * FROM queue")]
    settings.change(world.store, replace(settings.current(world.store), gold_share=0.5, strength=False), by=None)
    assert [tuple(row) for row in world.store.rows("SELECT * FROM queue")] == before


def test_gold_retired_and_imported_comparisons_keep_what_they_want(world):
    _, marked, retired, other = world.comparisons(4)
    gold.set_answer(world.store, marked, ((3,), (4,)), by=None)
    world.store.connection.conn.execute("UPDATE comparisons SET retired = 1 WHERE id = ?", [retired])
    source = world.store.insert("imports", {"format": "csv", "source": "a.csv", "report": "{}", "created_at": "2026-01-01"})
    prompt = world.prompt("imported")
    answers = [world.completion(prompt, "x"), world.completion(prompt, "y")]
    comparisons.add(world.store, prompt, answers, purpose="import", import_id=source, wanted=0)
    overlap(world, 3)
    assert wanted(world.store) == [3, 1, 1, 3, 0]
    assert waiting(world.store) == [1, other]


def test_an_excluded_vote_and_a_new_overlap_open_it_once(world):
    one = world.comparison()
    vote = world.rank(world.ann)
    exclusions.exclude(world.store, [vote.id], rule="too fast", reason="0.2 s", by=None)
    overlap(world, 2)
    assert waiting(world.store) == [one]
    overlap(world, 1)
    assert waiting(world.store) == [one]


def test_the_lease_runs_as_long_as_the_settings_say(world):
    world.comparison()
    settings.change(world.store, ProjectSettings(lease_minutes=90), by=None)
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    lease = queue.lease_of(world.store, shown.id)
    lasts = datetime.fromisoformat(lease.expires_at) - datetime.fromisoformat(lease.created_at)
    assert abs(lasts - timedelta(minutes=90)) < timedelta(seconds=1)


def test_folding_system_messages_again_clears_the_refusals_that_came_from_not_folding(world):
    store = world.store
    settings.change(store, replace(settings.current(store), fold_system=False), None)
    reasons = ("the chat template has no system role, and system messages are not folded into the user's turn", "content_filter: refused")
    for number, reason in enumerate(reasons):
        refusals.add(store, world.prompt(f"Q{number}?"), world.policy, reason)
    settings.change(store, replace(settings.current(store), overlap=2), None)
    assert len(refusals.all_refusals(store)) == 2
    settings.change(store, replace(settings.current(store), fold_system=True), None)
    assert [found.reason for found in refusals.all_refusals(store)] == [reasons[1]]


def test_since_when_a_setting_has_its_value(store):
    def since(*names):
        return settings.unchanged_since(store, *names)

    def save(at, **changes):
        settings.change(store, replace(settings.current(store), **changes), by=None)
        with store.atomic() as connection:
            connection.conn.execute("DROP TRIGGER IF EXISTS settings_are_not_changed")
            connection.conn.execute("UPDATE settings SET created_at = ? WHERE id = (SELECT max(id) FROM settings)", [at])

    assert since("overlap") is None
    save("2026-01-01", overlap=2)
    save("2026-01-02", retrain_schedule="0 3 * * *")
    save("2026-01-03", overlap=3)
    save("2026-01-04", lease_minutes=20)
    assert (since("overlap"), since("retrain_schedule"), since("overlap", "retrain_schedule")) == ("2026-01-03", "2026-01-02", "2026-01-03")
    assert since("gold_share") is None
    save("2026-01-05", retrain_schedule="")
    assert since("retrain_schedule") == "2026-01-05"
