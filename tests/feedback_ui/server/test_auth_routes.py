"""Signing in and out over HTTP: forms, cookies, sessions."""

import re

import httpx2
import pytest
from small_site import PASSWORD
from waiting import PATIENCE_S

from storage.people import accounts

BROWSER = {"accept": "text/html,application/xhtml+xml"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(site):
    site.account()
    reply = site.form(name="Ann", password=PASSWORD)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    attributes = [part.strip().lower() for part in reply.headers.get_list("set-cookie")[0].split(";")[1:]]
    assert {"httponly", "samesite=strict", "path=/", "max-age=604800"} == set(attributes)
    cookie = reply.headers.get_list("set-cookie")[0].split(";")[0]
    assert site.say(cookie).json()["data"] == ["Ann"]
    assert site.get("/sign-in", cookie=cookie).headers["location"] == "/"


def test_the_roles_cookie_hides_tabs_and_grants_nothing(site, ann):
    site.account("Bob", "annotator")
    reply = site.form(name="Bob", password=PASSWORD).headers.get_list("set-cookie")
    session, (name, value) = reply[0].split(";")[0], reply[1].split(";")[0].split("=")
    assert value == "annotator" and name in site.get("/", cookie=session).text
    raised = f"{session}; {name}=annotator.lead.researcher"
    assert site.get("/gradio_api/file=/etc/hostname", cookie=raised).status_code == 403


def test_the_cookie_is_secure_behind_https(site):
    site.account()
    fields = f"name=Ann&password={PASSWORD}".replace(" ", "+")
    reply = httpx2.post(site.url + "/sign-in", content=fields, headers=FORM | {"x-forwarded-proto": "https"}, timeout=PATIENCE_S)
    assert "; Secure" in reply.headers["set-cookie"]


def test_a_wrong_password_says_so_and_repeats_the_name_made_safe(site, ann):
    reply = site.form(name='<img src=x onerror="alert(1)">', password="x")
    assert reply.status_code == 401 and "do not match" in reply.text and "set-cookie" not in reply.headers
    assert "<img" not in reply.text and "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;" in reply.text
    assert 'role="alert"' in reply.text


def test_too_many_wrong_passwords_say_how_long_to_wait(site, ann):
    replies = [site.form(name="Ann", password="x") for _ in range(4)]
    assert [reply.status_code for reply in replies] == [401, 401, 401, 429]
    refused = site.form(name="Ann", password=PASSWORD)
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 2
    assert re.search(r"Try again in \d seconds?", refused.text)


def test_an_invalid_sign_in_form_is_refused(site, ann):
    assert site.form(name="x" * 20_000, password="x").status_code == 413
    assert httpx2.post(site.url + "/sign-in", content=b"\xff\xfe=%zz&&&=;", headers=FORM, timeout=PATIENCE_S).status_code == 401
    assert httpx2.post(site.url + "/sign-in", json={"name": "Ann", "password": PASSWORD}, timeout=PATIENCE_S).status_code == 401


def test_signing_out_ends_the_session_for_a_stolen_cookie_too(site, ann):
    assert site.say(ann).status_code == 200
    reply = site.form("/sign-out", cookie=ann)
    assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in")
    assert f'{site.auth.cookie}=""' in reply.headers["set-cookie"] and "Max-Age=0" in reply.headers["set-cookie"]
    assert site.say(ann).status_code == 401
    assert site.get("/sign-out", cookie=ann).status_code == 401


def test_a_session_cookie_set_by_somebody_else_is_replaced(site):
    site.account()
    site.account("Eve", "annotator")
    laid = site.cookie("Eve")
    reply = site.form(cookie=laid, name="Ann", password=PASSWORD)
    got = reply.headers.get_list("set-cookie")[0].split(";")[0]
    assert got != laid
    assert site.say(got).json()["data"] == ["Ann"]
    assert site.say(laid).status_code == 401
    made_up = f"{site.auth.cookie}=chosen-by-an-attacker"
    assert site.form(cookie=made_up, name="Ann", password=PASSWORD).status_code == 303
    assert site.say(made_up).status_code == 401


@pytest.mark.parametrize("act", ["disable", "roles", "password"])
def test_the_next_request_knows_that_an_account_was_changed(site, ann, act):
    eve = site.account("Eve", "annotator")
    cookie = site.cookie("Eve")
    assert site.say(cookie).status_code == 200
    if act == "disable":
        accounts.disable(site.store, eve.id)
    elif act == "roles":
        accounts.set_roles(site.store, eve.id, ["researcher"])
    else:
        accounts.set_password(site.store, eve.id, "another one")
    assert site.say(cookie).status_code == 401


def test_the_first_account_ends_the_local_visit(site):
    assert site.say().status_code == 200
    site.account()
    assert site.say().status_code == 401
    assert site.get(**BROWSER).headers["location"] == "/sign-in"
