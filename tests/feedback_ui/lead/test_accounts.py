"""Accounts are added, changed and disabled."""

import re

import pytest
from lead_page import HERE, pressed, sign_in

from feedback_ui.server.auth import AccessRefused
from storage.people import accounts


def test_the_first_account_turns_sign_in_on(store, part, auth):
    section = part.accounts
    opened = section.open(HERE)
    assert "turns sign-in on, for good" in opened[section.warning]
    assert set(opened[section.new_roles].value) == {"annotator", "lead", "researcher"}
    assert "needs the role lead" in section.add("Ann", "long enough", ["annotator"], False, HERE)[section.message]
    assert "8" in section.add("Lea", "short", ["lead"], False, HERE)[section.message] and not accounts.any_accounts(store)
    shown = section.add("Lea", "long enough", ["lead"], False, HERE)
    assert "sign-in is on now" in shown[section.message] and 'href=""' in shown[section.message] and shown[section.adding].visible is False
    assert shown[section.warning] == "" and "long enough" not in str(shown)
    with pytest.raises(AccessRefused):
        section.open(HERE)


def test_accounts_are_added_changed_and_disabled(store, part, auth):
    request = sign_in(store, auth, "Lea", "lead")
    section = part.accounts
    shown = section.add("<b>Ann</b>", "long enough", ["annotator"], False, request)
    ann = accounts.named(store, "<b>Ann</b>")
    assert "may sign in now" in shown[section.message] and "&lt;b&gt;Ann" in shown[section.list] and shown[section.new_password].value == ""
    opened = section.edit(pressed("edit", ann.id), request)
    assert opened[section.roles].value == ["annotator"] and opened[section.editing].visible is True
    section.set_roles(ann.id, ["annotator", "researcher"], request)
    assert accounts.get(store, ann.id).roles == {"annotator", "researcher"}
    section.set_password(ann.id, "another one", request)
    assert accounts.sign_in(store, "<b>Ann</b>", "another one")
    assert "disabled" in section.disable_or_enable(ann.id, request)[section.list] and accounts.get(store, ann.id).disabled
    section.disable_or_enable(ann.id, request)
    assert not accounts.get(store, ann.id).disabled
    lea = accounts.named(store, "Lea")
    assert "only lead" in section.disable_or_enable(lea.id, request)[section.message]
    assert "No account is chosen" in section.set_roles(None, ["lead"], request)[section.message]
    whom = store.row("SELECT by_id FROM account_events WHERE act = 'disabled'")["by_id"]
    assert whom == lea.annotator.id


def test_the_first_account_takes_over_the_judgments_made_without_sign_in(store, part, people, waiting, judge):
    section = part.accounts
    assert section.open(HERE)[section.adopts].visible is False, "there are none"
    judge(people.local)
    assert section.open(HERE)[section.adopts].visible is True
    assert "Ann has judged here already" in section.add("Ann", "long enough", ["lead"], True, HERE)[section.message]
    assert not accounts.any_accounts(store)
    section.add("Lea", "long enough", ["lead"], True, HERE)
    (lea,) = accounts.all_accounts(store)
    assert (lea.name, lea.annotator.id, lea.annotator.judged) == ("Lea", people.local.id, 1)


def test_a_generated_password_is_readable_copied_and_long(part):
    made = [part.accounts.generate(HERE) for _ in range(50)]
    assert len({box.value for box in made}) == 50 and {(box.type, tuple(box.buttons)) for box in made} == {("text", ("copy",))}
    assert all(re.fullmatch(r"([a-z2-9]{4}-){3}[a-z2-9]{4}", box.value) and not set(box.value) & set("ilo01") for box in made)
