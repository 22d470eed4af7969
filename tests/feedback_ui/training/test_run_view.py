"""A run as the Training page shows it: stages, progress, errors, its result."""

import ast
from pathlib import Path

import pytest

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import run_view
from rlhf import stages
from rlhf.config import RoundConfig
from storage.core.records import Run, RunSample

EN, KO = Translator("en"), Translator("ko")


def a_run(**changes):
    values = {
        "id": "r1", "status": "running", "config": {}, "seed": 0, "versions": {}, "snapshot": None, "stage": "ppo",
        "progress": 0.425, "eta_s": 660.0, "cancel_requested": False, "pid": 1, "heartbeat_at": None,
        "created_at": "2026-11-02T10:00:00.000+00:00", "started_at": "2026-11-02T10:00:00.000+00:00",
        "finished_at": None, "error": None, "result": None,
    }  # fmt: skip
    return Run(**values | changes)


def test_a_run_is_listed_and_shown_by_its_name_and_note():
    named = a_run(name="Lower KL", note="One.\nTwo.")
    assert run_view.label(EN, named) == "Lower KL · r1 · running" and run_view.label(EN, a_run()) == "r1 · running"
    html = run_view.progress(EN, named)
    assert '<h2 data-testid="run-name">Lower KL</h2>' in html and "One.\nTwo.</p>" in html
    assert "rl-run-named" not in run_view.progress(EN, a_run())


@pytest.mark.parametrize(
    "state, english, korean",
    [
        ("submitted", "Its job rankloop-r1-ab12cd was submitted to the Ray cluster. Wait.", "제출했습니다. Wait."),
        ("pending", "Its job rankloop-r1-ab12cd waits in the Ray cluster. Wait.", "대기 중입니다. Wait."),
        ("running", "Its job in the Ray cluster: rankloop-r1-ab12cd", "Ray 클러스터의 작업: rankloop-r1-ab12cd"),
        ("unreachable", "The Ray cluster cannot be reached since 2026-11-28 04:50 UTC: Wait. The run goes on", "연결할 수 없습니다: Wait."),
    ],
)
def test_an_active_run_says_what_the_cluster_says_about_its_job(state, english, korean):
    job = {
        "scheduler": "ray",
        "address": "http://h:8265",
        "id": "rankloop-r1-ab12cd",
        "state": state,
        "message": "Wait" if state == "unreachable" else "Wait.",
    }
    run = a_run(job=job | {"since": "2026-11-28T04:50:12.000+00:00"})
    assert english in run_view.progress(EN, run) and korean in run_view.progress(KO, run)
    for other in (a_run(), a_run(job=run.job, status="failed"), a_run(job={"state": state})):
        assert "run-job" not in run_view.progress(EN, other)


def test_korean_shows_the_same_figures():
    run = a_run(status="done", result=RESULT, finished_at="2026-11-02T11:40:00.000+00:00")
    html = run_view.progress(KO, run) + run_view.result(KO, run)
    for text in ("완료", "14분 걸림", "보상 모델", "71%(62%~79%)", "선호 쌍 118개", "tuned-1"):
        assert text in html
    assert "Held-out" not in html and "Result" not in html
    # One duration, that of all attempts: the last one ended 100 minutes after it began.
    assert html.count("14분") == 2 and "1시간" not in html


def test_stages_before_the_current_one_are_done():
    html = run_view.steps(EN, a_run(stage="ppo"))
    states = [part.split('"')[0] for part in html.split('<li class="rl-')[1:]]
    assert states == ["done", "done", "current", "todo", "todo"]
    assert html.count('aria-current="step"') == 1


def test_a_finished_run_has_every_stage_done_and_says_how_long():
    run = a_run(status="done", stage="register", finished_at="2026-11-02T10:14:00.000+00:00")
    assert run_view.steps(EN, run).count("rl-done") == 5
    assert run_view.remark(EN, run) == "took 14 min"


def test_what_a_stage_does_is_said_and_counted():
    writing = a_run(stage="snapshot", eta_s=None, activity="base_answers", activity_done=18, activity_count=45)
    assert run_view.remark(EN, writing) == "writing the base's answers 18/45 · step 1 of 5, 42%"
    assert run_view.remark(KO, writing).startswith("기본 모델의 답변을 쓰는 중 18/45 · 5단계 중 1단계")
    fitting = a_run(stage="reward", eta_s=None, activity="fit", activity_done=0, activity_count=0)
    assert run_view.remark(EN, fitting) == "fitting the reward model to the votes · step 2 of 5, 42%"
    queued = a_run(status="queued", stage="reward", eta_s=None, activity="fit", activity_done=0, activity_count=0)
    assert run_view.remark(EN, queued) == "42%", "where an earlier attempt stopped is not what it does now"
    unknown = a_run(stage="reward", eta_s=None, activity="<b>", activity_done=1, activity_count=2)
    assert run_view.remark(EN, unknown) == "training the reward model · step 2 of 5, 42%"


def test_the_page_has_words_for_each_activity_that_a_stage_names():
    trees = [ast.parse(file.read_text()) for file in Path(stages.__file__).parent.glob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) > 1]
    named = {call.args[1].value for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "part"}
    assert named == set(run_view.ACTIVITIES)


def test_progress_shows_the_time_left():
    html = run_view.progress(EN, a_run())
    assert "training the policy 0/10 · step 3 of 5, 42%, about 11 min left" in html
    assert 'value="0.425"' in html
    assert "left" not in run_view.progress(EN, a_run(eta_s=None)), "a time that is not known is not told"
    assert run_view.remark(EN, a_run(stage="snapshot", eta_s=None)) == "writing the base's answers · step 1 of 5, 42%"
    assert run_view.remark(EN, a_run(eta_s=None), 3) == "training the policy 3/10 · step 3 of 5, 42%"
    assert run_view.remark(EN, a_run(stage="dpo", config=RoundConfig(method="dpo").to_dict(), eta_s=None)).startswith(
        "training the policy · "
    )
    assert run_view.remark(KO, a_run(eta_s=None), 3) == "정책을 학습하는 중 3/10 · 5단계 중 3단계, 42%"
    assert run_view.remark(EN, a_run(stage=None, progress=0.0, eta_s=None)) == "0%"


def test_a_requested_cancel_is_shown():
    assert run_view.status(EN, a_run(cancel_requested=True)) == "Stopping"
    assert run_view.status(EN, a_run(status="cancelled", cancel_requested=True)) == "Cancelled"


def test_errors_are_shown_as_text():
    assert "out of &lt;i&gt;memory" in run_view.progress(EN, a_run(status="failed", error="out of <i>memory"))
    assert "Resume continues" in run_view.progress(EN, a_run(status="lost"))


def test_without_runs_the_page_says_what_to_do():
    assert "Choose a preset and start one" in run_view.progress(EN, None)


@pytest.mark.parametrize(
    ("status", "active", "resumable"),
    [("queued", True, False), ("running", True, False), ("done", False, False),
     ("failed", False, True), ("cancelled", False, True), ("lost", False, True)],
)  # fmt: skip
def test_what_can_be_done_with_a_run(status, active, resumable):
    run = a_run(status=status)
    assert (run_view.is_active(run), run_view.is_resumable(run)) == (active, resumable)


def test_the_page_opens_on_the_active_run_or_the_newest():
    """Runs come newest first from the store; the dates of the runs decide nothing."""
    new = a_run(id="new", status="failed", created_at="2026-01-01")
    old = a_run(id="old", status="done", created_at="2026-02-01")
    assert run_view.opening_run([new, old]) == "new"
    assert run_view.opening_run([new, old, a_run(id="active", created_at="2025-01-01")]) == "active"
    assert run_view.opening_run([]) is None
    assert [run_id for _, run_id in run_view.choices(EN, [new, old])] == ["new", "old"]


def test_a_run_during_which_the_clock_was_set_back_has_no_duration():
    times = {"started_at": "2026-11-02T10:00:00.000+00:00", "finished_at": "2026-11-01T10:20:00.000+00:00"}
    assert run_view.remark(EN, a_run(status="done", **times)) == ""


RESULT = {
    "heldout_accuracy": {"value": 0.714, "low": 0.62, "high": 0.79, "cases": 118},
    "win_rate": {"value": 0.5, "low": 0.41, "high": 0.59, "cases": 40}, "rule": "sentiment",
    "win_rate_by_reward_model": {"value": 0.81, "low": 0.7, "high": 0.9, "cases": 40},
    "kl": 3.416, "minutes": 14.2, "peak_memory_gib": 2.31, "policy_version": "tuned-1",
}  # fmt: skip


def test_the_result_shows_every_figure_with_its_interval():
    html = run_view.result(EN, a_run(status="done", result=RESULT))
    for figure in (
        "71% (62% to 79%)",
        "50% (41% to 59%)",
        "3.42 nats",
        "14 min",
        "2.3 GiB",
        "tuned-1",
        "118 preference pairs",
        "40 held-out prompts by the declared rule",
        "81% (70% to 90%)",
        "is a proxy",
    ):
        assert figure in html
    assert "simulated" not in html


def test_a_result_from_simulated_judgments_is_marked():
    html = run_view.result(EN, a_run(status="done", result=RESULT, config={"include_simulated": True}))
    assert 'data-testid="simulated-mark"' in html
    assert "also learned from simulated judgments" in html


def test_a_result_with_missing_figures_shows_the_others():
    html = run_view.result(EN, a_run(status="done", result={"kl": 0.0, "heldout_accuracy": RESULT["heldout_accuracy"]}))
    assert "0.00 nats" in html
    assert "<dd>71% (62% to 79%)</dd>" in html
    assert "Win rate" not in html
    assert run_view.result(EN, a_run()) == ""


def test_the_proxy_note_depends_on_the_method():
    paid, unpaid = (run_view.result(EN, a_run(status="done", result=RESULT, config={"method": m})) for m in ("grpo", "dpo"))
    assert "was trained to maximise that score" in paid and "was trained to maximise that score" not in unpaid
    assert "fitted to the same judgments" in unpaid and "fitted to the same judgments" not in paid


def test_a_result_shows_early_stopping_the_chosen_checkpoint_and_best_of_n():
    half = {"value": 0.5, "low": 0.4, "high": 0.6, "cases": 40}
    beside = {"n": 12, "kl": 1.57, "policy_kl": 1.6, "max_n": 16, "beyond_max_n": False, "win_rate": half}
    watched = {
        "stopped_by_kl": {"step": 7, "kl": 12.34, "budget": 10.0},
        "best_checkpoint": {"step": 5, "steps": 7, "conservative_score": 0.812, "kl": 8.1},
        "best_of_n": beside,
        "win_rate_by_reward_function": half,
    }
    html = run_view.result(EN, a_run(status="done", result=RESULT | watched))
    for text in (
        "stopped early at step 7", "12.3 nats", "budget of 10", "after step 5 of 7", "+0.81 at 8.1 nats", "Best of 12 under the rule",
        "Win rate by reward function", "50% (40% to 60%)", "have a KL of 1.6 nats",
    ):  # fmt: skip
        assert text in html
    assert "not at equal KL" not in html
    html = run_view.result(EN, a_run(status="done", result={"best_of_n": beside | {"policy_kl": 9.0, "beyond_max_n": True}})).unescape()
    assert "not at equal KL" in html and "the policy's have 9.0" in html


def test_samples_are_rendered_safely():
    html = run_view.samples(EN, [RunSample("<script>p", "**b**", "<img src=x>", -0.5, 1.0), RunSample("q", "r", None, None, None)])
    assert "<script" not in html and "<img" not in html
    assert "<strong>b</strong>" in html
    assert "score -0.50" in html and "score +1.00" in html
    assert "Not answered yet." in html
    assert run_view.samples(EN, []) == ""
