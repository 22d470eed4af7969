"""Writes what an import brings: rows of every table, a chunk at a time, in the transaction that `storage.exchange.imports` opened.

What the items mean is said by the readers in `storage.exchange`.
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

MOST_NAMES = 10_000
"""Annotators and models whose ids are remembered."""

WrongRow = Callable[[int, str], None]
"""Told (line, reason) of each row that is left out."""

Line = tuple[int, Item]
"""An item with the line of the file that it came from."""

SqlRow = tuple[Any, ...]
"""The values of one row of a table."""


@dataclass(slots=True)
class Report:
    """What an import brought."""

    prompts: int = 0
    """New, or back from an import that was undone."""
    prompts_known: int = 0
    comparisons: int = 0
    comparisons_known: int = 0
    judgments: int = 0
    gold: int = 0
    wrong: int = 0
    wrong_rows: list[tuple[int, str]] = field(default_factory=list)
    """The first (line, reason)."""
    reused: list[tuple[int, int]] = field(default_factory=list)
    """Ids, first to last, of prompts that the file names and that were in the store before."""
    golden: list[int] = field(default_factory=list)
    """Comparisons from elsewhere that became gold."""

    @property
    def good(self) -> int:
        return self.prompts + self.prompts_known + self.comparisons + self.judgments + self.gold


@dataclass(slots=True)
class _Known:
    """A comparison in the store, with the completions that each (policy, text) has in it."""

    id: int
    ids: dict[tuple[int, str], list[int]]
    own: bool

    def in_order(self, answers: Sequence[tuple[int, str]]) -> list[int]:
        """Its completion ids in the order in which a row lists them."""
        left = {answer: list(ids) for answer, ids in self.ids.items()}
        return [left[answer].pop(0) for answer in answers]


class Writer:
    """Writes items a chunk at a time: ids are drawn here, so that each table takes one statement for the whole chunk.

    The write lock is held all the while, so nobody else draws the same ids.
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
        # Files of the plain formats have no name for who judged but their own.
        own_name = source.split(".")[0].strip()[:LONGEST_NAME]
        self.nobody = (own_name if format in ("plain", "jsonl", "csv", "parquet") else "") or format
        self.at = now()
        self.overlap = settings.current(store).overlap
        self.ids = {table: self._last_id(table) for table in ("prompts", "completions", "comparisons", "presentations", "judgments")}
        self.first_prompt = self.ids["prompts"] + 1
        self.policy_ids: dict[str, int] = {}
        self.annotator_ids: dict[tuple[str, str | None], int] = {}
        self.reused: set[int] = set()

    def write(self, lines: Sequence[Line]) -> None:
        digests = [prompts.digest(item.messages) for _, item in lines]
        prompt_ids = self._prompts(lines, digests)
        found = [
            (line, item, digest, prompt_ids[digest])
            for (line, item), digest in zip(lines, digests, strict=True)
            if isinstance(item, NewComparison)
        ]
        self._comparisons(found)

    def finish(self) -> None:
        """What is known only at the end. Judged comparisons want no more judgments than they have."""
        self.store.connection.conn.execute(
            "UPDATE comparisons SET wanted = human_ranks WHERE import_id = ? AND human_ranks > 0 AND wanted != human_ranks",
            [self.import_id],
        )
        self.report.reused = _spans(sorted(self.reused))

    def _prompts(self, lines: Sequence[Line], digests: Sequence[str]) -> dict[str, int]:
        """The id of each prompt, by digest; new ones are written, retired ones come back."""
        known = {
            row["digest"]: row
            for row in self.store.rows(
                "SELECT id, digest, retired FROM prompts WHERE digest IN (SELECT value FROM json_each(?))", [to_json(digests)]
            )
        }
        ids = {digest: row["id"] for digest, row in known.items()}
        back = [digest for digest, row in known.items() if row["retired"]]
        rows = []
        for (_, item), digest in zip(lines, digests, strict=True):
            alone = isinstance(item, NewPrompt)
            if digest not in ids:
                ids[digest] = self._next_id("prompts")
                rows.append(self._prompt_row(ids[digest], item, digest))
            elif alone and digest not in back:
                self.report.prompts_known += 1
            if alone and ids[digest] < self.first_prompt:
                self.reused.add(ids[digest])
        self._insert("prompts", "id, messages, kind, split, source, digest, created_at, import_id", rows)
        self.store.connection.conn.executemany("UPDATE prompts SET retired = 0 WHERE id = ?", [(ids[digest],) for digest in back])
        self.report.prompts += len(rows) + len(back)
        return ids

    def _prompt_row(self, prompt_id: int, item: Item, digest: str) -> SqlRow:
        messages = to_json([{"role": message["role"], "content": message["content"]} for message in item.messages])
        split = item.split or prompts.split_of(digest)
        return prompt_id, messages, item.kind.strip(), split, self.source, digest, self.at, self.import_id

    def _comparisons(self, found: Sequence[tuple[int, NewComparison, str, int]]) -> None:
        names = [tuple(self._model(model) for model in item.models) for _, item, _, _ in found]
        digests = [
            comparisons.digest_of(digest, zip(models, item.completions, strict=True))
            for (_, item, digest, _), models in zip(found, names, strict=True)
        ]
        known = self._known(digests)
        rows: dict[str, list[SqlRow]] = {
            table: [] for table in ("completions", "comparisons", "links", "presentations", "judgments", "aspects", "ideals", "gold")
        }
        for (line, item, _, prompt_id), models, digest in zip(found, names, digests, strict=True):
            try:
                judges = [self._annotator(vote) for vote in item.votes]
            except BadRow as error:
                self.refuse(line, str(error))
                continue
            answers = [(self._policy(model), text) for model, text in zip(models, item.completions, strict=True)]
            if digest not in known:
                known[digest] = self._new(item, prompt_id, answers, digest, rows)
                self.report.comparisons += 1
            else:
                self.report.comparisons_known += 1
            comparison = known[digest]
            ids = comparison.in_order(answers)
            for vote, annotator_id in zip(item.votes, judges, strict=True):
                self._vote(vote, annotator_id, comparison.id, ids, rows)
            if item.gold is not None:
                rows["gold"].append((comparison.id, _tiers(item.gold, ids), f"import {self.import_id}", self.by, self.at))
                if not comparison.own:
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

    def _known(self, digests: Sequence[str]) -> dict[str, _Known]:
        """Comparisons in the store by digest; retired ones stay retired."""
        found: dict[str, _Known] = {}
        for row in self.store.rows(
            "SELECT c.digest, c.id, c.import_id, k.id AS completion_id, k.policy_version_id, k.text FROM comparisons c "
            "JOIN comparison_completions link ON link.comparison_id = c.id JOIN completions k ON k.id = link.completion_id "
            "WHERE c.digest IN (SELECT value FROM json_each(?)) AND c.retired = 0 ORDER BY c.id, link.position",
            [to_json(digests)],
        ):
            known = found.setdefault(row["digest"], _Known(row["id"], {}, row["import_id"] == self.import_id))
            if known.id == row["id"]:
                known.ids.setdefault((row["policy_version_id"], row["text"]), []).append(row["completion_id"])
        return found

    def _new(
        self, item: NewComparison, prompt_id: int, answers: Sequence[tuple[int, str]], digest: str, rows: dict[str, list[SqlRow]]
    ) -> _Known:
        comparison = _Known(self._next_id("comparisons"), {}, True)
        # Those with votes never stand in the line; at the end they want as many as they have.
        wanted = 0 if item.votes else self.overlap
        gold = int(item.gold is not None)
        rows["comparisons"].append((comparison.id, prompt_id, "imported", self.at, self.import_id, wanted, gold, digest))
        # The file's order is kept as position. Ids are drawn apart from it, alike whenever the same file is imported.
        drawn = [self._next_id("completions") for _ in answers]
        ids = [drawn[n] for n in comparisons.order_of_writing(len(answers), random.Random(digest))]
        for position, (completion_id, (policy_id, text)) in enumerate(zip(ids, answers, strict=True)):
            comparison.ids.setdefault((policy_id, text), []).append(completion_id)
            rows["completions"].append((completion_id, prompt_id, policy_id, text, "{}", None, "imported", 0.0, self.at))
            rows["links"].append((comparison.id, position, completion_id))
        return comparison

    def _vote(self, vote: Vote, annotator_id: int, comparison_id: int, ids: Sequence[int], rows: dict[str, list[SqlRow]]) -> None:
        at = vote.created_at or self.at
        judgment_id, presentation_id = self._next_id("judgments"), self._next_id("presentations")
        slots = to_json([ids[index] for index in vote.shown] if vote.shown else ids)
        partial = int(sum(map(len, vote.tiers)) < len(ids))
        times = (vote.active_ms, vote.idle_ms, vote.client_ms, vote.server_ms)
        rows["presentations"].append((presentation_id, comparison_id, annotator_id, slots, at))
        rows["judgments"].append(
            (
                judgment_id,
                comparison_id,
                presentation_id,
                annotator_id,
                "rank",
                _tiers(vote.tiers, ids),
                int(vote.all_bad),
                at,
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
        """The version of this name, whatever its kind: a file may name this store's own."""
        if name not in self.policy_ids:
            if len(self.policy_ids) >= MOST_NAMES:
                self.policy_ids.clear()
            known = self.store.value("SELECT id FROM policy_versions WHERE name = ?", [name])
            values = {"name": name, "kind": "external", "base_model": name, "created_at": self.at}
            self.policy_ids[name] = known or self.store.insert("policy_versions", values)
        return self.policy_ids[name]

    def _annotator(self, vote: Vote) -> int:
        """The annotator of this name or pseudonym, made at the first use."""
        rule = vote.rule or self.rule
        key = (vote.annotator or self.nobody, rule)
        if key not in self.annotator_ids:
            if len(self.annotator_ids) >= MOST_NAMES:
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
            return self.store.insert("annotators", {"name": name, "kind": kind, "rule": rule, "created_at": self.at})
        if row["rule"] != rule:
            said = f"judges by {row['rule']}" if row["rule"] else "is a person"
            raise BadRow(f"{name} {said} in this store: the row needs another annotator's name")
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
    """Sorted ids as (first, last) of those that follow one another."""
    spans: list[tuple[int, int]] = []
    for item in ids:
        if spans and spans[-1][1] == item - 1:
            spans[-1] = (spans[-1][0], item)
        else:
            spans.append((item, item))
    return spans
