"""A database with damaged pages is reported at the start and on the pages, with the remedy, and causes no bare error."""

import asyncio

import httpx2
import pytest
from damaged import damage

from feedback_ui.app import build_app
from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving
from feedback_ui.server.web import Web
from feedback_ui.shared.i18n import Translator
from feedback_ui.visitor import store_warnings
from launch import main
from rlhf.config import RoundConfig
from rlhf.runs.jobs import Jobs
from rlhf.serving.client import PolicyClient
from storage.analytics.stats import stats
from storage.content import comparisons, prompts
from storage.core import integrity
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.judging import judgments, queue
from storage.people import annotators
from tests.storage.conftest import make_world


@pytest.fixture
def damaged(store):
    world = make_world(store)
    world.comparisons(5)
    world.rank(world.ann)
    store.close()
    damage(store.path, "prompts", "judgments")
    again = Database(store.path)
    yield again
    again.close()


@pytest.mark.parametrize(
    "act",
    [
        lambda store: prompts.of_split(store),
        lambda store: prompts.get(store, 1),
        lambda store: list(judgments.stream(store)),
        lambda store: judgments.get(store, 1),
        lambda store: comparisons.many(store, [1, 2]),
        lambda store: queue.next_presentation(store, 1),
        lambda store: judgments.undo(store, 1),
        lambda store: stats(store),
        lambda store: prompts.add(store, [prompts.NewPrompt([{"role": "user", "content": "New?"}])], source="x"),
    ],
)
def test_read_and_write_errors_have_a_remedy(damaged, act):
    with pytest.raises(StoreError, match="stop rankloop and restore a backup"):
        act(damaged)
    assert damaged.damage
    assert [annotator.name for annotator in annotators.all_annotators(damaged)] == ["Ann", "Bob", "longest"]


def test_the_pages_say_it(damaged):
    integrity.start_quick_check(damaged, wait_s=60)
    assert "file is damaged" in store_warnings(Translator("en"), damaged)
    assert "손상" in store_warnings(Translator("ko"), damaged)


def test_a_handler_shows_the_error_on_the_page(damaged):
    jobs = Jobs(damaged, DataFolder(damaged.path.parent))

    # In a loop that runs: Gradio opens one and never closes it where there is none.
    async def made() -> Web:
        auth = Auth(damaged)
        return Web(build_app(damaged, jobs, PolicyClient("http://127.0.0.1:9/v1"), auth, default_config=RoundConfig()), auth)

    web = asyncio.run(made())
    opens_data = next(number for number, handler in web.pages.fns.items() if handler.fn and "DataPage.show" in handler.fn.__qualname__)
    serving = Serving(web, "127.0.0.1", 0)
    try:
        asked = {"fn_index": opens_data, "data": [], "session_hash": "x"}
        reply = httpx2.post(f"{serving.url}/gradio_api/run/predict", json=asked, timeout=30)
    finally:
        serving.stop()
    assert reply.status_code == 503 and "restore a backup" in reply.json()["error"]


def test_deleted_files_are_reported_on_every_page(store):
    annotators.ensure(store, "Ann")
    store.path.with_name("rankloop.db-wal").unlink()
    assert "nothing is saved any more" in store_warnings(Translator("en"), store)


def test_the_command_line_says_what_to_do_and_has_no_traceback(damaged, capsys):
    damaged.close()
    for verb in ("stats", "runs", "agreement", "leaderboard"):
        status = main([verb, "--data", str(damaged.path.parent)])
        said = capsys.readouterr().err
        assert status in (0, 2) and "Traceback" not in said and ("restore a backup" in said) == (status == 2)
    assert main(["stats", "--data", str(damaged.path.parent)]) == 2
