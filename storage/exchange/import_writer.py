"""Writes imported items through the table families' own functions, a slice at a time, each slice in a transaction of its own.

Nobody sees the rows before `ImportWriter.publish`, which makes the whole import visible in one short transaction. The readers in
`storage.exchange` turn the records of each format into items, and `storage.exchange.imports` checks them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields

from storage.content import comparisons, completions, policies, prompts
from storage.content.comparisons import ImportedComparison
from storage.content.prompts import NewPrompt
from storage.core import unfinished_imports
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Tiers
from storage.exchange.rows import MAX_NAME_CHARS, BadRow, Item, NewComparison, NewLabel, Vote, check_name
from storage.exchange.spans import Spans, spans_of
from storage.judging import completion_labels, exclusions, gold, judgments, presentations
from storage.judging.completion_labels import ImportedLabel
from storage.judging.judgments import ImportedVote
from storage.judging.presentations import ImportedPresentation
from storage.people import annotators
from storage.project import settings

CACHED_NAMES = 10_000
"""Most annotators, and most models, whose ids are cached."""

WrongRow = Callable[[int, str], None]
"""Called with (line, reason) for each row that is not imported."""

Line = tuple[int, Item]
"""An item with the line of the file that it came from."""

OUTDATED = "judged again later"
"""The rule of the exclusion that keeps all but the latest of one annotator's votes on a comparison from counting."""

OUTDATED_REASON = "The same annotator judged this comparison again at a later time, as the import {id} of {source} says."

RESTORE, RECOUNT, EXCLUDE, QUEUE = "restore", "recount", "exclude", "queue"
"""What a visible import still has to do: bring prompts back, count the votes of comparisons, exclude votes, queue comparisons."""

NAMED_ROWS = 100
"""Most rows that are named in a report for one reason."""


@dataclass(slots=True)
class Report:
    """The counts of an import. Stored as JSON under these names."""

    prompts: int = 0
    """New prompts, and prompts restored after the undo of an earlier import."""
    prompts_known: int = 0
    comparisons: int = 0
    comparisons_known: int = 0
    judgments: int = 0
    labels: int = 0
    """Judgments of one completion, good or bad. They are kept, and not used in training."""
    gold: int = 0
    wrong: int = 0
    wrong_rows: list[tuple[int, str]] = field(default_factory=list)
    """(line, reason) of the first wrong rows."""
    reused: list[tuple[int, int]] = field(default_factory=list)
    """Id ranges (first, last) of prompts of the file that were in the store before."""
    left: dict[str, int] = field(default_factory=dict)
    """What the file holds that was not kept, by name: fields in how many rows, and other things how often."""
    numbering: dict[str, int] = field(default_factory=dict)
    """What was not kept and says nothing new: fields that number the rows or repeat others, in how many rows, and blank lines."""
    read_as: dict[str, str] = field(default_factory=dict)
    """Columns and lists of the file that were read under another name, and under which."""
    golden: list[int] = field(default_factory=list)
    """Ids of comparisons from other sources that this import made gold."""
    outdated: int = 0
    """Votes that do not count because the same named annotator judged the comparison again later, in this file or before."""
    outdated_exclusion: int = 0
    """Id of the exclusion that keeps them from counting; 0 if there are none."""
    unfinished: dict[str, Spans] = field(default_factory=dict)
    """What the import still has to change of older rows, as ranges of ids; empty when all is done (`publications`)."""
    undated: int = 0
    """Of those, votes whose times are equal or missing: the later row of the file counts."""
    undated_rows: list[tuple[int, str]] = field(default_factory=list)
    """(line, annotator) of the first of those later rows."""

    def to_json(self) -> str:
        """The report as it is stored. The ranges in it may be many, so that they are not copied."""
        return to_json({one.name: getattr(self, one.name) for one in fields(self)})

    @property
    def good(self) -> int:
        return self.prompts + self.prompts_known + self.comparisons + self.judgments + self.labels + self.gold


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


class ImportWriter:
    """Writes the slices of one import, which holds the lock of imports."""

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
        self.pace = unfinished_imports.Pace(store)
        self.store, self.import_id, self.source, self.rule, self.by = store, import_id, source, rule, by
        self.report, self.refuse = report, refuse
        # Votes without an annotator's name are attributed to the file in the plain formats, otherwise to the format.
        file_name = source.split(".")[0].strip()[:MAX_NAME_CHARS]
        self.default_annotator = (file_name if format in ("plain", "jsonl", "csv", "parquet", "map") else "") or format
        self.created_at = now()
        self.overlap = settings.current(store).overlap
        self.policy_ids: dict[str, int] = {}
        self.annotator_ids: dict[tuple[str, str | None], int] = {}
        # What changes rows that were in the store before waits for `publish`.
        self.reused: set[int] = set()
        self.restored: set[int] = set()
        self.adopted: set[int] = set()
        self.judged: Counter[int] = Counter()
        self.votes_elsewhere: set[int] = set()
        self.gold_elsewhere: list[tuple[int, Tiers]] = []
        self.outdated: list[int] = []
        self.waiting: list[int] = []

    def write(self, lines: Sequence[Line]) -> None:
        """Writes one slice."""
        digests = [prompts.digest(item.messages) for _, item in lines]
        with self.pace.slice():
            prompt_ids = self._prompts(lines, digests)
            rows = [
                _Row(line, item, digest, prompt_ids[digest])
                for (line, item), digest in zip(lines, digests, strict=True)
                if isinstance(item, NewComparison)
            ]
            self._comparisons(rows)
            self._labels(
                [
                    (line, item, prompt_ids[digest])
                    for (line, item), digest in zip(lines, digests, strict=True)
                    if isinstance(item, NewLabel)
                ]
            )

    def publish(self) -> None:
        """Makes the import visible, in one short transaction. What it changes of older rows is left for `publications` to do."""
        store = self.store
        outdated = exclusions.active(store, self.outdated)
        self.report.reused = spans_of(self.reused)
        left = {RESTORE: self.restored | self.adopted, RECOUNT: self.votes_elsewhere, EXCLUDE: outdated, QUEUE: self.waiting}
        self.report.unfinished = {name: spans_of(ids) for name, ids in left.items() if ids}
        report = self.report.to_json()
        # With this commit all that came before it is on the disk too.
        store.connection.conn.execute("PRAGMA synchronous=FULL")
        with store.atomic() as connection:
            connection.conn.execute("UPDATE imports SET state = 'whole' WHERE id = ?", [self.import_id])
            annotators.add_judged(store, self.judged)
            gold.add_imported(store, self.gold_elsewhere, note=f"import {self.import_id}", by=self.by, created_at=self.created_at)
            if outdated:
                reason = OUTDATED_REASON.format(id=self.import_id, source=self.source)
                self.report.outdated_exclusion = exclusions.begin(store, rule=OUTDATED, reason=reason, by=self.by)
            connection.conn.execute(
                "UPDATE imports SET report = json_set(?, '$.outdated_exclusion', ?) WHERE id = ?",
                [report, self.report.outdated_exclusion, self.import_id],
            )

    # ---- prompts

    def _prompts(self, lines: Sequence[Line], digests: Sequence[str]) -> dict[str, int]:
        """The id of each prompt, by digest. New prompts are written; retired ones are restored when the import is published."""
        stored = {row["digest"]: row for row in prompts.stored(self.store, digests)}
        ids = {digest: row["id"] for digest, row in stored.items()}
        restored = {row["id"] for row in stored.values() if row["retired"]} - self.restored
        foreign = {row["id"] for row in stored.values() if row["import_id"] != self.import_id}
        new: dict[str, NewPrompt] = {}
        for (_, item), digest in zip(lines, digests, strict=True):
            prompt_only = isinstance(item, NewPrompt)
            if digest not in ids and digest not in new:
                new[digest] = NewPrompt(item.messages, item.kind, item.split)
            elif prompt_only and ids.get(digest) not in restored:
                self.report.prompts_known += 1
            # An undo asks what other imports use these prompts for. Comparisons tell that themselves.
            if not isinstance(item, NewComparison) and ids.get(digest) in foreign:
                self.reused.add(ids[digest])
        ids |= prompts.add_many(self.store, new, source=self.source, created_at=self.created_at, import_id=self.import_id)
        self.restored |= restored
        self.adopted |= {row["id"] for row in stored.values() if row["starter"]}
        self.report.prompts += len(new) + len(restored)
        return ids

    # ---- comparisons

    def _comparisons(self, rows: Sequence[_Row]) -> None:
        judges = {index: ids for index, row in enumerate(rows) if (ids := self._annotators(row)) is not None}
        accepted = [row for index, row in enumerate(rows) if index in judges]
        for row in accepted:
            models = [_model(model) for model in row.item.models]
            row.answers = [(self._policy(model), text) for model, text in zip(models, row.item.completions, strict=True)]
            row.digest = comparisons.digest_of(row.prompt_digest, zip(models, row.item.completions, strict=True))
        stored = self._stored([row.digest for row in accepted])
        new = {row.digest: row for row in reversed(accepted) if row.digest not in stored}
        stored |= self._new([row for row in accepted if new.get(row.digest) is row])
        self.report.comparisons += len(new)
        self.report.comparisons_known += len(accepted) - len(new)
        self._votes(accepted, list(judges.values()), stored)
        self._gold(accepted, stored)

    def _annotators(self, row: _Row) -> list[int] | None:
        """The annotators of the row's votes; None if the row is refused because of one of them."""
        try:
            return [self._annotator(vote) for vote in row.item.votes]
        except (BadRow, StoreError) as error:
            self.refuse(row.line, str(error))
            return None

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

    def _new(self, rows: Sequence[_Row]) -> dict[str, _StoredComparison]:
        """Writes new comparisons with their completions."""
        orders = [comparisons.random_write_order(len(row.answers), random.Random(row.digest)) for row in rows]
        # The order in the file is kept as the position. Ids are shuffled, with the same result whenever the same file is imported.
        written = [
            (row.prompt_id, *row.answers[order.index(n)]) for row, order in zip(rows, orders, strict=True) for n in range(len(order))
        ]
        unused = iter(completions.add_imported(self.store, written, created_at=self.created_at, import_id=self.import_id))
        new = []
        for row, order in zip(rows, orders, strict=True):
            ids = [next(unused) for _ in order]
            # A comparison with votes never enters the queue: it wants as many votes as it has.
            wanted = 0 if row.item.votes else self.overlap
            new.append(ImportedComparison(row.prompt_id, [ids[n] for n in order], row.digest, wanted))
        comparison_ids = comparisons.add_imported(self.store, new, created_at=self.created_at, import_id=self.import_id)
        self.waiting += [comparison_id for item, comparison_id in zip(new, comparison_ids, strict=True) if item.wanted]
        found = {}
        for row, item, comparison_id in zip(rows, new, comparison_ids, strict=True):
            comparison = found[row.digest] = _StoredComparison(comparison_id, {}, True)
            for answer, completion_id in zip(row.answers, item.completion_ids, strict=True):
                comparison.ids.setdefault(answer, []).append(completion_id)
        return found

    # ---- votes

    def _votes(self, rows: Sequence[_Row], judges: Sequence[Sequence[int]], stored: dict[str, _StoredComparison]) -> None:
        votes = [
            _NewVote(row.line, vote, annotator_id, stored[row.digest], stored[row.digest].in_order(row.answers))
            for row, annotator_ids in zip(rows, judges, strict=True)
            for vote, annotator_id in zip(row.item.votes, annotator_ids, strict=True)
        ]
        if not votes:
            return
        outdated_before = self._outdate(votes)
        shown = presentations.add_imported(
            self.store,
            [
                ImportedPresentation(
                    new.comparison.id,
                    new.annotator_id,
                    [new.ids[index] for index in new.vote.shown] if new.vote.shown else new.ids,
                    new.vote.shown is not None,
                    new.vote.created_at or self.created_at,
                )
                for new in votes
            ],
        )
        ids = judgments.add_imported(
            self.store,
            [self._imported(new, presentation_id) for new, presentation_id in zip(votes, shown, strict=True)],
            import_id=self.import_id,
        )
        self.outdated += [*outdated_before, *(judgment_id for judgment_id, new in zip(ids, votes, strict=True) if not new.counts)]
        self.judged.update(new.annotator_id for new in votes)
        self.report.judgments += len(votes)

    def _imported(self, new: _NewVote, presentation_id: int) -> ImportedVote:
        vote = new.vote
        return ImportedVote(
            new.comparison.id,
            presentation_id,
            new.annotator_id,
            _tiers(vote.tiers, new.ids),
            sum(map(len, vote.tiers)) < len(new.ids),
            new.counts,
            vote.created_at or self.created_at,
            vote.all_bad,
            vote.strength,
            vote.rationale,
            vote.active_ms,
            vote.idle_ms,
            vote.client_ms,
            vote.server_ms,
            tuple((new.ids[index], aspect, rating) for index, aspect, rating in vote.aspects),
            vote.ideal,
        )

    def _outdate(self, votes: Sequence[_NewVote]) -> list[int]:
        """Finds which of one named annotator's votes on a comparison is the latest; the others do not count.

        Votes of annotators whom the file does not name may be of several people, and all count. Returns the ids of earlier rows
        that are outdated now, and adjusts the counts of votes of comparisons.
        """
        counts: Counter[int] = Counter()
        elsewhere = {new.comparison.id for new in votes if not new.comparison.from_this_import}
        simulated = self._simulated(votes)
        latest: dict[tuple[int, int], _Latest] = {}
        known = {new.comparison.id for new in votes if new.vote.annotator is not None}
        for before in judgments.counted(self.store, known):
            own = before.import_id == self.import_id
            at = None if own and before.created_at == self.created_at else before.created_at
            latest[before.comparison_id, before.annotator_id] = _Latest(at, own, before.id, None)
        outdated: list[int] = []
        for new in votes:
            counts[new.comparison.id] += new.annotator_id not in simulated
            if new.vote.annotator is None:
                continue
            key = new.comparison.id, new.annotator_id
            mine = _Latest(new.vote.created_at, True, None, new)
            if (earlier := latest.get(key)) is None:
                latest[key] = mine
                continue
            wins, lost = (mine, earlier) if self._is_later(new, earlier) else (earlier, mine)
            latest[key] = wins
            self.report.outdated += 1
            # The vote of a person that was in the store before is counted there until `publish` excludes it.
            if lost.own and new.annotator_id not in simulated:
                counts[new.comparison.id] -= 1
            if lost.new is not None:
                lost.new.counts = False
            elif lost.id is not None:
                outdated.append(lost.id)
        judgments.uncount(self.store, [lost for lost in outdated if self._is_own(lost)])
        self.votes_elsewhere |= elsewhere
        comparisons.add_votes(self.store, {item: number for item, number in counts.items() if item not in elsewhere})
        return outdated

    def _is_later(self, new: _NewVote, earlier: _Latest) -> bool:
        """Whether a vote is later than another one of its annotator. At equal or missing times the order of the file decides."""
        if not earlier.own:
            # The same time as a vote that was in the store before: the file brings that one again.
            return (new.vote.created_at or self.created_at) > (earlier.at or "")
        if new.vote.created_at is not None and earlier.at is not None and new.vote.created_at != earlier.at:
            return new.vote.created_at > earlier.at
        self.report.undated += 1
        if len(self.report.undated_rows) < NAMED_ROWS:
            self.report.undated_rows.append((new.line, str(new.vote.annotator)))
        return True

    def _is_own(self, judgment_id: int) -> bool:
        return bool(self.store.value("SELECT import_id = ? FROM judgments WHERE id = ?", [self.import_id, judgment_id]))

    def _simulated(self, votes: Sequence[_NewVote]) -> set[int]:
        return {new.annotator_id for new in votes if new.vote.rule or self.rule}

    def _gold(self, rows: Sequence[_Row], stored: dict[str, _StoredComparison]) -> None:
        own: list[tuple[int, Tiers]] = []
        for row in rows:
            if row.item.gold is None:
                continue
            comparison = stored[row.digest]
            known = comparison.id, _tiers(row.item.gold, comparison.in_order(row.answers))
            if comparison.from_this_import:
                own.append(known)
            else:
                self.gold_elsewhere.append(known)
                self.report.golden.append(comparison.id)
            self.report.gold += 1
        gold.add_imported(self.store, own, note=f"import {self.import_id}", by=self.by, created_at=self.created_at)

    # ---- labels

    def _labels(self, rows: Sequence[tuple[int, NewLabel, int]]) -> None:
        """Writes labels, each as (line, label, prompt id), with a completion of its own."""
        accepted: list[tuple[NewLabel, int, int]] = []
        for line, item, prompt_id in rows:
            try:
                accepted.append((item, prompt_id, self._annotator(item)))
            except (BadRow, StoreError) as error:
                self.refuse(line, str(error))
        answers = [(prompt_id, self._policy(_model(item.model)), item.completion) for item, prompt_id, _ in accepted]
        completion_ids = completions.add_imported(self.store, answers, created_at=self.created_at, import_id=self.import_id)
        labels = [
            ImportedLabel(completion_id, annotator_id, item.good, item.rationale, item.created_at or self.created_at)
            for (item, _, annotator_id), completion_id in zip(accepted, completion_ids, strict=True)
        ]
        completion_labels.add_imported(self.store, labels, import_id=self.import_id)
        self.report.labels += len(labels)

    # ---- names

    def _policy(self, name: str) -> int:
        """The policy version of this name."""
        if name not in self.policy_ids:
            if len(self.policy_ids) >= CACHED_NAMES:
                self.policy_ids.clear()
            self.policy_ids[name] = policies.ensure_imported(self.store, name, import_id=self.import_id)
        return self.policy_ids[name]

    def _annotator(self, vote: Vote | NewLabel) -> int:
        """The id of the annotator with this name or pseudonym, created at the first use."""
        rule = vote.rule or self.rule
        key = (vote.annotator or self.default_annotator, rule)
        if key not in self.annotator_ids:
            if len(self.annotator_ids) >= CACHED_NAMES:
                self.annotator_ids.clear()
            check_name("the annotator", key[0])
            self.annotator_ids[key] = annotators.ensure_imported(self.store, *key, import_id=self.import_id)
        return self.annotator_ids[key]


@dataclass(slots=True)
class _Row:
    """A comparison of the file, on its way into the store."""

    line: int
    item: NewComparison
    prompt_digest: str
    prompt_id: int
    digest: str = ""
    answers: list[tuple[int, str]] = field(default_factory=list)
    """(policy version id, text) of each completion."""


@dataclass(slots=True)
class _NewVote:
    """A vote of the file, on its way into the store."""

    line: int
    vote: Vote
    annotator_id: int
    comparison: _StoredComparison
    ids: list[int]
    """Completion ids in the order of the row."""
    counts: bool = True


@dataclass(frozen=True, slots=True)
class _Latest:
    """The latest vote of an annotator on a comparison so far."""

    at: str | None
    """None if the file does not say when."""
    own: bool
    """Whether this import brought it."""
    id: int | None
    """Its row, if it is in the store."""
    new: _NewVote | None
    """Itself, if it is not."""


def _model(model: str | None) -> str:
    return "imported" if model is None else model.strip()


def _tiers(tiers: Iterable[Sequence[int]], ids: Sequence[int]) -> Tiers:
    return tuple(tuple(ids[index] for index in tier) for tier in tiers)
