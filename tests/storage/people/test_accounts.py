"""Accounts: who may sign in, what ends a session, and how guessing is slowed down. Clocks are set by moving the rows."""

import time
from datetime import UTC, datetime, timedelta

import argon2
import pytest

from storage.core.database import Database, StoreError
from storage.people import accounts, annotators
from storage.people.accounts import SignInRefused

PASSWORD = "correct horse"


def ago(**time):
    return (datetime.now(UTC) - timedelta(**time)).isoformat(timespec="milliseconds")


def events(store):
    return [tuple(row) for row in store.rows("SELECT annotator_id, act, detail, by_id FROM account_events ORDER BY id")]


def refused(store, name, password):
    with pytest.raises(SignInRefused) as caught:
        accounts.sign_in(store, name, password)
    return caught.value


def test_an_account_is_its_annotator(store):
    assert not accounts.any_accounts(store)
    ann = accounts.create(store, " Ann ", PASSWORD, ["researcher", "lead"])
    assert accounts.any_accounts(store)
    assert ann.annotator == annotators.ensure(store, "Ann")
    assert (ann.name, ann.roles, ann.disabled) == ("Ann", {"lead", "researcher"}, False)
    assert accounts.all_accounts(store) == [ann] == [accounts.named(store, "Ann")] == [accounts.get(store, ann.id)]
    assert events(store) == [(ann.annotator.id, "created", "lead, researcher", None)]


def test_the_password_is_nowhere_in_the_file(store, ann):
    token = accounts.sign_in(store, "Ann", PASSWORD)
    store.close()
    whole = b"".join(file.read_bytes() for file in store.path.parent.iterdir())
    assert b"Ann" in whole and b"$argon2id$" in whole
    assert PASSWORD.encode() not in whole and token.encode() not in whole


def test_the_first_account_must_be_a_leads(store):
    with pytest.raises(StoreError, match="first account needs the role lead"):
        accounts.create(store, "Bob", PASSWORD, ["annotator", "researcher"])
    assert accounts.all_accounts(store) == [] and annotators.all_annotators(store) == []


@pytest.mark.parametrize(
    ("name", "password", "roles", "message"),
    [
        ("", PASSWORD, ["lead"], "needs a name"),
        ("x" * 81, PASSWORD, ["lead"], "at most 80"),
        ("a\u202eb", PASSWORD, ["lead"], "visible"),
        ("Cat", "1234567", ["lead"], "7 characters, need 8"),
        ("Cat", "x" * 1001, ["lead"], "at most 1000"),
        ("Cat", PASSWORD, [], "needs a role: choose among annotator, lead, researcher"),
        ("Cat", PASSWORD, ["king"], "Unknown role king"),
        ("Ann", PASSWORD, ["lead"], "an account named Ann already"),
        ("longest", PASSWORD, ["lead"], "is a simulated annotator"),
    ],
)
def test_accounts_that_are_refused(store, ann, name, password, roles, message):
    annotators.ensure(store, "longest", "simulated", "length")
    with pytest.raises(StoreError, match=message):
        accounts.create(store, name, password, roles)
    assert accounts.all_accounts(store) == [ann]


def test_an_account_owns_the_earlier_judgments_of_its_name(store):
    local = accounts.local(store)
    assert accounts.create(store, "local", PASSWORD, ["lead"]).annotator == local


def test_a_name_from_an_import_cannot_be_taken(store, world):
    world.comparison()
    judged = world.rank(world.bob)
    import_id = store.insert("imports", {"format": "x", "source": "x", "sha256": "x", "report": {}, "created_at": ago()})
    with store.atomic() as connection:
        connection.conn.execute("DROP TRIGGER IF EXISTS judgments_are_not_changed")
        connection.conn.execute("UPDATE judgments SET import_id = ? WHERE id = ?", [import_id, judged.id])
    with pytest.raises(StoreError, match="Bob came with an import"):
        accounts.create(store, "Bob", PASSWORD, ["lead"])
    assert accounts.create(store, "Ann", PASSWORD, ["lead"]).annotator == world.ann


def test_the_last_lead_cannot_be_removed(store, ann, bob):
    with pytest.raises(StoreError, match="Ann is the only lead and cannot be disabled"):
        accounts.disable(store, ann.id)
    with pytest.raises(StoreError, match="cannot lose that role"):
        accounts.set_roles(store, ann.id, ["researcher"])
    accounts.set_roles(store, bob.id, ["annotator", "lead"], by=ann.annotator.id)
    assert accounts.disable(store, ann.id, by=bob.annotator.id).disabled
    with pytest.raises(StoreError, match="Bob is the only lead"):
        accounts.disable(store, bob.id)
    accounts.enable(store, ann.id, by=bob.annotator.id)
    accounts.disable(store, bob.id)


def test_every_act_on_an_account_is_recorded_with_the_person(store, ann, bob):
    accounts.set_roles(store, bob.id, ["researcher", "annotator"], by=ann.annotator.id)
    accounts.set_password(store, bob.id, "another one", by=bob.annotator.id)
    for _ in range(2):
        accounts.disable(store, bob.id, by=ann.annotator.id)
    for _ in range(2):
        accounts.enable(store, bob.id)
    a, b = ann.annotator.id, bob.annotator.id
    assert events(store) == [
        (a, "created", "lead", None),
        (b, "created", "annotator", a),
        (b, "roles", "annotator, researcher", a),
        (b, "password", "", b),
        (b, "disabled", "", a),
        (b, "enabled", "", None),
    ]
    assert store.value("SELECT count(*) FROM audit WHERE subject = 'account'") == 6


def test_unknown_accounts(store):
    for act in (accounts.get, accounts.disable, accounts.enable):
        with pytest.raises(StoreError, match="no account 7"):
            act(store, 7)
    with pytest.raises(StoreError, match="no account named Ann"):
        accounts.named(store, "Ann")


def test_local_is_one_annotator_and_a_second_call_writes_nothing(store):
    local = accounts.local(store)
    with store.snapshot():
        assert accounts.local(store) == local == annotators.ensure(store, "local")


def test_signing_in_and_out(store, ann):
    token, other = (accounts.sign_in(store, "Ann", PASSWORD) for _ in range(2))
    assert token != other and len(token) >= 43
    assert accounts.of_token(store, token) == ann == accounts.of_token(store, other)
    accounts.sign_out(store, token)
    assert accounts.of_token(store, token) is None
    assert accounts.of_token(store, other) == ann
    for nonsense in ("", "x", token[:-1], "' OR 1=1 --"):
        assert accounts.of_token(store, nonsense) is None


def test_a_name_and_a_password_may_be_composed_in_either_way(store):
    accounts.create(store, "한결", "비밀번호비밀번호", ["lead"])
    decomposed = "\u1112\u1161\u11ab\u1100\u1167\u11af"
    assert decomposed != "한결"
    assert accounts.of_token(store, accounts.sign_in(store, decomposed, "비밀번호비밀번호")).name == "한결"


@pytest.mark.parametrize("act", ["disable", "password", "roles"])
def test_acts_that_end_every_session_of_an_account(store, ann, bob, act):
    mine, theirs = accounts.sign_in(store, "Ann", PASSWORD), accounts.sign_in(store, "Bob", "bob's password")
    if act == "disable":
        accounts.disable(store, bob.id)
        assert refused(store, "Bob", "bob's password").wait_s == 0
    elif act == "password":
        accounts.set_password(store, bob.id, "another one")
        refused(store, "Bob", "bob's password")
        assert accounts.of_token(store, accounts.sign_in(store, "Bob", "another one")).name == "Bob"
    else:
        accounts.set_roles(store, bob.id, ["researcher"])
        assert accounts.of_token(store, accounts.sign_in(store, "Bob", "bob's password")).roles == {"researcher"}
    assert accounts.of_token(store, theirs) is None
    assert accounts.of_token(store, mine) == ann


def move_session(store, **columns):
    with store.atomic() as connection:
        for column, at in columns.items():
            connection.conn.execute(f"UPDATE sessions SET {column} = ?", [at])


def hours_left(store):
    return (datetime.fromisoformat(store.value("SELECT expires_at FROM sessions")) - datetime.now(UTC)) / timedelta(hours=1)


def test_a_session_ends_twelve_hours_after_its_last_use(store, ann):
    token = accounts.sign_in(store, "Ann", PASSWORD)
    assert hours_left(store) == pytest.approx(12, abs=0.01)
    assert not accounts.session(store, token).due
    move_session(store, expires_at=ago(hours=-11.5))
    assert accounts.session(store, token).due
    accounts.renew(store, token)
    assert hours_left(store) == pytest.approx(12, abs=0.01)
    assert not accounts.session(store, token).due
    move_session(store, expires_at=ago(seconds=1))
    assert accounts.of_token(store, token) is None
    accounts.sign_in(store, "Ann", PASSWORD)
    assert store.value("SELECT count(*) FROM sessions") == 1


def test_a_session_ends_seven_days_after_the_sign_in_however_it_is_used(store, ann):
    token = accounts.sign_in(store, "Ann", PASSWORD)
    move_session(store, created_at=ago(days=6, hours=20), expires_at=ago(hours=-1))
    assert accounts.session(store, token).due
    accounts.renew(store, token)
    assert hours_left(store) == pytest.approx(4, abs=0.01)
    assert not accounts.session(store, token).due


def test_a_session_that_has_ended_is_not_renewed(store, ann):
    token = accounts.sign_in(store, "Ann", PASSWORD)
    accounts.sign_out(store, token)
    accounts.renew(store, token)
    assert accounts.of_token(store, token) is None


def test_a_store_that_cannot_be_read_raises_StoreError(tmp_path):
    store = Database(tmp_path / "rankloop.db")
    with store.atomic() as connection:
        connection.conn.execute("DROP TABLE sessions")
        connection.conn.execute("DROP TABLE accounts")
    for ask in (accounts.any_accounts, lambda store: accounts.of_token(store, "x")):
        with pytest.raises(StoreError, match=r"rankloop\.db cannot be read: no such table"):
            ask(store)
    store.close()


def test_unknown_names_and_disabled_accounts_get_the_message_of_a_wrong_password(store, ann, bob):
    accounts.disable(store, bob.id)
    tries = [("Ann", "wrong one"), ("Nobody", PASSWORD), ("Bob", "bob's password"), ("", ""), ("\ud800", "\ud800")]
    assert {(str(error), error.wait_s) for error in (refused(store, *given) for given in tries)} == {
        ("This name and password do not match: try again, or ask a lead to set a new password.", 0)
    }


def test_a_hash_with_older_parameters_is_replaced(store, ann, monkeypatch):
    def hashed():
        return store.value("SELECT password_hash FROM accounts")

    accounts.sign_in(store, "Ann", PASSWORD)
    old = hashed()
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    refused(store, "Ann", "wrong one")
    assert hashed() == old
    token = accounts.sign_in(store, "Ann", PASSWORD)
    assert "m=16,t=2" in hashed()
    assert accounts.of_token(store, token).id == ann.id
    accounts.sign_in(store, "Ann", PASSWORD)
    assert len(events(store)) == 1


@pytest.mark.slow
def test_an_unknown_name_takes_as_long_as_a_wrong_password(store, monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher())
    accounts.create(store, "Ann", PASSWORD, ["lead"])
    assert "m=65536,t=3" in store.value("SELECT password_hash FROM accounts")

    def took(name):
        begun = time.perf_counter()
        refused(store, name, "wrong one")
        return time.perf_counter() - begun

    # The fastest of each, of as many as a busy machine needs: in turn, so that both meet the same moments.
    known, unknown = [], []
    while len(known) < 3 or (not 0.5 < min(unknown) / min(known) < 2 and len(known) < 20):
        known.append(took("Ann"))
        unknown.append(took(f"Nobody {len(known)}"))
    assert min(known) > 0.02
    assert 0.5 < min(unknown) / min(known) < 2


def test_only_the_first_account_takes_over_what_was_judged_without_sign_in(store):
    local = accounts.local(store)
    first = accounts.create(store, "Lea", "long enough", ["lead"], adopts_local=True)
    assert (first.annotator.id, first.name) == (local.id, "Lea")
    with pytest.raises(StoreError, match="Only the first account"):
        accounts.create(store, "Bob", "long enough", ["annotator"], adopts_local=True)
    assert [account.name for account in accounts.all_accounts(store)] == ["Lea"]
