"""Authentication, and what the three roles may read and do."""

import time

import argon2
import gradio as gr
import pytest
from starlette.requests import Request

from feedback_ui.server.auth import AccessRefused, Auth, Visitor
from storage.core.database import Database
from storage.core.records import ACCOUNT_ROLES
from storage.people import accounts, annotators

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def gate(store):
    return Auth(store)


def asking(gate, token=None, language="en"):
    headers = [(b"accept-language", language.encode())]
    if token:
        headers.append((b"cookie", f"other=1; {gate.cookie}={token}".encode()))
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})


def signed_in(gate, name, *roles):
    """Creates an account with these roles, and returns a request of its session."""
    if not accounts.any_accounts(gate.store):
        accounts.create(gate.store, "first", PASSWORD, ["lead"])
    accounts.create(gate.store, name, PASSWORD, roles)
    return asking(gate, accounts.sign_in(gate.store, name, PASSWORD))


def test_without_accounts_everybody_is_the_local_annotator_with_every_role(gate, store):
    local = annotators.ensure(store, "local")
    for request in (asking(gate), asking(gate, "stale"), gr.Request(asking(gate)), None):
        for role in ACCOUNT_ROLES:
            assert gate.reads(request, role) == gate.acts(request, role) == Visitor(local, frozenset(ACCOUNT_ROLES), False)


def test_with_the_first_account_the_local_visitor_is_nobody(gate, store):
    request = asking(gate)
    gate.acts(request, "lead")
    accounts.create(store, "Ann", PASSWORD, ["lead"])
    assert gate.visitor(request) is None
    for ask in (gate.reads, gate.acts):
        with pytest.raises(AccessRefused) as caught:
            ask(request, "annotator")
        assert caught.value.status == 401 and "sign in" in caught.value.message


# By hand: who may do what. Rows: role; columns: reads / acts of annotator, lead, researcher.
MAY = {
    ("annotator",): ("yes no no", "yes no no"),
    ("lead",): ("yes yes no", "no yes no"),
    ("researcher",): ("yes yes yes", "no no yes"),
    ("annotator", "lead"): ("yes yes no", "yes yes no"),
    ("annotator", "researcher"): ("yes yes yes", "yes no yes"),
    ("annotator", "lead", "researcher"): ("yes yes yes", "yes yes yes"),
}


@pytest.mark.parametrize("roles", MAY, ids="+".join)
def test_who_may_read_and_do_what(gate, roles):
    request = signed_in(gate, "Cat", *roles)
    for ask, expected in zip((gate.reads, gate.acts), MAY[roles], strict=True):
        for role, may in zip(("annotator", "lead", "researcher"), expected.split(), strict=True):
            if may == "yes":
                visitor = ask(request, role)
                assert (visitor.annotator.name, visitor.roles, visitor.signed_in) == ("Cat", set(roles), True)
            else:
                with pytest.raises(AccessRefused) as caught:
                    ask(request, role)
                assert caught.value.status == 403
                assert caught.value.message == f"This needs the role {role}, which your account does not have: ask a lead for it."


def test_a_refusal_is_in_the_readers_language_and_prints_no_traceback(gate, store):
    signed_in(gate, "Cat", "annotator")
    with pytest.raises(gr.Error) as caught:
        gate.acts(asking(gate, language="ko-KR"), "lead")
    assert caught.value.message == "로그인 상태가 아닙니다. 페이지를 새로 고친 뒤 로그인해 주세요."
    assert caught.value.print_exception is False


def test_gradios_request_is_unwrapped(gate):
    request = gr.Request(signed_in(gate, "Cat", "annotator"))
    assert gate.acts(request, "annotator").annotator.name == "Cat"


def test_roles_and_sessions_are_asked_for_at_every_call(gate, store):
    request = signed_in(gate, "Cat", "annotator")
    gate.acts(request, "annotator")
    accounts.sign_out(store, gate.token(request))
    with pytest.raises(AccessRefused):
        gate.acts(request, "annotator")


def test_two_folders_have_two_cookies(tmp_path, gate):
    other = Database(tmp_path / "other" / "rankloop.db")
    assert Auth(other).cookie != gate.cookie == Auth(gate.store).cookie
    other.close()


def test_a_check_takes_less_than_a_millisecond(gate):
    request = signed_in(gate, "Cat", "annotator")
    took = []
    for _ in range(300):
        begun = time.perf_counter()
        gate.acts(request, "annotator")
        took.append(time.perf_counter() - begun)
    # The fastest tenth: when others work too, most calls are interrupted.
    assert sorted(took)[30] < 0.001
