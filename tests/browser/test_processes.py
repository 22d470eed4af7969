"""Processes are killed, stopped and restarted; no judgment is lost, and annotators can go on."""

import json
import re
import subprocess
import sys

import psutil
import pytest
from playwright.sync_api import expect

from tests.browser.pages import ComparePage
from tests.browser.program import ROOT, eventually
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_an_acknowledged_judgment_survives_kill_9(new_program, page):
    program = new_program()
    for i in range(3):
        program.put_in(f"First {i}.", f"Second {i}.")
    compare = ComparePage(page, program.start().url)
    compare.judge(button="choose-a")
    shown = compare.ready()
    server = program.until_answering()
    with page.expect_response(lambda reply: "component_server" in reply.url):
        compare.by("choose-b").click()
    program.kill()
    assert program.judged() == 2
    better, worse = (program.texts_in_order(shown)[slot][0] for slot in (1, 0))
    assert program.last_judgment().tiers == ((better,), (worse,))
    eventually(lambda: gone(server), "the orphaned policy server ends by itself")

    # A killed program keeps no lock on its folder.
    compare = ComparePage(page, program.start().url)
    compare.ready()
    assert compare.count() == 2
    compare.judge(key="1")
    assert compare.count() == program.judged() == 3
    assert json.loads(program.store.row("SELECT tiers FROM judgments ORDER BY id LIMIT 1 OFFSET 1")[0]) == [[better], [worse]]


def test_a_judgment_is_sent_by_itself_when_the_server_is_back(new_program, page):
    program = new_program()
    for i in range(3):
        program.put_in(f"First {i}.", f"Second {i}.")
    url = program.start().url
    compare = ComparePage(page, url)
    shown = compare.ready()
    program.kill()
    compare.by("choose-b").click()
    expect(compare.by("problem")).to_contain_text("Not saved yet: the server does not answer. Your choice (B is better)")
    expect(compare.by("retry")).to_be_focused()
    assert program.judged() == 0
    program.start(at=url)
    # Nobody presses anything.
    expect(compare.root).not_to_have_attribute("data-presentation", shown)
    compare.ready()
    expect(compare.by("problem")).to_be_hidden()
    better, worse = (program.texts_in_order(shown)[slot][0] for slot in (1, 0))
    assert (program.judged(), program.last_judgment().tiers) == (1, ((better,), (worse,)))
    compare.judge(key="a")
    assert program.judged() == 2


def test_a_judgment_that_was_not_sent_survives_a_reload_and_is_saved_once(new_program, page):
    program = new_program()
    for i in range(3):
        program.put_in(f"First {i}.", f"Second {i}.")
    url = program.start().url
    compare = ComparePage(page, url)
    shown = compare.ready()
    program.kill()
    compare.by("choose-a").click()
    expect(compare.by("problem")).to_be_visible()
    # The tab is closed and opened again, with its session.
    page.goto("about:blank")
    program.start(at=url)
    page.goto(url)
    expect(compare.root).not_to_have_attribute("data-presentation", shown)
    compare.ready()
    assert (program.judged(), compare.presentation() == shown) == (1, False)
    page.reload()
    compare.ready()
    assert program.judged() == 1


def test_a_judgment_is_not_acknowledged_after_the_database_file_was_deleted(new_program, page):
    """All judgments acknowledged before are in the rescue copy, and can be restored from it."""
    program = new_program()
    for i in range(4):
        program.put_in(f"First {i}.", f"Second {i}.")
    compare = ComparePage(page, program.start().url)
    for _ in range(2):
        compare.judge(button="choose-a")
    program.store.close()
    program.folder.database.with_name("rankloop.db-wal").unlink()
    compare.by("choose-b").click()
    expect(page.get_by_text(re.compile("were deleted, moved or replaced.*nothing is saved any more")).first).to_be_visible()
    assert compare.count() == 2
    page.reload()
    expect(page.get_by_test_id("trouble")).to_contain_text("nothing is saved any more")
    expect(page.get_by_test_id("trouble")).to_be_visible()
    program.kill()

    # The policy server may have noticed as well, at the same moment.
    copy = max(program.folder.root.glob("rankloop-rescued-*.db"))
    restore = [sys.executable, "launch.py", "restore", "--data", str(program.folder.root), str(copy), "--force"]
    assert subprocess.run(restore, cwd=ROOT).returncode == 0
    compare = ComparePage(page, program.start().url)
    compare.ready()
    assert compare.count() == program.judged() == 2
    assert copy.name in program.log()


def test_a_second_serve_is_refused_and_names_the_first(program):
    command = [sys.executable, "launch.py", "serve", "--data", str(program.folder.root), "--model", str(program.model), "--port", "0"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert result.returncode == 2 and f"rankloop serve (process {program.process.pid}, {program.url})" in result.stderr


def test_a_killed_policy_server_comes_back_while_people_judge_and_ctrl_c_stops_it_too(new_program, page):
    program = new_program()
    for i in range(4):
        program.put_in(f"First {i}.", f"Second {i}.")
    compare = ComparePage(page, program.start().url)
    compare.ready()
    server = eventually(program.policy_server, "a policy server")
    server.kill()
    for _ in range(3):
        compare.judge(button="choose-a")
    assert program.judged() == 3
    eventually(lambda: (new := program.policy_server()) and new.pid != server.pid, "the policy server is started again")
    # Alone, it writes what is missing.
    eventually(lambda: program.store.value("SELECT count(*) FROM comparisons") > 4, "the new policy server fills the queue", within_s=300)

    # Ctrl-C stops the program and its policy server.
    server = program.policy_server()
    assert program.interrupt(within_s=PATIENCE_S) == 0
    assert gone(server)
    assert "Traceback" not in program.log()


def test_an_empty_queue_shows_the_waiting_time_and_updates_by_itself(new_program, endpoint, page):
    program = new_program(*endpoint.options)
    compare = ComparePage(page, program.start().url)
    expect(compare.by("empty-state")).to_contain_text("No comparison is waiting")
    # The first two comparisons are asked for together.
    endpoint.allow(4)
    answers = []
    for _ in range(2):
        compare.ready()
        answers += compare.answers()
        compare.by("choose-a").click()
        expect(compare.by("saved-note")).to_contain_text("A is better")
    assert sorted(answers) == [f"Distant answer {i}." for i in range(4)]
    expect(compare.by("empty-state")).to_contain_text(
        re.compile(r"The model is writing new answers: about \d+ s\. This page updates by itself\.")
    )
    assert compare.count() == 2
    endpoint.allow(100)
    compare.ready()
    assert compare.by("empty-state").is_hidden()
