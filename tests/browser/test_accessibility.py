"""axe-core finds no violation: every state of the judging pages and the other tabs, light and dark, wide and phone."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from storage.core.records import Details, Flag
from storage.judging import exclusions, judgments, queue
from storage.people import annotators
from storage.project import guidelines
from tests.browser.pages import RESTING, ComparePage, HistoryPage, open_tab, settled

pytestmark = pytest.mark.slow

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
EVERYTHING = {"aspects": ("Helpful", "Honest"), "rationale": "required", "ideal_answers": True}
SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
LOOKS = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]


def violations(page) -> list[str]:
    # axe does not scroll: elements behind the sticky bar at the bottom would count as too small to hit, and
    # elements in a fade-out as too low in contrast.
    page.add_style_tag(content=".rl-action-bar { position: static !important } * { transition: none !important }")
    page.wait_for_function(RESTING)
    results = Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}).response
    return [
        f"{rule['id']}: {node['target']} {node['html'][:140]} ({node['failureSummary'][:260]})"
        for rule in results["violations"]
        for node in rule["nodes"]
    ]


def nothing(results: dict[str, list[str]]) -> bool:
    problems = [f"{state}: {complaint}" for state, complaints_ in results.items() for complaint in complaints_]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
    return True


@pytest.fixture(params=LOOKS, ids=lambda look: "-".join(look))
def look(request, browser):
    size, scheme = request.param
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    page = context.new_page()
    yield page, f"?__theme={scheme}"
    context.close()


def test_two_answers(program, project, look):
    page, query = look
    project(**EVERYTHING)
    guidelines.publish(program.store, "Prefer what is **true**.\n\n- And short.", None)
    turns = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))
    conversation = [{"role": role, "content": content} for role, content in turns]
    program.put_in("A **good** answer.\n\n1. One\n2. Two", "A `bad` one.", before=conversation, cut_off=["A `bad` one."])
    compare = ComparePage(page, program.url + query)
    compare.ready()
    results = {"ready": violations(page)}
    compare.press("a", "4")
    compare.press("Escape", "e", "Escape", "f")
    compare.by("flag-unsafe").check()
    results["flags"] = violations(page)
    compare.press("Escape", "Control+Enter")
    results["marked"] = violations(page)
    compare.press("Escape", "?")
    results["keys"] = violations(page)
    compare.press("?", "s")
    expect(compare.by("skip-chooser")).to_be_visible()
    results["skip"] = violations(page)
    assert nothing(results)


def test_many_answers_and_none(program, look):
    page, query = look
    program.put_in(*[f"Answer {i}, of which there is something to say." for i in range(5)])
    compare = ComparePage(page, program.url + query)
    compare.ready()
    results = {"ready": violations(page)}
    compare.press("2", "1", "=", "3")
    if page.viewport_size["width"] < 900:
        compare.by("rank-summary").click()
    compare.by("chip-4").click()
    results["picked"] = violations(page)
    compare.press("Escape", "0", "Enter")
    expect(compare.by("empty-state")).to_be_visible()
    results["empty"] = violations(page)
    assert nothing(results)


def test_history(program, look):
    page, query = look
    annotator = annotators.ensure(program.store, "local")
    program.put_in("One.", "Other.")
    _, shown = queue.next_presentation(program.store, annotator.id)
    details = Details(rationale="Because.", flags=(Flag("unsafe"),))
    judged = judgments.save(
        program.store, shown.id, annotator.id, verdict="rank", tiers=((shown.order[0],), (shown.order[1],)), details=details
    )
    exclusions.exclude(program.store, [judged.id], rule="too fast", reason="Under two seconds.", by=None)
    history = HistoryPage(page, program.url + query)
    results = {"list": violations(page)}
    history.open(0)
    results["correcting"] = violations(page)
    page.keyboard.press("Escape")
    history.by("history-search").fill("nothing like it")
    expect(history.by("history-empty")).to_be_visible()
    results["nothing"] = violations(page)
    assert nothing(results)


def test_the_other_tabs(program, look):
    page, query = look
    results = {}
    with settled(page):
        page.goto(program.url + query)
    for name in ("Training", "Demo", "Data", "Lead", "Leaderboard"):
        with settled(page):
            open_tab(page, name)
        results[name] = violations(page)
    assert nothing(results)
