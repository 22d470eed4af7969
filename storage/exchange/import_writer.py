"""Writes imported items to the store's tables, a chunk at a time, in the transaction that `storage.exchange.imports` opens.

The readers in `storage.exchange` turn the records of each format into items.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.content import comparisons, prompts
from storage.content.prompts import NewPrompt
from storage.core.database import Database, now, to_json
from storage.exchange.rows import LONGEST_NAME, BadRow, Item, NewComparison, Vote, check_name
from storage.project import settings

CACHED_NAMES = 10_000
"""Most annotators, and most models, whose ids are cached."""

WrongRow = Callable[[int, str], None]
"""Called with (line, reason) for each row that is not imported."""

Line = tuple[int, Item]
"""An item with the line of the file that it came from."""

SqlRow = tuple[Any, ...]
"""The values of one row of a table."""


@dataclass(slots=True)
class Report:
    """The counts of an import. Stored as JSON under these names."""

    prompts: int = 0
    """New prompts, and prompts restored after the undo of an earlier import."""
    prompts_known: int = 0
    comparisons: int = 0
    comparisons_known: int = 0
    judgments: int = 0
    gold: int = 0
    wrong: int = 0
    wrong_rows: list[tuple[int, str]] = field(default_factory=list)
    """(line, reason) of the first wrong rows."""
    reused: list[tuple[int, int]] = field(default_factory=list)
    """Id ranges (first, last) of prompts of the file that were in the store before."""
    golden: list[int] = field(default_factory=list)
    """Ids of comparisons from other sources that this import made gold."""

    @property
    def good(self) -> int:
        return self.prompts + self.prompts_known + self.comparisons + self.judgments + self.gold


@dataclass(slots=True)
class _StoredComparison:
    """A comparison in the store."""

    id: int
    ids: dict[tuple[int, str], list[int]]
    """Completion ids by (policy version id, text)."""
    from_this_import: bool

    def in_order(self, answers: Sequence[tuple[int, str]]) -> list[int]:
        """The completion ids in the order in which a row lists the answers."""
        unused = {answer: list(ids) for answer, ids in self.ids.items()}
        return [unused[answer].pop(0) for answer in answers]


class Writer:
    """Writes items a chunk at a time. It assigns the ids itself, so that each table needs one statement per chunk.

    The import's transaction holds the write lock throughout, so no other writer can assign the same ids.
    """

    def __init__(
        self,
        store: Database,
        import_id: int,
        format: str,
        source: str,
        rule: str | None,
        by: int | None,
        report: Report,
        refuse: WrongRow,
    ):
        self.store, self.import_id, self.source, self.rule, self.by = store, import_id, source, rule, by
        self.report, self.refuse = report, refuse
        # Votes without an annotator's name are attributed to the file in the plain formats, otherwise to the format.
        file_name = source.split(".")[0].strip()[:LONGEST_NAME]
        self.default_annotator = (file_name if format in ("plain", "jsonl", "csv", "parquet") else "") or format
        self.created_at = now()
        self.overlap = settings.current(store).overlap
        self.ids = {table: self._last_id(table) for table in ("prompts", "completions", "comparisons", "presentations", "judgments")}
        self.first_prompt = self.ids["prompts"] + 1
        self.policy_ids: dict[str, int] = {}
        self.annotator_ids: dict[tuple[str, str | None], int] = {}
        self.reused: set[int] = set()

    def write(self, lines: Sequence[Line]) -> None:
        digests = [prompts.digest(item.messages) for _, item in lines]
        prompt_ids = self._prompts(lines, digests)
        new_comparisons = [
            (line, item, digest, prompt_ids[digest])
            for (line, item), digest in zip(lines, digests, strict=True)
            if isinstance(item, NewComparison)
        ]
        self._comparisons(new_comparisons)

    def finish(self) -> None:
        """Completes the import after the last chunk. Judged comparisons are closed: they want as many judgments as they have."""
        self.store.connection.conn.execute(
            "UPDATE comparisons SET wanted = human_ranks WHERE import_id = ? AND human_ranks > 0 AND wanted != human_ranks",
            [self.import_id],
        )
        self.report.reused = _spans(sorted(self.reused))

    def _prompts(self, lines: Sequence[Line], digests: Sequence[str]) -> dict[str, int]:
        """The id of each prompt, by digest. New prompts are written, retired ones are restored."""
        stored = {row["digest"]: row for row in prompts.stored(self.store, digests)}
        prompts.make_theirs(self.store, [row["id"] for row in stored.values()])
        # Of equal prompts the first declares the split, as it is the one that is written.
        declared = {key: item.split for (_, item), key in reversed([*zip(lines, digests, strict=True)]) if key not in stored}
        splits = prompts.splits_of(self.store, declared)
        ids = {digest: row["id"] for digest, row in stored.items()}
        restored = [digest for digest, row in stored.items() if row["retired"]]
        rows = []
        for (_, item), digest in zip(lines, digests, strict=True):
            prompt_only = isinstance(item, NewPrompt)
            if digest not in ids:
                ids[digest] = self._next_id("prompts")
                rows.append(self._prompt_row(ids[digest], item, digest, splits[digest]))
            elif prompt_only and digest not in restored:
                self.report.prompts_known += 1
            if prompt_only and ids[digest] < self.first_prompt:
                self.reused.add(ids[digest])
        self._insert("prompts", "id, messages, kind, split, source, digest, created_at, import_id", rows)
        self.report.prompts += len(rows) + len(restored)
        return ids

    def _prompt_row(self, prompt_id: int, item: Item, digest: str, split: str) -> SqlRow:
        messages = to_json([{"role": message["role"], "content": message["content"]} for message in item.messages])
        return prompt_id, messages, item.kind.strip(), split, self.source, digest, self.created_at, self.import_id

    def _comparisons(self, items: Sequence[tuple[int, NewComparison, str, int]]) -> None:
        names = [tuple(self._model(model) for model in item.models) for _, item, _, _ in items]
        digests = [
            comparisons.digest_of(digest, zip(models, item.completions, strict=True))
            for (_, item, digest, _), models in zip(items, names, strict=True)
        ]
        stored = self._stored(digests)
        rows: dict[str, list[SqlRow]] = {
            table: [] for table in ("completions", "comparisons", "links", "presentations", "judgments", "aspects", "ideals", "gold")
        }
        for (line, item, _, prompt_id), models, digest in zip(items, names, digests, strict=True):
            try:
                annotator_ids = [self._annotator(vote) for vote in item.votes]
            except BadRow as error:
                self.refuse(line, str(error))
                continue
            answers = [(self._policy(model), text) for model, text in zip(models, item.completions, strict=True)]
            if digest not in stored:
                stored[digest] = self._new(item, prompt_id, answers, digest, rows)
                self.report.comparisons += 1
            else:
                self.report.comparisons_known += 1
            comparison = stored[digest]
            ids = comparison.in_order(answers)
            for vote, annotator_id in zip(item.votes, annotator_ids, strict=True):
                self._vote(vote, annotator_id, comparison.id, ids, rows)
            if item.gold is not None:
                rows["gold"].append((comparison.id, _tiers(item.gold, ids), f"import {self.import_id}", self.by, self.created_at))
                if not comparison.from_this_import:
                    self.report.golden.append(comparison.id)
        self._insert_all(rows)

    def _insert_all(self, rows: dict[str, list[SqlRow]]) -> None:
        self._insert(
            "completions",
            "id, prompt_id, policy_version_id, text, sampling, seed, finish_reason, latency_s, created_at",
            rows["completions"],
        )
        self._insert("comparisons", "id, prompt_id, purpose, created_at, import_id, wanted, gold, digest", rows["comparisons"])
        self._insert("comparison_completions", "comparison_id, position, completion_id", rows["links"])
        self._insert("presentations", "id, comparison_id, annotator_id, slots, created_at", rows["presentations"])
        self._insert(
            "judgments",
            "id, comparison_id, presentation_id, annotator_id, verdict, tiers, all_bad, created_at, strength, partial, rationale, "
            "active_ms, idle_ms, client_ms, server_ms, import_id",
            rows["judgments"],
        )
        self._insert("aspect_ratings", "judgment_id, completion_id, aspect, rating", rows["aspects"])
        self._insert("ideal_answers", "judgment_id, text", rows["ideals"])
        self._insert("gold_answers", "comparison_id, tiers, note, by_id, created_at", rows["gold"])
        self.report.judgments += len(rows["judgments"])
        self.report.gold += len(rows["gold"])

    def _stored(self, digests: Sequence[str]) -> dict[str, _StoredComparison]:
        """The stored comparisons by digest. Retired ones are left out and remain retired."""
        by_digest: dict[str, _StoredComparison] = {}
        for row in self.store.rows(
            "SELECT c.digest, c.id, c.import_id, k.id AS completion_id, k.policy_version_id, k.text FROM comparisons c "
            "JOIN comparison_completions link ON link.comparison_id = c.id JOIN completions k ON k.id = link.completion_id "
            "WHERE c.digest IN (SELECT value FROM json_each(?)) AND c.retired = 0 ORDER BY c.id, link.position",
            [to_json(digests)],
        ):
            comparison = by_digest.setdefault(row["digest"], _StoredComparison(row["id"], {}, row["import_id"] == self.import_id))
            if comparison.id == row["id"]:
                comparison.ids.setdefault((row["policy_version_id"], row["text"]), []).append(row["completion_id"])
        return by_digest

    def _new(
        self, item: NewComparison, prompt_id: int, answers: Sequence[tuple[int, str]], digest: str, rows: dict[str, list[SqlRow]]
    ) -> _StoredComparison:
        comparison = _StoredComparison(self._next_id("comparisons"), {}, True)
        # Comparisons with votes never enter the queue; `finish` sets `wanted` to the number of votes they have.
        wanted = 0 if item.votes else self.overlap
        gold = int(item.gold is not None)
        rows["comparisons"].append((comparison.id, prompt_id, "imported", self.created_at, self.import_id, wanted, gold, digest))
        # `position` is the order in the file. Ids are shuffled, with the same result whenever the same file is imported.
        new_ids = [self._next_id("completions") for _ in answers]
        ids = [new_ids[n] for n in comparisons.order_of_writing(len(answers), random.Random(digest))]
        for position, (completion_id, (policy_id, text)) in enumerate(zip(ids, answers, strict=True)):
            comparison.ids.setdefault((policy_id, text), []).append(completion_id)
            rows["completions"].append((completion_id, prompt_id, policy_id, text, "{}", None, "imported", 0.0, self.created_at))
            rows["links"].append((comparison.id, position, completion_id))
        return comparison

    def _vote(self, vote: Vote, annotator_id: int, comparison_id: int, ids: Sequence[int], rows: dict[str, list[SqlRow]]) -> None:
        created_at = vote.created_at or self.created_at
        judgment_id, presentation_id = self._next_id("judgments"), self._next_id("presentations")
        slots = to_json([ids[index] for index in vote.shown] if vote.shown else ids)
        partial = int(sum(map(len, vote.tiers)) < len(ids))
        times = (vote.active_ms, vote.idle_ms, vote.client_ms, vote.server_ms)
        rows["presentations"].append((presentation_id, comparison_id, annotator_id, slots, created_at))
        rows["judgments"].append(
            (
                judgment_id,
                comparison_id,
                presentation_id,
                annotator_id,
                "rank",
                _tiers(vote.tiers, ids),
                int(vote.all_bad),
                created_at,
                vote.strength,
                partial,
                vote.rationale,
                *times,
                self.import_id,
            )
        )
        rows["aspects"].extend((judgment_id, ids[index], aspect, rating) for index, aspect, rating in vote.aspects)
        if vote.ideal is not None:
            rows["ideals"].append((judgment_id, vote.ideal))

    def _model(self, model: str | None) -> str:
        return "imported" if model is None else model.strip()

    def _policy(self, name: str) -> int:
        """The policy version of this name, of any kind: a file may name this store's own policies."""
        if name not in self.policy_ids:
            if len(self.policy_ids) >= CACHED_NAMES:
                self.policy_ids.clear()
            policy_id = self.store.value("SELECT id FROM policy_versions WHERE name = ?", [name])
            values = {"name": name, "kind": "external", "base_model": name, "created_at": self.created_at}
            self.policy_ids[name] = policy_id or self.store.insert("policy_versions", values)
        return self.policy_ids[name]

    def _annotator(self, vote: Vote) -> int:
        """The id of the annotator with this name or pseudonym, created at the first use."""
        rule = vote.rule or self.rule
        key = (vote.annotator or self.default_annotator, rule)
        if key not in self.annotator_ids:
            if len(self.annotator_ids) >= CACHED_NAMES:
                self.annotator_ids.clear()
            self.annotator_ids[key] = self._find_annotator(*key)
        return self.annotator_ids[key]

    def _find_annotator(self, name: str, rule: str | None) -> int:
        check_name("the annotator", name)
        row = self.store.row(
            "SELECT id, kind, rule FROM annotators WHERE name = ?1 OR pseudonym = ?1 ORDER BY name = ?1 DESC LIMIT 1", [name]
        )
        if row is None:
            kind = "simulated" if rule else "human"
            return self.store.insert("annotators", {"name": name, "kind": kind, "rule": rule, "created_at": self.created_at})
        if row["rule"] != rule:
            kind = f"judges by {row['rule']}" if row["rule"] else "is a person"
            raise BadRow(f"{name} {kind} in this store: the row needs another annotator's name")
        return int(row["id"])

    def _insert(self, table: str, columns: str, rows: Sequence[SqlRow]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self.store.connection.conn.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

    def _last_id(self, table: str) -> int:
        return int(self.store.value(f"SELECT coalesce(max(id), 0) FROM {table}"))

    def _next_id(self, table: str) -> int:
        self.ids[table] += 1
        return self.ids[table]


def _tiers(tiers: Iterable[Sequence[int]], ids: Sequence[int]) -> str:
    return to_json([[ids[index] for index in tier] for tier in tiers])


def _spans(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges (first, last) of consecutive ids in a sorted list."""
    spans: list[tuple[int, int]] = []
    for item in ids:
        if spans and spans[-1][1] == item - 1:
            spans[-1] = (spans[-1][0], item)
        else:
            spans.append((item, item))
    return spans
