"""Export and import of a whole store: the same rows, in every table, or nothing."""

import json
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.content import prompts
from storage.core.database import Database, StoreError
from storage.core.migrations import NAMES, migrations
from storage.core.records import Details, IdealAnswer, ProjectSettings
from storage.exchange import import_records, imports, native, undos
from storage.judging import exclusions, gold, judgments, queue
from storage.people import accounts
from storage.project import runs
from storage.project.settings import change

FIXTURES = Path(__file__).parents[2] / "fixtures"


def rows_of(store):
    """Every row of every table that an export holds, with the sequence behind the positions of the queue."""
    tables = [r[0] for r in store.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    kept = set(tables) - {"accounts", "sessions", "sign_in_failures", "_sqlite_migrations"}
    return {table: sorted((tuple(row) for row in store.rows(f'SELECT * FROM "{table}"')), key=repr) for table in kept}


def schema_of(store):
    return sorted(tuple(row) for row in store.rows("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


@pytest.fixture
def full(world):
    """A store with something in every table that people fill."""
    store = world.store
    change(store, ProjectSettings(overlap=2, repeat_share=0.5), by=world.ann.id)
    prompts.load_starter(store)
    first, *_ = world.comparisons(6)
    world.rank(world.ann)
    world.rank(world.ann)
    judgments.undo(store, world.ann.id)
    world.skip(world.bob)
    shown = queue.next_presentation(store, world.bob.id)[1]
    details = Details("slightly", {shown.order[0]: {"honest": 3}}, "because “ß”", IdealAnswer("Better.", shown.order[0]))
    tiers = tuple((item,) for item in shown.order)
    voted = judgments.save(store, shown.id, world.bob.id, verdict="rank", tiers=tiers, details=details)
    exclusions.exclude(store, [voted.id], rule="too fast", reason="2 s", by=world.ann.id)
    world.rule_ranks(first)
    gold.set_answer(store, 6, ((11,), (12,)), world.ann.id)
    import_id, _ = imports.import_rows(store, [{"prompt": "Q", "completions": ["a", "b"], "choice": 0}], "plain")
    undos.undo(store, import_id)
    runs.create(store, run_id="run-1", config={"model": "x", "rate": 3e-4}, seed=1, versions={})
    runs.log_metrics(store, "run-1", 1, {"loss": 0.1 + 0.2})
    return store


@pytest.fixture
def other(tmp_path):
    database = Database(tmp_path / "other" / "rankloop.db")
    yield database
    database.close()


def test_the_same_rows_in_every_table(full, other, tmp_path):
    schema = schema_of(other)
    number = native.write(full, tmp_path / "out")
    assert native.read(other, tmp_path / "out") == number
    assert rows_of(other) == rows_of(full)
    assert schema_of(other) == schema == schema_of(full)
    found = {table for table, rows in rows_of(other).items() if rows}
    assert {"judgments", "leases", "queue", "queue_cursors", "sqlite_sequence", "exclusions", "aspect_ratings", "ideal_answers"} <= found


def test_the_copy_goes_on_as_the_first_would(full, other, tmp_path):
    native.write(full, tmp_path / "out")
    native.read(other, tmp_path / "out")
    for store in (full, other):
        imports.import_rows(store, [{"prompt": "Later?", "completions": ["a", "b"]}], "plain")
    # Positions and ids go on where they were; only the times differ.
    assert [r[:2] for r in rows_of(other)["queue"]] == [r[:2] for r in rows_of(full)["queue"]]
    with pytest.raises(Exception, match="append-only"):
        other.rows("DELETE FROM judgments")


def test_starter_prompts_and_the_local_user_give_way(full, other, tmp_path):
    native.write(full, tmp_path / "out")
    prompts.load_starter(other)
    accounts.local(other)
    native.read(other, tmp_path / "out")
    assert rows_of(other) == rows_of(full)


def test_a_store_with_anything_in_it_is_refused(world, full, other, tmp_path):
    native.write(full, tmp_path / "out")
    prompts.add(other, [prompts.NewPrompt([{"role": "user", "content": "Mine"}])], source="mine")
    before = rows_of(other)
    with pytest.raises(StoreError, match=r"is not empty \(1 rows in prompts\): a native export is the whole store"):
        native.read(other, tmp_path / "out")
    with pytest.raises(StoreError, match=r"is not empty \(\d+ rows in judgments\)"):
        native.read(full, tmp_path / "out")
    assert rows_of(other) == before


def test_the_manifest_tells_what_there_is_and_what_is_not(full, tmp_path):
    accounts.create(full, "Lea", "a long password", ["lead"])
    full.insert("sign_in_failures", {"name": "Lea", "created_at": "2025"})
    number = native.write(full, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "rows.jsonl", "rows.sha256"]
    assert manifest["rows"] == number == sum(manifest["tables"].values())
    assert manifest["tables"]["judgments"] == full.value("SELECT count(*) FROM judgments")
    assert set(manifest["left_out"]) == {"accounts", "sessions", "sign_in_failures", "keys"}
    text = (tmp_path / "out" / "rows.jsonl").read_text(encoding="utf-8")
    assert "argon2" not in text and '"table":"accounts"' not in text and '"table":"sign_in_failures"' not in text
    assert json.loads(text.splitlines()[0])["table"] == "account_events"


def changed(folder, name, old, new):
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def cut(folder, name, first=None, last=None):
    path = folder / name
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[first:last]), encoding="utf-8")


@pytest.mark.parametrize(
    "tamper, reason",
    [
        (lambda f: changed(f, "rows.jsonl", "too fast", "too slow"), r"rows.jsonl:\d+: it is not as it was exported"),
        (lambda f: cut(f, "rows.jsonl", last=-1), r"rows.jsonl:\d+: rows are missing from here on"),
        (lambda f: cut(f, "rows.jsonl", first=1), r"rows.jsonl:1: it is not as it was exported"),
        (lambda f: cut(f, "rows.sha256", last=-1), r"rows.jsonl:\d+: it is not as it was exported"),
        (lambda f: (cut(f, "rows.jsonl", last=-1), cut(f, "rows.sha256", last=-1)), "are not those of the manifest"),
        (lambda f: changed(f, "manifest.json", '"judgments": ', '"judgments": 1'), "names other numbers of rows"),
        (lambda f: changed(f, "manifest.json", "m006_audit", "m999_future"), "written by a newer rankloop"),
        (lambda f: changed(f, "manifest.json", "rankloop-native", "x"), "not of a native export"),
        (lambda f: changed(f, "manifest.json", "{", "["), "is not JSON"),
        (lambda f: changed(f, "manifest.json", '"tables"', '"cables"'), "was changed"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda f: (f / "rows.sha256").unlink(), "cannot be read"),
    ],
)
def test_an_export_that_was_changed_is_refused_whole(full, other, tmp_path, tamper, reason):
    folder = tmp_path / "out"
    native.write(full, folder)
    tamper(folder)
    before, schema = rows_of(other), schema_of(other)
    with pytest.raises(StoreError, match=reason):
        native.read(other, folder)
    assert rows_of(other) == before and schema_of(other) == schema


def flag(**values):
    row = {"id": 1, "judgment_id": 99, "completion_id": None, "kind": "unsafe", "note": ""} | values
    return json.dumps({"table": "flags", "row": row})


def repack(folder, text):
    """Replaces the rows of an export, with hashes that fit."""
    lines = text.encode().splitlines(keepends=True)
    (folder / "rows.jsonl").write_bytes(b"".join(lines))
    (folder / "rows.sha256").write_bytes(b"".join(map(native._hash, lines)))
    manifest = json.loads((folder / "manifest.json").read_text())
    sums = {name: native.hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("rows.jsonl", "rows.sha256")}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": sums}))


@pytest.mark.parametrize(
    "line, reason",
    [
        ('{"table":"nonsense","row":{}}', "there is no table 'nonsense'"),
        ('{"table":"flags","row":{"id":1}}', "its columns are not those of flags"),
        ('{"table":"flags","row":{"id":1,"judgment_id":1,"completion_id":null,"kind":"ugly","note":""}}', "CHECK constraint"),
        ('{"table":"flags","row":{"id":1,"judgment_id":99,"completion_id":null,"kind":"unsafe","note":[]}}', "note must be text"),
        (flag(id=1 << 63), "id must be from 0 to 9007199254740991, not 9223372036854775808"),
        (flag(id=-1), "id must be from 0 to"),
        (flag(judgment_id=1 << 64), "judgment_id must be from 0 to"),
        (flag(judgment_id=True), "judgment_id must be a whole number"),
        (flag(judgment_id="1"), "judgment_id must be a whole number"),
        (flag(note="\ud83d"), "note has half a surrogate pair"),
        (flag(note={"a": "b"}), "note must be text"),
        ('{"table":["flags"],"row":{}}', r"there is no table \['flags'\]"),
        (
            '{"table":"exclusions","row":{"id":1,"rule":"x","reason":"y","by_id":null,"created_at":"soon"}}',
            "created_at must be a time, not 'soon'",
        ),
        ('{"table":"flags","row":' + "[" * 2_000 + "}", "nested too deeply"),
        ('{"table":"flags","row":' + "[[]," * 200_000 + "}", "nested too deeply"),
        ('{"table":"flags","row":{"id":[' + "[]," * 500_000 + "1]}}", "more than 419,430 values"),
        ('{"table":"flags","row":{"id":' + "1" * 5_000 + "}}", "it is no row"),
        ('{"table":"flags","row":{"id":1,"judgment_id":99,"completion_id":null,"kind":"unsafe","note":""}}', "other numbers"),
        ('{"row":3}', "it is no row"),
        ("[1]", "it is no row"),
        ("nothing", "it is no row"),
    ],
)
def test_rows_with_the_right_hash_are_still_looked_at(other, tmp_path, line, reason):
    folder = tmp_path / "out"
    native.write(other, folder)
    repack(folder, line + "\n")
    with pytest.raises(StoreError, match=reason):
        native.read(other, folder)


def test_nothing_is_written_over(full, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="exists already: a native export is a new folder"):
        native.write(full, tmp_path / "out")
    with pytest.raises(StoreError, match="cannot be written"):
        native.write(full, tmp_path / "nowhere" / "out")
    assert list((tmp_path / "out").iterdir()) == []


# ---- exports of older versions


@pytest.fixture
def shipped(tmp_path):
    """The store of version 0.1.0, not migrated."""
    with tarfile.open(FIXTURES / "data-0.1.tar.xz") as archive:
        archive.extract("data/rankloop.db", tmp_path / "0.1", filter="data")
    return tmp_path / "0.1" / "data" / "rankloop.db"


def export_of(path, folder):
    """The export that the version of this store's schema writes."""
    folder.mkdir()
    with closing(sqlite3.connect(path)) as raw:
        return native.write_rows(raw.execute, folder, None)


def test_an_export_of_version_0_1_becomes_what_its_store_becomes(shipped, other, tmp_path):
    written = export_of(shipped, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["migrations"][-1] == "m007_validation" and manifest["tables"]["line"] > 0
    seen = []
    read = native.read(other, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    migrated = Database(shipped)
    # The migrations give each run a round.
    assert read == written + migrated.value("SELECT count(*) FROM runs") and migrated.value("SELECT count(*) FROM rounds") == 6
    assert rows_of(other) == rows_of(migrated)
    assert schema_of(other) == schema_of(migrated)
    migrated.close()
    assert [path.name for path in other.path.parent.iterdir() if path.name.startswith(".native")] == []
    assert other.value("SELECT count(*) FROM active_judgments") > 0


@pytest.mark.parametrize("count", range(1, len(NAMES)))
def test_an_export_of_every_earlier_schema_is_read(other, tmp_path, count):
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as raw:
        migrations.apply(sqlite_utils.Database(raw), stop_before=NAMES[count:])
        raw.execute(
            "INSERT INTO prompts (messages, kind, split, source, digest, created_at) VALUES ('[]', 'k', 'train', 's', 'd', '2026-10-01')"
        )
        raw.execute("INSERT INTO comparisons (prompt_id, purpose, created_at) VALUES (1, 'collect', '2026-10-01T08:00:00')")
    export_of(tmp_path / "old.db", tmp_path / "out")
    native.read(other, tmp_path / "out")
    assert [tuple(row) for row in other.rows("SELECT comparison_id, priority FROM queue")] == [(1, 0)]


def test_an_older_export_is_looked_at_before_it_is_migrated(shipped, other, tmp_path):
    """Against the columns of its own time: a name of today is refused there, and nothing of it stays."""
    with closing(sqlite3.connect(shipped)) as raw:
        raw.execute("DROP TRIGGER prompts_are_not_changed")
        raw.execute("UPDATE prompts SET created_at = 'soon' WHERE id = 1")
        raw.commit()
    export_of(shipped, tmp_path / "out")
    before = rows_of(other)
    with pytest.raises(StoreError, match="prompts: created_at must be a time, not 'soon'"):
        native.read(other, tmp_path / "out")
    assert rows_of(other) == before
    assert sorted(path.name for path in other.path.parent.iterdir()) == ["rankloop.db", "rankloop.db-shm", "rankloop.db-wal"]


def test_an_older_export_with_todays_columns_is_refused(shipped, other, tmp_path):
    export_of(shipped, tmp_path / "out")
    rows = (tmp_path / "out" / "rows.jsonl").read_text(encoding="utf-8").replace('{"table":"line"', '{"table":"queue"')
    repack(tmp_path / "out", rows)
    with pytest.raises(StoreError, match="there is no table 'queue'"):
        native.read(other, tmp_path / "out")


@pytest.mark.parametrize("names", [[], ["m002_people"], ["m001_loop", "m001_loop"], ["m001_loop", "m003_project"], [*NAMES, "m999"], [1]])
def test_an_export_whose_migrations_are_none_of_ours_is_refused(full, other, tmp_path, names):
    native.write(full, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | {"migrations": names}))
    with pytest.raises(StoreError, match="written by a newer rankloop"):
        native.read(other, tmp_path / "out")


ACTS = st.lists(st.sampled_from(["rank", "skip", "undo", "other", "rule", "comparison", "import", "undo import"]), max_size=14)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS, text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20))
def test_whatever_people_did_the_rows_are_the_same(new_world, acts, text):
    with tempfile.TemporaryDirectory() as folder:
        one, other = Database(Path(folder, "one", "rankloop.db")), Database(Path(folder, "other", "rankloop.db"))
        world = new_world(one)
        made = world.comparisons(2)
        for number, act in enumerate(acts):
            if act == "rank":
                world.rank(world.ann)
            elif act == "other":
                world.rank(world.bob)
            elif act == "skip":
                world.skip(world.ann)
            elif act == "undo":
                judgments.undo(one, world.ann.id)
            elif act == "rule":
                world.rule_ranks(made[0])
            elif act == "comparison":
                world.comparison(2, world.prompt("Q " + text))
            elif act == "import":
                imports.import_rows(one, [{"prompt": f"Q{number} {text}", "completions": [text, "b"], "choice": 0}], "plain")
            else:
                standing = [item.id for item in import_records.all_imports(one) if item.undone_at is None]
                if standing:
                    undos.undo(one, standing[0])
        native.write(one, Path(folder, "out"))
        native.read(other, Path(folder, "out"))
        assert rows_of(other) == rows_of(one)
        one.close()
        other.close()
