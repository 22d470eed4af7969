"""A vote, a vote that decides a round, a gold comparison and a repeat answer every sequence of calls alike: nobody can tell which it is.

Each sequence is gone through in four stores that differ in nothing but what the one comparison in question is for. Replies
are compared whole, with opaque names numbered by their first appearance and the texts of prompt and answers taken out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from storage.core.database import Database
from storage.judging import exclusions
from storage.judging.queue import REPEAT_AFTER
from tests.security.blind_site import BlindSite, blind_site

PURPOSES = ("vote", "decide", "gold", "repeat")

JUDGED_BEFORE = REPEAT_AFTER + 3
WAITING = 6


class Ann:
    """An annotator with one comparison before them, and all that they were answered since."""

    def __init__(self, site: BlindSite, purpose: str):
        self.site = site
        self.stats: list[Any] = []
        self.held = site.lease("Ann", purpose)
        self.view = self.ask("next_comparison")
        self.about = {"presentation_id": self.view["presentation_id"]}

    def ask(self, function: str, data: dict | None = None) -> Any:
        reply = self.site.send("Ann", function, data or {})
        self.stats.append([reply.status_code, sorted(set(reply.headers) - {"date", "content-length"}), reply.json()])
        return reply.json()

    def next(self) -> None:
        self.ask("next_comparison")

    def renew(self) -> None:
        self.ask("renew", self.about)

    def judge(self, choice: str = "a", **more: Any) -> None:
        self.ask("judge", self.about | {"choice": choice} | more)

    def skip(self) -> None:
        self.judge("skip", reason="Broken prompt")

    def undo(self) -> None:
        self.ask("undo")

    def judge_another(self) -> None:
        """Whatever is before them now."""
        view = self.site.call("Ann", "next_comparison")
        self.ask("judge", {"presentation_id": view["presentation_id"], "choice": "tie"})

    def history(self) -> None:
        self.rows = self.ask("past_judgments")["rows"]
        for filters in ({"verdict": "rank"}, {"verdict": "skip"}, {"flagged": True}, {"excluded": True}):
            self.ask("past_judgments", filters)

    def decide(self) -> None:
        """The round is decided meanwhile, while somebody else has another comparison open."""
        self.site.call("Bob", "next_comparison")
        self.site.decide()

    def open(self) -> None:
        self.history()
        self.ask("past_judgment", {"judgment_id": self.rows[0]["id"]})

    def correct(self, choice: str = "b", **more: Any) -> None:
        """The newest judgment."""
        self.history()
        self.ask("correct", {"judgment_id": self.rows[0]["id"], "choice": choice} | more)

    def correct_to_skip(self) -> None:
        self.correct("skip", reason="Unsafe content")

    def lapse(self) -> None:
        """Away for too long."""
        self.site.lapse()

    def others(self) -> None:
        """Somebody else judges all that waits."""
        while (view := self.site.call("Bob", "next_comparison"))["state"] == "comparison":
            self.site.call("Bob", "judge", {"presentation_id": view["presentation_id"], "choice": "tie"})

    def another_one_asks(self) -> None:
        self.site.call("Bob", "next_comparison")

    def withdraw(self) -> None:
        with self.site.store.atomic() as connection:
            connection.conn.execute(
                "UPDATE comparisons SET retired = 1 WHERE id = (SELECT comparison_id FROM presentations WHERE id = ?)", [self.held]
            )

    def exclude_all(self) -> None:
        exclusions.exclude_annotator(self.site.store, self.site.ids["Ann"], rule="gold accuracy", reason="Read slowly.", by=None)

    def lift(self) -> None:
        exclusions.lift(self.site.store, exclusions.all_exclusions(self.site.store)[0].id, reason="It was right.", by=None)

    def pages(self) -> None:
        """The other pages that count judgments."""
        for name in ("LeaderboardPage.open", "DataPage.show"):
            event = self.site.events[name]
            body = {"fn_index": event._id, "data": [None for _ in event.inputs], "session_hash": "s"}
            reply = self.site.client("Ann").post("/gradio_api/run/predict", json=body).json()
            self.stats.append({key: reply[key] for key in ("data",)})


SEQUENCES = {
    "looked at": "next renew next renew pages",
    "judged": "judge renew next renew pages",
    "judged twice": "judge judge renew judge_another renew judge",
    "a sign of life before and after": "renew judge renew renew",
    "skipped": "skip renew next renew history undo renew next skip",
    "undone": "judge undo renew judge renew undo undo renew next",
    "undone later": "judge judge_another undo renew undo renew next renew",
    "history": "judge renew history open correct renew open pages",
    "corrected twice": "judge correct correct renew undo renew next",
    "from skip to rank": "skip correct renew history",
    "from rank to skip": "judge correct_to_skip renew history undo renew next",
    "away and back": "lapse renew judge renew next history",
    "away and on": "lapse next renew judge renew history next",
    "away, others do not ask": "lapse next judge_another renew judge renew history",
    "away, others judge all": "lapse others renew judge renew next history undo",
    "away, somebody asks once": "lapse another_one_asks renew judge renew next",
    "in time, others judge all": "others renew judge renew next history",
    "skipped, others judge all": "skip others renew correct history undo renew next judge",
    "judged, others judge all": "judge others renew correct correct_to_skip undo renew next judge",
    "undone, away, others judge all": "judge undo lapse others renew judge next history",
    "withdrawn": "withdraw renew next judge renew history undo",
    "judged and withdrawn": "judge withdraw renew history correct undo renew next",
    "skipped and withdrawn": "skip withdraw correct renew undo renew next",
    "open while a round is decided": "decide renew next judge renew history undo renew next",
    "judged, and a round is decided": "judge decide renew history correct undo renew next judge",
    "skipped, and a round is decided": "skip decide renew history undo renew next",
    "excluded": "judge exclude_all renew history open correct history undo next pages",
    "excluded before": "exclude_all judge renew history pages",
    "excluded, others judge all": "judge exclude_all others renew undo renew next judge history",
    "excluded and lifted": "judge exclude_all lift others renew undo renew next judge history",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Ann has judged enough for a repeat, a gold comparison waits for its turn, and some others stand in the line."""
    folder = tmp_path_factory.mktemp("purposes")
    with blind_site(folder / "rankloop.db") as site:
        site.join("Ann")
        site.join("Bob")
        for n in range(JUDGED_BEFORE):
            site.put(f"Old question {n}?")
        for _ in range(JUDGED_BEFORE):
            view = site.call("Ann", "next_comparison")
            site.call("Ann", "judge", {"presentation_id": view["presentation_id"], "choice": "a"})
        site.make_gold(site.put("Golden question?"))
        for n in range(WAITING):
            site.put(f"Question {n}?")
            if n == 0:
                site.put_deciding("Which is better?")
        site.store.connection.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield site


def gone_through(prepared: BlindSite, purpose: str, sequence: Callable[[Ann], None]) -> list[Any]:
    """The replies, over the prepared store as it was; the served app reads the file that is put in its place."""
    store = prepared.store
    copy = store.path.with_suffix(".before")
    if not copy.exists():
        shutil.copyfile(store.path, copy)
    before = Database(copy)
    try:
        # SQLite's own copy, into the file that the server has open.
        before.connection.conn.backup(store.connection.conn)
    finally:
        before.close()
    ann = Ann(prepared, purpose)
    sequence(ann)
    return alike(ann.stats)


def alike(stats: list[Any]) -> list[Any]:
    """What is left of replies when their texts are taken out and their opaque names are numbered."""
    numbers: dict[Any, int] = {}

    def plain(item: Any, key: str = "") -> Any:
        if key in ("answers", "turns", "sources"):
            return len(item)
        if key == "prompt":
            return "..."
        if key == "at":
            return len(item)
        if key in ("presentation_id", "judgment_id", "id", "replaces", "older") and item is not None:
            return f"{type(item).__name__} {numbers.setdefault(item, len(numbers))}"
        if isinstance(item, dict):
            return {name: plain(value, name) for name, value in item.items()}
        return [plain(value) for value in item] if isinstance(item, list) else item

    return plain(stats)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQUENCES)
def test_the_purpose_of_a_comparison_cannot_be_inferred_from_any_reply(prepared, name):
    verbs = SEQUENCES[name].split()

    def sequence(ann: Ann) -> None:
        for verb in verbs:
            getattr(ann, verb)()

    vote, *others = (gone_through(prepared, purpose, sequence) for purpose in PURPOSES)
    assert len(vote) > len(verbs) - verbs.count("lapse") - 3
    for purpose, found in zip(PURPOSES[1:], others, strict=True):
        for n, (of_vote, of_other) in enumerate(zip(vote, found, strict=True)):
            assert json.dumps(of_other, indent=1) == json.dumps(of_vote, indent=1), (name, purpose, n)
