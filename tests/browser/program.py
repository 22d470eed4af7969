"""The real program as a process of its own; its pages are in `pages`.

Tests use it through its port, its signals and its data folder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, cycle
from json import dumps, loads
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil

from feedback_ui.judging import compare
from storage.content import comparisons, completions, policies, prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database, now
from storage.core.records import Comparison, Judgment, Message, ProjectSettings, Sampling
from storage.judging import judgments, presentations, queue
from storage.judging.row_tokens import RowTokens
from storage.people import annotators
from storage.project import settings
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]

HOST = "127.0.0.1"

SECRET_MODELS = ("Zarquon-7B-teacher", "Vogsphere-9B-pupil")
"""The models that wrote the comparisons of a test; the names are conspicuous, so that a leak can be found."""

FIRST_SECRET_ID = 73_519_400
"""Ids of policies and completions begin here: a number that occurs nowhere else in pages and responses."""


def eventually(condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S, every_s: float = 0.1) -> Any:
    """What the condition gives once it gives something."""
    give_up_at = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"not within {within_s:.0f} s: {what}"
        time.sleep(every_s)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Program:
    """`python launch.py serve` over a data folder of its own."""

    starts_within_s = 300.0

    def __init__(self, data: Path, model: Path, *options: str, environment: Mapping[str, str] | None = None):
        self.folder, self.model, self.options = DataFolder(data), model, options
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
        self.store = Database(self.folder.database)
        self.process: subprocess.Popen | None = None
        self.url = ""

    def start(self, *, at: str | None = None) -> Program:
        """Starts it, and waits until it serves. A second start is a restart over the same folder, at its old address if it is given."""
        port = urlsplit(at).port if at else free_port()
        self.url = f"http://{HOST}:{port}"
        command = [
            sys.executable, "launch.py", "serve", "--data", str(self.folder.root), "--model", str(self.model), "--port", str(port),
        ]  # fmt: skip
        with (self.folder.root / "web.log").open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *self.options], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=self.environment,
                preexec_fn=as_if_started_by_hand,
            )  # fmt: skip
        eventually(self._serves, f"{self.url} serves", within_s=self.starts_within_s)
        return self

    def _serves(self) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
        try:
            return httpx2.get(self.url, timeout=PATIENCE_S).is_success
        except httpx2.HTTPError:
            return False

    def log(self) -> str:
        return (self.folder.root / "web.log").read_text(errors="replace")

    def until_answering(self) -> psutil.Process:
        """Waits until the policy server has loaded its model, and returns its process."""
        policy_log = self.folder.logs / "policy-server.log"
        eventually(lambda: "policy server ready" in policy_log.read_text(errors="replace"), "the policy server is ready", within_s=300)
        return self.policy_server()

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.process.kill()
        self.process.wait()

    def interrupt(self, *, within_s: float) -> int:
        """Sends SIGINT, and returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=within_s)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def end(self) -> None:
        """Stops it and every run that it started."""
        self.stop()
        for process in psutil.process_iter(["cmdline"]):
            if str(self.folder.root) in (process.info["cmdline"] or []):
                process.kill()
        self.store.close()

    def policy_server(self) -> psutil.Process | None:
        """Its policy server, if one is running."""
        children = psutil.Process(self.process.pid).children()
        for child in children:
            # A process that just ended has no arguments any more.
            with suppress(psutil.Error):
                if "rlhf.generation.server" in child.cmdline():
                    return child
        return None

    # ---- what is in its store

    def put_in(self, *answers: str, question: str | None = None, before: Sequence[Message] = (), cut_off: Sequence[str] = ()) -> Comparison:
        """A comparison of two or more answers, each from a model whose name must not be shown; some of them reached their limit."""
        question = question or f"Question {comparison_numbers()}?"
        messages = (*before, {"role": "user", "content": question})
        prompts.add(self.store, [prompts.NewPrompt(messages, split="train")], source="test")
        prompt = next(p for p in prompts.of_split(self.store) if p.text == question)
        ids = [
            completions.add(
                self.store, prompt_id=prompt.id, policy_version_id=policy_id, text=text, sampling=Sampling(), seed=0,
                finish_reason="length" if text in cut_off else "stop", latency_s=0.1,
            )
            for policy_id, text in zip(cycle(self._secret_policies(prompt.id)), answers, strict=False)
        ]  # fmt: skip
        return comparisons.get(self.store, comparisons.add(self.store, prompt.id, ids, purpose="versus"))

    def _secret_policies(self, prompt_id: int) -> list[int]:
        ids = [FIRST_SECRET_ID + i for i in range(len(SECRET_MODELS))]
        if not {version.id for version in policies.all_versions(self.store)}.issuperset(ids):
            for policy_id, name in zip(ids, SECRET_MODELS, strict=True):
                version = {"id": policy_id, "name": name, "kind": "external", "base_model": name, "created_at": now()}
                self.store.insert("policy_versions", version)
            # Whatever is added after a high id gets a higher one.
            self.store.insert("completions", {
                "id": FIRST_SECRET_ID, "prompt_id": prompt_id, "policy_version_id": ids[0], "text": "unused", "sampling": {},
                "seed": 0, "finish_reason": "stop", "latency_s": 0.0, "created_at": now(),
            })  # fmt: skip
        return ids

    def ask_for(self, **settings_: Any) -> None:
        """Changes the project's settings from the defaults to these; without any, back to the defaults."""
        settings.change(self.store, ProjectSettings(**settings_), None)

    def clear_queue(self) -> None:
        """Judges all waiting comparisons, so that a test begins with an empty queue."""
        annotator = annotators.ensure(self.store, "local")
        while found := queue.next_presentation(self.store, annotator.id):
            _, shown = found
            judgments.save(self.store, shown.id, annotator.id, verdict="rank", tiers=(shown.order,))

    def judged(self) -> int:
        return annotators.ensure(self.store, "local").judged

    def judged_today(self) -> int:
        """As `judged`, since midnight in the browser's time zone, which is UTC in the tests."""
        given = judgments.given_since(self.store, annotators.ensure(self.store, "local").id, compare.midnight(0))
        return given.ranks + given.skips

    def last_judgment(self) -> Judgment:
        row = dict(self.store.row("SELECT * FROM active_judgments ORDER BY id DESC LIMIT 1"))
        tiers = tuple(tuple(tier) for tier in loads(row["tiers"]))
        read = {field.name: row.get(field.name) for field in fields(Judgment)}
        return Judgment(**read | {"tiers": tiers, "all_bad": bool(row["all_bad"])})

    def presentation_of(self, name: str) -> int:
        """The id that belongs to a presentation token of the page."""
        annotator = annotators.ensure(self.store, "local")
        return RowTokens(self.store).open("presentation", name, annotator.id)

    def texts_in_order(self, shown_as: int | str) -> list[tuple[int, str]]:
        """The completions of a presentation, given by id or by token, slot by slot, as stored."""
        presentation_id = shown_as if isinstance(shown_as, int) else self.presentation_of(shown_as)
        shown = presentations.get(self.store, presentation_id)
        texts = {c.id: c.text for c in comparisons.get(self.store, shown.comparison_id).completions}
        return [(completion_id, texts[completion_id]) for completion_id in shown.order]


def as_if_started_by_hand() -> None:
    # Tests that run in the background of a script inherit an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG: the program ends when the tests are killed.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


comparison_numbers = count(1).__next__


class Endpoint:
    """An OpenAI-compatible endpoint that answers as often as `allow` permits, and is overloaded otherwise."""

    def __init__(self) -> None:
        self.allowed = 0
        self.asked_as_proxy: list[str] = []
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, reply = endpoint._answer()
                body = dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                endpoint.asked_as_proxy.append(f"{self.command} {self.path}")
                self.send_error(502)

            do_CONNECT = do_HEAD = do_GET

            def log_message(self, *_arguments) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def options(self) -> tuple[str, ...]:
        return ("--endpoint", self.url, "--endpoint-model", "distant")

    @property
    def as_proxy(self) -> dict[str, str]:
        """An environment with this endpoint as proxy, which records outgoing requests and refuses them."""
        proxy = self.url.removesuffix("/v1")
        names = {name: proxy for name in ("http_proxy", "https_proxy", "all_proxy")} | {"no_proxy": f"{HOST},localhost"}
        return names | {name.upper(): value for name, value in names.items()}

    def allow(self, answers: int) -> None:
        with self._lock:
            self.allowed = answers

    def _answer(self) -> tuple[int, dict]:
        with self._lock:
            if not self.allowed:
                return 503, {"error": {"message": "overloaded"}}
            self.allowed -= 1
            text = f"Distant answer {self.allowed}."
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, {"id": "x", "object": "chat.completion", "created": 0, "model": "distant", "choices": [choice]}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
