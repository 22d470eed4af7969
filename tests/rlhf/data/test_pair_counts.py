"""The pairs that SQLite counts are as many as those that are derived from loaded judgments."""

import contextlib
import random
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data import pairs
from rlhf.data.pairs import NotEnoughPairs
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database
from storage.core.records import Sampling
from storage.judging import exclusions, gold, judgments, pair_counts, presentations
from storage.people import annotators

ACTS = ("rank", "rank", "rank", "skip", "undo", "correct", "exclude", "lift", "rule", "gold", "retire")


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "a "]), min_size=2, max_size=4)
"""Of the completions of one comparison, some alike."""


class World:
    def __init__(self, path):
        self.store = Database(path)
        self.people = [annotators.ensure(self.store, name) for name in ("Ann", "Bob")]
        self.rule = annotators.ensure(self.store, "longest", "simulated", "length")
        self.policy = policies.ensure_base(self.store, "tiny")

    def comparison(self, texts, split):
        message = {"role": "user", "content": f"Q{self.store.value('SELECT count(*) FROM prompts')}"}
        prompts.add(self.store, [prompts.NewPrompt((message,), split=split)], source="test")
        prompt_id = self.store.value("SELECT max(id) FROM prompts")
        ids = [
            completions.add(
                self.store, prompt_id=prompt_id, policy_version_id=self.policy.id, text=text, sampling=Sampling(), seed=0,
                finish_reason="stop", latency_s=0.1,
            )
            for text in texts
        ]  # fmt: skip
        return comparisons.get(self.store, comparisons.add(self.store, prompt_id, ids, purpose="collect"))

    def act(self, act, comparison, rng):
        store, person = self.store, rng.choice(self.people)
        if act == "undo":
            judgments.undo(store, person.id)
        elif act == "rule":
            judgments.add_simulated(store, comparison.id, self.rule.id, tiers=some_tiers(comparison, rng, everything=True))
        elif act == "gold" and not store.value("SELECT gold FROM comparisons WHERE id = ?", [comparison.id]):
            gold.set_answer(store, comparison.id, tuple((c.id,) for c in comparison.completions), None)
        elif act == "retire":
            store.connection.conn.execute("UPDATE comparisons SET retired = 1 WHERE id = ?", [comparison.id])
        elif act == "exclude" and (found := store.value("SELECT id FROM active_judgments ORDER BY id DESC LIMIT 1")):
            exclusions.exclude(store, [found], rule="too fast", reason="0.1 s", by=None)
        elif act == "lift" and (
            found := store.value("SELECT id FROM exclusions WHERE id NOT IN (SELECT exclusion_id FROM exclusion_lifts)")
        ):
            exclusions.lift(store, found, reason="It was not.", by=None)
        elif act == "correct" and (
            found := store.value("SELECT id FROM active_judgments WHERE annotator_id = ? AND comparison_id = ?", [person.id, comparison.id])
        ):
            judgments.correct(store, found, person.id, verdict="rank", tiers=some_tiers(comparison, rng))
        elif act in ("rank", "skip"):
            purpose = rng.choice(["vote", "vote", "repeat"])
            shown = presentations.record(store, comparison, person.id, rng, purpose=purpose)
            said = {"tiers": some_tiers(comparison, rng)} if act == "rank" else {"skip_reason": "unsure"}
            with contextlib.suppress(judgments.LeaseOver, judgments.AlreadyJudged):
                judgments.save(store, shown, person.id, verdict=act, **said)


def some_tiers(comparison, rng, everything=False):
    """A ranking with ties, and perhaps without some completions."""
    ids = [completion.id for completion in comparison.completions]
    rng.shuffle(ids)
    ids = ids if everything else ids[: rng.randint(2, len(ids))]
    tiers = [[ids[0]]]
    for item in ids[1:]:
        if rng.random() < 0.4:
            tiers[-1].append(item)
        else:
            tiers.append([item])
    return tuple(map(tuple, tiers))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    made=st.lists(st.tuples(TEXTS, st.sampled_from(["train", "heldout"])), min_size=1, max_size=4),
    acts=st.lists(st.sampled_from(ACTS), max_size=25),
    seed=st.integers(0, 10_000),
)
def test_as_many_as_are_derived_whatever_is_done(made, acts, seed):
    assert_as_many_as_are_derived(made, acts, seed)


@pytest.mark.parametrize("seed", range(3))
def test_as_many_as_are_derived(seed):
    """Each act, in an order of the seed's, among comparisons of which some texts are alike."""
    made = [(["a", "b"], "train"), (["a", "a ", "b", "c"], "heldout"), (["a", "a", "c"], "train")]
    acts = [*ACTS, *ACTS]
    random.Random(seed).shuffle(acts)
    assert_as_many_as_are_derived(made, acts, seed)


def assert_as_many_as_are_derived(made, acts, seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder, "rankloop.db"))
        there = [world.comparison(texts, split) for texts, split in made]
        for act in acts:
            world.act(act, rng.choice(there), rng)
        assert_same(world.store)
        world.store.close()


def assert_same(store):
    derived = Counter((pair.annotator_kind, pair.split) for pair in pairs.of_store(store, include_simulated=True))
    counts = pair_counts.count(store)
    assert counts.by_kind_and_split == dict(derived)
    for kind, split in product(("human", "simulated"), ("train", "heldout")):
        assert counts.total(kind, splits=(split,)) == derived[kind, split]
    for include_simulated in (False, True):
        loaded = pairs.of_store(store, include_simulated=include_simulated)
        for least in (0, 1, len(loaded), len(loaded) + 1):
            assert refused(lambda n=least, found=loaded: pairs.require(found, n)) == refused(
                lambda n=least, people=include_simulated: pairs.require_in_store(store, n, include_simulated=people)
            )


def refused(check):
    try:
        check()
    except NotEnoughPairs as error:
        return str(error)
    return None


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "rankloop.db")
    yield world
    world.store.close()


def test_a_ranking_of_four_with_a_tie_and_two_alike(world):
    comparison = world.comparison(["a", "b", "c", "a"], "heldout")
    one, two, three, four = (completion.id for completion in comparison.completions)
    shown = presentations.record(world.store, comparison, world.people[0].id)
    judgments.save(world.store, shown, world.people[0].id, verdict="rank", tiers=((one,), (two, three), (four,)))
    # 1 above 2 and 3, which are above 4; 1 and 4 have the same text.
    assert pair_counts.count(world.store).by_kind_and_split == {("human", "heldout"): 4}
    assert pair_counts.count(world.store).total("human", "simulated") == 4
    assert pair_counts.count(world.store).total("simulated") == 0
    assert_same(world.store)


@pytest.mark.parametrize("tiers", ["[[1],", "{}", '["1", [2]]', "[[1],[]]", "[[1],2]", "null", "3", '[[1],["2"]]', "[[1],[2.0]]"])
def test_tiers_that_cannot_be_read_make_no_pair(world, tiers):
    for _ in range(2):
        comparison = world.comparison(["a", "b"], "train")
        shown = presentations.record(world.store, comparison, world.people[0].id)
        judgments.save(world.store, shown, world.people[0].id, verdict="rank", tiers=tuple((c.id,) for c in comparison.completions))
    world.store.connection.conn.execute("DROP TRIGGER judgments_are_not_changed")
    world.store.connection.conn.execute("UPDATE judgments SET tiers = ? WHERE id = 1", [tiers])
    assert pair_counts.count(world.store).by_kind_and_split == {("human", "train"): 1}
    assert_same(world.store)


def test_no_text_leaves_the_database(world):
    comparison = world.comparison(["a secret", "another"], "train")
    shown = presentations.record(world.store, comparison, world.people[0].id)
    judgments.save(world.store, shown, world.people[0].id, verdict="rank", tiers=tuple((c.id,) for c in comparison.completions))
    statements, connection = [], world.store.connection.conn
    connection.set_trace_callback(statements.append)
    pairs.require_in_store(world.store, 1, include_simulated=True)
    connection.set_trace_callback(None)
    (statement,) = statements
    assert statement == pair_counts._COUNT
    assert [column[0] for column in connection.execute(statement).description] == ["annotator_kind", "split", "count(*)"]
