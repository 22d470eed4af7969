"""Values that no page sends, to every handler and every server function."""

import json

import gradio as gr
import httpx2
import pytest
from served_app import PASSWORD, served

from feedback_ui.server.calls import VALUE_CHECKS
from feedback_ui.server.sessions import MAX_SESSION_NAME_CHARS
from storage.core.records import ACCOUNT_ROLES
from storage.people import accounts

JSON = {"content-type": "application/json"}
JSON_ROUTES = [f"/gradio_api/{name}" for name in ("run/predict", "queue/join", "component_server", "component_server/", "cancel", "reset")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with served(tmp_path_factory.mktemp("bodies")) as site:
        site.add_accounts()
        accounts.create(site.store, "everybody", PASSWORD, ACCOUNT_ROLES)
        site.clients["everybody"] = httpx2.Client(base_url=site.url, headers={"cookie": site.cookie("everybody")}, timeout=60)
        yield site


RAW = [
    "null", "true", "0", "-1", "9223372036854775807", "9223372036854775808", "1" + "0" * 30, "1.5", "-1e-300", "1e300", "NaN", '""', '"x"',
    r'"\ud800"', r'"\u0000"', json.dumps("9" * 400), json.dumps("x" * 50_000), "[]", "[[]]", "[null]", "[1, 2]", '["x", {}]', "{}",
    '{"a": 1}', '{"act": "x", "row": 9223372036854775807}', '{"act": "x", "row": 1.5}', "[" * 70 + "]" * 70,
    '{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}',
]  # fmt: skip
"""A value of each kind, as JSON spells it."""
SENT = (
    "presentation_id", "judgment_id", "before", "choice", "tiers", "aspects", "ideal", "flags", "timing", "text", "guidelines", "verdict",
)  # fmt: skip
"""What the judging pages say of a comparison."""


def start_value(block):
    value = getattr(block, "value", None)
    if callable(value) or isinstance(block, gr.State):
        return None
    try:
        json.dumps(value)
    except TypeError:
        return None
    return value


def body_of(fields: dict, name: str, raw: str) -> bytes:
    """The call with one field spelled so."""
    mark = "\u2400here\u2400"
    return json.dumps(fields | {name: mark}).replace(json.dumps(mark), raw).encode()


def calls_of(number: int, event):
    """A handler with each kind of value in each place, everything else as the page has it at the start."""
    fields = {"fn_index": number, "data": [start_value(block) for block in event.inputs], "session_hash": "kinds"}
    # A long form has its places in turns, or the walk would be of little else.
    stride = 8 if len(event.inputs) > 8 else 1
    for first, raw in enumerate(RAW):
        for place in range(first % stride, len(event.inputs), stride):
            spelled = [json.dumps(value) for value in fields["data"]]
            spelled[place] = raw
            yield body_of(fields, "data", f"[{', '.join(spelled)}]")
        for name in ("event_data", "trigger_id"):
            yield body_of(fields, name, raw)


def wrong_with(reply: httpx2.Response) -> str | None:
    """Nobody can do anything with a bare 500, or with an error that says nothing."""
    if reply.status_code == 200:
        return None
    try:
        message = reply.json()["error"]
    except (ValueError, KeyError, TypeError):
        message = None
    if reply.status_code >= 500 and reply.status_code != 503:
        return f"{reply.status_code}: {reply.text[:200]}"
    return None if message else f"{reply.status_code} without a reason: {reply.text[:200]}"


def test_every_kind_of_input_has_a_check_of_its_values(site):
    used = {type(block) for event in site.pages.fns.values() for block in event.inputs}
    assert used <= set(VALUE_CHECKS), "say in feedback_ui.server.calls what these take from a browser"


@pytest.mark.slow
def test_every_handler_refuses_values_that_no_page_sends(site):
    wrong, walked = {}, 0
    for number, event in site.pages.fns.items():
        if event.fn is None or event.queue:
            continue
        for body in calls_of(number, event):
            walked += 1
            if found := wrong_with(site.clients["everybody"].post("/gradio_api/run/predict", content=body, headers=JSON)):
                wrong.setdefault(event.fn.__qualname__, (found, body[:300]))
    print(f"{walked} calls of handlers")
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


@pytest.mark.slow
def test_every_server_function_refuses_values_that_no_page_sends(site):
    wrong, walked = {}, 0
    for number, block in site.pages.blocks.items():
        for name, function in vars(block).items():
            if getattr(function, "_is_server_fn", False) is not True:
                continue
            fields = {"data": {}, "component_id": number, "fn_name": name, "session_hash": "kinds"}
            for raw in RAW:
                inside = [json.dumps({"presentation_id": 1, "judgment_id": 1} | {key: "@"}).replace('"@"', raw) for key in SENT]
                for body in [body_of(fields, "data", spelled) for spelled in (raw, *inside)] + [
                    body_of(fields, field, raw) for field in ("component_id", "fn_name", "session_hash")
                ]:
                    walked += 1
                    if found := wrong_with(site.clients["everybody"].post("/gradio_api/component_server", content=body, headers=JSON)):
                        wrong.setdefault(f"{name}", (found, body[:300]))
    print(f"{walked} calls of server functions")
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


def test_a_call_of_an_unknown_handler_is_refused(site):
    client = site.clients["everybody"]
    good = {"fn_index": site.handler("show_visitor"), "data": [], "session_hash": "s"}
    assert client.post("/gradio_api/run/predict", json=good).status_code == 200
    for change in (
        {"fn_index": 10**6}, {"fn_index": -1}, {"fn_index": None}, {"fn_index": "0"}, {"fn_index": True}, {"data": None}, {"data": {}},
        {"data": [1]}, {"session_hash": None}, {"session_hash": ""}, {"session_hash": "s" * (MAX_SESSION_NAME_CHARS + 1)},
    {"session_hash": 7},
        {"session_hash": "\n"},
    ):  # fmt: skip
        for path in ("/gradio_api/run/predict", "/gradio_api/queue/join"):
            reply = client.post(path, json=good | change)
            assert reply.status_code in (400, 404) and reply.json()["error"], (path, change)
    for body in ([], "x", 7, None, {}):
        for path in JSON_ROUTES:
            assert client.post(path, json=body).status_code in (400, 404, 422), (path, body)


def test_gradio_s_own_switches_are_not_passed_on(site):
    """A batch, a token or an event that goes on are nothing that a page may say of itself."""
    good = {"fn_index": site.handler("show_visitor"), "data": [], "session_hash": "s"}
    more = {"batched": True, "simple_format": True, "oauth_token": "t", "event_id": "e", "request": {"headers": {}}, "api_name": "x"}
    reply = site.clients["annotator"].post("/gradio_api/run/predict", json=good | more)
    assert reply.status_code == 200 and "annotator" in reply.text


def test_a_refusal_has_the_status_that_it_means(site):
    """Gradio answers 500 to whatever a handler refuses."""
    value = {"fn_index": site.handler("AccountsSection.add"), "session_hash": "s"}
    event = site.pages.fns[value["fn_index"]]
    reply = site.clients["annotator"].post("/gradio_api/run/predict", json=value | {"data": [start_value(block) for block in event.inputs]})
    assert reply.status_code == 403 and "role lead" in reply.json()["error"]
