"""Votes of the Demo page: stored like others, and left out of everything that nobody asked to count them."""

import json
from dataclasses import replace

import pytest

from rlhf.analysis import agreement, leaderboard
from rlhf.data import pairs
from storage.analytics import rankings, stats
from storage.content import comparisons, policies, prompts
from storage.core.database import StoreError
from storage.core.records import Sampling
from storage.exchange import export, formats
from storage.judging import demo_votes, history, judgments, pair_counts, queue
from storage.judging.demo_votes import DemoAnswer
from storage.judging.details import BadJudgment
from storage.people import annotators
from storage.project import settings

ASKED = ({"role": "user", "content": "Why is the sky blue?"},)


@pytest.fixture
def ann(store):
    return annotators.ensure(store, "Ann")


def answers(store, *texts):
    base = policies.ensure_base(store, "Base")
    other = policies.ensure_external(store, "Other")
    versions = (other, base, other, base)
    return [DemoAnswer(versions[i].id, text, Sampling(0.7, 1.0, 0, 96), 3, "stop", 0.5) for i, text in enumerate(texts)]


def vote(store, ann, messages=ASKED, tiers=((1,), (0,)), **more):
    return demo_votes.add(store, ann.id, messages, answers(store, "by dust", "by scattering"), tiers=tiers, **more)


def test_a_vote_is_stored_as_it_was_shown(store, ann):
    judgment = vote(store, ann)
    comparison = comparisons.get(store, judgment.comparison_id)
    past = history.get(store, judgment.id)
    text = {completion.id: completion.text for completion in comparison.completions}
    assert comparison.purpose == "demo" and comparison.prompt.messages == ASKED
    assert [text[one] for one in past.order] == ["by dust", "by scattering"]
    assert [[text[one] for one in tier] for tier in judgment.tiers] == [["by scattering"], ["by dust"]]
    assert {(c.seed, c.finish_reason, c.sampling["max_new_tokens"]) for c in comparison.completions} == {(3, "stop", 96)}
    assert judgment.counts and demo_votes.count(store) == 1


def test_both_bad_is_a_tie_with_a_mark(store, ann):
    judgment = vote(store, ann, tiers=((0, 1),), all_bad=True)
    assert judgment.all_bad and len(judgment.tiers) == 1


@pytest.mark.parametrize("tiers", [((0,),), ((0,), (0, 1)), ((0,), (2,)), ()])
def test_tiers_that_are_no_ranking_of_the_answers_store_nothing(store, ann, tiers):
    with pytest.raises(BadJudgment):
        vote(store, ann, tiers=tiers)
    assert stats.stats(store)["completions"] == 0 and not prompts.many(store, [1])


def test_a_conversation_that_is_no_prompt_stores_nothing(store, ann):
    with pytest.raises(StoreError, match="a message is empty"):
        vote(store, ann, messages=({"role": "user", "content": " "},))
    assert stats.stats(store)["completions"] == 0


def test_a_typed_prompt_is_not_used_by_the_project(store, ann):
    vote(store, ann)
    assert prompts.of_split(store) == [] and comparisons.prompt_usage(store) == {}
    prompts.load_starter(store)
    assert prompts.starters(store).in_use, "a typed prompt is none of the store's own"
    assert comparisons.without_simulated_judgment(store, 9) == [] and queue.depth(store) == 0


def test_a_prompt_that_the_project_has_stays_as_it_is(store, ann):
    prompts.add(store, [prompts.NewPrompt(ASKED, "explain", "heldout")], source="test")
    (own,) = prompts.of_split(store)
    vote(store, ann)
    assert prompts.of_split(store) == [own] and comparisons.prompt_usage(store) == {own.id: 0}
    assert comparisons.without_simulated_judgment(store, 9) == []


def test_nobody_is_shown_it_again(store, ann):
    prompts.add(store, [prompts.NewPrompt(ASKED)], source="test")
    settings.change(store, replace(settings.current(store), repeat_share=0.5), None)
    for _ in range(12):
        vote(store, ann)
    assert queue.next_presentation(store, ann) is None
    assert store.rows(queue.REPEATABLE, {"annotator": ann.id, "among": 200, "after": 10}).fetchall() == []


def test_an_undo_passes_it_over(store, ann):
    assert vote(store, ann) and judgments.undo(store, ann.id) is None
    assert demo_votes.count(store) == 1


def test_training_takes_it_only_when_asked(store, ann):
    vote(store, ann)
    assert pairs.of_store(store, include_simulated=False) == []
    (pair,) = pairs.of_store(store, include_simulated=False, demo_votes=True)
    assert (pair.chosen, pair.rejected) == ("by scattering", "by dust")
    assert pair_counts.count(store).total("human") == 0 and pair_counts.count(store, demo_votes=True).total("human") == 1
    assert pair.split == "train"
    with pytest.raises(pairs.NotEnoughPairs):
        pairs.require_in_store(store, 1, include_simulated=False)
    pairs.require_in_store(store, 1, include_simulated=False, demo_votes=True)


def test_statistics_leave_it_out_and_count_it(store, ann):
    vote(store, ann)
    assert len(rankings.read(store).judgment) == 0
    assert agreement.report(store).judgments == 0 and leaderboard.leaderboard(store).judgments == 0
    assert stats.stats(store)["demo_votes"] == 1


def test_an_export_names_how_many_it_leaves_out(store, ann, tmp_path):
    vote(store, ann)
    exported = formats.FORMATS["trl"].write(store, tmp_path / "out.jsonl")
    assert exported.judgments == 0 and exported.aside == {"votes of the Demo page": 1}
    assert list(export.grouped(store)) == []


def test_a_correction_stays_a_vote_of_the_demo_page(store, ann):
    judgment = vote(store, ann)
    judgments.correct(store, judgment.id, ann.id, verdict="rank", tiers=tuple(reversed(judgment.tiers)))
    assert demo_votes.count(store) == 1 and pairs.of_store(store, include_simulated=False) == []
    assert json.dumps(stats.stats(store)["judgments"]) == '{"human": 1, "simulated": 0}'
