"""A data folder that version 0.1.0 made opens with the code of today, shows the same figures, and goes on where it stood.

`fixtures/make_data_folder.py` made it, and wrote down what that version showed. Whoever renames something that is stored
writes the old and the new name into `RENAMED`; the figures themselves must not change.
"""

import contextlib
import html
import io
import json
import math
import re
import shutil
import sqlite3
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

import launch
from feedback_ui.shared.i18n import LANGUAGES, Translator
from feedback_ui.training import charts, rounds_table, run_view, validation_view
from rlhf.analysis import validation
from rlhf.config import RoundConfig
from rlhf.data import pairs
from rlhf.generation.engine import sample
from rlhf.models.backbone import Backbone
from storage.content import batches, comparisons, policies, prompts
from storage.core.database import Database
from storage.core.records import Sampling
from storage.exchange import import_records
from storage.judging import exclusions, gold, history, judgments, queue
from storage.people import accounts, annotators, audit
from storage.project import guidelines, runs, settings

FIXTURES = Path(__file__).parent / "fixtures"
PASSWORD = "correct horse battery"
CANCELLED_AFTER = 3
"""Steps of PPO that the cancelled run had taken."""

RENAMED: dict[str, str] = {
    "line": "queue",
    "line_places": "queue_cursors",
    "given_back": "released_presentations",
    "kept": "best_checkpoint",
    "most": "max_n",
    "beyond_most": "beyond_max_n",
    "surprises": "high_loss_judgments",
    "by_chance": "ece_by_chance",
    "reach": "asymptote",
    "half": "half_saturation",
    "more": "additional_judgments",
    "rloo/rewards/paid/mean": "rloo/rewards/score/mean",
    "rloo/rewards/paid/std": "rloo/rewards/score/std",
}
"""Names of 0.1.0 (of tables, figures, stages, acts, columns of an export) and what they are called today, where that differs."""

RENAMED_WITHIN = {"kept": {"of": "steps", "score": "conservative_score"}}
"""Names that are renamed in one place and stay in others, by what they stand within."""


def today(value, renamed=RENAMED):
    """What 0.1.0 wrote down, under the names of today."""
    if isinstance(value, dict):
        return {today(name, renamed): today(part, RENAMED | RENAMED_WITHIN.get(name, {})) for name, part in value.items()}
    if isinstance(value, list):
        return [today(part, renamed) for part in value]
    return renamed.get(value, value) if isinstance(value, str) else value


EXPECTED = today(json.loads((FIXTURES / "data-0.1.json").read_text(encoding="utf-8")))
RUNS = EXPECTED["names"]
DONE = [RUNS["ppo"], RUNS["dpo"], RUNS["rloo"]]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURES / "data-0.1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    # Version 0.1.0 knew the tokenizer's end token alone. This model's generation config names another one, a letter, by mistake.
    (folder / "tiny" / "generation_config.json").unlink()
    return folder


@pytest.fixture(autouse=True)
def beside_the_models(unpacked, monkeypatch):
    """The store names its models by relative paths, so that the archive opens anywhere."""
    monkeypatch.chdir(unpacked)


@pytest.fixture(scope="module")
def data(unpacked):
    """The data folder, for tests that only read."""
    return unpacked / "data"


@pytest.fixture(scope="module")
def old(data):
    store = Database(data / "rankloop.db")
    yield store
    store.close()


@pytest.fixture
def own(data, tmp_path):
    """A copy, for a test that writes."""
    return shutil.copytree(data, tmp_path / "data")


def rankloop(verb, data, *arguments):
    """What `rankloop VERB` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert launch.main([verb, "--data", str(data), *map(str, arguments)]) == 0, said.getvalue()
    return said.getvalue()


def flat(value, path=""):
    """Nested figures by their path, `annotators/0/name`, and the lengths of lists."""
    if isinstance(value, (dict, list, tuple)):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [flat(part, f"{path}/{name}") for name, part in named]
        length = {} if isinstance(value, dict) else {f"{path}/length": len(value)}
        return length | {name: part for actual in parts for name, part in actual.items()}
    return {path: value}


def assert_shows(actual, expected, *, rel=0.0, abs_=0.0):
    """Every figure that was there is there, and is the same, numbers within a tolerance; others may have come."""
    actual, expected = flat(actual), flat(expected)
    now = {path: actual.get(path, "is missing") for path in expected}
    assert {path: (was, now[path]) for path, was in expected.items() if not alike(now[path], was, rel, abs_)} == {}


def alike(a, b, rel, abs_):
    return math.isclose(a, b, rel_tol=rel, abs_tol=abs_) if isinstance(a, float) and isinstance(b, float) else a == b


def pairs_together(text):
    """The pairs that teach and those that measure as one number, as 0.1.0 showed them."""
    return re.sub(r"([\d,]+) teach · ([\d,]+) measure", lambda found: str(sum(int(n.replace(",", "")) for n in found.groups())), text)


def numbers(text):
    """The numbers in a text, in their order: what is shown, whatever words stand around it."""
    return [float(actual) for actual in re.findall(r"(?<![\w.-])-?\d+(?:\.\d+)?", text.replace(",", ""))]


def plain(markup):
    return html.unescape(re.sub(r"<[^>]*>", " ", markup))


# ---- the store


def schema(path):
    """Columns, keys, indexes, triggers and views, as SQLite tells them."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        columns = {name: raw.execute(f'PRAGMA table_xinfo("{name}")').fetchall() for name in tables}
        keys = {name: sorted(key[2:] for key in raw.execute(f'PRAGMA foreign_key_list("{name}")')) for name in tables}
        others = raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type != 'table' ORDER BY type, name").fetchall()
    return columns, keys, others


def rows_by_table(path):
    with contextlib.closing(sqlite3.connect(path)) as raw:
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: raw.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables if "migration" not in name}


def test_after_its_migrations_an_old_store_has_the_schema_of_a_new_one(own, empty_store):
    before = rows_by_table(own / "rankloop.db")
    Database(own / "rankloop.db").close()
    columns, keys, others = schema(own / "rankloop.db")
    fresh_columns, fresh_keys, fresh_others = schema(empty_store)
    assert columns == fresh_columns
    assert keys == fresh_keys
    assert others == fresh_others
    with contextlib.closing(sqlite3.connect(own / "rankloop.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
    kept = {today(name): number for name, number in before.items()}
    assert kept.items() <= rows_by_table(own / "rankloop.db").items(), "a migration took rows away"


# ---- figures


def test_the_store_counts_the_same(data):
    assert_shows(json.loads(rankloop("stats", data, "--json")), EXPECTED["stats"])


@pytest.mark.parametrize("whose", ["people", "everybody"])
@pytest.mark.parametrize("figure", ["agreement", "leaderboard"])
def test_statistics_show_the_same(data, figure, whose):
    options = ["--include-simulated"] if whose == "everybody" else []
    actual = json.loads(rankloop(figure, data, "--json", *options))
    # Bootstraps have their seeds; what is left is the order in which a processor adds up.
    assert_shows(actual, EXPECTED[figure][whose], rel=1e-6, abs_=1e-9)


@pytest.mark.parametrize("whose", ["people", "everybody"])
def test_the_same_training_data_are_derived(old, whose):
    actual = pairs.of_store(old, include_simulated=whose == "everybody", ties=True)
    # With the hash of all pairs, so that two snapshots of the same judgments are still told to be the same.
    assert_shows(pairs.manifest(actual).to_json(), EXPECTED["pairs"][whose])


def test_the_project_is_as_it_was(old):
    actual = {
        "settings": asdict(settings.current(old)),
        "guidelines": [one.text for one in guidelines.versions(old)],
        "batches": [
            [b.policy_ids, b.completions, b.requested, b.generated, b.priority, b.cancelled_at, asdict(b.sampling)]
            for b in batches.all_batches(old)
        ],
        "imports": [[i.format, i.source, asdict(i.report), i.undone_at] for i in import_records.all_imports(old)],
        "gold": sorted(gold.answers(old).items()),
        "exclusions": [[e.rule, e.reason, e.judgments, e.lifted_at] for e in exclusions.all_exclusions(old)],
        "accounts": [[account.name, sorted(account.roles), account.disabled] for account in accounts.all_accounts(old)],
    }
    assert_shows(actual, EXPECTED["project"])


def past(actual):
    """A judgment as its annotator finds it again. Completions are named by their place on the screen."""
    place = {completion_id: i for i, completion_id in enumerate(actual.order)}
    judgment, details = actual.judgment, actual.details
    return {
        "id": judgment.id, "prompt": actual.comparison.prompt.text, "verdict": judgment.verdict, "purpose": judgment.purpose,
        "answers": [next(c.text for c in actual.comparison.completions if c.id == i) for i in actual.order],
        "tiers": [[place[i] for i in tier] for tier in judgment.tiers], "counts": judgment.counts, "all_bad": judgment.all_bad,
        "partial": judgment.partial, "skip_reason": judgment.skip_reason, "strength": details.strength, "rationale": details.rationale,
        "aspects": sorted([place[i], aspect, n] for i, ratings in details.aspects.items() for aspect, n in ratings.items()),
        "ideal": details.ideal and details.ideal.text,
        "flags": [[flag.kind, flag.note, place.get(flag.completion_id)] for flag in details.flags],
        "excluded": actual.exclusion and [actual.exclusion.rule, actual.exclusion.reason],
    }  # fmt: skip


def test_everybody_finds_their_judgments_again(old):
    people = {person.name: person for person in annotators.all_annotators(old)}
    for name, expected in EXPECTED["history"].items():
        assert_shows([today(past(one)) for one in history.of_annotator(old, people[name].id, limit=1000)], expected)


def test_the_audit_tells_the_same_acts(old):
    actual = [[entry.at, entry.who, entry.act, entry.subject, entry.subject_id] for entry in audit.entries(old, limit=1000)]
    assert_shows(actual, EXPECTED["audit"])


def test_an_export_has_the_same_rows(data, unpacked, tmp_path):
    rankloop("export", data, tmp_path / "rows", "--format", "jsonl", "--include-simulated", "--names")
    files = (unpacked / "export.jsonl", tmp_path / "rows")
    before, now = ([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files)
    assert_shows(now, today(before))


def test_people_sign_in_and_go_on_judging(own):
    store = Database(own / "rankloop.db")
    person = accounts.of_token(store, accounts.sign_in(store, "sora", PASSWORD)).annotator
    judged = len(history.of_annotator(store, person.id, limit=1000))
    # What she takes back is what she sees next, in the order she saw.
    undone = judgments.undo(store, person.id)
    comparison, shown = queue.next_presentation(store, person.id)
    assert (comparison.id, shown.id) == (undone.comparison_id, undone.presentation_id)
    assert sorted(shown.order) == sorted(completion.id for completion in comparison.completions)
    saved = judgments.save(store, shown.id, person.id, verdict="rank", tiers=tuple((i,) for i in shown.order))
    corrected = judgments.correct(store, saved.id, person.id, verdict="rank", tiers=tuple((i,) for i in reversed(shown.order)))
    assert corrected.counts == (shown.purpose == "vote")
    assert len(history.of_annotator(store, person.id, limit=1000)) == judged == annotators.get(store, person.id).judged
    store.close()


# ---- runs


def of_run(store, run_id):
    run = runs.get(store, run_id)
    metrics = {}
    for metric in runs.metrics(store, run_id):
        metrics.setdefault(metric.name, {})[str(metric.step)] = metric.value
    samples = [[s.prompt, s.before, s.after, s.score_before, s.score_after] for s in runs.samples(store, run_id)]
    return {
        "status": run.status, "stage": run.stage, "error": run.error, "seed": run.seed, "snapshot": run.snapshot, "result": run.result,
        "validation": run.validation, "metrics": metrics, "samples": samples,
    }  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_the_same_row_metrics_and_samples(old, name):
    assert_shows(of_run(old, RUNS[name]), EXPECTED["runs"][RUNS[name]])
    config = RoundConfig.from_dict(runs.get(old, RUNS[name]).config)
    assert (config.model, config.seed) == ("without-weights" if name == "failed" else "tiny", EXPECTED["runs"][RUNS[name]]["seed"])


def test_the_command_line_shows_the_same_numbers_of_runs(data):
    assert numbers(pairs_together(rankloop("runs", data))) == EXPECTED["runs_shown"]
    # The verdict comes first since then, and repeats figures that stand below it.
    shown = {run_id: numbers(rankloop("runs", data, run_id)) for run_id in DONE}
    assert {run_id: found[-len(EXPECTED["run_shown"][run_id]) :] for run_id, found in shown.items()} == EXPECTED["run_shown"]


def test_the_page_shows_the_same_numbers_of_runs(old):
    words = Translator("en")
    shown = {run.id: numbers(plain(run_view.result(words, run))) for run in runs.all_runs(old)}
    assert shown == EXPECTED["page_shown"]
    assert numbers(pairs_together(plain(rounds_table.section(words, runs.all_runs(old))))) == EXPECTED["rounds_shown"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", RUNS)
def test_every_part_of_a_page_about_a_run_is_drawn(old, name, language):
    words, run = Translator(language), runs.get(old, RUNS[name])
    metrics = runs.metrics(old, run.id)
    people = {annotator.id: annotator for annotator in annotators.all_annotators(old)}
    judged = {comparison.id: comparison for comparison in comparisons.many(old, validation_view.compared(run))}
    assert run.id in run_view.label(words, run)
    assert f'data-status="{run.status}"' in run_view.progress(words, run)
    assert bool(run_view.samples(words, runs.samples(old, run.id))) == bool(EXPECTED["runs"][run.id]["samples"])
    for part in (validation_view.card, lambda *given: validation_view.details(*given, people, judged)):
        assert bool(part(words, run)) == bool(run.validation)
    of_run = (*charts.REWARD_CHARTS, *charts.POLICY_CHARTS[run_view.method(run)])
    plotted = [chart for chart in of_run if any(len(trace.y or ()) for trace in charts.figure(words, chart, metrics).data)]
    assert len(plotted) >= EXPECTED["charts_drawn"][run.id], [chart.metric.name for chart in plotted]
    charts.score_over_kl(words, metrics)
    charts.learning_curve(words, validation.of_run(run))
    charts.reliability(words, validation.of_run(run))


# ---- weights


def test_adapters_give_the_same_greedy_answers(old):
    backbone = Backbone.load(Path("tiny"), "cpu", "float32")
    questions = [backbone.encode(prompt.messages) for prompt in prompts.of_split(old)[:3]]
    actual = {}
    for policy in policies.all_versions(old):
        if policy.kind == "external":
            continue
        folder = policies.adapter_folder(old, policy)
        if folder is not None:
            backbone.load_adapter(policy.name, folder)
        greedy = Sampling(temperature=0.0, max_new_tokens=max(map(len, EXPECTED["greedy"][policy.name])))
        adapter = policy.name if folder else None
        plotted = sample(backbone, questions, greedy, 0, adapter=adapter)
        actual[policy.name] = [one.ids for one in plotted]
    # The script saw to it that the likeliest token is ahead of the next by a thousand times what processors differ by.
    assert actual == EXPECTED["greedy"]


def independent_of_samples(actual, name):
    """What a resumed run has whatever its answers are: the snapshot, the reward model, and the steps before the checkpoint."""
    last = CANCELLED_AFTER if name == "cancelled" else 0
    result = {
        key: value for key, value in actual["result"].items() if key in ("pairs", "heldout_accuracy", "heldout_accuracy_on_rule", "rule")
    }
    metrics = {
        metric: {step: value for step, value in steps.items() if metric.startswith("reward/") or int(step) <= last}
        for metric, steps in actual["metrics"].items()
        if not metric.startswith("time/") and metric != today("objective/sqrt_kl")
    }
    return {key: actual[key] for key in ("status", "stage", "error", "seed", "snapshot", "validation")} | {
        "result": result,
        "metrics": metrics,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rel", "abs_"), [("cancelled", 1e-4, 2e-5), ("lost", 2e-2, 1e-2)])
def test_a_run_is_resumed_with_the_figures_that_it_had(own, name, rel, abs_):
    """The cancelled one from a checkpoint, the lost one from its row alone.

    Since each row has random numbers of its own, new steps sample other answers than the version that began the run would have.
    """
    store, run_id = Database(own / "rankloop.db"), RUNS[name]
    done_before = {file: file.stat().st_mtime_ns for file in (own / "runs" / run_id).glob("reward/*")}
    # A figure of the last step that was taken. Where steps are taken again, it is dropped with the others.
    runs.log_metrics(store, run_id, CANCELLED_AFTER, {"objective/of_the_first_attempt": 1.0})
    rankloop("train", own, "--resume", run_id, "--debug")
    actual = of_run(store, run_id)
    expected = EXPECTED["resumed"][name]
    assert_shows(independent_of_samples(actual, name), independent_of_samples(expected, name), rel=rel, abs_=abs_)
    for metric, steps in expected["metrics"].items():
        assert {*steps} <= {*actual["metrics"][metric]}, metric
    if name == "cancelled":
        assert "objective/of_the_first_attempt" in actual["metrics"], "PPO began anew"
        assert done_before and {file: file.stat().st_mtime_ns for file in done_before} == done_before, "the reward model was fitted anew"
    store.close()
