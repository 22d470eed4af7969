"""The pages' handlers, called as Gradio calls them, and what importing them costs."""

import asyncio
import inspect
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from feedback_ui import demo as demo_page
from feedback_ui.app import build_app, launch_options
from feedback_ui.demo import merge_streams
from feedback_ui.shared.i18n import Translator, tables
from feedback_ui.shared.theme import i18n
from rlhf.config import PRESETS, ConfigError, RoundConfig, options
from rlhf.data.pairs import NotEnoughPairs
from rlhf.runs.jobs import RoundError
from rlhf.serving.client import PolicyServerBusy, PolicyServerDown
from rlhf.serving.limits import LONGEST_DEMO, LONGEST_PROMPT
from storage.content import policies
from storage.project import runs

EN = Translator("en")


def asking(language):
    """A request of a browser that prefers that language."""
    return SimpleNamespace(headers={"accept-language": language}, cookies={})


ENGLISH = asking("en")


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

    def resume(self, run_id):
        return runs.requeue(self.store, run_id)

    def log_tail(self, run_id, lines=40):
        return f"log of {run_id}"


@pytest.fixture
def jobs(store):
    return FakeJobs(store)


@pytest.fixture
def app(build, store, jobs, server):
    return build(build_app, store, jobs, server, default_config=PRESETS["laptop"])


def page(app, name):
    """The page object of a Blocks, found through its handlers."""
    owners = (getattr(fn.fn, "__self__", None) for fn in app.fns.values() if fn.fn)
    return next(owner for owner in owners if type(owner).__name__ == name)


@pytest.fixture
def training(app):
    return page(app, "TrainingPage")


@pytest.fixture
def demo(app):
    return page(app, "DemoPage")


def filled_in(training, **changes):
    """The form's values as Gradio passes them, with some replaced."""
    form = training.form
    values = {form.preset: form.preset.value} | {field: field.value for field in form.fields.values()}
    return values | {form.fields[name.replace("_", "-")]: value for name, value in changes.items()}


def test_launch_options_are_accepted_by_launch_and_mount():
    assert set(launch_options()) <= set(inspect.signature(gr.Blocks.launch).parameters)
    assert set(launch_options()) <= set(inspect.signature(gr.mount_gradio_app).parameters)


def test_the_look_names_no_other_host(assets):
    for file in assets.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//fonts" not in text and "http://" not in text and "https://" not in text, file
    assert launch_options()["theme"]._stylesheets == []


def test_every_option_of_a_round_is_in_the_form_with_its_help(training):
    shown = training.form.fields
    assert set(shown) == {option.name for option in options(RoundConfig())}
    for option in options(RoundConfig()):
        assert i18n.translations["en"][shown[option.name].info.key] == option.help


def test_the_form_says_what_its_preset_says(training):
    assert training.form.read(EN, filled_in(training)) == PRESETS["laptop"]


def test_choosing_a_preset_fills_the_form(training):
    form = training.form
    values = {form.preset: "tiny", **form.show_preset("tiny", ENGLISH)}
    assert form.read(EN, values) == PRESETS["tiny"]


def test_a_configuration_of_ones_own_stands_first(build, store, jobs, server):
    own = replace(RoundConfig(), seed=7)
    form = page(build(build_app, store, jobs, server, default_config=own), "TrainingPage").form
    assert form.preset.value == "as started"
    assert form.presets["as started"] == own


def test_start_starts_what_the_form_says_and_shows_it(training, jobs):
    shown = training.start_round(filled_in(training, ppo_steps=3, include_simulated=True), ENGLISH)
    (config,) = jobs.started
    assert (config.ppo.steps, config.include_simulated) == (3, True)
    assert shown[training.drawn].run_id == "r1"
    assert "Waiting to start" in shown[training.progress]
    assert shown[training.refusal] == ""


@pytest.mark.parametrize("error", [RoundError("3 runs, need 1"), RoundError("r9 is running: wait for it")])
def test_a_refused_start_says_why(training, jobs, error):
    jobs.refuse(error)
    shown = training.start_round(filled_in(training), ENGLISH)
    assert str(error) in shown[training.refusal]
    assert training.progress not in shown


TOO_FEW = NotEnoughPairs("3 preference pairs, need 50: pass --min-pairs 3", found=3, needed=50)
ONLY_HELD_OUT = NotEnoughPairs("every preference pair is on a held-out prompt: judge others", found=60, needed=50)


@pytest.mark.parametrize(
    ("error", "request_", "said"),
    [
        (TOO_FEW, "en", "3 preference pairs, and this round asks for 50: judge 47 more comparisons, or set “Fewest pairs” to 3."),
        (TOO_FEW, "ko", "비교를 47건 더 판정해 주세요. 또는 ‘최소 선호 쌍 수’를 3개로 낮추세요."),
        (ONLY_HELD_OUT, "en", "Every preference pair is on a held-out prompt: judge others."),
        (ONLY_HELD_OUT, "ko", "요청을 처리하지 못했습니다. Every preference pair is on a held-out prompt: judge others."),
        (ConfigError("--ppo-steps 0: must be greater than 0"), "en", "“PPO steps” 0: must be greater than 0."),
        (ConfigError("--ppo-steps 0: must be greater than 0"), "ko", "‘PPO 스텝 수’ 0: must be greater than 0."),
        (ConfigError("--no-such: unknown"), "en", "--no-such: unknown."),
    ],
)
def test_a_refusal_calls_things_by_the_forms_own_names(training, jobs, error, request_, said):
    jobs.refuse(error)
    assert said in training.start_round(filled_in(training), asking(request_))[training.refusal]


@pytest.mark.parametrize(("typed", "said"), [({"ppo_steps": None}, "PPO steps is empty"), ({"ppo_steps": -1}, "must be greater than 0")])
def test_a_form_that_makes_no_sense_says_why(training, jobs, typed, said):
    assert said in training.start_round(filled_in(training, **typed), ENGLISH)[training.refusal]
    assert jobs.started == []


def test_cancel_and_resume(training, store):
    training.start_round(filled_in(training), ENGLISH)
    shown = training.cancel_round("r1", ENGLISH)
    assert runs.get(store, "r1").cancel_requested
    assert "Stopping" in shown[training.progress]
    runs.finish(store, "r1", "cancelled")
    assert training.show(EN, "r1")[training.resume].visible
    assert training.resume_round("r1", ENGLISH)[training.cancel].visible


def test_without_runs_only_the_empty_state_is_shown(training):
    shown = training.open(None, ENGLISH)
    assert "No round has been run yet" in shown[training.progress]
    assert training.picker not in shown


def test_a_reload_shows_the_active_run(training, store):
    for run_id, end in (("old", "done"), ("now", None)):
        runs.create(store, run_id, config={}, seed=0, versions={})
        if end:
            runs.finish(store, run_id, end)
    assert training.open(None, ENGLISH)[training.drawn].run_id == "now"
    assert training.open("old", ENGLISH)[training.drawn].run_id == "old"


def test_a_tick_sends_nothing_when_nothing_has_changed(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    runs.finish(store, "r", "done")
    drawn = training.show(EN, "r")[training.drawn]
    assert training.progress not in training.follow("r", drawn, ENGLISH)


def test_a_tick_draws_a_plot_again_only_for_new_points(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    plots = set(training.plots.values())
    drawn = training.show(EN, "r")[training.drawn]
    assert not plots & set(training.follow("r", drawn, ENGLISH))
    runs.log_metrics(store, "r", 1, {"reward/loss": 0.6})
    assert plots <= set(training.follow("r", drawn, ENGLISH))


def test_empty_axes_wait_for_what_is_to_come_and_for_nothing_else(training, store):
    def sections(update):
        return [update[section].visible for section in (training.reward_section, training.policy_section)]

    runs.create(store, "r", config={}, seed=0, versions={})
    shown = training.show(EN, "r")
    assert sections(shown) == [True, True], "of a run under way"
    runs.create(store, "probe alone", config={"reward": {"epochs": 0}}, seed=0, versions={})
    assert sections(training.show(EN, "probe alone")) == [False, True]
    runs.log_metrics(store, "r", 1, {"reward/loss": 0.6})
    runs.finish(store, "r", "cancelled")
    assert sections(training.follow("r", shown[training.drawn], ENGLISH)) == [True, False]


def test_the_card_about_the_reward_model_appears_while_the_policy_learns_and_is_sent_once(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    shown = training.show(EN, "r")
    assert "before the policy learns" in shown[training.validation_card] and shown[training.validation_row].visible is False
    drawn = shown[training.drawn]
    assert training.validation_card not in training.follow("r", drawn, ENGLISH)
    runs.set_validation(store, "r", {"pairs": 3, "judgments": 3, "prompts": 1, "accuracy": None})
    after = training.follow("r", drawn, ENGLISH)
    assert "on one prompt" in after[training.validation_card] and after[training.validation].visible
    assert after[training.validation_details] == "" and after[training.validation_row].visible is False
    assert training.validation_card not in training.follow("r", after[training.drawn], ENGLISH)
    runs.create(store, "from before", config={}, seed=0, versions={})
    runs.finish(store, "from before", "done")
    assert training.show(EN, "from before")[training.validation].visible is False


def test_a_tick_leaves_the_open_list_of_runs_in_peace(training, store):
    runs.create(store, "r", config={}, seed=0, versions={})
    drawn = training.show(EN, "r")[training.drawn]
    assert training.picker not in training.follow("r", drawn, ENGLISH)
    runs.finish(store, "r", "failed")
    shown = training.follow("r", drawn, ENGLISH)
    assert "failed" in shown[training.picker].choices[0][0]
    assert shown[training.resume].visible


# ---- Demo


def test_the_newest_tuned_version_is_chosen(demo, store, server):
    policies.ensure_base(store, "Base")
    runs.create(store, "r", config={}, seed=0, versions={})
    for name in ("t1", "t2"):
        policies.register_tuned(store, name=name, base_model="Base", adapter_path=f"runs/r/{name}", run_id="r")
    server.answers = {"Base": [], "t1": [], "t2": []}
    shown = demo.refresh(None, ENGLISH)
    assert (shown[demo.base], shown[demo.version].value) == ("Base", "t2")
    assert demo.refresh("t1", ENGLISH)[demo.version].value == "t1"
    assert shown[demo.notice] == ""


def test_without_a_tuned_version_the_page_says_where_to_train_one(demo, store, server):
    policies.ensure_base(store, "Base")
    server.answers = {"Base": []}
    assert "Train one on the Training page" in demo.refresh(None, ENGLISH)[demo.notice]


def test_a_server_that_is_down_is_said_in_words(demo, server):
    server.fall_over("no answer at :1")
    shown = demo.refresh(None, ENGLISH)
    assert "No answer at :1." in shown[demo.notice]
    assert not shown[demo.ask].interactive


def final(demo, *arguments, request=ENGLISH):
    async def read():
        panes = {}
        async for update in demo.answer(*arguments, request):
            panes |= update
        return panes

    return asyncio.run(read())


def test_both_panes_end_with_the_whole_answer_made_safe(demo, server):
    server.answers = {"Base": ["**a", "b** ", "<img src=x>"], "t": ["${x}"]}
    panes = final(demo, "Base", "t", "Hi", 0.7, 32)
    assert "<strong>ab</strong> &lt;img src=x&gt;" in panes[demo.base_pane]
    assert "${x}" in panes[demo.tuned_pane]
    assert "aria-busy" not in panes[demo.base_pane] + panes[demo.tuned_pane]


def test_a_server_that_goes_away_leaves_what_it_had_written(demo, server):
    async def broken(model, messages, **_):
        yield "Half an"
        raise PolicyServerDown("connection lost")

    server.stream = broken
    panes = final(demo, "Base", None, "Hi", 0.7, 32)
    assert "Half an" in panes[demo.base_pane] and "Connection lost." in panes[demo.base_pane]
    assert demo.tuned_pane not in panes


def test_an_empty_prompt_asks_nobody(demo, server):
    server.fall_over("must not be asked")
    assert final(demo, "Base", "t", "  ", 0.7, 32) == {}


def test_streams_are_heard_side_by_side_and_closed_when_nobody_listens():
    closed = []

    async def endless(name):
        try:
            while True:
                yield name
                await asyncio.sleep(0)
        finally:
            closed.append(name)

    async def silent(name):
        try:
            await asyncio.sleep(600)
            yield name
        finally:
            closed.append(name)

    async def listen():
        heard = merge_streams({"a": endless("a"), "b": endless("b"), "c": silent("c")})
        names = set()
        while names != {"a", "b"}:
            names.add((await anext(heard))[0])
        await heard.aclose()

    asyncio.run(asyncio.wait_for(listen(), 10))
    assert sorted(closed) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "language, said", [("en", "The prompt has 8,001 characters, of which 8,000 can be read."), ("ko", "프롬프트가 8,001자입니다.")]
)
def test_a_prompt_that_is_too_long_is_said_and_asks_nobody(demo, server, language, said):
    server.fall_over("must not be asked")
    panes = final(demo, "Base", "t", "\N{ROBOT FACE}" * 8001, 0.7, 32, request=asking(language))
    assert said in panes[demo.notice] and set(panes) == {demo.notice}
    assert tables()[language]["demo.limits"].startswith(("Up to 8,000 characters", "최대 8,000자")) and LONGEST_DEMO == 8_000
    assert "4,096" in tables()[language]["demo.limits"] and LONGEST_PROMPT == 4096


def test_one_visitor_is_answered_twice_at_a_time_and_all_eight_times():
    asking = demo_page.PromptAdmission()
    with ExitStack() as open_now:

        def ask(visitor):
            return open_now.enter_context(asking.admit(visitor))

        assert [ask(1), ask(1), ask(1)] == [True, True, False]
        assert [ask(visitor) for visitor in (2, 2, 3, 3, 4, 4, 5, 2)] == [True] * 6 + [False] * 2
    assert not asking._now
    with asking.admit(1) as admitted:
        assert admitted


def test_a_third_prompt_of_one_visitor_is_not_sent(demo, server):
    async def waits(model, messages, **_):
        server.asked = getattr(server, "asked", 0) + 1
        await asyncio.sleep(600)
        yield ""

    server.stream = waits

    async def three():
        answers = [demo.answer("Base", None, "Hi", 0.7, 32, ENGLISH) for _ in range(3)]
        first = [await anext(answer) for answer in answers]
        waiting = [asyncio.create_task(anext(answer)) for answer in answers[:2]]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        again = await anext(demo.answer("Base", None, "Hi", 0.7, 32, ENGLISH))
        return first, again

    (*begun, refused), again = asyncio.run(three())
    assert all(demo.base_pane in update for update in (*begun, again))
    assert "This prompt was not sent: 2 prompts of one person" in refused[demo.notice] and server.asked == 2


def test_a_busy_server_is_said_in_words_of_the_page(demo, server):
    server._answer = lambda: (_ for _ in ()).throw(PolicyServerBusy("http://127.0.0.1:1/v1 refused (503): ..."))
    pane = final(demo, "Base", None, "Hi", 0.7, 32)[demo.base_pane]
    assert "too many answers to write just now" in pane and "127.0.0.1" not in pane
