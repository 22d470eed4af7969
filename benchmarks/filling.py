"""Fills a large store with the data of years of judging, in minutes: `fill(path, comparisons=1_000_000)`.

Rows are inserted in bulk, with triggers and indexes dropped and created again afterwards, so that the columns which triggers
maintain are written here too. `benchmarks.invariants` recomputes each of them from its definition.
"""

from __future__ import annotations

import random
import sqlite3
import string
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.content import prompts
from storage.content.comparisons import digest_of
from storage.core.database import Database, now, to_json
from storage.core.records import Annotator
from storage.judging import gold, judgments, queue
from storage.people import annotators
from storage.project import guidelines, settings

OVERLAP = 3
"""Judgments wanted for each comparison."""

OPEN_SHARE = 0.2
"""Share of comparisons that need more votes: a third each with two votes, one and none."""

EAGER_SHARE = 0.25
"""Share of the others that have five wanted and given judgments, so that the mean over all is three."""

FOUR_SHARE = 0.05
"""Share of comparisons with four answers instead of two."""

PROMPT_COMPARISONS = 5
"""Comparisons of each prompt."""

POLICIES = 4

PEOPLE = 40
"""Number of annotators with judgments; the busiest has about twenty times as many as the least busy."""

LEASED = 10
"""Number of annotators with an active lease."""

SKIP_SHARE, CORRECTION_SHARE, TIE_SHARE, RATIONALE_SHARE = 0.01, 0.01, 0.12, 0.1

GOLDS = 100
GOLD_SHARE, REPEAT_SHARE = 0.05, 0.05

ANSWER_CHARACTERS = 300

BATCH = 20_000

TEXT = (
    "when dough rests the yeast eats sugar and gives off gas which the gluten holds so that it rises slowly and tastes "
    "of more than flour a warm kitchen makes this faster a cold one slower and both can be right for good bread"
)

COLUMNS = {
    "prompts": "id, messages, kind, split, source, digest, created_at",
    "completions": "id, prompt_id, policy_version_id, text, sampling, seed, finish_reason, latency_s, created_at",
    "comparisons": "id, prompt_id, purpose, human_ranks, human_skips, created_at, wanted, leased, digest",
    "comparison_completions": "comparison_id, position, completion_id",
    "presentations": "id, comparison_id, annotator_id, slots, created_at, guidelines_id",
    "leases": "id, presentation_id, comparison_id, annotator_id, selection, propensity, created_at, expires_at, ended_at, outcome",
    "judgments": "id, comparison_id, presentation_id, annotator_id, verdict, tiers, all_bad, skip_reason, supersedes, created_at, "
    "strength, rationale, active_ms, idle_ms, client_ms, server_ms, counts",
}


@dataclass
class _Rows:
    """Rows to be written, and the counts that triggers would maintain."""

    connection: sqlite3.Connection
    waiting: dict[str, list[tuple]] = field(default_factory=lambda: defaultdict(list))
    ids: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    judged: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    places: dict[int, int] = field(default_factory=dict)
    last_at: str = ""

    def number(self, table: str) -> int:
        self.ids[table] += 1
        return self.ids[table]

    def flush(self) -> None:
        for table, rows in self.waiting.items():
            marks = ", ".join("?" * len(rows[0]))
            self.connection.executemany(f"INSERT INTO {table} ({COLUMNS[table]}) VALUES ({marks})", rows)
        self.waiting.clear()


def old_people() -> list[str]:
    """Names of the annotators with judgments and without a lease."""
    return [f"person {n:02}" for n in range(PEOPLE - LEASED)]


def fill(path: Path, comparisons: int, *, seed: int = 0) -> float:
    """Creates a store with this many comparisons and about three times as many judgments. Returns the seconds taken."""
    began = time.monotonic()
    rng = random.Random(seed)
    store = Database(path)
    settings.change(store, replace(settings.current(store), overlap=OVERLAP, gold_share=GOLD_SHARE, repeat_share=REPEAT_SHARE), None)
    guide = guidelines.publish(store, "Prefer the answer that helps more.", None)
    for n in range(POLICIES):
        version = {"name": f"policy-{n}", "kind": "external", "base_model": f"policy-{n}", "created_at": now()}
        store.insert("policy_versions", version)
    people = [annotators.ensure(store, f"person {n:02}") for n in range(PEOPLE)]
    store.close()

    connection = sqlite3.connect(path, isolation_level=None)
    # Exclusive and without a journal: no other process uses the store, and an incomplete one is deleted.
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=OFF", "synchronous=OFF", "cache_size=-400000", "foreign_keys=OFF"):
        connection.execute(f"PRAGMA {pragma}")
    put_back = _drop_triggers_and_indexes(connection)
    connection.execute("BEGIN")
    rows = _Rows(connection)
    _write_history(rows, comparisons, people, guide.id, rng)
    connection.executemany("UPDATE annotators SET judged = ? WHERE id = ?", [(n, a) for a, n in rows.judged.items()])
    connection.executemany(
        "INSERT INTO queue_cursors (annotator_id, priority, position, requested_at) VALUES (?, 0, ?, ?)",
        [(annotator_id, position, rows.last_at) for annotator_id, position in rows.places.items()],
    )
    connection.execute(
        "INSERT INTO queue (position, comparison_id, priority) "
        "SELECT id, id, 0 FROM comparisons WHERE human_ranks + leased < wanted ORDER BY id"
    )
    for statement in put_back:
        connection.execute(statement)
    connection.execute("COMMIT")
    connection.execute("PRAGMA locking_mode=NORMAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()

    store = Database(path)
    _add_golds(store, comparisons, rng)
    _lease_comparisons(store, people[-LEASED:])
    store.close()
    return time.monotonic() - began


def _drop_triggers_and_indexes(connection: sqlite3.Connection) -> list[str]:
    """Drops triggers and indexes; returns the statements that create them again, indexes first."""
    objects = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY type, rowid"
    ).fetchall()
    for kind, name, _ in objects:
        connection.execute(f"DROP {kind} {name}")
    return [sql for _, _, sql in objects]


def _write_history(rows: _Rows, comparisons: int, people: list[Annotator], guidelines_id: int, rng: random.Random) -> None:
    pool = [answer(rng) for _ in range(997)]
    # Busy annotators are in the ring several times; different ones are taken for one comparison.
    ring = [person.id for n, person in enumerate(people) for _ in range(max(1, round(100 / (n + 1))))]
    rng.shuffle(ring)
    moment, step = datetime(2024, 1, 1, tzinfo=UTC), timedelta(seconds=20)
    prompt_id, prompt_digest = 0, ""
    for comparison_id in range(1, comparisons + 1):
        if comparison_id % PROMPT_COMPARISONS == 1:
            prompt_id = rows.number("prompts")
            prompt_digest = _prompt(rows, prompt_id, pool[prompt_id % len(pool)], moment)
        size = 4 if rng.random() < FOUR_SHARE else 2
        shown, answers = [], []
        for n in range(size):
            completion_id, policy = rows.number("completions"), (comparison_id + n) % POLICIES
            text = f"{completion_id} {pool[completion_id % len(pool)]}"
            rows.waiting["completions"].append(
                (completion_id, prompt_id, policy + 1, text, SAMPLING, completion_id, "stop", 0.8, _iso(moment))
            )
            rows.waiting["comparison_completions"].append((comparison_id, n, completion_id))
            shown.append(completion_id)
            answers.append((f"policy-{policy}", text))
        wanted, votes = _wanted_and_given(comparison_id, comparisons, rng)
        skips = 0
        for turn, annotator_id in enumerate(_different(ring, votes + 1, rng)):
            moment += step
            if turn == votes:
                # One more annotator skipped it, which would have moved an open comparison to the end of the queue.
                if votes < wanted or rng.random() >= SKIP_SHARE:
                    break
                _judged(rows, comparison_id, annotator_id, shown, guidelines_id, moment, rng, verdict="skip")
                skips = 1
            else:
                _judged(rows, comparison_id, annotator_id, shown, guidelines_id, moment, rng, verdict="rank")
        digest = digest_of(prompt_digest, answers)
        rows.waiting["comparisons"].append((comparison_id, prompt_id, "versus", votes, skips, _iso(moment), wanted, 0, digest))
        if comparison_id % BATCH == 0:
            rows.flush()
    rows.flush()


def _wanted_and_given(comparison_id: int, comparisons: int, rng: random.Random) -> tuple[int, int]:
    """The oldest comparisons are judged first, so the newest are open: first those with two judgments, then one, then none."""
    done = 1.0 - OPEN_SHARE
    if (at := comparison_id / comparisons) > done:
        return OVERLAP, 2 - min(2, int(3 * (at - done) / OPEN_SHARE))
    return (OVERLAP + 2,) * 2 if rng.random() < EAGER_SHARE else (OVERLAP,) * 2


def _different(ring: list[int], count: int, rng: random.Random) -> list[int]:
    at, chosen = rng.randrange(len(ring)), []
    while len(chosen) < count:
        if (annotator_id := ring[at % len(ring)]) not in chosen:
            chosen.append(annotator_id)
        at += 1
    return chosen


def _judged(
    rows: _Rows, comparison_id: int, annotator_id: int, shown: list[int], guidelines_id: int, moment: datetime, rng: random.Random,
    *, verdict: str,
) -> None:  # fmt: skip
    """The presentation, the lease and the judgment, of which one in a hundred is corrected."""
    slots = shown[:]
    rng.shuffle(slots)
    presentation_id, lease_id, at = rows.number("presentations"), rows.number("leases"), _iso(moment)
    began, expires = _iso(moment - timedelta(seconds=15)), _iso(moment + timedelta(minutes=15))
    rows.waiting["presentations"].append((presentation_id, comparison_id, annotator_id, to_json(slots), began, guidelines_id))
    rows.waiting["leases"].append((lease_id, presentation_id, comparison_id, annotator_id, "queue", 0.9, began, expires, at, "judged"))
    corrected = verdict == "rank" and rng.random() < CORRECTION_SHARE
    supersedes = None
    for counts in (0, 1) if corrected else (1,):
        judgment_id = rows.number("judgments")
        tie = rng.random() < TIE_SHARE
        order = rng.sample(shown, len(shown))
        tiers = "[]" if verdict == "skip" else to_json([order] if tie else [[completion_id] for completion_id in order])
        strength = None if tie or verdict == "skip" or len(shown) > 2 else "better"
        rationale = "The other one does not answer what was asked." if rng.random() < RATIONALE_SHARE else ""
        reason = "too long" if verdict == "skip" else None
        rows.waiting["judgments"].append(
            (judgment_id, comparison_id, presentation_id, annotator_id, verdict, tiers, 0, reason, supersedes, at, strength,
             rationale, 14_000, 800, 14_800, 15_000, counts if verdict == "rank" else 0)
        )  # fmt: skip
        supersedes = judgment_id
    rows.judged[annotator_id] += 1
    rows.last_at = at
    rows.places[annotator_id] = comparison_id


def _prompt(rows: _Rows, prompt_id: int, text: str, moment: datetime) -> str:
    messages = [{"role": "user", "content": f"Question {prompt_id}: {text[:120]}?"}]
    digest = prompts.digest(messages)
    rows.waiting["prompts"].append((prompt_id, to_json(messages), "imported", prompts.split_of(digest), "benchmark", digest, _iso(moment)))
    return digest


def _add_golds(store: Database, comparisons: int, rng: random.Random) -> None:
    """Makes the last comparisons of the queue gold through the product's own function, at most a hundredth of all."""
    with store.atomic():
        for comparison_id in range(comparisons, comparisons - min(GOLDS, comparisons // 100), -1):
            shown = [row[0] for row in store.rows(
                "SELECT completion_id FROM comparison_completions WHERE comparison_id = ?", [comparison_id]
            )]  # fmt: skip
            gold.set_answer(store, comparison_id, tuple((completion_id,) for completion_id in rng.sample(shown, len(shown))), None)


def _lease_comparisons(store: Database, people: list[Annotator]) -> None:
    for n, person in enumerate(people):
        if (shown := queue.next_presentation(store, person.id)) is not None and n % 2:
            # Every second one judged it and undid that, so that the same comparison is leased to them again.
            judgments.save(store, shown[1].id, person.id, verdict="rank", tiers=tuple((c,) for c in shown[1].order))
            judgments.undo(store, person.id)


def answer(rng: random.Random) -> str:
    """Some sentences with a list between, of the length of a model's short answer."""
    words, text = TEXT.split(), ""
    while len(text) < ANSWER_CHARACTERS:
        text += rng.choice((" ", " ", " ", " ", ". ", ".\n\n", "\n- ")) + rng.choice(words)
    return text[:ANSWER_CHARACTERS].strip(string.whitespace)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


SAMPLING = to_json({"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 64})
