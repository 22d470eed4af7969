"""The engine answers in the order it was asked, in whole characters."""

from pathlib import Path

import pytest
from learning import scramble, user

from rlhf.config import AdapterConfig
from rlhf.generation.engine import Engine
from rlhf.models.backbone import Backbone
from storage.content import policies, prompts
from storage.core.records import Sampling
from storage.project import runs

# The speakers themselves.


@pytest.fixture
def engine(store, backbone, tiny_folder):
    return Engine(store, str(tiny_folder), backbone)


def test_a_batch_is_answered_in_the_order_it_was_asked(store, engine):
    prompts.add(store, [prompts.NewPrompt(user(f"Q{i}"), "test", "train") for i in range(3)], source="test")
    first, second, third = prompts.of_split(store)
    maker = Backbone.load(Path(engine.model), "cpu", "float32")
    maker.add_adapter("policy", AdapterConfig(rank=4), seed=0)
    scramble(maker, "policy", scale=0.3)
    runs.create(store, "r1", config={}, seed=0, versions={})
    maker.save_adapter("policy", store.path.parent / "runs" / "r1")
    tuned = policies.register_tuned(store, name="t", base_model=engine.model, adapter_path="runs/r1", run_id="r1")
    greedy = Sampling(temperature=0, max_new_tokens=12)
    asked = [(tuned, first), (engine.base, second), (tuned, third), (engine.base, first)]
    together = [d.text for d in engine.generate(asked, greedy, 0)]
    assert together == [engine.generate([one], greedy, 0)[0].text for one in asked]
    assert len(set(together)) == 4
    again = Sampling(temperature=1.0, max_new_tokens=12)
    assert [d.text for d in engine.generate(asked, again, 3)] == [d.text for d in engine.generate(asked, again, 3)]


def test_pieces_are_whole_characters_and_add_up(engine, monkeypatch):
    # Greek is two bytes a letter, and the tiny model has one token a byte.
    ids = [*engine.backbone.encode_answer("\u03b1\u03b2\u03b3 caf\u00e9"), engine.backbone.eos_id]
    import rlhf.generation.engine as module

    class Token:
        def __init__(self, i):
            self.i = i

        def __getitem__(self, _):
            return self.i

    monkeypatch.setattr(module, "stream", lambda *_, **__: iter([(Token(i), None) for i in ids]))
    pieces = list(engine.stream_text(engine.base, engine.prompt(user("Q")), Sampling(), 0))
    assert [p for p, _ in pieces] == ["\u03b1", "\u03b2", "\u03b3", " ", "c", "a", "f", "\u00e9", ""]
    assert pieces[-1] == ("", "stop") and {r for _, r in pieces[:-1]} == {None}


def test_nobody_chats_after_a_chat_however_it_ended(engine):
    for leave in (lambda p: list(p), lambda p: (next(p), p.close())):
        leave(engine.stream_text(engine.base, engine.prompt(user("Q")), Sampling(max_new_tokens=5), 0))
        assert engine._active_chats == 0


def test_an_unknown_name_is_a_key_error(engine):
    with pytest.raises(KeyError):
        engine.named("nobody")
