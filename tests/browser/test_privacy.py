"""A page shows no secret, runs no script of an answer and fetches nothing from other hosts."""

import httpx2
import pytest
from playwright.sync_api import expect

from storage.content import prompts
from storage.project import runs
from tests.browser.pages import ComparePage, Traffic, TrainingPage, settled
from tests.browser.program import FIRST_SECRET_ID, SECRET_MODELS
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

HOSTILE = (
    "<script>window.ran = 1; alert(1)</script>",
    "<img src=x onerror='window.ran = 2; alert(2)'>",
    "![picture](http://evil.example/a.png) <img src='http://evil.example/b.png'>",
    "[click me](javascript:window.ran=3) <a href='javascript:alert(3)'>or me</a>",
    "${window.ran = 4} ${alert(4)} `${alert(4)}`",
    "{{constructor.constructor('window.ran=5;alert(5)')()}} {{#each x}}{{this}}{{/each}}",
    "$\\href{javascript:alert(6)}{x}$ $$\\includegraphics{http://evil.example/c.png}$$",
    "<iframe src='http://evil.example/d' srcdoc='<script>parent.ran = 7</script>'></iframe>",
    "<style>@import url(http://evil.example/e.css); * { background: url(http://evil.example/f) }</style>",
    "<svg onload='window.ran = 8; alert(8)'><use href='http://evil.example/g#x'/></svg>",
    "<link rel=stylesheet href='http://evil.example/h.css'><meta http-equiv=refresh content='0;url=http://evil.example/i'>",
    "</textarea></template></style></script><script>window.ran = 9</script>",
    "<details open ontoggle='window.ran = 10'>x</details> <form action='http://evil.example'><button>go</button></form>",
)


def test_nothing_sent_to_the_compare_page_names_the_policy_of_an_answer(program, page):
    shown = [program.put_in(f"This one {i}.", f"That one {i}.") for i in range(3)]
    traffic = Traffic(page)
    compare = ComparePage(page, program.url)
    compare.judge(button="choose-a")
    compare.judge(key="t")
    compare.judge(key="u")
    replies = traffic.replies()
    assert len([url for url in replies if "component_server" in url]) > 0
    secrets = [*SECRET_MODELS, *(str(FIRST_SECRET_ID + i) for i in range(2)), *(str(c.id) for x in shown for c in x.completions)]
    assert len(secrets) == 10
    for where, text in {**replies, "the page": page.content()}.items():
        assert not [secret for secret in secrets if secret in text], where
    # The base model's name is a setting of the Training page; it must not be on this page either.
    spoken = [text for url, text in replies.items() if "component_server" in url]
    for text in [*spoken, compare.root.inner_html()]:
        assert program.model.name not in text


def test_hostile_answers_are_shown_and_no_script_runs(program, page):
    for i, text in enumerate(HOSTILE):
        program.put_in(text, f"Harmless {i}.", question=f"{text} number {i}-{program.judged()}")
    traffic = Traffic(page)
    compare = ComparePage(page, program.url)
    for i, text in enumerate(HOSTILE):
        shown = dict(program.texts_in_order(compare.ready()))
        assert text in shown.values()
        answers = compare.answers()
        assert f"Harmless {i}." in answers
        assert all(len(answer.strip()) > 10 for answer in answers)
        if i == 0:
            assert text in answers
        page.wait_for_timeout(30)
        compare.by("choose-a").click()
        if i < len(HOSTILE) - 1:
            compare.ready()
    expect(compare.by("empty-state")).to_be_visible()
    assert page.evaluate("window.ran") is None
    assert traffic.dialogs == []
    assert traffic.hosts() == {"127.0.0.1"}


def test_hostile_samples_and_errors_of_a_run_are_shown_and_no_script_runs(program, page):
    prompt = prompts.of_split(program.store)[0]
    run_id = f"r-hostile-{program.judged()}"
    text = "\n\n".join(HOSTILE)
    runs.create(program.store, run_id, config={}, seed=0, versions={})
    runs.save_sample(program.store, run_id, prompt.id, before=text)
    runs.set_sample_after(program.store, run_id, prompt.id, after=text)
    runs.finish(program.store, run_id, "failed", error=text)
    traffic = Traffic(page)
    page.goto(program.url)
    training = TrainingPage(page)
    training.expect_status("Failed", within_s=PATIENCE_S)
    training.show("samples")
    expect(page.get_by_test_id("samples")).to_contain_text("window.ran = 1; alert(1)")
    expect(page.get_by_test_id("run-error")).to_contain_text("<script>window.ran = 1; alert(1)</script>")
    for tab in ("Demo", "Data", "Compare"):
        with settled(page):
            page.get_by_role("tab", name=tab).click()
    assert page.evaluate("window.ran") is None
    assert traffic.dialogs == []
    assert traffic.hosts() == {"127.0.0.1"}


@pytest.mark.parametrize(
    "route", ["/gradio_api/file=", "/file=", "/static/", "/assets/", "/gradio_api/custom_component/", "/gradio_api/stream/", "/"]
)
def test_no_route_serves_a_file_of_the_data_folder(program, route):
    database = program.folder.database
    for name in (str(database), f"../../../../../../..{database}", f"..%2f..%2f..%2f..%2f..%2f..%2f..{str(database).replace('/', '%2f')}"):
        reply = httpx2.get(program.url + route + name, timeout=PATIENCE_S)
        assert reply.status_code >= 400
        assert b"SQLite format" not in reply.content


@pytest.mark.parametrize("function", ["__init__", "postprocess", "serve_static_file", "read", "preprocess", "judge.__globals__"])
def test_the_component_has_no_other_functions_than_its_own(program, function):
    config = httpx2.get(f"{program.url}/config", timeout=PATIENCE_S).json()
    component = next(c for c in config["components"] if c["props"].get("elem_id") == "compare")
    asked = {"data": str(program.folder.database), "component_id": component["id"], "fn_name": function, "session_hash": "x"}
    reply = httpx2.post(f"{program.url}/gradio_api/component_server", json=asked, timeout=PATIENCE_S)
    assert reply.status_code >= 400
    assert b"SQLite format" not in reply.content


def test_the_program_makes_no_requests_to_other_hosts(program, silent, page):
    ComparePage(page, program.url)
    program.until_answering()
    assert silent.asked_as_proxy == []
    assert httpx2.get(f"{program.url}/config", timeout=PATIENCE_S).json()["analytics_enabled"] is False
