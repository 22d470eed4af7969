"""Annotators: the people and rules that judge. A person and a rule never share a name, so that their judgments are never mixed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from storage.core.database import Database, StoreError, now
from storage.core.records import Annotator, AnnotatorKind


def ensure(store: Database, name: str, kind: AnnotatorKind = "human", rule: str | None = None) -> Annotator:
    """The annotator of this name, created at the first use. A simulated annotator needs the rule that it judges by.

    Raises:
        StoreError: the name is empty, or belongs to an annotator of another kind or rule; or `kind` and `rule` do not go together.
    """
    name = name.strip()
    if not name:
        raise StoreError("An annotator needs a name: type one.")
    if (kind == "simulated") != bool(rule):
        raise StoreError(f"{name}: a simulated annotator needs a rule, and a human one has none.")
    with store.atomic():
        row = store.row("SELECT * FROM annotators WHERE name = ?", [name])
        if row is None:
            return get(store, store.insert("annotators", {"name": name, "kind": kind, "rule": rule, "created_at": now()}))
        _take_over(store, row)
    known = _from_row(row)
    if known.kind != kind:
        raise StoreError(f"{name} is a {known.kind} annotator and cannot become {kind}: choose another name.")
    if known.rule != rule:
        raise StoreError(f"{name} judges by {known.rule}, not {rule}: choose another name for the new rule.")
    return known


def ensure_imported(store: Database, name: str, rule: str | None, *, import_id: int) -> int:
    """The id of the annotator with this name or pseudonym who judges by this rule (None: a person), created at the first use.

    Raises:
        StoreError: the annotator of this name judges by another rule, or is a person.
    """
    row = store.row("SELECT id, rule FROM annotators WHERE name = ?1 OR pseudonym = ?1 ORDER BY name = ?1 DESC LIMIT 1", [name])
    if row is None:
        values = {"name": name, "kind": "simulated" if rule else "human", "rule": rule, "created_at": now(), "import_id": import_id}
        return store.insert("annotators", values)
    if row["rule"] != rule:
        kind = f"judges by {row['rule']}" if row["rule"] else "is a person"
        raise StoreError(f"{name} {kind} in this store: the row needs another annotator's name")
    return int(row["id"])


def add_judged(store: Database, judged: Mapping[int, int]) -> None:
    """Adds the numbers of an import's judgments, by annotator id, to the annotators' counts. Call it inside `atomic`."""
    store.connection.conn.executemany(
        "UPDATE annotators SET judged = judged + ? WHERE id = ?", [(number, annotator_id) for annotator_id, number in judged.items()]
    )


def _take_over(store: Database, row: sqlite3.Row) -> None:
    """Keeps an annotator of an unfinished import if that import is rolled back, because other rows use the annotator now."""
    if row["import_id"] is not None:
        store.connection.conn.execute(
            "UPDATE annotators SET import_id = NULL WHERE id = ? AND import_id IN unfinished_imports", [row["id"]]
        )


def get(store: Database, annotator_id: int) -> Annotator:
    """One annotator.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM annotators WHERE id = ?", [annotator_id])
    if row is None:
        raise StoreError(f"There is no annotator {annotator_id} in {store.path}: enter your name again.")
    return _from_row(row)


def all_annotators(store: Database) -> list[Annotator]:
    """Every annotator, oldest first."""
    return [
        _from_row(row) for row in store.rows("SELECT * FROM annotators WHERE coalesce(import_id, 0) NOT IN unfinished_imports ORDER BY id")
    ]


def show_name(store: Database, annotator_id: int, shows: bool) -> None:
    """Sets whether the leaderboard shows the annotator by name."""
    with store.atomic() as connection:
        connection.conn.execute("UPDATE annotators SET shows_name = ? WHERE id = ?", [int(shows), annotator_id])


def _from_row(row: sqlite3.Row) -> Annotator:
    return Annotator(row["id"], row["name"], row["kind"], row["rule"], row["pseudonym"], bool(row["shows_name"]), row["judged"])
