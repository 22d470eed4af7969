"""Signing in under attack, over real HTTP: an attacker cannot lock anybody out, and cannot guess fast.

What somebody waits for is counted in passwords that are looked at before theirs, not in seconds. Addresses are those that
a proxy on this machine names.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count

import argon2
import httpx2
import pytest
from small_site import PASSWORD, Site, serve
from waiting import PATIENCE_S, until

from feedback_ui.server import auth_routes, password_queue
from feedback_ui.server.password_queue import MAX_CONCURRENT_CHECKS, PasswordQueue
from storage.core.database import Database
from storage.people import accounts, sign_in_throttle

NEW = "battery staple"
FLOOD = 80


class Counting:
    """argon2 itself, which can be held, and which number among all passwords each was."""

    def __init__(self):
        self.hasher = argon2.PasswordHasher(time_cost=10, memory_cost=4096, parallelism=1)
        self.begun = 0
        self.right_one_was: list[int] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._lock = threading.Lock()

    def verify(self, hashed, password):
        self._begin(password)
        return self.hasher.verify(hashed, password)

    def hash(self, password):
        self._begin(password)
        return self.hasher.hash(password)

    def _begin(self, password):
        with self._lock:
            self.begun += 1
            if password == PASSWORD:
                self.right_one_was.append(self.begun)
        assert self.goes_on.wait(PATIENCE_S)

    def check_needs_rehash(self, hashed):
        return False


@pytest.fixture
def hasher(monkeypatch):
    made = Counting()
    monkeypatch.setattr(accounts, "HASHER", made)
    monkeypatch.setattr(password_queue, "MAX_QUEUE_WAIT_S", 5 * PATIENCE_S)
    return made


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    store = Database(tmp_path_factory.mktemp("none") / "rankloop.db")
    queue = PasswordQueue()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(auth_routes, "PasswordQueue", lambda: queue)
        site = serve(store)
    site.queue = queue
    yield site
    site.serving.stop()
    store.close()


addresses = (f"203.0.113.{number % 250}" if number < 250 else f"2001:db8:0:{number:x}::1" for number in count(1))
"""A new one for each test, since the served app lives on."""


@pytest.fixture
def site(served, store) -> Site:
    served.auth.store = served.store = store
    return served


@pytest.fixture
def ann(site):
    return site.account("Ann")


@pytest.fixture
def here():
    return next(addresses)


def send(site, name, password, address, cookie=""):
    fields = {"name": name, "password": password}
    return httpx2.post(f"{site.url}/sign-in", data=fields, headers={"x-forwarded-for": address, "cookie": cookie}, timeout=60, verify=False)


def known_cookie(site, reply) -> str:
    return next(c.split(";")[0] for c in reply.headers.get_list("set-cookie") if c.startswith(f"{site.auth.cookie}-browser="))


def session_cookie(site, reply) -> str:
    return next(c.split(";")[0] for c in reply.headers.get_list("set-cookie") if c.startswith(f"{site.auth.cookie}="))


@contextmanager
def flood(site, hasher, name_of, address_of):
    """So many wrong ones at once, each from a client of its own.

    In the block, the first of them are being looked at until `hasher.goes_on` is set, and the others wait or have been told to come
    again.
    """
    before = hasher.begun
    hasher.goes_on.clear()
    with ThreadPoolExecutor(FLOOD) as pool:
        try:
            sent = [pool.submit(send, site, name_of(i), "wrong one", address_of(i)) for i in range(FLOOD)]
            until(
                lambda: hasher.begun - before == MAX_CONCURRENT_CHECKS == FLOOD - len(site.queue._waiting) - sum(one.done() for one in sent)
            )
            yield sent
        finally:
            hasher.goes_on.set()
        assert {one.result().status_code for one in sent} <= {401, 429}


def gets_in_first(site, hasher, address, cookie="") -> bool:
    """Whether Ann's password is looked at next, although a flood was there before."""
    before, newest = hasher.begun, max(place.number for place in site.queue._waiting)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(send, site, "Ann", PASSWORD, address, cookie)
        until(lambda: reply.done() or max(place.number for place in site.queue._waiting) > newest)
        hasher.goes_on.set()
        # Those that were being looked at end together: what comes next begins at the same moment as hers.
        return reply.result().status_code == 303 and hasher.right_one_was[-1] - before <= MAX_CONCURRENT_CHECKS


# ---- nobody has to stand behind a flood

CASES = {
    "from another address": (lambda i: f"nobody {i}", "198.51.100.1", "honest"),
    "from many addresses": (lambda i: f"nobody {i}", None, "honest"),
    "all addresses alike, as behind a proxy that does not tell": (lambda i: f"nobody {i}", "honest", "honest"),
    "one wrong name, all addresses alike": (lambda i: "nobody", "honest", "honest"),
    "her own name, from another address": (lambda i: "Ann", "198.51.100.2", "honest"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_eighty_wrong_attempts_do_not_delay_a_right_one(site, hasher, ann, here, case):
    name_of, attacker, _ = CASES[case]

    def address_of(number):
        return f"198.51.{1 + number // 200}.{number % 200}" if attacker is None else here if attacker == "honest" else attacker

    with flood(site, hasher, name_of, address_of):
        assert gets_in_first(site, hasher, here)


def test_a_known_browser_gets_in_through_a_flood_for_its_own_name_with_all_addresses_alike(site, hasher, ann, here):
    known = known_cookie(site, send(site, "Ann", PASSWORD, here))
    with flood(site, hasher, lambda i: "Ann", lambda i: here):
        assert gets_in_first(site, hasher, here, known)


def test_a_full_queue_refuses_at_once(site, hasher, ann, here, monkeypatch):
    monkeypatch.setattr(password_queue, "MAX_QUEUE", 5)
    with flood(site, hasher, lambda i: f"nobody {i}", lambda i: here) as sent:
        busy = [one.result() for one in sent if one.done()]
    assert {reply.status_code for reply in busy} == {429} and len(busy) == FLOOD - MAX_CONCURRENT_CHECKS - 5
    assert busy[0].headers["retry-after"] == "2" and "Many people are signing in" in busy[0].text


# ---- nobody locks anybody out


def test_wrong_passwords_delay_only_their_origin(site, ann, here):
    attacker = next(addresses)
    replies = [send(site, "Ann", "wrong one", attacker).status_code for _ in range(10)]
    assert replies == [401] * 3 + [429] * 7
    assert send(site, "Ann", PASSWORD, attacker).status_code == 429
    assert send(site, "Ann", PASSWORD, here).status_code == 303
    # Whom the attacker is has not changed by that.
    assert send(site, "Ann", PASSWORD, attacker).status_code == 429


def test_behind_a_proxy_that_does_not_tell_addresses_a_known_browser_gets_in(site, ann, here):
    known = known_cookie(site, send(site, "Ann", PASSWORD, here))
    for _ in range(6):
        send(site, "Ann", "wrong one", here)
    assert send(site, "Ann", PASSWORD, here).status_code == 429
    assert send(site, "Ann", PASSWORD, here, known).status_code == 303


def test_a_known_browser_guesses_no_faster(site, ann, here):
    known = known_cookie(site, send(site, "Ann", PASSWORD, here))
    assert [send(site, "Ann", "wrong one", here, known).status_code for _ in range(5)] == [401] * 3 + [429] * 2
    assert send(site, "Ann", PASSWORD, here, known).status_code == 429
    # Nor does it keep the address that it stands at from signing in.
    assert send(site, "Ann", PASSWORD, here).status_code == 303


def test_guesses_from_many_addresses_are_slowed_down_too(site, ann, here):
    known = known_cookie(site, send(site, "Ann", PASSWORD, here))
    replies = [send(site, "Ann", "wrong one", f"198.18.{number}.1") for number in range(60)]
    looked_at = [reply for reply in replies if reply.headers.get("retry-after") is None]
    assert len(looked_at) == sign_in_throttle.ALL_ADDRESSES_FREE_FAILURES
    waits = [int(reply.headers["retry-after"]) for reply in replies if reply not in looked_at]
    assert len(waits) == 30 and max(waits) <= sign_in_throttle.ALL_ADDRESSES_MAX_WAIT_S
    assert send(site, "Ann", PASSWORD, here, known).status_code == 303


def test_addresses_of_one_ipv6_network_are_one(site, ann):
    replies = [send(site, "Ann", "wrong one", f"2001:db8:77:1::{number:x}").status_code for number in range(1, 7)]
    assert replies == [401] * 3 + [429] * 3
    assert send(site, "Ann", PASSWORD, "2001:db8:77:2::1").status_code == 303


def test_a_note_is_valid_only_for_its_account(site, ann, here):
    site.account("Eve", "annotator")
    of_eve = known_cookie(site, send(site, "Eve", PASSWORD, next(addresses)))
    name, _, note = of_eve.partition("=")
    made_up = f"{name}={'0' * 32}.{'0' * 64}"
    for cookie in (of_eve, made_up, f"{name}={note[:-1]}0", f"{name}=x", f"{name}="):
        address = next(addresses)
        for _ in range(4):
            send(site, "Ann", "wrong one", address)
        assert send(site, "Ann", PASSWORD, address, cookie).status_code == 429
    # And by itself it lets nobody in.
    assert site.say(of_eve).status_code == 401


def test_two_people_at_one_browser_are_both_known_there(site, ann, here):
    site.account("Bob", "annotator")
    first = known_cookie(site, send(site, "Ann", PASSWORD, here))
    both = known_cookie(site, send(site, "Bob", PASSWORD, here, first))
    assert both.count(":") == 1
    for name in ("Ann", "Bob"):
        for _ in range(4):
            send(site, name, "wrong one", here)
        assert send(site, name, PASSWORD, here).status_code == 429
        assert send(site, name, PASSWORD, here, both).status_code == 303


def test_the_note_is_a_cookie_that_scripts_and_other_sites_do_not_get(site, ann, here):
    reply = send(site, "Ann", PASSWORD, here)
    cookie = next(c for c in reply.headers.get_list("set-cookie") if "-browser=" in c)
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    headers = {"x-forwarded-for": here, "x-forwarded-proto": "https"}
    behind_tls = httpx2.post(f"{site.url}/sign-in", data={"name": "Ann", "password": PASSWORD}, headers=headers, timeout=PATIENCE_S)
    assert [c for c in behind_tls.headers.get_list("set-cookie") if "; secure" not in c.lower()] == []


# ---- one's own password


def change(site, cookie, current, new, again=None, **headers):
    fields = {"current": current, "new": new, "again": new if again is None else again}
    return httpx2.post(f"{site.url}/password", data=fields, headers={"cookie": cookie} | headers, timeout=30)


def test_everybody_changes_their_own_password_and_only_this_browser_stays_signed_in(site, ann):
    site.account("Bob", "annotator")
    here_, elsewhere, other = site.cookie("Bob"), site.cookie("Bob"), site.cookie("Ann")
    page = site.get("/password", cookie=here_)
    assert page.status_code == 200 and "Signed in as Bob" in page.text and "Current password" in page.text
    reply = change(site, here_, PASSWORD, NEW)
    assert (reply.status_code, reply.headers["location"]) == (303, "/password?changed")
    now = session_cookie(site, reply)
    assert [site.say(cookie).status_code for cookie in (now, here_, elsewhere, other)] == [200, 401, 401, 200]
    assert "Your password is changed" in site.get("/password?changed", cookie=now).text
    assert site.form(name="Bob", password=PASSWORD).status_code == 401
    assert site.form(name="Bob", password=NEW).status_code == 303
    bob = accounts.named(site.store, "Bob").annotator.id
    assert site.store.rows("SELECT act, by_id FROM audit WHERE subject = 'account' ORDER BY at").fetchall()[-1][:] == ("password", bob)


@pytest.mark.parametrize(
    ("current", "new", "again", "status", "said"),
    [
        ("wrong one", NEW, NEW, 403, "not your current password"),
        (PASSWORD, NEW, "battery stable", 400, "differ"),
        (PASSWORD, "1234567", "1234567", 400, "at least 8 characters"),
        (PASSWORD, "x" * 1001, "x" * 1001, 400, "at most 1000 characters"),
        (PASSWORD, PASSWORD, PASSWORD, 400, "the current one"),
        ("", "", "", 400, "at least 8"),
        (PASSWORD, "x" * 20_000, "x", 413, "at most 1000"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(site, ann, current, new, again, status, said):
    cookie = site.cookie()
    reply = change(site, cookie, current, new, again)
    assert reply.status_code == status and said in reply.text and "set-cookie" not in reply.headers
    assert site.say(cookie).status_code == 200 and site.form(name="Ann", password=PASSWORD).status_code == 303
    assert PASSWORD not in reply.text and NEW not in reply.text


def test_guessing_the_current_password_at_an_open_browser_is_slowed_down(site, ann):
    cookie = site.cookie()
    assert [change(site, cookie, "wrong one", NEW).status_code for _ in range(5)] == [403] * 3 + [429] * 2
    refused = change(site, cookie, PASSWORD, NEW)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) <= 4
    # The session goes on: whose it is may judge.
    assert site.say(cookie).status_code == 200


def test_who_may_not_change_a_password_here(site):
    assert site.get("/password").headers["location"] == "/"
    assert change(site, "", PASSWORD, NEW).headers["location"] == "/"
    site.account("Ann")
    assert site.get("/password").status_code == 401 and change(site, "", PASSWORD, NEW).status_code == 401
    cookie = site.cookie()
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert change(site, cookie, PASSWORD, NEW, **headers).status_code == 403
    assert site.form(name="Ann", password=PASSWORD).status_code == 303


def test_a_new_password_makes_every_other_browser_unknown(site, ann, here):
    signed = send(site, "Ann", PASSWORD, here)
    known = known_cookie(site, signed)
    reply = change(site, f"{session_cookie(site, signed)}; {known}", PASSWORD, NEW)
    now = known_cookie(site, reply)
    for _ in range(4):
        send(site, "Ann", "wrong one", here)
    assert send(site, "Ann", NEW, here, known).status_code == 429
    assert send(site, "Ann", NEW, here, now).status_code == 303


def test_a_session_that_ended_while_the_form_was_open(site, ann):
    cookie = site.cookie()
    accounts.set_password(site.store, ann.id, "given by a lead")
    assert change(site, cookie, PASSWORD, NEW).status_code == 401


# ---- strange names


@pytest.mark.parametrize("name", ["Ann\0", "\0", "Ann\0Bob", "x" * 9000, "\u202eAnn", "A\u0300" * 500, "%00", "Ann\r\nSet-Cookie: x=1"])
def test_an_invalid_name_is_a_wrong_name(site, ann, name):
    reply = send(site, name, PASSWORD, next(addresses))
    assert reply.status_code == 401 and "set-cookie" not in reply.headers
