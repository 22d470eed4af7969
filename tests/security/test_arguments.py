"""Arguments that no page sends: each route, handler and server function, as nobody and each role,
with each kind of argument.

Found in the running app, so what is added tomorrow is walked too. Whatever is sent: whoever is refused with ordinary
arguments is refused, or told that the request is none; nothing crashes, hangs, reads a file, fetches an address or tells
where the server keeps its own. What the arguments mean to each handler is tested elsewhere.
"""

import inspect
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import gradio as gr
import httpx2
import pytest
from argument_kinds import MARKUP, PLACE, Kind, kinds, place, put
from walk import ask_queue, functions_of, handlers_of, reach, routes_with_arguments, start_value

import feedback_ui
from feedback_ui.shared.i18n import Translator
from storage.core.records import ACCOUNT_ROLES

SECRET = "canary-5f0c1d7e"
MAX_SECONDS = 8.0
"""For one answer, in seconds, beside seven other suites on two cores. A hang takes longer."""
WIDE = 3
"""A handler of more arguments than this gets each kind in all of them at once, and alone in one of them in turn."""
BUNDLE = 4
"""So many kinds at once for whoever is refused, or reaches no more than somebody else does."""

NOBODY = Translator("en")("auth.not_signed_in")
REFUSED = [NOBODY, *(Translator("en")("auth.without_role", role=role) for role in ACCOUNT_ROLES), Translator("en")("access.without_role")]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    took_s: float

    @property
    def refused(self) -> bool:
        return self.status == 401 or any(refusal in self.text for refusal in REFUSED)

    @property
    def is_none_of_ours(self) -> bool:
        """The request is told to be malformed, too large or about nothing that is there."""
        return 400 <= self.status < 500 and self.status != 408


class Walk:
    """What was sent, what came of it, and what was wrong with that."""

    def __init__(self, clients: dict[str, httpx2.Client], kinds: list[Kind], private: list[str]):
        self.clients = clients
        self.kinds = kinds
        self.private = private
        self.sent: Counter[tuple[str, str, str]] = Counter()
        """How often by way in, role and kind of argument."""
        self.requests = 0
        self.wrong: list[str] = []

    @property
    def small(self) -> list[Kind]:
        return [kind for kind in self.kinds if not kind.large]

    @property
    def bundles(self) -> list[list[Kind]]:
        return [self.small[at : at + BUNDLE] for at in range(0, len(self.small), BUNDLE)]

    def ask(self, way: str, role: str, kinds: list[Kind], send, *, ordinary: Answer | None = None) -> Answer:
        begun = time.monotonic()
        status, text = self._answer(send, any(kind.large for kind in kinds))
        answer = Answer(status, text, time.monotonic() - begun)
        names = " and ".join(kind.name for kind in kinds)
        if status == 599:
            pytest.fail("\n".join([*self.wrong, f"{way} as {role} with {names}: no answer, so the walk ends here: {text}"]))
        self.sent.update((way, role, kind.name) for kind in kinds)
        self.requests += 1
        if kinds:
            self.wrong += [f"{way} as {role} with {names}: {what}" for what in problems(answer, ordinary, role, self.private)]
        return answer

    def all_of(self, *, but_large: bool = True) -> int:
        """How many triples of way, role and kind there are with every kind for every role at every way."""
        return len({way for way, *_ in self.sent}) * len(self.clients) * len(self.small if but_large else self.kinds)

    def _answer(self, send, large: bool) -> tuple[int, str]:
        try:
            return send()
        except httpx2.TimeoutException as error:
            return 599, repr(error)
        except httpx2.TransportError:
            # A server may end a connection whose request it does not read to the end, and ends one after a crash.
            return (413, "") if large else send()


def problems(answer: Answer, ordinary: Answer | None, role: str, private: list[str]) -> Iterator[str]:
    """What is wrong with an answer to such an argument, beside the answer to an ordinary one."""
    reply = f"{answer.status} {answer.text[:200]}"
    if answer.took_s > MAX_SECONDS:
        yield f"took {answer.took_s:.1f} s"
    if answer.status >= 500 and not message_of(answer.text):
        yield f"a crash without a word: {reply}"
    if SECRET in answer.text or "root:x:0:0" in answer.text:
        yield f"the content of a file: {reply}"
    yield from (f"tells where the server keeps its own ({path}): {reply}" for path in private if path in answer.text)
    if "Traceback (most recent" in answer.text:
        yield f"a traceback: {reply}"
    if role == "nobody" and ordinary and ordinary.status == 401 and answer.status not in (401, 400, 404, 413, 414, 429, 431):
        yield f"nobody is not refused: {reply}"
    if ordinary and ordinary.refused and not answer.refused and not answer.is_none_of_ours:
        yield f"not refused, as it is with ordinary arguments: {reply}"


def message_of(text: str) -> str | None:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    body = body if isinstance(body, dict) else {}
    message = body.get("error") or body.get("detail")
    return message if isinstance(message, str) else None


# ---- what is walked with


@pytest.fixture(scope="module")
def listener():
    """A server on this machine that writes down who was sent to it."""
    visits: list[str] = []

    class Visited(BaseHTTPRequestHandler):
        def do_GET(self):
            visits.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Visited)
    Thread(target=server.serve_forever, daemon=True).start()
    server.visits = visits
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def secret(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    path.write_text(SECRET)
    return path


@pytest.fixture
def walk(pages, visitors, secret, listener, uploads) -> Iterator[Walk]:
    """Prints how far it went. Fails at its end with everything that was wrong."""
    every_kind = kinds(str(secret), f"http://127.0.0.1:{listener.server_port}/x")
    private = [str(pages.auth.store.path.parent), str(uploads), str(Path(feedback_ui.__file__).parents[1]), sys.prefix, gr.__path__[0]]
    made = Walk(visitors, every_kind, private)
    yield made
    for role, client in visitors.items():
        assert client.get("/config").status_code == (401 if role == "nobody" else 200)
    made.wrong += [f"somebody was sent to {path}" for path in listener.visits]
    made.wrong += [f"a copy of a file from elsewhere: {path}" for path in uploads.rglob("*") if path.is_file() and has(path, SECRET)]
    ways, roles = len({way for way, *_ in made.sent}), len({role for _, role, _ in made.sent})
    walked = f"{ways} ways in x {roles} roles x {len(every_kind)} kinds of argument: {len(made.sent)} of each with each"
    print(f"\n{walked}, {made.requests} requests, {len(made.wrong)} wrong")
    assert not made.wrong, "\n".join([f"{len(made.wrong)} wrong", *dict.fromkeys(made.wrong)])


def has(path: Path, text: str) -> bool:
    with path.open("rb") as file:
        return text.encode() in file.read(1_000_000)


def privileged(answers: dict[str, Answer]) -> str:
    """Somebody who is let through: what is behind the gate is reached by them."""
    return next((role for role, answer in answers.items() if not answer.refused), "lead")


# ---- the walk


@pytest.mark.slow
def test_server_functions_take_no_harm_from_any_argument(pages, walk):
    keys = keys_of_payloads()
    for at, (name, block, attribute) in enumerate(functions_of(pages.pages)):
        asked = {"component_id": block._id, "fn_name": attribute, "session_hash": "walk", "data": {}}
        ordinary = {role: walk.ask(name, role, [], post("component_server", client, asked)) for role, client in walk.clients.items()}
        for number, kind in enumerate(walk.kinds):
            for role, client in walk.clients.items():
                data = [PLACE]
                if role == privileged(ordinary) and not kind.large:
                    data += [dict.fromkeys(keys, PLACE), *list(payloads(keys))[(number + at) % 5 :: 5]]
                for each in data:
                    body = put(asked | {"data": each}, kind)
                    walk.ask(name, role, [kind], post("component_server", client, body), ordinary=ordinary[role])
    assert len(walk.sent) == walk.all_of(but_large=False) >= 7 * 4 * 27


@pytest.mark.slow
def test_routes_take_no_harm_from_any_argument(pages, walk):
    """In the path, in each parameter of the query, and in each field of the body."""
    for method, path, parameters, fields in routes_with_arguments(pages):
        way = f"{method} {path}"
        if way == "POST /sign-out":
            # Takes no argument, and would end the walk.
            continue
        ordinary = {
            role: walk.ask(way, role, [], request(client, method, path, {}, parameters, fields, None))
            for role, client in walk.clients.items()
        }
        for role, client in walk.clients.items():
            # Behind an open door, the arguments say which handler it is that refuses or does not.
            same = ordinary[role] if ordinary[role].status in (401, 403) and path != "/sign-in" else None
            for turn, where in enumerate(places_in(path, parameters, fields)):
                for kind in kinds_for(walk, ordinary, role, turn):
                    walk.ask(way, role, [kind], request(client, method, path, where, parameters, fields, kind), ordinary=same)
    assert walk.all_of() > len(walk.sent) > 400


@pytest.mark.slow
def test_uploads_take_no_harm_from_any_name_or_content(walk, uploads):
    names = [Kind(kind.name, json.dumps(kind.text[:2000])) for kind in walk.small]
    names += [Kind(name[:20], json.dumps(name)) for name in ("../" * 20 + "x", "/etc/cron.d/x", 'a"; filename="b', "x" * 5000, ".", "..")]
    for role, client in walk.clients.items():
        plain = walk.ask("upload", role, [], upload(client, "a", uploads))
        for name in names:
            walk.ask("upload", role, [name], upload(client, name.text, uploads), ordinary=plain)
    assert all(path.is_relative_to(uploads) for path in uploads.rglob("*"))
    assert not Path("/etc/cron.d/x").exists()


@pytest.mark.slow
def test_handlers_take_no_harm_from_any_argument(pages, walk):
    """Last, because some of them change the project for everybody."""
    for name, event in handlers_of(pages.pages):
        ordinary = {role: walk.ask(name, role, [], call(client, event, start(event))) for role, client in walk.clients.items()}
        for role, client in walk.clients.items():
            if role == privileged(ordinary):
                asked = [([kind], body) for number, kind in enumerate(walk.kinds) for body in bodies(event, kind, number)]
            else:
                asked = [(bundle, spread(event, len(bundle))) for bundle in walk.bundles]
            for sent, body in asked:
                answer = walk.ask(name, role, sent, call(client, event, body, sent), ordinary=ordinary[role])
                walk.wrong += [f"{name} with {sent[0].name}: markup in {block}" for block in raw_markup(event, answer.text)]
    assert len(walk.sent) >= walk.all_of() > 50 * 4 * 24


# ---- bodies


def start(event) -> dict:
    return {"data": [start_value(block) for block in event.inputs]}


def spread(event, many: int) -> dict:
    """As many kinds as there are over the arguments, the rest in the last one; and all in what the event says of itself."""
    count = max(1, len(event.inputs))
    values = [place(at % many) for at in range(count)]
    values[-1] = [place(at) for at in range(count - 1, many)] if many > count else values[-1]
    return {"data": values} | ({"event_data": [place(at) for at in range(many)]} if takes_event(event) else {})


def bodies(event, kind: Kind, number: int) -> Iterator[dict]:
    """The kind in every argument at once, and then in one, with ordinary values in the others."""
    values = start(event)["data"]
    if kind.large:
        yield {"data": [PLACE, *values[1:]]}
        return
    about = {"event_data": PLACE} if takes_event(event) else {}
    yield {"data": [PLACE] * max(1, len(values))} | about
    for at, block in enumerate(event.inputs):
        turn = len(values) <= WIDE or at % len(values) == number % len(values)
        if len(values) > 1 and turn and not isinstance(block, gr.State):
            yield {"data": [*values[:at], PLACE, *values[at + 1 :]]}
    if about:
        for act in ("edit", PLACE):
            yield {"data": values, "event_data": {"act": act, "row": PLACE}}


def takes_event(event) -> bool:
    return any("EventData" in str(p.annotation) for p in inspect.signature(event.fn).parameters.values()) if event.fn else False


def keys_of_payloads() -> list[str]:
    """Everything that the modules of the judging pages look for in what a browser sends."""
    folder = Path(feedback_ui.__file__).parent / "judging"
    code = "".join((folder / f"{name}.py").read_text() for name in ("compare", "history", "acts"))
    return sorted(set(re.findall(r"""(?:\.get\(|\w\[)"(\w+)"[\])]""", code)))


def payloads(keys: list[str]) -> Iterator[dict]:
    """The kind under one of the keys of a judgment, and one step further in, where a list or an object is looked for."""
    for key in keys:
        yield {"choice": "rank", "presentation_id": 1, "judgment_id": 1, "tiers": [[0], [1]]} | {key: PLACE}
    yield {"choice": "rank", "presentation_id": 1, "tiers": [[PLACE]]}
    yield {"choice": "a", "presentation_id": 1, "flags": [PLACE, {"kind": PLACE, "note": PLACE, "slot": PLACE}]}
    yield {"choice": "a", "presentation_id": 1, "aspects": {"0": PLACE}, "ideal": {"text": PLACE, "slot": PLACE}}
    yield {"choice": "a", "presentation_id": 1, "timing": {"active_ms": PLACE, "idle_ms": PLACE, "client_ms": PLACE}}


def post(route: str, client: httpx2.Client, body: dict | bytes):
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    return lambda: reach(client, "POST", f"/gradio_api/{route}", content=content, headers={"content-type": "application/json"})


def call(client: httpx2.Client, event, body: dict, kinds: list[Kind] | None = None):
    """An event as a page calls it, past the queue or through it."""
    content = put({"fn_index": event._id, "session_hash": "walk"} | body, *(kinds or []))
    if not event.queue:
        return post("run/predict", client, content)
    return lambda: ask_queue(client, content)


def upload(client: httpx2.Client, name: str, uploads: Path):
    def send() -> tuple[int, str]:
        file = (name.encode("utf-8", "replace").decode(), b"x")
        status, text = reach(client, "POST", "/gradio_api/upload", files={"files": file})
        # The answer to an upload is where it lies, for the handler that it is for.
        return status, text.replace(str(uploads), "")

    return send


def kinds_for(walk: Walk, ordinary: dict[str, Answer], role: str, turn: int) -> list[Kind]:
    """Each kind in each place for one role; the places share them for the others, who come the same way."""
    if ordinary["lead"].status == 404:
        # Not there for anybody, whatever is said: test_routes.
        return [kind for kind in walk.kinds if kind.name == "a way out"] if turn == 0 else []
    return walk.kinds if role == "lead" else walk.kinds[turn % BUNDLE :: BUNDLE]


def places_in(path: str, parameters: list[str], fields: list[str]) -> Iterator[dict[str, str]]:
    """Where one argument can go: by the name of its place."""
    if "{" in path:
        yield {"path": PLACE}
    yield from ({"query": name} for name in parameters)
    yield from ({"field": name} for name in fields)
    if fields:
        yield {"body": PLACE}


def request(client, method: str, path: str, where: dict[str, str], parameters: list[str], fields: list[str], kind: Kind | None):
    # The client's own limit is 64 KiB for an address, of up to three letters for each byte.
    text = quote(kind.text[:4000].encode("utf-8", "surrogatepass"), safe="") if kind else "7"
    filled = path.replace("{api_name}", "predict") if "path" not in where else path
    filled = re.sub(r"=\{path_or_url:path\}", lambda _: f"={text if 'path' in where else '/tmp/x'}", filled)
    filled = re.sub(r"\{[^}]+\}", lambda _: text if "path" in where else "7", filled)
    query = "&".join(f"{name}={text if where.get('query') == name else '7'}" for name in parameters)
    url = f"{filled}?{query}" if query else filled
    if method != "POST":
        return lambda: reach(client, method, url)
    if path == "/sign-in":
        form = "&".join(f"{name}={text if where.get('field') == name else 'x'}" for name in fields)
        content = text if "body" in where else form
        return lambda: reach(client, method, url, content=content, headers={"content-type": "application/x-www-form-urlencoded"})
    ordinary = {"data": [], "fn_index": 0, "session_hash": "walk", "event_id": "7", "component_id": 0, "fn_name": "x"}
    body = {name: ordinary[name] for name in fields if name in ordinary}
    if "body" in where or "field" in where:
        content = put(PLACE if "body" in where else body | {where["field"]: PLACE}, kind)
    else:
        content = json.dumps(body).encode()
    return lambda: reach(client, method, url, content=content, headers={"content-type": "application/json"})


def raw_markup(event, text: str) -> Iterator[str]:
    """Components that show HTML, and were given what somebody typed as it was."""
    try:
        data = json.loads(text).get("data")
    except (ValueError, AttributeError, RecursionError):
        return
    for block, value in zip(event.outputs, data if isinstance(data, list) else [], strict=False):
        if isinstance(block, gr.HTML) and MARKUP[:20] in json.dumps(value):
            yield getattr(block, "elem_id", None) or "an HTML component"


def test_the_walk_can_fail():
    fine = Answer(200, "{}", 0.1)
    refused = Answer(500, json.dumps({"error": REFUSED[2]}), 0.1)
    assert list(problems(fine, fine, "lead", ["/srv"])) == []
    assert list(problems(Answer(400, '{"error": "no such thing"}', 0.1), refused, "annotator", [])) == []
    assert list(problems(Answer(500, '{"error": "too large"}', 0.1), fine, "lead", [])) == []
    for answer, ordinary, role, complaint in (
        (Answer(500, '{"error": null}', 0.1), fine, "lead", "a crash"),
        (Answer(500, "Internal Server Error", 0.1), fine, "lead", "a crash"),
        (Answer(599, "ReadTimeout", 30), fine, "lead", "took 30.0 s"),
        (Answer(200, f'["{SECRET}"]', 0.1), fine, "lead", "the content"),
        (Answer(200, '["/srv/data/rankloop.db"]', 0.1), fine, "lead", "tells where"),
        (fine, refused, "annotator", "not refused"),
        (fine, Answer(401, "", 0.1), "nobody", "nobody is not refused"),
    ):
        assert any(found.startswith(complaint) for found in problems(answer, ordinary, role, ["/srv"])), complaint
