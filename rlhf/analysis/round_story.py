"""The story of a round from its votes to its decision, for the command line and the Training page. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlhf.analysis.run_table import snapshot_or_empty
from rlhf.data.pairs import SnapshotManifest
from rlhf.runs import deciding, results
from rlhf.runs.deciding import Standing
from rlhf.runs.results import RoundResult
from storage.content import policies
from storage.core.database import Database
from storage.core.records import Decision, Round, Run
from storage.people import annotators
from storage.project import rounds, runs
from storage.project.rounds import VersionState

State = Literal["training", "ended", "unchecked", "waiting", "compared", "current", "replaced", "rejected", "rolled back"]
"""Of a round: `training` its run goes on, `ended` its run failed or was cancelled or lost, `unchecked` it ended without guards (a round
of an older version), `waiting` another version is compared first, `compared` its version is compared with the current policy. The others
are what became of its version."""


@dataclass(frozen=True, slots=True)
class Made:
    """One decision with the names of who and what it is about."""

    decision: Decision
    version: str
    before: str
    who: str | None
    """None for guards and comparisons, and for the command line of a project without accounts."""


@dataclass(frozen=True, slots=True)
class Story:
    """Everything about one round."""

    round: Round
    run: Run
    state: State
    snapshot: SnapshotManifest
    result: RoundResult
    baseline: str | None
    decisions: list[Made]
    standing: Standing | None
    """Where an open round's decision stands; None for the others."""
    asked: int
    """Comparisons that were written to decide it."""


def of_round(store: Database, round_id: int) -> Story:
    """The story of one round.

    Raises:
        StoreError: there is none with this id.
    """
    found = rounds.get(store, round_id)
    run = runs.get(store, found.run_id)
    names = {version.id: version.name for version in policies.all_versions(store)}
    people = {annotator.id: annotator.name for annotator in annotators.all_annotators(store)}
    made = [
        Made(d, names.get(d.version_id, "?"), names.get(d.current_before_id, "?"), None if d.by_id is None else people.get(d.by_id))
        for d in rounds.decisions_of(store, found.id)
    ]
    return Story(
        found,
        run,
        state_of(found, rounds.states(store), _asked_first(store, found)),
        snapshot_or_empty(run),
        results.of_run_or_empty(run),
        None if found.baseline_version_id is None else names.get(found.baseline_version_id),
        made,
        deciding.standing(store, found) if found.is_open else None,
        rounds.asked_comparisons(store, found.id),
    )


def of_run(store: Database, run_id: str) -> Story | None:
    """The story of the round that a run is of; None if it is of none."""
    found = rounds.of_run(store, run_id)
    return None if found is None else of_round(store, found.id)


def evidence(story: Story | None) -> Mapping[str, Any]:
    """The figures of the blind comparisons of a round's version, so far or as they decided, and who judged; empty where there are none."""
    if story is None:
        return {}
    found: Mapping[str, Any]
    if story.standing is not None and story.standing.assessment.units:
        found = story.standing.to_json()
    else:
        found = next((made.decision.evidence for made in story.decisions if made.decision.decided_by == "comparisons"), {})
    return {**found, "judges": story.round.judges} if found else {}


def states(store: Database) -> list[tuple[Round, State]]:
    """Every round with its state, newest first."""
    became = rounds.states(store)
    return [(found, state_of(found, became, _asked_first(store, found))) for found in reversed(rounds.all_rounds(store))]


def state_of(found: Round, became: Mapping[int, VersionState], asked_first: Round | None) -> State:
    if found.decision is not None and found.version is not None:
        return became.get(found.version.id, "rejected")
    if found.status != "done":
        return "training" if found.status in ("queued", "running") else "ended"
    if not found.is_open:
        return "unchecked"
    return "compared" if asked_first is None or asked_first.id == found.id else "waiting"


def _asked_first(store: Database, found: Round) -> Round | None:
    if not found.is_open or found.version is None:
        return None
    return rounds.asked(store, found.version.base_model, found.judges)
