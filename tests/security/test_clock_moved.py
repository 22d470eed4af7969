"""A served app whose machine's clock is set back a day and ahead a day while somebody judges and signs in.

libfaketime moves the clock of the running processes. Left out, with the reason, where it is not installed.
"""

import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import argon2
import httpx2
import pytest

from storage.judging.row_tokens import RowTokens
from storage.people import accounts
from tests.browser.program import Endpoint, Program, eventually
from tests.support import tiny
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

LIBRARY = next(Path("/").glob("usr/lib/*/faketime/libfaketime.so.1"), None)
PASSWORD = "correct horse"

SLEEP_BY_ANOTHER_CALL = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], max(0, seconds)) and None
"""
"""libfaketime 0.9.10 leaves the steady clock alone as it is told to, but answers EINVAL to a sleep by that clock."""


class Served(Program):
    """The program with accounts on, over a machine whose clock can be set: within a second, each process looks at it anew."""

    def __init__(self, folder: Path, *options: str):
        folder.mkdir(parents=True)
        self.setting = folder / "clock"
        self.set_clock("+0")
        patched = folder / "patched"
        patched.mkdir()
        (patched / "sitecustomize.py").write_text(SLEEP_BY_ANOTHER_CALL)
        environment = {
            "LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(self.setting), "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": os.pathsep.join([str(patched), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        super().__init__(folder / "data", tiny.write(folder / "model"), *options, environment=environment)

    def set_clock(self, offset: str) -> None:
        """`-1d` from the real time, `+1d`, or `+0`."""
        self.setting.write_text(f"{offset}\n")

    def _serves(self) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
        try:
            return httpx2.get(f"{self.url}/sign-in", timeout=PATIENCE_S).is_success
        except httpx2.HTTPError:
            return False


class Person:
    """A browser, as far as the server can tell."""

    def __init__(self, program: Program, name: str, address: str):
        self.program, self.name = program, name
        self.browser = httpx2.Client(base_url=program.url, headers={"x-forwarded-for": address}, timeout=PATIENCE_S)
        self.acknowledged: list[str] = []
        """Tokens of presentations."""
        self.shown: dict | None = None

    def sign_in(self, password: str = PASSWORD) -> httpx2.Response:
        return self.browser.post("/sign-in", data={"name": self.name, "password": password})

    def look(self) -> dict:
        """What waits to be judged."""
        self.shown = self._call("next_comparison", {})
        assert self.shown["state"] == "comparison", self.shown
        return self.shown

    def judge(self) -> None:
        """Judges what is shown, and is shown the next."""
        timing = {"active_ms": 1000, "idle_ms": 0, "client_ms": 1000}
        presentation_id = self.shown["presentation_id"]
        said = {"presentation_id": presentation_id, "choice": "a", "reason": None, "timing": timing}
        reply = self._call("judge", said)
        assert not reply.get("problem") and not reply.get("refused"), reply
        self.acknowledged.append(presentation_id)
        self.shown = reply["next"]

    def judged(self) -> list[int]:
        """Ids of the presentations whose judgments were acknowledged."""
        store = self.program.store
        person = next(account.annotator for account in accounts.all_accounts(store) if account.name == self.name)
        tokens = RowTokens(store)
        return [tokens.open("presentation", token, person.id) for token in self.acknowledged]

    def _call(self, function: str, data: dict) -> dict:
        config = self.browser.get("/config").raise_for_status().json()
        component = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "compare")
        asked = {"data": data, "component_id": component, "fn_name": function, "session_hash": "s"}
        return self.browser.post("/gradio_api/component_server/", json=asked).raise_for_status().json()


@pytest.fixture
def program(tmp_path, monkeypatch):
    if LIBRARY is None:
        pytest.skip("no libfaketime here: apt-get install libfaketime")
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    endpoint = Endpoint()
    made = Served(tmp_path / "machine", *endpoint.options)
    for name, role in (("Ann", "lead"), ("Bob", "annotator"), ("Cy", "annotator")):
        accounts.create(made.store, name, PASSWORD, {role, "annotator"})
    for number in range(30):
        made.put_in(f"First {number}.", f"Second {number}.")
    yield made
    made.end()
    endpoint.close()


def expect_kept(program: Program, *people: Person) -> None:
    """Every acknowledged judgment stands once, and none says that it took less than no time, or a day."""
    said = sorted(presentation for person in people for presentation in person.judged())
    rows = program.store.rows("SELECT presentation_id, server_ms FROM active_judgments ORDER BY presentation_id").fetchall()
    assert [row["presentation_id"] for row in rows] == said
    assert all(0 <= row["server_ms"] < 600_000 for row in rows)


def test_a_clock_that_is_set_while_people_judge_and_sign_in(program):
    program.start()
    ann, bob = Person(program, "Ann", "192.0.2.1"), Person(program, "Bob", "192.0.2.2")
    for person in (ann, bob):
        assert person.sign_in().status_code == 303
        person.look()
        person.judge()

    for day, offset in enumerate(("-1d", "+0", "+1d", "+0", "-1d", "+1d")):
        # A wrong password just before: its wait must not become a day.
        stranger = Person(program, "Cy", f"198.51.100.{day}")
        replies = [stranger.sign_in("wrong one") for _ in range(4)]
        assert [reply.status_code for reply in replies] == [401, 401, 401, 429]
        program.set_clock(offset)
        eventually(lambda days=int(offset.rstrip("d")): seen_by(program) == days, f"the clock is set {offset}")
        # What was shown before is still theirs, and who was signed in still is.
        for person in (ann, bob):
            person.judge()
        held = program.store.rows("SELECT annotator_id, comparison_id FROM leases WHERE ended_at IS NULL").fetchall()
        assert len({row["comparison_id"] for row in held}) == len(held) == 2
        waiting = stranger.sign_in()
        assert waiting.status_code in (303, 429) and int(waiting.headers.get("retry-after", 0)) <= 2
        assert eventually(lambda who=stranger: who.sign_in().status_code == 303, "the wait is over")
        # And somebody new gets in at once.
        assert Person(program, "Cy", f"203.0.113.{day}").sign_in().status_code == 303

    expect_kept(program, ann, bob)
    assert program.store.value("SELECT count(*) FROM leases WHERE outcome = 'expired'") == 0
    longest = program.store.value("SELECT max(julianday(expires_at) - julianday(created_at)) * 24 * 60 FROM leases WHERE ended_at IS NULL")
    assert longest < 16


def test_a_clock_that_was_set_back_while_the_app_was_down(program):
    program.set_clock("+1d")
    program.start()
    ann, bob = Person(program, "Ann", "192.0.2.1"), Person(program, "Bob", "192.0.2.2")
    for person in (ann, bob):
        assert person.sign_in().status_code == 303
        person.look()
        person.judge()
    stranger = Person(program, "Cy", "198.51.100.1")
    for _ in range(4):
        stranger.sign_in("wrong one")
    program.kill()
    program.set_clock("+0")
    program.start()
    for person in (ann, bob, stranger):
        person.browser.base_url = program.url
    bob.judge()
    # Put off by the two seconds that it was, and not by the day.
    refused = stranger.sign_in()
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) <= 2
    assert eventually(lambda: stranger.sign_in().status_code == 303, "the wait is over")
    # Ann never comes back: nobody waits a day for what she held.
    ends = program.store.value("SELECT max(expires_at) FROM leases WHERE ended_at IS NULL")
    assert program.store.value("SELECT (julianday(?) - julianday('now')) * 24 * 60", [ends]) < 16
    said = sorted(ann.judged() + bob.judged())
    assert [row[0] for row in program.store.rows("SELECT presentation_id FROM active_judgments ORDER BY 1")] == said


def seen_by(program: Program) -> int:
    """How many days the served app's clock is ahead of ours, as it says itself in each answer."""
    said = parsedate_to_datetime(httpx2.get(f"{program.url}/sign-in", timeout=PATIENCE_S).headers["date"])
    return round((said - datetime.now(UTC)).total_seconds() / 86_400)
