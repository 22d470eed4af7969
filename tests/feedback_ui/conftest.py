"""A store with comparisons to judge, and fakes of the two other processes: the worker and the policy server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from called_pages import page

import feedback_ui
from feedback_ui.app import build_app
from feedback_ui.judging.compare import CompareService
from feedback_ui.server.auth import Auth
from rlhf.config import PRESETS, RoundConfig
from rlhf.serving.client import AnswerPiece, PolicyServerDown, ServerStatus
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database
from storage.core.records import Sampling
from storage.people import annotators
from storage.project import runs


class FakeServer:
    """A fake policy server whose status and answers a test sets."""

    def __init__(self, answers: dict[str, list[str]] | None = None):
        self.answers = answers or {}
        self.down: str | None = None
        self.finish_reason = "stop"
        self.requests: list[tuple[str, list, Sampling, int]] = []
        """Model, messages, sampling parameters and seed of each answer that was asked for."""
        self.now = ServerStatus(ready=True, filling=False, seconds_per_comparison=None, note="")

    def fill(self, seconds_per_comparison: float | None) -> None:
        """Comparisons of two answers are written, each in this time."""
        per_answer = seconds_per_comparison and seconds_per_comparison / 2
        self.now = ServerStatus(True, True, seconds_per_comparison, "", seconds_per_answer=per_answer)

    def collect_from(self, model: str) -> None:
        self.now = ServerStatus(True, True, None, "", collectors=[model])

    def fall_over(self, message: str) -> None:
        self.down = message

    def models(self) -> list[str]:
        self._answer()
        return list(self.answers)

    def status(self) -> ServerStatus:
        self._answer()
        return self.now

    async def stream(self, model, messages, sampling, *, seed) -> AsyncIterator[AnswerPiece]:
        self._answer()
        self.requests.append((model, messages, sampling, seed))
        for text in self.answers[model]:
            yield self.piece(text)
        yield self.piece("", self.finish_reason)

    piece = staticmethod(AnswerPiece)

    def _answer(self) -> None:
        if self.down:
            raise PolicyServerDown(self.down)


@pytest.fixture
def build():
    """Calls a function inside a running event loop; without one, Gradio opens one and never closes it."""

    async def called(function, *arguments, **options):
        return function(*arguments, **options)

    return lambda *arguments, **options: asyncio.run(called(*arguments, **options))


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def local(store):
    return annotators.ensure(store, "local")


@pytest.fixture
def service(store, server):
    return CompareService(store, server)


@pytest.fixture
def waiting(store):
    """Two waiting comparisons, each of a "good" and a "bad" completion."""
    conversation = (
        {"role": "user", "content": "My bread is flat."},
        {"role": "assistant", "content": "How long did it rise?"},
        {"role": "user", "content": "Two hours. <b>Why?</b>"},
    )
    prompts.add(
        store,
        [
            prompts.NewPrompt(({"role": "user", "content": "Why does bread rise?"},), kind="explain", split="train"),
            prompts.NewPrompt(conversation, kind="dialogue", split="train"),
        ],
        source="test",
    )
    base = policies.ensure_base(store, "SecretModel")
    return [_comparison(store, prompt, base) for prompt in prompts.of_split(store)]


def _comparison(store, prompt, version):
    ids = [
        completions.add(
            store,
            prompt_id=prompt.id,
            policy_version_id=version.id,
            text=f"{quality} answer {prompt.id}",
            sampling=Sampling(),
            seed=0,
            finish_reason="stop",
            latency_s=0.1,
        )
        for quality in ("good", "bad")
    ]
    return comparisons.get(store, comparisons.add(store, prompt.id, ids, purpose="collect"))


@pytest.fixture
def assets() -> Path:
    return Path(feedback_ui.__file__).parent / "assets"


class FakeJobs:
    """Fake jobs without processes: a test advances a run by writing rows, as a worker would."""

    def __init__(self, store):
        self.store = store
        self.started: list[RoundConfig] = []
        self.refusal: Exception | None = None

    def refuse(self, error):
        self.refusal = error

    def start(self, config, by=None):
        if self.refusal:
            raise self.refusal
        self.started.append(config)
        return runs.create(self.store, f"r{len(self.started)}", config=config.to_dict(), seed=config.seed, versions={})

    def cancel(self, run_id):
        runs.request_cancel(self.store, run_id)

    def resume(self, run_id, *, go_on=False):
        self.gone_on = go_on
        return runs.requeue(self.store, run_id)

    def log_tail(self, run_id, lines=40):
        return f"log of {run_id}"


@pytest.fixture
def jobs(store):
    return FakeJobs(store)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The app over nobody's store, built once, because building it takes longer than most tests."""

    async def made():
        store = Database(tmp_path_factory.mktemp("nobody's") / "rankloop.db")
        app = build_app(store, None, None, Auth(store), default_config=PRESETS["laptop"])
        store.close()
        return app

    return asyncio.run(made())


@pytest.fixture
def app(built, store, jobs, server, monkeypatch):
    """The Training and the Demo page of the app over this test's store and processes."""
    training, demo = page(built, "TrainingPage"), page(built, "DemoPage")
    of_training = (training.form, training.naming, training.side_by_side, training.queue, training.triggers)
    for owner in (training, *of_training, demo, demo.trying, demo.gallery, demo.versions):
        for name, mine in (("store", store), ("auth", Auth(store)), ("jobs", jobs), ("client", server)):
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, mine)
    return built
