"""The steps of a closed loop over a real store: what simulated annotators decide, and what a loop that was stopped goes on from."""

from dataclasses import replace

import pytest
from learning import user
from round_play import BASE, Rounds

from rlhf.runs.deciding import standing
from rlhf.serving.completion_source import GeneratedCompletion
from rlhf.simulation import closed_loop
from rlhf.simulation.closed_loop import VotesUsed
from rlhf.simulation.judges import LabelRule
from rlhf.simulation.simulate import Plan, SimulationError
from storage.content import comparisons, policies, prompts
from storage.core.records import ProjectSettings, Sampling
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import rounds, runs, settings

PLAN = Plan(LabelRule("concise"), 10, 3, 0.0, 0, Sampling(max_new_tokens=9))


class Answers:
    """Tuned versions answer with fewer words than the base, or with more; `dies_after` calls it is stopped."""

    def __init__(self, *, tuned=1, base=4, dies_after=10**9):
        self.words, self.n, self.calls, self.dies_after = {"tuned": tuned, "base": base}, 0, 0, dies_after

    def __call__(self, requests, sampling, seed, on_progress=lambda: None):
        self.calls += 1
        if self.calls > self.dies_after:
            raise KeyboardInterrupt
        answers = []
        for version, _ in requests:
            self.n += 1
            answers.append(GeneratedCompletion(f"x{self.n} " + "word " * (self.words[version.kind] - 1), "stop", 0.1))
        return answers


class Loops(Rounds):
    """A store with prompts in which rounds of a loop end."""

    def __init__(self, store):
        super().__init__(store)
        added = [prompts.NewPrompt(user(f"Q{i}"), "test", "train" if i % 2 else "heldout") for i in range(8)]
        prompts.add(store, added, source="test")

    def loop_round(self, name, status="done", guards="passed"):
        runs.create(self.store, name, config={"model": BASE}, seed=1, versions={})
        made = rounds.create(self.store, name, trigger="loop", judges="simulated", baseline=rounds.current(self.store, BASE))
        if status == "done":
            policies.register_tuned(self.store, name=f"v-{name}", base_model=BASE, adapter_path=f"runs/{name}/policy", run_id=name)
            rounds.set_guards(self.store, made.id, guards)
        runs.finish(self.store, name, status)
        return rounds.get(self.store, made.id)

    def collect(self, answers, plan=PLAN):
        seen = []
        closed_loop.collect(self.store, answers, self.base, plan, lambda done, total: seen.append((done, total)))
        return seen

    def decide(self, found, answers, plan=PLAN):
        return closed_loop.decide(self.store, answers, found, plan, lambda done, total: None)


@pytest.fixture
def play(store):
    return Loops(store)


def test_a_version_that_the_rule_prefers_is_promoted_by_simulated_judges_alone(play):
    found = play.loop_round("r1")
    made = play.decide(found, Answers(tuned=1, base=4))
    assert (made.act, made.decided_by, made.round_id) == ("promoted", "comparisons", found.id)
    assert made.evidence["win_rate"] == 1 and made.evidence["annotators"] == 3 and play.current() == "v-r1"
    votes = judgments.active(play.store, kinds=("simulated",))
    # 16 wins of 16 are evidence enough, or the next 16.
    assert len(votes) in (16, 32) and judgments.active(play.store) == []
    assert {v.prompt.split for v in votes} == {"heldout"} and queue.depth(play.store) == 0, "nobody's queue holds them"


def test_a_version_that_the_rule_does_not_prefer_is_rejected(play):
    made = play.decide(play.loop_round("r1"), Answers(tuned=5, base=2))
    assert made.act == "rejected" and play.current() == rounds.current(play.store, BASE).name == play.base.name


def test_a_version_that_is_as_good_is_rejected_after_the_most_comparisons(play):
    settings.change(play.store, ProjectSettings(deciding_most=20), by=None)
    made = play.decide(play.loop_round("r1"), Answers(tuned=3, base=3))
    assert (made.act, made.evidence["units"], made.evidence["win_rate"]) == ("rejected", 20, 0.5)


def test_a_loop_that_is_stopped_while_it_decides_goes_on_and_decides_once(play):
    settings.change(play.store, ProjectSettings(deciding_most=40), by=None)
    found = play.loop_round("r1")
    with pytest.raises(KeyboardInterrupt):
        play.decide(found, Answers(tuned=3, base=3, dies_after=1))
    assert standing(play.store, found).assessment.units == 16
    made = play.decide(found, Answers(tuned=3, base=3))
    assert made.evidence["units"] == 40 and len(rounds.decisions(play.store)) == 1
    assert play.decide(found, Answers(dies_after=0)) == made, "nothing is asked about a round that is decided"


def test_comparisons_that_were_written_and_not_judged_are_judged_first(play, monkeypatch):
    found = play.loop_round("r1")
    with monkeypatch.context() as patched:
        patched.setattr(closed_loop, "_judge_written", lambda *a: None if not rounds.asked_comparisons(play.store, found.id) else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            play.decide(found, Answers())
    assert rounds.asked_comparisons(play.store, found.id) == 16 and standing(play.store, found).assessment.units == 0
    assert play.decide(found, Answers(tuned=1, base=4, dies_after=1)).act == "promoted"


def test_a_decision_of_a_person_ends_the_comparing(play):
    found = play.loop_round("r1")

    def meanwhile(requests, sampling, seed, on_progress=lambda: None):
        rounds.decide(play.store, found.version, "rejected", decided_by="person", reason="No.")
        return Answers()(requests, sampling, seed)

    assert play.decide(found, meanwhile).reason == "No." and rounds.asked_comparisons(play.store, found.id) == 0


def test_answers_that_are_all_alike_are_an_error_with_the_way_out(play):
    found = play.loop_round("r1")

    def alike(requests, sampling, seed, on_progress=lambda: None):
        return [GeneratedCompletion("same", "stop", 0.1) for _ in requests]

    with pytest.raises(SimulationError, match=f"v-r1 and .*rankloop round reject {found.id}"):
        play.decide(found, alike)


def test_without_held_out_prompts_nothing_can_be_decided(store):
    play = Rounds(store)
    prompts.add(store, [prompts.NewPrompt(user("Q"), "test", "train")], source="test")
    with pytest.raises(SimulationError, match="held-out prompt"):
        closed_loop.decide(store, Answers(), play.round("r1", judges="simulated"), PLAN, lambda done, total: None)


# Votes.


def test_votes_before_an_interruption_count_and_no_answer_is_drawn_twice(play):
    with pytest.raises(KeyboardInterrupt):
        play.collect(Answers(dies_after=1), replace(PLAN, judgments=40))
    assert closed_loop.votes_missing(play.store, BASE, 40) == 8
    seeds = []

    class Seeds(Answers):
        def __call__(self, requests, sampling, seed, on_progress=lambda: None):
            seeds.append(seed)
            return super().__call__(requests, sampling, seed, on_progress)

    assert play.collect(Seeds(), replace(PLAN, judgments=40)) == [(32, 40), (40, 40)]
    assert judgments.ordinary(play.store, "simulated") == 40 and closed_loop.votes_missing(play.store, BASE, 40) == 0
    # The call that was stopped drew from the seeds of its first judgment on: 0 and 32.
    assert seeds == [32 * 3]
    assert play.collect(Answers(dies_after=0), replace(PLAN, judgments=40)) == [(40, 40)]


def test_each_round_has_votes_of_its_own_and_deciding_ones_are_not_among_them(play):
    play.collect(Answers())
    first = play.loop_round("r1")
    play.decide(first, Answers(tuned=1, base=4))
    decided = rounds.asked_comparisons(play.store, first.id)
    assert closed_loop.votes_missing(play.store, BASE, 10) == 10
    play.collect(Answers())
    second = play.loop_round("r2")
    assert closed_loop.votes_used(play.store, first) == VotesUsed(10, decided)
    assert closed_loop.votes_used(play.store, second) == VotesUsed(10, 0)
    newest = comparisons.many(play.store, [v.judgment.comparison_id for v in judgments.active(play.store, kinds=("simulated",))[-10:]])
    of_it = [c.policy_version_id == first.version.id for comparison in newest for c in comparison.completions]
    assert sum(of_it) >= 10, "of the promoted policy, and a few of the base beside it"


def test_a_run_that_ended_without_a_version_leaves_its_votes_to_the_next(play):
    play.collect(Answers())
    failed = play.loop_round("r1", status="failed")
    assert closed_loop.unfinished(play.store, BASE) == failed and closed_loop.rounds_of(play.store, BASE) == []
    assert closed_loop.votes_missing(play.store, BASE, 10) == 0
    play.loop_round("r2")
    assert closed_loop.unfinished(play.store, BASE) is None
    assert [one.run_id for one in closed_loop.rounds_of(play.store, BASE)] == ["r2"]


# What never mixes.


def test_a_folder_with_votes_of_people_is_refused(play):
    play.rank(play.ann, play.comparison(play.base, play.base, purpose="collect"), None)
    with pytest.raises(SimulationError, match=r"people have made 1 judgments in this folder.*--data"):
        closed_loop.require_simulated_alone(play.store, PLAN)


@pytest.mark.parametrize("other", [replace(PLAN, judge=LabelRule("sentiment")), replace(PLAN, flip=0.2)])
def test_a_folder_with_votes_by_another_rule_is_refused(store, other):
    annotators.ensure(store, "sim-concise-0-1", "simulated", PLAN.judge.to_json(0.0))
    closed_loop.require_simulated_alone(store, PLAN)
    with pytest.raises(SimulationError, match="sim-concise-0-1 judges in this folder by another rule"):
        closed_loop.require_simulated_alone(store, other)
