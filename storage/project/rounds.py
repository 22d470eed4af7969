"""Rounds and decisions: which policy is current, which versions new comparisons leave out, and the votes that decide about a version.

A round is a run with its end. Decisions are rows that are only added; the current policy and the state of every version follow from
them, read in their order. `rlhf.runs.deciding` says when guards or comparisons decide.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal, get_args

from storage.content import policies
from storage.core import json_columns
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import (
    DecidedBy,
    DecidingUnit,
    DecidingVote,
    Decision,
    DecisionAct,
    GuardsState,
    PolicyVersion,
    Round,
    RoundJudges,
    RoundTrigger,
    RunStatus,
)

VersionState = Literal["current", "replaced", "rejected", "rolled back"]
"""What became of a version: `replaced` was current and made room for its successor, `rolled back` was current and was taken back."""

MAX_REASON_CHARS = 2_000

_ROUNDS = """
SELECT r.*, runs.status, runs.by_id,
    (SELECT max(v.id) FROM policy_versions v WHERE v.run_id = r.run_id AND v.kind = 'tuned') AS version_id,
    (SELECT max(d.id) FROM decisions d WHERE d.round_id = r.id) AS decision_id
FROM rounds r JOIN runs ON runs.id = r.run_id
"""

_RETIRE_POINTLESS = """
UPDATE comparisons SET retired = 1
WHERE id IN (SELECT comparison_id FROM queue)
    AND retired = 0 AND batch_id IS NULL AND import_id IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM presentations p JOIN annotators a ON a.id = p.annotator_id
        WHERE p.comparison_id = comparisons.id AND a.kind = 'human')
    AND (round_id = :round OR EXISTS (
        SELECT 1 FROM comparison_completions link JOIN completions a ON a.id = link.completion_id
        WHERE link.comparison_id = comparisons.id AND a.policy_version_id IN (SELECT value FROM json_each(:left))))
"""
"""Waiting comparisons that nobody was shown and that a decision made pointless: those that were to decide its round, and those with
an answer of a version that was rejected or taken back. One that somebody has open, skipped or let go stays as it is: what it then does
when they come back to it would tell them of the decision. A lead's batches and imports are not among them."""


class AlreadyDecided(StoreError):
    """Guards or comparisons were to decide a round that is decided."""


# ---- rounds


def create(store: Database, run_id: str, *, trigger: RoundTrigger, judges: RoundJudges, baseline: PolicyVersion) -> Round:
    """Writes the round of a run, whose row is there. `baseline` is the policy that is current now."""
    with store.atomic():
        values = {"run_id": run_id, "trigger": trigger, "judges": judges, "baseline_version_id": baseline.id}
        return get(store, store.insert("rounds", {**values, "created_at": now()}))


def get(store: Database, round_id: int) -> Round:
    """One round.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row(f"{_ROUNDS} WHERE r.id = ?", [round_id])
    if row is None:
        raise StoreError(f"There is no round {round_id}: `rankloop rounds` lists those there are.")
    return _round(row, _versions(store), _decisions(store))


def of_run(store: Database, run_id: str) -> Round | None:
    """The round of a run; None if it has none."""
    row = store.row(f"{_ROUNDS} WHERE r.run_id = ?", [run_id])
    return None if row is None else _round(row, _versions(store), _decisions(store))


def all_rounds(store: Database) -> list[Round]:
    """Every round, oldest first."""
    versions, made = _versions(store), _decisions(store)
    return [_round(row, versions, made) for row in store.rows(f"{_ROUNDS} ORDER BY r.id")]


def open_rounds(store: Database) -> list[Round]:
    """The rounds whose version passed its guards and is not decided about, oldest first."""
    rows = store.rows(
        f"{_ROUNDS} WHERE r.guards = 'passed' AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.round_id = r.id) ORDER BY r.id"
    ).fetchall()
    versions = _versions(store) if rows else {}
    return [found for row in rows if (found := _round(row, versions, {})).is_open]


def asked(store: Database, base_model: str, judges: RoundJudges) -> Round | None:
    """The round that new comparisons are to decide: the oldest open one over this base. One version is compared at a time."""
    of_base = (r for r in open_rounds(store) if r.judges == judges and r.version is not None and r.version.base_model == base_model)
    return next(of_base, None)


def set_guards(store: Database, round_id: int, state: GuardsState) -> None:
    """Records whether the new version passed its guards. A second call with the same state changes nothing."""
    with store.atomic() as connection:
        connection.conn.execute("UPDATE rounds SET guards = ? WHERE id = ?", [state, round_id])


# ---- decisions


def current(store: Database, base_model: str) -> PolicyVersion:
    """The policy of this base model that new comparisons come from: the base until a version is promoted."""
    row = store.row(
        "SELECT d.version_id FROM decisions d JOIN policy_versions v ON v.id = d.version_id "
        "WHERE d.act != 'rejected' AND v.base_model = ? ORDER BY d.id DESC LIMIT 1",
        [base_model],
    )
    if row is not None:
        return policies.get(store, row["version_id"])
    return policies.base(store, base_model) or policies.ensure_base(store, base_model)


def decisions(store: Database) -> list[Decision]:
    """Every decision, oldest first."""
    return [*_decisions(store).values()]


def newest_decision(store: Database) -> int:
    """The id of the newest decision; 0 before the first."""
    return int(store.value("SELECT coalesce(max(id), 0) FROM decisions"))


def decisions_of(store: Database, round_id: int) -> list[Decision]:
    """The decisions about a round's version, oldest first, with the rollbacks that took it back."""
    return [_decision(row) for row in store.rows("SELECT * FROM decisions WHERE round_id = ? ORDER BY id", [round_id])]


def states(store: Database) -> dict[int, VersionState]:
    """What became of each version that was decided about, by its id. A base that nothing has replaced is not among them."""
    # A base is never taken back: new comparisons set the current policy beside it.
    bases = {row["id"] for row in store.rows("SELECT id FROM policy_versions WHERE kind = 'base'")}
    state: dict[int, VersionState] = {}
    for made in _decisions(store).values():
        if made.act == "rejected":
            state[made.version_id] = "rejected"
        else:
            is_replaced = made.act == "promoted" or made.current_before_id in bases
            state[made.current_before_id] = "replaced" if is_replaced else "rolled back"
            state[made.version_id] = "current"
    return state


def left_out(store: Database) -> frozenset[int]:
    """The ids of the versions that get no new comparisons: those that were rejected or taken back."""
    return frozenset(version_id for version_id, state in states(store).items() if state in ("rejected", "rolled back"))


def decide(
    store: Database,
    version: PolicyVersion,
    act: Literal["promoted", "rejected"],
    *,
    decided_by: DecidedBy,
    reason: str,
    by: int | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Decision:
    """Promotes or rejects a version, in one transaction with the retiring of waiting comparisons that this makes pointless.

    A comparison that somebody has open can still be judged. A person may overrule an earlier decision.

    Raises:
        AlreadyDecided: guards or comparisons were to decide about a version that is decided about.
        StoreError: the reason is empty or too long, or the version is the base, not a tuned one, or the current one.
    """
    with store.atomic():
        found = None if version.run_id is None else of_run(store, version.run_id)
        if decided_by != "person" and (found is None or found.decision is not None):
            raise AlreadyDecided(f"{version.name} is decided about already: only a person can decide again.")
        if version.kind != "tuned":
            raise StoreError(f"{version.name} is a {version.kind} version: only a version that a round made can be {act}.")
        before = current(store, version.base_model)
        if before.id == version.id:
            remedy = "" if act == "promoted" else ": roll back instead (rankloop round rollback)"
            raise StoreError(f"{version.name} is the current policy{remedy}.")
        return _insert(store, None if found is None else found.id, version, act, decided_by, reason, by, evidence or {}, before)


def rollback_target(store: Database, base_model: str) -> PolicyVersion | None:
    """The policy that was current before the current one was promoted; None where the base is current."""
    now_current = current(store, base_model)
    row = store.row(
        "SELECT current_before_id FROM decisions WHERE act = 'promoted' AND version_id = ? ORDER BY id DESC LIMIT 1", [now_current.id]
    )
    return None if row is None else policies.get(store, row["current_before_id"])


def roll_back(store: Database, base_model: str, *, reason: str, by: int | None = None, to: PolicyVersion | None = None) -> Decision:
    """Makes an earlier policy current again; the one that was current gets no new comparisons, and its waiting ones are retired.

    Args:
        to: the base, or a version that was current before; None takes `rollback_target`.

    Raises:
        StoreError: there is nothing to go back to, `to` was never current, or the reason is empty or too long.
    """
    with store.atomic():
        before = current(store, base_model)
        target = to or rollback_target(store, base_model)
        if target is None:
            raise StoreError(f"{before.name} is current and nothing was before it: there is nothing to roll back.")
        if target.id == before.id:
            raise StoreError(f"{target.name} is the current policy already.")
        was_current = target.kind == "base" or store.value(
            "SELECT 1 FROM decisions WHERE act != 'rejected' AND version_id = ? LIMIT 1", [target.id]
        )
        if target.base_model != base_model or not was_current:
            raise StoreError(f"{target.name} was never the current policy of {base_model}: promote it instead.")
        found = None if before.run_id is None else of_run(store, before.run_id)
        return _insert(store, None if found is None else found.id, target, "rolled back", "person", reason, by, {}, before)


def _insert(
    store: Database,
    round_id: int | None,
    version: PolicyVersion,
    act: DecisionAct,
    decided_by: DecidedBy,
    reason: str,
    by: int | None,
    evidence: Mapping[str, Any],
    before: PolicyVersion,
) -> Decision:
    reason = reason.strip()
    if not reason:
        raise StoreError("A decision needs a reason: say in a sentence why.")
    if len(reason) > MAX_REASON_CHARS:
        raise StoreError(f"The reason has {len(reason):,} characters, and {MAX_REASON_CHARS:,} are allowed: shorten it.")
    decision_id = store.insert(
        "decisions",
        {
            "round_id": round_id,
            "version_id": version.id,
            "act": act,
            "decided_by": decided_by,
            "by_id": by,
            "reason": reason,
            "evidence": dict(evidence),
            "current_before_id": before.id,
            "created_at": now(),
        },
    )
    parameters = {"round": round_id, "left": to_json(sorted(left_out(store)))}
    store.connection.conn.execute(_RETIRE_POINTLESS, parameters)
    return _decisions(store)[decision_id]


# ---- the votes that decide


def deciding_units(store: Database, found: Round, opponent: PolicyVersion) -> list[DecidingUnit]:
    """The comparisons of a round's version with `opponent` that have all the votes they need, in the order of arrival.

    Active votes on this project's own comparisons count: of people, or of simulated annotators where those judge the round. The
    order is that in which the last annotator of each comparison was shown it: it does not depend on what they said, and a
    correction keeps its place.
    """
    if found.version is None:
        return []
    kind = "human" if found.judges == "people" else "simulated"
    # Simulated annotators are not counted in `human_ranks`, and judge a comparison once.
    complete = "c.human_ranks >= c.wanted" if kind == "human" else "true"
    rows = store.rows(
        "SELECT c.id, c.prompt_id, v.id AS judgment_id, v.annotator_id, v.tiers, v.presentation_id, mine.completion_id AS mine "
        "FROM comparisons c JOIN votes v ON v.comparison_id = c.id "
        "JOIN comparison_completions mine ON mine.comparison_id = c.id "
        "JOIN completions a ON a.id = mine.completion_id AND a.policy_version_id = :version "
        "JOIN comparison_completions other ON other.comparison_id = c.id "
        "JOIN completions b ON b.id = other.completion_id AND b.policy_version_id = :opponent "
        f"WHERE c.round_id = :round AND v.annotator_kind = :kind AND v.import_id IS NULL AND {complete}",
        {"version": found.version.id, "opponent": opponent.id, "round": found.id, "kind": kind},
    )
    votes: dict[tuple[int, int], list[DecidingVote]] = defaultdict(list)
    arrived: dict[tuple[int, int], int] = defaultdict(int)
    for row in json_columns.readable(rows, _deciding_vote):
        key, presentation_id, vote = row
        votes[key].append(vote)
        arrived[key] = max(arrived[key], presentation_id)
    return [DecidingUnit(*key, tuple(votes[key])) for key in sorted(votes, key=arrived.__getitem__)]


def asked_comparisons(store: Database, round_id: int) -> int:
    """Number of comparisons that were written to decide a round, judged or not, without retired ones."""
    return int(store.value("SELECT count(*) FROM comparisons WHERE round_id = ? AND retired = 0", [round_id]))


def revision(store: Database) -> tuple[int, ...]:
    """Changes with every act that could change what is decided: judgments, exclusions, settings, decisions and rounds."""
    tables = ("judgments", "exclusions", "settings", "decisions", "rounds")
    newest = ", ".join(f"(SELECT max(id) FROM {table})" for table in tables)
    row = store.row(
        f"SELECT {newest}, (SELECT count(*) FROM rounds WHERE guards IS NOT NULL), "
        "(SELECT count(*) FROM exclusion_lifts), (SELECT count(*) FROM imports WHERE undone_at IS NOT NULL)"
    )
    assert row is not None
    return tuple(int(value or 0) for value in row)


def _deciding_vote(row: sqlite3.Row) -> tuple[tuple[int, int], int, DecidingVote]:
    tiers = json_columns.id_lists(row["tiers"], f"The ranking of judgment {row['judgment_id']}")
    best = next((tier for tier in tiers), ())
    outcome = 0.5 if len(tiers) == 1 else float(row["mine"] in best)
    return (row["id"], row["prompt_id"]), row["presentation_id"] or 0, DecidingVote(row["annotator_id"], outcome)


# ---- rows


def _versions(store: Database) -> dict[int, PolicyVersion]:
    return {version.id: version for version in policies.all_versions(store)}


def _decisions(store: Database) -> dict[int, Decision]:
    return {row["id"]: _decision(row) for row in store.rows("SELECT * FROM decisions ORDER BY id")}


def _decision(row: sqlite3.Row) -> Decision:
    try:
        evidence = json_columns.from_json(row["evidence"], dict, "evidence")
    except json_columns.Unreadable as error:
        json_columns.log.warning("The evidence of decision %s cannot be read: %s", row["id"], error)
        evidence = {}
    return Decision(
        row["id"],
        row["round_id"],
        row["version_id"],
        row["act"],
        row["decided_by"],
        row["by_id"],
        row["reason"],
        evidence,
        row["current_before_id"],
        row["created_at"],
    )


def _round(row: sqlite3.Row, versions: Mapping[int, PolicyVersion], made: Mapping[int, Decision]) -> Round:
    return Round(
        row["id"],
        row["run_id"],
        row["trigger"],
        row["judges"],
        row["baseline_version_id"],
        row["guards"],
        row["by_id"],
        row["created_at"],
        row["status"] if row["status"] in get_args(RunStatus) else "failed",
        versions.get(row["version_id"]),
        made.get(row["decision_id"]),
    )
