"""Imports: what a file or a dataset brings, kept in one transaction as one act, which can be undone by its id.

What the records of each format mean is in `storage.exchange`. Nothing is deleted by an undo: prompts and comparisons are
retired, and votes get an exclusion.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from storage import comparisons, prompts, settings
from storage.database import Database, StoreError, now, to_json
from storage.exchange import files
from storage.exchange.files import Progress
from storage.exchange.formats import FORMATS
from storage.exchange.rows import LONGEST_NAME, BadRow, NewComparison, Vote, check, check_name
from storage.prompts import NewPrompt

CHUNK = 500
"""Records that are kept with one statement for each table."""

MOST_NAMES = 10_000
"""Annotators and models whose ids are remembered."""

REPORTED_ROWS = 100
"""Wrong rows that the report keeps; all of them are told while importing."""

UNDONE = "import undone"
"""The rule of the exclusion."""

WrongRow = Callable[[int, str], None]
"""Told (line, reason) of each row that is left out."""

Line = tuple[int, NewPrompt | NewComparison]


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


@dataclass(frozen=True, slots=True)
class Import:
    """One import as the store remembers it."""

    id: int
    format: str
    source: str
    sha256: str | None
    report: Report
    by_id: int | None
    created_at: str
    undone_at: str | None


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo took out: judgments that no longer count, comparisons and prompts that were retired."""

    judgments: int
    comparisons: int
    prompts: int


class _NothingGood(Exception):
    """Ends the transaction of an import that would be empty."""


def import_file(
    store: Database,
    path: Path | str,
    format: str,
    *,
    strict: bool = False,
    rule: str | None = None,
    by: int | None = None,
    wrong_row: WrongRow | None = None,
    progress: Progress | None = None,
) -> tuple[int | None, Report]:
    """Imports a file and returns the id of the import, which is None if there was nothing good in it, and its report.

    Args:
        strict: import nothing if any row is wrong.
        rule: the votes were given by this rule or model, not by people.
        by: the annotator who imports.

    Raises:
        StoreError: the file cannot be read, was imported before, or has wrong rows and `strict` is set.
    """
    path = Path(path)
    known = _format(format)
    sha256 = files.sha256(path)
    _refuse_twice(store, format, sha256, path)
    records = files.records(path, known.container, progress=progress)
    # A file's name may hold bytes that are no text.
    source = path.name.encode(errors="replace").decode()
    return _run(store, records, format, source, sha256, strict=strict, rule=rule, by=by, wrong_row=wrong_row)


def import_rows(
    store: Database,
    rows: Iterable[dict],
    format: str,
    *,
    source: str = "dataset",
    strict: bool = False,
    rule: str | None = None,
    by: int | None = None,
    wrong_row: WrongRow | None = None,
) -> tuple[int | None, Report]:
    """Imports records that are in memory: a `datasets.Dataset`, an `IterableDataset`, or any iterable of dicts.

    As `import_file`; rows are counted from 1, and the same ones may be imported again.
    """
    records = ((number, _record(row)) for number, row in enumerate(rows, start=1))
    return _run(store, records, format, source, None, strict=strict, rule=rule, by=by, wrong_row=wrong_row)


def all_imports(store: Database) -> list[Import]:
    """Every import, newest first."""
    return [_from_row(row) for row in store.rows("SELECT * FROM imports ORDER BY id DESC")]


def get(store: Database, import_id: int) -> Import:
    """One import.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM imports WHERE id = ?", [import_id])
    if row is None:
        raise StoreError(f"There is no import {import_id} in {store.path}: see `rankloop import --list`.")
    return _from_row(row)


def undo(store: Database, import_id: int, *, by: int | None = None) -> Undone:
    """Takes an import out of everything that counts. The rows stay, and the file may be imported again.

    Its votes, and all votes on its comparisons, get an exclusion. Its comparisons are retired, except those that another
    import has votes on; its prompts too, except those that something else uses.

    Raises:
        StoreError: there is no such import, or it was undone before.
    """
    with store.atomic() as connection:
        undone = get(store, import_id)
        if undone.undone_at is not None:
            raise StoreError(f"Import {import_id} was undone before, at {undone.undone_at}: there is nothing left to do.")
        execute = connection.conn.execute
        # Before the votes go: comparisons that lose theirs would open for people again.
        retired = execute(
            "UPDATE comparisons SET retired = 1 WHERE import_id = ?1 AND retired = 0 AND NOT EXISTS ("
            "SELECT 1 FROM judgments j WHERE j.comparison_id = comparisons.id AND j.counts = 1 AND j.import_id != ?1)",
            [import_id],
        ).rowcount
        excluded = _exclude(store, undone, by)
        execute(
            "UPDATE comparisons SET wanted = human_ranks WHERE import_id = ? AND retired = 0 AND wanted > human_ranks", [import_id]
        )
        for comparison_id in undone.report.golden:
            execute("UPDATE comparisons SET gold = 0 WHERE id = ?", [comparison_id])
        execute("UPDATE imports SET undone_by_id = ?, undone_at = ? WHERE id = ?", [by, now(), import_id])
        return Undone(excluded, retired, _retire_prompts(store, undone))


def _exclude(store: Database, undone: Import, by: int | None) -> int:
    reason = f"The import {undone.id} of {undone.source}, which this belongs to, was undone."
    exclusion = {"rule": UNDONE, "reason": reason, "by_id": by, "created_at": now()}
    wanted = (
        "SELECT id FROM judgments WHERE import_id = :id UNION SELECT j.id FROM judgments j "
        "JOIN comparisons c ON c.id = j.comparison_id WHERE c.import_id = :id AND c.retired = 1 AND j.counts = 1"
    )
    if store.value(f"SELECT NOT EXISTS ({wanted})", {"id": undone.id}):
        return 0
    exclusion_id = store.insert("exclusions", exclusion)
    return store.connection.conn.execute(
        f"INSERT INTO excluded_judgments (judgment_id, exclusion_id) SELECT id, :exclusion FROM ({wanted})",
        {"id": undone.id, "exclusion": exclusion_id},
    ).rowcount


def _retire_prompts(store: Database, undone: Import) -> int:
    """Retires the prompts that came with the import, or came back with it, unless something that stands uses them."""
    execute = store.connection.conn.execute
    execute("CREATE TEMP TABLE IF NOT EXISTS import_reused (first INTEGER, last INTEGER, own INTEGER)")
    execute("DELETE FROM import_reused")
    for other in all_imports(store):
        if other.undone_at is None or other.id == undone.id:
            spans = [(first, last, int(other.id == undone.id)) for first, last in other.report.reused]
            store.connection.conn.executemany("INSERT INTO import_reused VALUES (?, ?, ?)", spans)
    return execute(
        """
        UPDATE prompts SET retired = 1
        WHERE retired = 0
            AND (import_id = :id
                OR id IN (SELECT prompt_id FROM comparisons WHERE import_id = :id)
                OR id IN (SELECT p.id FROM import_reused r JOIN prompts p ON p.id BETWEEN r.first AND r.last WHERE r.own = 1))
            AND (import_id = :id OR EXISTS (SELECT 1 FROM imports i WHERE i.id = prompts.import_id AND i.undone_at IS NOT NULL))
            AND NOT EXISTS (SELECT 1 FROM comparisons c WHERE c.prompt_id = prompts.id AND c.retired = 0)
            AND NOT EXISTS (SELECT 1 FROM import_reused r WHERE r.own = 0 AND prompts.id BETWEEN r.first AND r.last)
        """,
        {"id": undone.id},
    ).rowcount


def _format(name: str):
    known = FORMATS.get(name)
    if known is None or known.read is None:
        readable = ", ".join(name for name, format in FORMATS.items() if format.read)
        raise StoreError(f"{name} cannot be imported: choose one of {readable}.")
    return known


def _refuse_twice(store: Database, format: str, sha256: str | None, path: Path | str) -> None:
    earlier = store.row(
        "SELECT id, source, created_at FROM imports WHERE sha256 = ? AND format = ? AND undone_at IS NULL", [sha256, format]
    )
    if earlier is not None:
        raise StoreError(
            f"{path} was imported before: it is import {earlier['id']} ({earlier['source']}, {earlier['created_at'][:16]}Z). "
            f"To import it again, undo that one first: rankloop import --undo {earlier['id']} --data {store.path.parent}"
        )


def _record(row: object) -> dict | BadRow:
    if not isinstance(row, dict):
        return BadRow("not a JSON object")
    # A dataset's column that a row says nothing about is None there.
    return {name: value for name, value in row.items() if value is not None}


def _run(
    store: Database,
    records: Iterable[tuple[int, dict | BadRow]],
    format: str,
    source: str,
    sha256: str | None,
    *,
    strict: bool,
    rule: str | None,
    by: int | None,
    wrong_row: WrongRow | None,
) -> tuple[int | None, Report]:
    convert = _format(format).read
    report = Report()

    def refuse(line: int, reason: str) -> None:
        report.wrong += 1
        if report.wrong <= REPORTED_ROWS:
            report.wrong_rows.append((line, reason))
        if wrong_row:
            wrong_row(line, reason)

    try:
        with store.atomic() as connection:
            _refuse_twice(store, format, sha256, source)
            import_id = store.insert(
                "imports",
                {"format": format, "source": source, "sha256": sha256, "report": "{}", "by_id": by, "created_at": now()},
            )
            keeper = _Keeper(store, import_id, format, source, rule, by, report, refuse)
            items = _items(records, convert, refuse)
            while chunk := list(islice(items, CHUNK)):
                # Once one row is wrong a strict import only reads on, to name the others too.
                if not (strict and report.wrong):
                    keeper.keep(chunk)
            if strict and report.wrong:
                raise StoreError(f"{report.wrong} wrong rows, nothing imported (--strict)")
            keeper.finish()
            if not report.good:
                raise _NothingGood
            connection.conn.execute("UPDATE imports SET report = ? WHERE id = ?", [to_json(asdict(report)), import_id])
    except _NothingGood:
        return None, report
    return import_id, report


def _items(
    records: Iterable[tuple[int, dict | BadRow]], convert: Callable[[dict], Iterable], refuse: WrongRow
) -> Iterator[Line]:
    """The good items of each record; of those that are not, the line and the reason are told."""
    for line, record in records:
        try:
            if isinstance(record, BadRow):
                raise record
            found = list(convert(record))
        except BadRow as error:
            refuse(line, str(error))
            continue
        except RecursionError:
            refuse(line, "nested too deeply")
            continue
        for item in found:
            try:
                check(item)
            except BadRow as error:
                refuse(line, str(error))
                continue
            yield line, item


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


class _Keeper:
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

    def keep(self, lines: Sequence[Line]) -> None:
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
        self.store.connection.conn.executemany(
            "UPDATE prompts SET retired = 0 WHERE id = ?", [(ids[digest],) for digest in back]
        )
        self.report.prompts += len(rows) + len(back)
        return ids

    def _prompt_row(self, prompt_id: int, item: NewPrompt | NewComparison, digest: str) -> tuple:
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
        rows: dict[str, list[tuple]] = {
            table: []
            for table in ("completions", "comparisons", "links", "presentations", "judgments", "aspects", "ideals", "gold")
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
        self._write(rows)

    def _write(self, rows: dict[str, list[tuple]]) -> None:
        self._insert(
            "completions",
            "id, prompt_id, policy_version_id, text, sampling, seed, finish_reason, latency_s, created_at",
            rows["completions"],
        )
        self._insert(
            "comparisons", "id, prompt_id, purpose, created_at, import_id, wanted, gold, digest", rows["comparisons"]
        )
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
        self, item: NewComparison, prompt_id: int, answers: Sequence[tuple[int, str]], digest: str, rows: dict[str, list[tuple]]
    ) -> _Known:
        comparison = _Known(self._next_id("comparisons"), {}, True)
        # Those with votes never stand in the line; at the end they want as many as they have.
        wanted = 0 if item.votes else self.overlap
        gold = int(item.gold is not None)
        rows["comparisons"].append((comparison.id, prompt_id, "imported", self.at, self.import_id, wanted, gold, digest))
        for position, (policy_id, text) in enumerate(answers):
            completion_id = self._next_id("completions")
            comparison.ids.setdefault((policy_id, text), []).append(completion_id)
            rows["completions"].append((completion_id, prompt_id, policy_id, text, "{}", None, "imported", 0.0, self.at))
            rows["links"].append((comparison.id, position, completion_id))
        return comparison

    def _vote(self, vote: Vote, annotator_id: int, comparison_id: int, ids: Sequence[int], rows: dict[str, list[tuple]]) -> None:
        at = vote.created_at or self.at
        judgment_id, presentation_id = self._next_id("judgments"), self._next_id("presentations")
        slots = to_json([ids[index] for index in vote.shown] if vote.shown else ids)
        partial = int(sum(map(len, vote.tiers)) < len(ids))
        times = (vote.active_ms, vote.idle_ms, vote.client_ms, vote.server_ms)
        rows["presentations"].append((presentation_id, comparison_id, annotator_id, slots, at))
        rows["judgments"].append(
            (
                judgment_id, comparison_id, presentation_id, annotator_id, "rank", _tiers(vote.tiers, ids), int(vote.all_bad),
                at, vote.strength, partial, vote.rationale, *times, self.import_id,
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
        return row["id"]

    def _insert(self, table: str, columns: str, rows: Sequence[tuple]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self.store.connection.conn.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

    def _last_id(self, table: str) -> int:
        return self.store.value(f"SELECT coalesce(max(id), 0) FROM {table}")

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


def _from_row(row: sqlite3.Row) -> Import:
    return Import(
        row["id"],
        row["format"],
        row["source"],
        row["sha256"],
        Report(**json.loads(row["report"])),
        row["by_id"],
        row["created_at"],
        row["undone_at"],
    )
