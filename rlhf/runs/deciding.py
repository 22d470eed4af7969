"""Decides rounds by comparisons: where the decision about each stands, and the thread that takes it soon after the last vote.

The statistics are in `rlhf.analysis.sequential_test`, the rows in `storage.project.rounds`. No torch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rlhf.analysis import model_card
from rlhf.analysis.sequential_test import Assessment, assess
from storage.core.database import Database, StoreError
from storage.core.records import DecidingUnit, Decision, PolicyVersion, ProjectSettings, Round
from storage.project import rounds, settings
from storage.project.rounds import AlreadyDecided

log = logging.getLogger("rankloop.deciding")

EVERY_S = 0.5
"""Pause between two looks at whether the store has changed, in seconds. A look reads one number from the file's header."""

AFTER_ERROR_S = 10.0
"""Pause after a look that failed, in seconds."""

Wait = Literal["comparisons", "annotators", "agreement"]
"""What a decision waits for: more comparisons, more annotators, or annotators who do not depend on one of them."""

ACTS: dict[str, Literal["promoted", "rejected"]] = {"promote": "promoted", "reject": "rejected"}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the decision about a round stands, by the comparisons of its version with the current policy."""

    opponent: PolicyVersion
    assessment: Assessment
    annotators: int
    """Annotators among whose votes the verdict is."""
    annotators_needed: int
    """1 where simulated annotators judge: they are copies of one rule."""
    without_one: float | None
    """The win rate without the annotator on whom the verdict depends most; None where nothing is left without one."""
    error: float
    """The error rate that the verdict keeps to."""
    most: int
    """Comparisons after which a version without a promotion is rejected."""
    waits_for: Wait | None
    """None where the verdict can be carried out."""

    def to_json(self) -> dict[str, Any]:
        """The evidence, for the decision's row."""
        plain = {**asdict(self.assessment), "annotators": self.annotators, "without_one": self.without_one}
        return {**plain, "error": self.error, "most": self.most, "opponent": self.opponent.name}

    def in_words(self) -> str:
        """`promote after 42 comparisons with base by 3 annotators: win rate 64% (52% to 75%)`"""
        a = self.assessment
        rate = "none yet" if a.win_rate is None else f"{a.win_rate:.0%} ({a.low:.0%} to {a.high:.0%})"
        return f"{a.verdict} after {a.units} comparisons with {self.opponent.name} by {self.annotators} annotators: win rate {rate}"


def standing(store: Database, found: Round) -> Standing:
    """Where the decision about an open round stands."""
    opponent = _opponent(store, found)
    return weigh(rounds.deciding_units(store, found, opponent), opponent, found, settings.current(store))


def weigh(units: Sequence[DecidingUnit], opponent: PolicyVersion, found: Round, project: ProjectSettings) -> Standing:
    """The standing that these comparisons give."""
    assessment = assess([unit.value for unit in units], alpha=project.deciding_error, most=project.deciding_most)
    entered = units[: project.deciding_most]
    annotators = {vote.annotator_id for unit in entered for vote in unit.votes}
    needed = project.deciding_annotators if found.judges == "people" else 1
    without = [rate for left_out in annotators if (rate := _win_rate(entered, left_out)) is not None]
    without_one = (min if assessment.verdict == "promote" else max)(without, default=None)
    waits = _waits_for(assessment, len(annotators), needed, without_one, project)
    return Standing(opponent, assessment, len(annotators), needed, without_one, project.deciding_error, project.deciding_most, waits)


def _waits_for(assessment: Assessment, annotators: int, needed: int, without_one: float | None, project: ProjectSettings) -> Wait | None:
    if assessment.verdict == "continue":
        return "comparisons"
    if annotators < needed:
        return "annotators"
    if needed == 1 or (assessment.verdict == "reject" and assessment.evidence_worse < 1 / project.deciding_error):
        # One annotator may decide, or the version had all its comparisons and no evidence came of them: nobody's votes decide that.
        return None
    stands = without_one is not None and (without_one > 0.5 if assessment.verdict == "promote" else without_one < 0.5)
    return None if stands else "agreement"


def _win_rate(units: Iterable[DecidingUnit], left_out: int) -> float | None:
    """The win rate over the comparisons with votes of other annotators, by those votes."""
    outcomes = [[vote.outcome for vote in unit.votes if vote.annotator_id != left_out] for unit in units]
    means = [sum(outcome) / len(outcome) for outcome in outcomes if outcome]
    return sum(means) / len(means) if means else None


def sequence(store: Database, found: Round, points: int = 40) -> list[Assessment]:
    """The assessments after about `points` numbers of comparisons, evenly spaced, the last one after all: a confidence sequence to draw."""
    values = [unit.value for unit in rounds.deciding_units(store, found, _opponent(store, found))]
    project = settings.current(store)
    count = min(len(values), project.deciding_most)
    after = sorted({round(count * (n + 1) / points) for n in range(points)} - {0})
    return [assess(values[:n], alpha=project.deciding_error, most=project.deciding_most) for n in after]


def decide_open_rounds(store: Database) -> list[Decision]:
    """Takes the decisions that are due, and returns them. Repeating it, also after a crash, decides nothing twice."""
    return [decision for found in rounds.open_rounds(store) if (decision := _decide(store, found)) is not None]


def _decide(store: Database, found: Round) -> Decision | None:
    if standing(store, found).waits_for is not None:
        return None
    # The votes are read again under the write lock: one may have been undone, or another policy promoted, since.
    with store.atomic():
        stands = standing(store, found)
        if stands.waits_for is not None or found.version is None:
            return None
        try:
            made = rounds.decide(
                store,
                found.version,
                ACTS[stands.assessment.verdict],
                decided_by="comparisons",
                reason=stands.in_words(),
                evidence=stands.to_json(),
            )
        except AlreadyDecided:
            return None
    model_card.write_decided(store, made)
    return made


def _opponent(store: Database, found: Round) -> PolicyVersion:
    if found.version is None:
        raise StoreError(f"Round {found.id} has made no policy version yet.")
    return rounds.current(store, found.version.base_model)


class DecisionWatcher:
    """Calls `decide_open_rounds` in a thread of its own, soon after each act that could change a decision, until `stop`."""

    def __init__(self, store: Database):
        self.store = store
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="decisions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        file_version: int | None = None
        revision: tuple[int, ...] = ()
        pause = 0.0
        while not self._stopping.wait(pause):
            pause = EVERY_S
            try:
                if (newest := self.store.file_version()) == file_version:
                    continue
                file_version = newest
                if (changed := rounds.revision(self.store)) != revision:
                    for decision in decide_open_rounds(self.store):
                        log.info("%s: %s", decision.act, decision.reason)
                    revision = changed
            except Exception as error:
                # A locked or full store must not end the thread: the next look tries again.
                log.warning("rounds were not decided: %s", error)
                file_version, pause = None, AFTER_ERROR_S
