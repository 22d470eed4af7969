"""The Demo page in Chromium, with a real policy server: answers side by side, blind votes, links, the gallery and the cards of versions."""

import pytest
from playwright.sync_api import expect

from rlhf.config import AdapterConfig, RoundConfig
from rlhf.models.backbone import Backbone
from rlhf.runs import token_changes
from rlhf.runs.results import Estimate, RoundResult
from rlhf.runs.token_changes import AnswerChange, SampleChange, TokenChange, TokenChanges
from storage.content import policies, prompts
from storage.judging import demo_votes
from storage.project import runs
from tests.browser.pages import open_tab, settled
from tests.browser.program import Program, eventually
from tests.browser.test_accessibility import LOOKS, SIZES, nothing, violations
from tests.support.learning import scramble
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

BASE = "tiny-model"
TUNED = ("tuned-one", "tuned-two")


def add_version(program, name, number):
    """A tuned version with a finished run that has samples, as a round leaves them."""
    run_id = f"run-{number}"
    folder = program.folder.run(run_id)
    maker = Backbone.load(program.model, "cpu", "float32")
    maker.add_adapter("policy", AdapterConfig(rank=4), seed=number)
    scramble(maker, "policy", seed=number, scale=0.3)
    maker.save_adapter("policy", folder / "policy")
    store = program.store
    runs.create(store, run_id, config=RoundConfig().to_dict(), seed=number, versions={"torch": "2.13.0"})
    runs.set_snapshot(store, run_id, {"pairs": 40, "train": 32, "heldout": 8, "sha256": "ab" * 32})
    changes = []
    for at, prompt in enumerate(prompts.of_split(store, "heldout")):
        runs.save_sample(store, run_id, prompt.id, before="The base said so.", score_before=0.5)
        runs.set_sample_after(store, run_id, prompt.id, after=f"Tuned answer {at}", score_after=at - 0.5)
        before = AnswerChange([TokenChange("The base said", -0.3), TokenChange(" so.", -2.0)])
        after = AnswerChange(
            [TokenChange("Tuned", 3.5), TokenChange(" answer", 0.0), TokenChange(f" {at}", 0.2 + at), TokenChange("", -0.7)]
        )
        changes.append(SampleChange(prompt.id, before, after))
    token_changes.write(folder, TokenChanges(1.0, changes))
    result = RoundResult(win_rate=Estimate(0.64, 0.55, 0.72, 40), kl=2.5, policy_version=name)
    runs.finish(store, run_id, "done", result=result.to_json())
    policies.register_tuned(store, name=name, base_model=str(program.model), adapter_path=folder / "policy", run_id=run_id)


@pytest.fixture(scope="module")
def program(tmp_path_factory, tiny_model):
    own = Program(tmp_path_factory.mktemp("demo") / "data", tiny_model)
    questions = [{"role": "user", "content": f"Held-out question {number}?"} for number in range(3)]
    prompts.add(own.store, [prompts.NewPrompt((question,), split="heldout") for question in questions], source="test")
    policies.ensure_base(own.store, str(tiny_model), name=BASE)
    for number, name in enumerate(TUNED):
        add_version(own, name, number)
    own.start().until_answering()
    yield own
    own.end()


class Demo:
    """The page's first section."""

    def __init__(self, page, url, query=""):
        self.page = page
        with settled(page):
            page.goto(url + query)
        with settled(page):
            open_tab(page, "Demo")
        expect(page.locator("#demo-versions-chosen")).to_contain_text(BASE)

    def ask(self, prompt, *, answers=2, tokens=16):
        self.page.locator("#demo-tokens input[type=number]").fill(str(tokens))
        self.page.locator("#demo-prompt textarea").fill(prompt)
        self.page.locator("#demo-ask").click()
        self.written(prompt, answers)

    def written(self, prompt, answers=2):
        expect(self.page.locator("#demo-current .rl-asked")).to_have_text(prompt)
        expect(self.page.locator("#demo-current .rl-answer .rl-prose:not([aria-busy])")).to_have_count(answers)
        expect(self.page.locator("#demo-ask")).to_be_enabled()

    def names(self):
        return self.page.locator("#demo-current .rl-answer h3").all_inner_texts()

    def texts(self):
        return self.page.locator("#demo-current .rl-source").all_text_contents()


@pytest.fixture
def demo(page, program):
    return Demo(page, program.url)


def test_a_conversation_of_two_turns_and_another_try(demo, page):
    demo.ask("Hello")
    assert demo.names() == [BASE, "tuned-two"]
    first = demo.texts()
    demo.ask("And then?")
    expect(page.locator("#demo-earlier .rl-turn")).to_have_count(1)
    expect(page.locator("#demo-earlier .rl-asked")).to_have_text("Hello")
    second = demo.texts()
    page.locator("#demo-retry").click()
    expect(page.locator("#demo-current")).to_contain_text("Seed 1,")
    demo.written("And then?")
    assert demo.texts() != second
    page.locator("#demo-more button").first.click()
    expect(page.locator("#demo-seed input")).to_have_value("1")
    page.locator("#demo-new").click()
    expect(page.locator("#demo-current")).to_contain_text("The answers appear here")
    page.locator("#demo-seed input").fill("0")
    demo.ask("Hello")
    assert demo.texts() == first, "the same seed gives the same answers"


def test_an_empty_prompt_leaves_the_answers(demo, page):
    demo.ask("Hello")
    said = demo.texts()
    for act in (lambda: page.locator("#demo-ask").click(), lambda: page.locator("#demo-prompt textarea").press("Enter")):
        with settled(page):
            act()
        expect(page.locator("#demo-notice")).to_contain_text("Write a prompt first.")
        assert demo.texts() == said


def test_stop_keeps_what_has_come(demo, page):
    page.locator("#demo-tokens input[type=number]").fill("512")
    page.locator("#demo-prompt textarea").fill("Write on")
    page.locator("#demo-ask").click()
    eventually(lambda: len(page.locator("#demo-current .rl-answer .rl-prose").first.inner_text()) > 5, "something has come")
    page.locator("#demo-stop").click()
    expect(page.locator("#demo-ask")).to_be_enabled()
    expect(page.locator("#demo-current [aria-busy]")).to_have_count(0)
    expect(page.locator("#demo-current .rl-warn").first).to_contain_text("You stopped it here.")
    said = demo.texts()
    page.wait_for_timeout(500)
    assert said[0] and demo.texts() == said


def test_an_answer_is_copied(browser, program):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    demo = Demo(page := context.new_page(), program.url)
    demo.ask("Hello")
    page.locator("#demo-current .rl-answer button").last.click()
    expect(page.locator("#demo-current .rl-answer button").last).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").replace("\r\n", "\n") == demo.texts()[1]
    context.close()


def test_a_blind_vote_is_stored_and_then_the_names_appear(demo, page, program):
    before = demo_votes.count(program.store)
    page.locator("#demo-blind input").check()
    demo.ask("Which of you?")
    assert demo.names() == ["A", "B"]
    shown = page.locator("#demo-current").inner_html()
    assert not any(name in shown for name in (BASE, *TUNED))
    expect(page.locator("#demo-link")).to_be_disabled()
    page.locator("#demo-vote-b").click()
    expect(page.locator("#demo-notice")).to_contain_text("The vote is saved")
    expect(page.locator("#demo-vote")).to_be_hidden()
    assert sorted(name.split(" · ")[1] for name in demo.names()) == [BASE, "tuned-two"]
    judgment = program.last_judgment()
    assert demo_votes.count(program.store) == before + 1
    ranked = [text for tier in judgment.tiers for completion in tier for text in [text_of(program, completion)]]
    assert ranked == demo.texts()[::-1]
    demo.ask("Go on")
    expect(page.locator("#demo-earlier")).to_contain_text("The conversation went on from answer B.")
    page.locator("#demo-vote-none").click()
    expect(page.locator("#demo-notice")).to_contain_text("No vote was saved.")
    assert demo_votes.count(program.store) == before + 1


def text_of(program, completion):
    return program.store.value("SELECT text FROM completions WHERE id = ?", [completion])


def test_a_link_writes_the_same_conversation_again(demo, page, program, browser):
    demo.ask("Hello <b>there</b>")
    demo.ask("안녕?")
    said = demo.texts()
    page.locator("#demo-link").click()
    address = page.locator("#demo-address textarea, #demo-address input")
    expect(address).to_be_visible()
    link = eventually(lambda: (value := address.input_value()).startswith("http") and value, "the whole address is there")
    assert link.startswith(f"{program.url}/#demo-")
    expect(page).to_have_url(link)
    context = browser.new_context()
    other = context.new_page()
    with settled(other):
        other.goto(link)
    expect(other.locator("#demo-notice")).to_contain_text("A conversation from a link.")
    expect(other.locator("#demo-current .rl-asked")).to_have_text("안녕?")
    again = Demo.__new__(Demo)
    again.page = other
    other.locator("#demo-ask").click()
    again.written("안녕?")
    assert again.texts() == said and again.names() == demo.names()
    context.close()


def test_the_gallery_has_an_address_and_an_order(page, program):
    with settled(page):
        page.goto(f"{program.url}/#gallery-run-0")
    samples = page.get_by_test_id("gallery-sample")
    expect(samples).to_have_count(3)
    expect(page.locator("#gallery-run input")).to_have_value("run-0 · tuned-one")
    expect(samples.first).to_contain_text("Held-out question 0?")
    expect(samples.first.locator(".rl-up-4")).to_have_text("Tuned")
    page.locator("#gallery-order input").click()
    page.get_by_role("option", name="changed most").click()
    expect(samples.first).to_contain_text("Held-out question 2?")
    page.locator("#gallery-shaded input").uncheck()
    expect(page.locator(".rl-token")).to_have_count(0)
    page.locator("#gallery-run input").click()
    page.get_by_role("option", name="run-1 · tuned-two").click()
    expect(page).to_have_url(f"{program.url}/#gallery-run-1")


def test_a_version_has_an_address(page, program):
    with settled(page):
        page.goto(f"{program.url}/#version-tuned-one")
    card = page.get_by_test_id("version-card")
    expect(card.locator("h2")).to_have_text("tuned-one")
    expect(card).to_contain_text("64% (55% to 72%)")
    page.locator("#demo-version-card input").click()
    page.get_by_role("option", name=f"{BASE} · base").click()
    expect(card.locator("h2")).to_have_text(BASE)
    expect(page).to_have_url(f"{program.url}/#version-{BASE}")
    with settled(page):
        page.reload()
    expect(card.locator("h2")).to_have_text(BASE)


def test_a_version_is_exported_from_its_card(page, program):
    with settled(page):
        page.goto(f"{program.url}/#version-tuned-one")
    expect(page.get_by_test_id("version-card").locator("h2")).to_have_text("tuned-one")
    page.locator("#demo-export-format input").click()
    page.get_by_role("option", name="peft").click()
    page.locator("#demo-export-start").click()
    status = page.locator("#demo-export-status")
    expect(status.locator("progress")).to_be_visible()
    expect(page.locator("#demo-export-start")).to_be_disabled()
    # Two processes that load torch, one after the other.
    done = "tuned-one as peft is in the folder “exports” of the data folder. It answers as the policy does."
    expect(status).to_contain_text(done, timeout=5000 * PATIENCE_S)
    expect(status).to_contain_text("3 of 3 greedy answers are the same token for token")
    expect(page.locator("#demo-export-start")).to_be_enabled()
    assert str(program.folder.root) not in status.inner_text()
    assert nothing({"exported": violations(page)})
    assert (program.folder.root / "exports" / "tuned-one-peft" / "adapter_model.safetensors").is_file()


def test_a_link_that_names_nothing_says_so(page, program):
    with settled(page):
        page.goto(f"{program.url}/#demo-nonsense")
    expect(page.locator("#demo-notice")).to_contain_text("damaged or incomplete")


@pytest.fixture(params=LOOKS, ids=lambda look: "-".join(look))
def look(request, browser):
    size, scheme = request.param
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    yield context.new_page(), f"?__theme={scheme}"
    context.close()


def test_axe_finds_no_violation_in_used_states(program, look):
    page, query = look
    demo = Demo(page, program.url, query)
    results = {"opened": violations(page)}
    page.locator("#demo-more button").first.click()
    page.locator("#demo-blind input").check()
    demo.ask("Which of you?")
    results["waits for a vote"] = violations(page)
    page.locator("#demo-vote-tie").click()
    expect(page.locator("#demo-notice")).to_contain_text("The vote is saved")
    page.locator("#demo-link").click()
    expect(page.locator("#demo-address")).to_be_visible()
    results["voted"] = violations(page)
    for section, there in (("gallery-run-1", "gallery-sample"), ("version-tuned-two", "version-card")):
        page.goto("about:blank")
        with settled(page):
            page.goto(f"{program.url}/{query}#{section}")
        expect(page.get_by_test_id(there).first).to_be_visible()
        results[section] = violations(page)
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "nothing is wider than the screen"
    assert nothing(results)
