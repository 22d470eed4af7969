"""The proxies of docs/how-to/deploy.md, with the files that stand there: real nginx and Caddy over TLS, before the real app.

Only addresses, names and certificates are put in. Left out where the proxy is not installed (`apt-get install nginx caddy`).
"""

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import argon2
import httpx2
import pytest
from waiting import PATIENCE_S

from feedback_ui.app import build_app
from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from rlhf.config import RoundConfig
from rlhf.serving.client import PolicyClient
from storage.content import comparisons, completions, policies, prompts
from storage.core.records import Sampling
from storage.people import accounts

DEPLOY = (Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md").read_text()
PASSWORD = "correct horse"
WORDS = [f"word{number} " for number in range(15)]


class SlowModel(BaseHTTPRequestHandler):
    """An endpoint of the OpenAI protocol that writes one word, and the others once that one was read or after a minute."""

    first_was_read = Event()

    def do_GET(self):
        self._json({"object": "list", "data": [{"id": "Model", "object": "model", "created": 0, "owned_by": "base"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word in WORDS:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "Model", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
            self.first_was_read.wait(PATIENCE_S)
        self.wfile.write(b"data: [DONE]\n\n")

    def _json(self, said):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def app(store, monkeypatch):
    """The app on a free port, an annotator, a lead, and three comparisons that wait."""
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    accounts.create(store, "lead", PASSWORD, ["lead"])
    accounts.create(store, "annotator", PASSWORD, ["annotator"])
    asked = [({"role": "user", "content": f"Why {number}?"},) for number in range(3)]
    prompts.add(store, [prompts.NewPrompt(messages, kind="x", split="train") for messages in asked], source="x")
    base = policies.ensure_base(store, "Model")
    for prompt in prompts.of_split(store):
        said = {"prompt_id": prompt.id, "policy_version_id": base.id, "sampling": Sampling(), "finish_reason": "stop", "latency_s": 0.1}
        answers = [completions.add(store, text=f"answer {n}", seed=n, **said) for n in range(2)]
        comparisons.add(store, prompt.id, answers, purpose="collect")
    model = ThreadingHTTPServer(("127.0.0.1", 0), SlowModel)
    Thread(target=model.serve_forever, daemon=True).start()
    client = PolicyClient(f"http://127.0.0.1:{model.server_port}/v1")

    # In a loop that runs: Gradio opens one and never closes it where there is none.
    async def made() -> Web:
        auth = Auth(store)
        return Web(build_app(store, None, client, auth, default_config=RoundConfig()), auth)

    serving = Serving(web := asyncio.run(made()), "127.0.0.1", 0)
    serving.pages = web.pages
    yield serving
    serving.stop()
    model.shutdown()
    model.server_close()


def config(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", DEPLOY, re.S)[1]


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def certificate(folder: Path) -> tuple[Path, Path]:
    key, made = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", key, "-out", made], check=True, capture_output=True,
    )  # fmt: skip
    return key, made


def started(command: list, port: int, folder: Path) -> subprocess.Popen:
    log = (folder / "proxy.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process
        except OSError:
            assert process.poll() is None and time.monotonic() < give_up_at, (folder / "proxy.log").read_text()
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("nginx") and shutil.which("openssl")), reason="nginx or openssl is not installed")
def test_through_nginx(app, tmp_path):
    key, made = certificate(tmp_path)
    port, plain = free_port(), free_port()
    site = (
        config("nginx").replace("listen 80;", f"listen 127.0.0.1:{plain};").replace("listen 443", f"listen 127.0.0.1:{port}")
        .replace("rank.example.org;", "localhost;").replace("127.0.0.1:7860", f"127.0.0.1:{app.port}")
    )  # fmt: skip
    site = re.sub(r"(ssl_certificate +)\S+;", rf"\1{made};", site)
    site = re.sub(r"(ssl_certificate_key +)\S+;", rf"\1{key};", site)
    places = "".join(f"{name}_temp_path {tmp_path / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {tmp_path / 'pid'};\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{site}}}\n"
    )
    process = started(["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr"], port, tmp_path)
    try:
        redirected = httpx2.get(f"http://127.0.0.1:{plain}/x?y", headers={"host": "localhost"}, timeout=PATIENCE_S)
        assert (redirected.status_code, redirected.headers["location"]) == (301, "https://localhost/x?y")
        a_day_of_work(app, f"https://localhost:{port}", ssl.create_default_context(cafile=str(made)))
        sign_in_is_slowed_down(f"https://localhost:{port}", ssl.create_default_context(cafile=str(made)))
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("caddy"), reason="caddy is not installed")
def test_through_caddy(app, tmp_path):
    port = free_port()
    site = config("caddyfile").replace("rank.example.org {", f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls internal")
    site = site.replace("127.0.0.1:7860", f"127.0.0.1:{app.port}")
    options = f"{{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tstorage file_system {tmp_path / 'caddy'}\n}}\n"
    (tmp_path / "Caddyfile").write_text(options + site)
    process = started(["caddy", "run", "--config", tmp_path / "Caddyfile", "--adapter", "caddyfile"], port, tmp_path)
    try:
        root = tmp_path / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        a_day_of_work(app, f"https://localhost:{port}", ssl.create_default_context(cafile=str(root)))
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


# ---- what people do through it


def a_day_of_work(app, url: str, tls: ssl.SSLContext) -> None:
    with httpx2.Client(base_url=url, verify=tls, timeout=PATIENCE_S) as client:
        assert client.get("/", headers={"accept": "text/html"}).headers["location"] == "/sign-in"
        cookies = signed_in(client, "annotator")
        assert all("; Secure" in cookie for cookie in cookies)
        page = client.get("/")
        assert page.status_code == 200 and f'"root":"{url}"' in page.text.replace(" ", "")
        assert page.headers["strict-transport-security"] == "max-age=31536000"
        for headers in ({"origin": url}, {"origin": url, "sec-fetch-site": "same-origin"}):
            assert call(app, client, "next_comparison", {}, **headers)["state"] == "comparison"
        assert post(client, "component_server", {}, origin="https://evil.example").status_code == 403
        judges(app, client)
        reads_an_answer_while_it_is_written(app, client)
        lies_about_who_is_asking(client)
    with httpx2.Client(base_url=url, verify=tls, timeout=PATIENCE_S) as client:
        signed_in(client, "lead")
        uploads(client)


def signed_in(client: httpx2.Client, name: str) -> list[str]:
    reply = client.post("/sign-in", data={"name": name, "password": PASSWORD}, headers={"origin": str(client.base_url).rstrip("/")})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    return reply.headers.get_list("set-cookie")


def post(client: httpx2.Client, route: str, body: dict, **headers: str) -> httpx2.Response:
    return client.post(f"/gradio_api/{route}", json=body, headers=headers)


def call(app, client: httpx2.Client, function: str, data: dict, **headers: str) -> dict:
    component = next(number for number, block in app.pages.blocks.items() if getattr(block, "elem_id", None) == "compare")
    asked = {"data": data, "component_id": component, "fn_name": function, "session_hash": "s"}
    reply = post(client, "component_server", asked, **headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


def judges(app, client: httpx2.Client) -> None:
    shown = call(app, client, "next_comparison", {})
    said = call(app, client, "judge", {"presentation_id": shown["presentation_id"], "choice": "a"})
    assert said["next"]["state"] == "comparison" and said["next"]["presentation_id"] != shown["presentation_id"]


def reads_an_answer_while_it_is_written(app, client: httpx2.Client) -> None:
    """Its first word is read before the next is written: nothing in between keeps a stream back."""
    numbers = {event.fn.__qualname__: number for number, event in app.pages.fns.items() if event.fn}
    opened = post(client, "run/predict", {"fn_index": numbers["TryingSection.open"], "data": ["", None, None], "session_hash": "demo"})
    assert opened.status_code == 200, opened.text
    data = [None, ["Model"], False, "Hello", 0.7, 32, 1, 0, 0]
    asked = {"fn_index": numbers["TryingSection.answer"], "data": data, "session_hash": "demo"}
    SlowModel.first_was_read.clear()
    joined = post(client, "queue/join", asked)
    assert joined.status_code == 200, joined.text
    first, last = WORDS[0].strip(), WORDS[-1].strip()
    read = []
    with client.stream("GET", "/gradio_api/queue/data?session_hash=demo", timeout=2 * PATIENCE_S) as lines:
        for line in lines.iter_lines():
            read.append(line)
            if first in line and not SlowModel.first_was_read.is_set():
                assert last not in line, "it was kept back until all was written"
                SlowModel.first_was_read.set()
            if "close_stream" in line or "process_completed" in line:
                break
    assert SlowModel.first_was_read.is_set() and any(last in line for line in read)


def lies_about_who_is_asking(client: httpx2.Client) -> None:
    forged = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "x-forwarded-for": "127.0.0.1"}
    reply = client.get("/config", headers=forged)
    assert reply.status_code == 200 and reply.json()["root"] == str(client.base_url).rstrip("/")


def uploads(client: httpx2.Client) -> None:
    # A proxy that has heard enough may close the connection before it has answered.
    for size, fits in ((20_000_000, True), (70_000_000, False)):
        try:
            status = client.post("/gradio_api/upload", files={"files": ("x.jsonl", b"x" * size)}).status_code
        except httpx2.TransportError:
            status = 413
        assert status in ((200,) if fits else (413, 502)), size


def sign_in_is_slowed_down(url: str, tls: ssl.SSLContext) -> None:
    with httpx2.Client(base_url=url, verify=tls, timeout=PATIENCE_S) as client:
        assert 503 in {client.get("/sign-in").status_code for _ in range(40)}
