"""`rankloop account` and what accounts mean for `rankloop serve`, as somebody at a terminal meets them."""

import getpass
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import argon2
import httpx2
import pytest
import tiny
from waiting import PATIENCE_S

import launch
from storage.core.database import Database
from storage.people import accounts

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def data(store) -> str:
    return str(store.path.parent)


@pytest.fixture
def typed(monkeypatch):
    """What is typed where the terminal asks for a password."""
    lines: list[str] = []
    monkeypatch.setattr(getpass, "getpass", lambda prompt: lines.pop(0))
    return lines


@pytest.fixture
def run(capsys, data):
    """Runs one act; its exit status, what it says and what it complains about."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = launch.main(["account", *arguments, "--data", data])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def piped(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_accounts_are_added_and_listed(run, typed, store):
    typed += [PASSWORD, PASSWORD, "bob's password", "bob's password"]
    assert "no accounts: everybody who reaches rankloop has every role" in run("list")[1]
    assert run("add", "Ann", "--role", "researcher", "--role", "lead") == (0, "account Ann added: lead, researcher\n", "")
    assert run("add", "Bob", "--role", "annotator")[0] == 0
    assert run("list")[1].splitlines() == ["Ann  lead, researcher", "Bob  annotator"]
    assert accounts.of_token(store, accounts.sign_in(store, "Ann", PASSWORD)).roles == {"lead", "researcher"}
    listed = json.loads(run("list", "--json")[1])
    assert [set(row) for row in listed] == [{"name", "roles", "disabled", "created_at"}] * 2
    assert (listed[1]["name"], listed[1]["roles"], listed[1]["disabled"]) == ("Bob", ["annotator"], False)


def test_a_password_from_the_standard_input(run, store, monkeypatch):
    piped(monkeypatch, "pass word with spaces \n and more\n")
    assert run("add", "Ann", "--role", "lead", "--password-stdin")[0] == 0
    accounts.sign_in(store, "Ann", "pass word with spaces ")


def test_refusals_say_why_and_change_nothing(run, typed, store):
    typed += [PASSWORD, "something else", "short", "short", PASSWORD, PASSWORD]
    assert run("add", "Ann", "--role", "lead") == (2, "", "rankloop: the two passwords differ: nothing was changed\n")
    assert "5 characters, need 8" in run("add", "Ann", "--role", "lead")[2]
    assert "first account needs the role lead" in run("add", "Ann", "--role", "annotator")[2]
    assert "no account named Bob" in run("disable", "Bob")[2]
    assert accounts.all_accounts(store) == []


@pytest.mark.parametrize("arguments", [["add", "Ann"], ["add", "--role", "lead"], ["add", "Ann", "--role", "king"], [], ["dance"]])
def test_an_unknown_subcommand_is_refused(run, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2 and "usage: rankloop account" in capsys.readouterr().err


def test_changing_an_account(run, typed, store):
    accounts.create(store, "Ann", PASSWORD, ["lead"])
    bob = accounts.create(store, "Bob", PASSWORD, ["annotator"])
    typed += ["another one", "another one"]
    assert run("password", "Bob") == (0, "account Bob: new password, signed out everywhere\n", "")
    token = accounts.sign_in(store, "Bob", "another one")
    assert run("roles", "Bob", "--role", "annotator", "--role", "researcher")[1] == (
        "account Bob: annotator, researcher, signed out everywhere\n"
    )
    assert accounts.of_token(store, token) is None
    assert run("disable", "Bob")[1] == "account Bob disabled\n"
    assert accounts.get(store, bob.id).disabled and "Bob  annotator, researcher  (disabled)" in run("list")[1]
    assert run("enable", "Bob")[1] == "account Bob enabled\n"
    assert not accounts.get(store, bob.id).disabled
    assert run("disable", "Ann")[0] == 2


def test_help_of_accounts(capsys):
    with pytest.raises(SystemExit):
        launch.main(["account", "add", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "folder of the store, runs, uploads and logs" in text and "{annotator,lead,researcher}" in text and "--password-stdin" in text


# ---- serving


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_accounts_only_this_machine_is_served(capsys, data, host):
    assert launch.main(["serve", "--data", data, "--host", host, "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert f"--host {host}: without accounts, everybody" in error
    assert f"rankloop account add NAME --role lead --data {data}" in error


def test_which_hosts_are_this_machine():
    assert [launch.is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1")] == [True] * 4
    assert [launch.is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1")] == [False] * 4


@pytest.mark.slow
def test_with_an_account_any_address_may_be_served_and_ctrl_c_ends_it(tmp_path):
    store = Database(tmp_path / "rankloop.db")
    accounts.create(store, "Ann", PASSWORD, ["lead"])
    program = subprocess.Popen(
        [sys.executable, "launch.py", "serve", "--data", str(tmp_path), "--host", "0.0.0.0", "--port", "0",
         "--model", str(tiny.write(tmp_path / "model")), "--endpoint", "http://127.0.0.1:9/v1", "--endpoint-model", "x"],
        cwd=Path(launch.__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        output = ""
        while "rankloop is at http://" not in output:
            line = program.stdout.readline()
            assert line, output
            output += line
        url = output.split("rankloop is at ")[1].split()[0].replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(url + "/config", timeout=PATIENCE_S).status_code == 401
        assert (
            httpx2.get(url, headers={"host": "rankloop.lan", "accept": "text/html"}, timeout=PATIENCE_S).headers["location"] == "/sign-in"
        )
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=PATIENCE_S) == 0
        assert "stopping" in program.stdout.read()
    finally:
        program.kill()
        program.stdout.close()
        store.close()
