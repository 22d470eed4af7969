"""An import is one act: all of it counts or none, and it can be undone by its id."""

import gzip
import json
import tracemalloc

import pytest

from storage.content import comparisons, policies
from storage.core.database import StoreError
from storage.core.records import ProjectSettings
from storage.exchange import import_records, imports, trl, undos
from storage.judging import gold, judgments, queue
from storage.project import settings


def row(prompt="Why?", completions=("a", "b"), **more):
    return {"prompt": prompt, "completions": list(completions), **more}


def counts(store):
    tables = ("prompts", "completions", "comparisons", "judgments", "presentations", "imports", "annotators", "policy_versions")
    return {table: store.value(f"SELECT count(*) FROM {table}") for table in tables}


def votes(store):
    return [(found.annotator.name, as_listed(store, found.judgment.tiers)) for found in judgments.active(store)]


def as_listed(store, tiers):
    """Tiers with the answers numbered from 1 as the file lists them, through all comparisons; ids are drawn apart from that."""
    rows = store.rows("SELECT completion_id FROM comparison_completions ORDER BY comparison_id, position")
    number = {row[0]: n for n, row in enumerate(rows, 1)}
    return tuple(tuple(number[completion_id] for completion_id in tier) for tier in tiers)


def test_a_vote_with_all_its_rows(store, bring):
    given = row(
        models=["m1", "m2"], tiers=[[1], [0]], shown=[1, 0], annotator="Ann", created_at="2025-01-02T03:04:05Z", strength="slightly"
    )
    import_id, report = bring(given | {"aspects": [{"honest": 2}, {"honest": 5}], "ideal": "ab", "active_ms": 7, "rationale": "clear"})
    (found,) = judgments.active(store)
    ids = list(found.completions)
    assert (report.prompts, report.comparisons, report.judgments, report.wrong) == (1, 1, 1, 0)
    assert found.judgment.tiers == ((ids[1],), (ids[0],)) and found.annotator.name == "Ann" and found.prompt.text == "Why?"
    assert (found.judgment.created_at, found.judgment.strength) == ("2025-01-02T03:04:05.000+00:00", "slightly")
    shown = store.row("SELECT * FROM presentations")
    assert json.loads(shown["slots"]) == [ids[1], ids[0]] and shown["created_at"] == found.judgment.created_at
    assert store.value("SELECT count(*) FROM leases") == 0
    assert [policy.name for policy in policies.all_versions(store)] == ["m1", "m2"]
    assert [tuple(r) for r in store.rows("SELECT completion_id, aspect, rating FROM aspect_ratings")] == [
        (ids[0], "honest", 2), (ids[1], "honest", 5),
    ]  # fmt: skip
    assert store.value("SELECT text FROM ideal_answers") == "ab" and found.judgment.rationale == "clear"
    assert store.value("SELECT active_ms FROM judgments") == 7 and store.value("SELECT import_id FROM judgments") == import_id


def test_rows_on_the_same_completions_are_judgments_of_one_comparison(store, bring):
    bring(
        row(models=["m1", "m2"], tiers=[[0], [1]], annotator="Ann"),
        row(completions=["b", "a"], models=["m2", "m1"], tiers=[[0], [1]], annotator="Bob"),
        row(completions=["b", "a"], models=["m1", "m2"], tiers=[[0], [1]], annotator="Bob"),
    )
    assert store.value("SELECT count(*) FROM comparisons") == 2
    (a, b) = (item.id for item in comparisons.get(store, 1).completions)
    assert votes(store)[:2] == [("Ann", ((a,), (b,))), ("Bob", ((b,), (a,)))]
    assert [json.loads(r[0]) for r in store.rows("SELECT slots FROM presentations")][:2] == [[a, b], [b, a]]


def test_a_later_file_adds_to_the_same_comparison(store, bring):
    bring(row(choice=0, annotator="Ann"))
    _, report = bring(row(choice=1, annotator="Bob"))
    assert (report.comparisons, report.comparisons_known, report.judgments) == (0, 1, 1)
    assert store.value("SELECT human_ranks FROM comparisons") == 2


def test_the_same_answer_twice_from_one_model(store, bring):
    bring(row(completions=["a", "a", "b"], tiers=[[2], [0], [1]]), row(completions=["a", "b", "a"], tiers=[[1], [2], [0]]))
    assert store.value("SELECT count(*) FROM comparisons") == 1
    assert [tiers for _, tiers in votes(store)] == [((3,), (1,), (2,)), ((3,), (2,), (1,))]


def test_judged_comparisons_are_not_queued_and_others_wait(world, bring):
    settings.change(world.store, ProjectSettings(overlap=3), by=None)
    bring(row(choice=0), row(choice=0), row("And?"), row("Gold?", tiers=[[1], [0]], gold=True))
    rows = [tuple(r) for r in world.store.rows("SELECT human_ranks, wanted, gold FROM comparisons ORDER BY id")]
    assert rows == [(2, 2, 0), (0, 3, 0), (0, 3, 1)]
    assert queue.depth(world.store) == 1 and world.next(world.ann) == 2
    assert as_listed(world.store, gold.answer(world.store, 3)) == ((6,), (5,))


def test_a_waiting_comparison_that_gets_a_vote_later_in_the_file_waits_no_more(store, bring):
    bring(row(), row(choice=1))
    assert tuple(store.row("SELECT human_ranks, wanted FROM comparisons")) == (1, 1)
    assert queue.depth(store) == 0


def test_who_is_not_named(store, bring):
    bring(row(choice=0), name="mine.jsonl")
    bring({"prompt": "Why?", "chosen": "a", "rejected": "b"}, format="trl")
    assert [name for name, _ in votes(store)] == ["mine", "trl"]
    assert store.value("SELECT name FROM policy_versions") == "imported"


def test_pseudonyms_lead_back_to_whom_they_stand_for(world, bring):
    bring(row(choice=0, annotator=world.ann.pseudonym), row("And?", choice=0, annotator="Bob"))
    assert [name for name, _ in votes(world.store)] == ["Ann", "Bob"]


def test_a_model_of_this_store_keeps_its_version(world, bring):
    bring(row(models=["tiny", "other"], choice=0))
    assert [(policy.name, policy.kind) for policy in policies.all_versions(world.store)] == [("tiny", "base"), ("other", "external")]
    assert world.store.value("SELECT count(*) FROM completions WHERE policy_version_id = ?", [world.policy.id]) == 1


def test_simulated_votes_stay_apart(world, bring):
    bring(row(choice=0, annotator="gpt", annotator_kind="simulated", annotator_rule="GPT-4"))
    bring(row("And?", choice=0), rule="GPT-4", name="judge.jsonl")
    assert votes(world.store) == []
    found = judgments.active(world.store, kinds=("simulated",))
    assert [(item.annotator.name, item.annotator.rule) for item in found] == [("gpt", "GPT-4"), ("judge", "GPT-4")]
    assert queue.depth(world.store) == 0


def test_a_person_and_a_rule_never_share_a_name(world, bring):
    wrong = []
    bring(
        row(choice=0, annotator="longest"),
        row("And?", choice=0, annotator="Ann", annotator_kind="simulated", annotator_rule="x"),
        row("Good?", choice=0, annotator="Ann"),
        wrong_row=lambda line, reason: wrong.append((line, reason.split(":")[0])),
    )
    assert wrong == [(1, "longest judges by length in this store"), (2, "Ann is a person in this store")]
    assert votes(world.store) == [("Ann", ((1,), (2,)))]


def test_wrong_rows_are_reported_and_the_others_kept(store, bring):
    reported = []
    import_id, report = bring(row(choice=0), "nothing", row(choice=5), row("And?"), wrong_row=lambda *wrong: reported.append(wrong))
    assert reported == report.wrong_rows == [(2, "not JSON"), (3, "choice must be an index from 0 to 1, tie or both_bad, not 5")]
    assert (report.comparisons, report.wrong) == (2, 2)
    kept = import_records.get(store, import_id)
    assert (kept.format, kept.report.wrong, [tuple(r) for r in kept.report.wrong_rows]) == ("jsonl", 2, reported)


def test_strict_imports_nothing_and_names_every_wrong_row(store, bring):
    before, reported = counts(store), []
    rows = [row(f"Q{n}") for n in range(1200)]
    with pytest.raises(StoreError, match=r"2 wrong rows, nothing imported \(--strict\)"):
        bring(*rows, "x", row("last"), "y", strict=True, wrong_row=lambda *wrong: reported.append(wrong))
    assert reported == [(1201, "not JSON"), (1203, "not JSON")] and counts(store) == before


def test_a_file_that_breaks_off_imports_nothing(store, tmp_path):
    before = counts(store)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row(f"Q{n} {n * 7919}")) + "\n" for n in range(3000)).encode())[:-3000])
    with pytest.raises(StoreError, match="damaged gzip file"):
        imports.import_file(store, path, "jsonl")
    assert counts(store) == before


def test_nothing_good_leaves_no_import(store, bring):
    assert bring("x")[0] is None and bring()[0] is None
    assert import_records.all_imports(store) == []


def test_the_same_file_twice_is_refused_until_the_first_is_undone(store, bring):
    first, _ = bring(row(choice=0), name="a.jsonl")
    with pytest.raises(StoreError, match=r"imported before: it is import 1 \(a.jsonl, .*Z\).* rankloop import --undo 1 --data "):
        bring(row(choice=0), name="b.jsonl")
    bring(row(choice=0), name="b.jsonl", format="plain")
    undos.undo(store, first)
    second, report = bring(row(choice=0), name="b.jsonl")
    assert second == 3 and report.judgments == 1


@pytest.mark.slow
def test_datasets_in_memory_take_the_same_path(store):
    rows = [
        {"prompt": [{"role": "user", "content": f"Q{n}"}], "chosen": [{"role": "assistant", "content": "a"}],
         "rejected": [{"role": "assistant", "content": "a" if n == 3 else "b"}]}
        for n in range(5)
    ]  # fmt: skip
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(rows)
    reported = []
    _, report = imports.import_rows(store, dataset, "trl", source="hub/set", wrong_row=lambda *wrong: reported.append(wrong))
    assert (report.judgments, reported) == (4, [(4, "chosen and rejected are the same: there is nothing to compare")])
    _, again = imports.import_rows(store, dataset.to_iterable_dataset(), "trl")
    assert (again.comparisons_known, again.judgments) == (4, 4)
    plain = datasets.Dataset.from_list([row(tiers=[[1], [0]]), row("And?", strength=None)])
    assert imports.import_rows(store, plain, "plain")[1].comparisons == 2
    assert imports.import_rows(store, [3], "plain")[1].wrong_rows == [(1, "not a JSON object")]


def test_formats_that_cannot_be_read(store, tmp_path):
    for name in ("sft", "nonsense"):
        with pytest.raises(StoreError, match=f"{name} cannot be imported: choose one of prompts, lines, paragraphs, trl"):
            imports.import_file(store, tmp_path / "x", name)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(store, tmp_path):
    def peak(number):
        path = tmp_path / f"{number}.jsonl"
        with open(path, "w") as file:
            for n in range(number):
                file.write(json.dumps(row(f"{number} {n} " + "x" * 500, ["a" * 500, "b" * 500], choice=0)) + "\n")
        tracemalloc.start()
        imports.import_file(store, path, "jsonl")
        trl.write(store, tmp_path / "out.jsonl")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    small, large = peak(1_500), peak(6_000)
    assert large < 1.3 * small
