"""The server keeps little state of a page, of a limited number of pages, and none of a closed one."""

import tracemalloc

import pytest
from served_app import served
from waiting import until

from feedback_ui.server import sessions
from feedback_ui.server.sessions import CAPACITY, LeanSession
from storage.people import accounts


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sessions, "PAGE_HEARTBEAT_S", 0.1)
        with served(tmp_path_factory.mktemp("sessions")) as site:
            site.add_accounts()
            site.web.sessions._grace_s = 0.3
            yield site


def own(site, session: str, who: str = "annotator") -> str:
    """Under which name the server keeps what this visitor's page calls so."""
    return f"{accounts.named(site.store, who).annotator.id}.{session}"


def visit(site, session: str):
    return site.predict("annotator", "show_visitor", [], session_hash=session)


def test_a_call_of_a_component_makes_no_session(site):
    before = set(site.web.sessions.session_data)
    for _ in range(5):
        assert site.ask("annotator", "compare", "next_comparison", {}).status_code == 200
        assert site.ask("annotator", "history", "past_judgments", {}).status_code == 200
        assert site.ask("annotator", "compare", "judge", {"presentation_id": 1}).status_code == 200
    assert set(site.web.sessions.session_data) == before


def test_the_number_of_sessions_is_limited(site):
    for n in range(CAPACITY + 20):
        assert visit(site, f"many{n}").status_code == 200
    assert len(site.web.sessions.session_data) == CAPACITY
    assert own(site, "many0") not in site.web.sessions and own(site, f"many{CAPACITY + 19}") in site.web.sessions


def test_an_open_page_keeps_its_session_at_the_limit(site):
    with site.clients["annotator"].stream("GET", "/gradio_api/heartbeat/open") as beats:
        lines = beats.iter_lines()
        assert next(lines) == "data: ALIVE"
        visit(site, "open")
        for n in range(CAPACITY + 5):
            site.web.sessions[f"others{n}"]
        assert own(site, "open") in site.web.sessions
        assert len(site.web.sessions.session_data) == CAPACITY


def test_a_session_is_dropped_after_its_heartbeat_ends(site):
    with site.clients["annotator"].stream("GET", "/gradio_api/heartbeat/gone") as beats:
        lines = beats.iter_lines()
        next(lines)
        visit(site, "gone")
        assert own(site, "gone") in site.web.sessions
    until(lambda: own(site, "gone") not in site.web.sessions)
    assert own(site, "gone") not in site.web.sessions._open


def test_a_page_that_comes_back_in_time_keeps_its_session(site):
    site.web.sessions._grace_s = 1.0
    with site.clients["annotator"].stream("GET", "/gradio_api/heartbeat/back") as beats:
        lines = beats.iter_lines()
        next(lines)
        visit(site, "back")
    kept = site.web.sessions.session_data[own(site, "back")]
    with site.clients["annotator"].stream("GET", "/gradio_api/heartbeat/back") as beats:
        lines = beats.iter_lines()
        for _ in range(15):
            next(lines)
        assert site.web.sessions.session_data[own(site, "back")] is kept
    site.web.sessions._grace_s = 0.3


def test_a_page_works_on_after_its_session_is_gone(site):
    """The choices that an event has put into a list are in the session: the next event puts them there again."""
    for name in ("forgotten", "forgotten"):
        reply = site.predict("lead", "PromptsSection.open", [], session_hash=name)
        assert reply.status_code == 200
        reply = site.predict("lead", "add_lines", ["Why does bread rise?", "imported", "heldout"], session_hash=name)
        assert reply.status_code == 200 and "no_value" not in reply.text
        site.web.sessions._drop(own(site, name, "lead"))
    assert site.store.value("SELECT count(*) FROM prompts") >= 1


def test_a_session_is_small(site):
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [LeanSession(site.pages) for _ in range(50)]
    each = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()
    assert each < 60_000, "Gradio's own takes 430,000"


def test_what_events_have_changed_is_kept_in_the_session_alone(site):
    session = LeanSession(site.pages)
    number, block = next(iter(site.pages.blocks.items()))
    changed = type(block)()
    session[number] = changed
    assert session[number] is changed and site.pages.blocks[number] is block


def test_a_preview_s_file_goes_with_its_session(site):
    """It is kept for the page that asked for it, and nobody else's call reaches it."""
    row = b'{"prompt": "Why do kites fly?", "kind": "kites"}\n'

    def look(session):
        uploaded = site.upload("lead", row, f"{session}.jsonl").json()[0]
        claim = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
        assert site.predict("lead", "import_file", [claim, "recognised", "", "", True], session_hash=session).status_code == 200

    look("first")
    (kept,) = site.uploads()
    assert kept.name == "first.jsonl"
    # Another page of the same lead, and another lead's page of the same name, have nothing to import.
    for who, session in (("lead", "second"), ("other lead", "first")):
        reply = site.predict(who, "import_kept", [None], session_hash=session)
        assert "choose it again" in reply.text
    # What a browser says that it keeps counts for nothing.
    claimed = {"path": str(site.folder / "rankloop.db")}
    assert site.predict("lead", "import_kept", [claimed], session_hash="third").status_code == 400
    assert "choose it again" in site.predict("lead", "import_kept", [[str(kept)]], session_hash="third").text
    with site.clients["lead"].stream("GET", "/gradio_api/heartbeat/first") as beats:
        assert next(beats.iter_lines()) == "data: ALIVE"
    until(lambda: not site.uploads())
    assert "choose it again" in site.predict("lead", "import_kept", [None], session_hash="first").text
    # And with a session that makes room for others.
    look("again")
    for n in range(CAPACITY + 5):
        site.web.sessions[f"room{n}"]
    assert not site.uploads()
