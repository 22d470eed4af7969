"""Batches of comparisons are asked for, followed and cancelled."""

import pytest
from lead_page import HERE, pressed, sign_in

from rlhf.serving.client import PolicyServerDown
from rlhf.serving.filler import COLLECTING
from storage.content import batches, policies, prompts
from storage.core.records import PromptFilter, Sampling
from storage.people import accounts


def asked(section, who, **changes):
    values = {field: field.value for field in (*section.numbers.values(), *section.prompts.fields)}
    values |= {section.who: who, section.priority: "normal", section.annotators: []}
    return values | {getattr(section, name): value for name, value in changes.items()}


def add(store, *texts, kind="bikes", split="train"):
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": text},), kind, split) for text in texts], source="test")


def test_a_batch_is_asked_for_followed_and_cancelled(store, part, server, people):
    section = part.batches
    base = policies.ensure_base(store, "m")
    add(store, "Q")
    assert section.open(HERE)[section.timer].active is False
    server.fill(2.0)
    shown = section.ask(asked(section, [base.id], count=40, answers=3, top_k=5, priority="high"), HERE)
    batch = batches.all_batches(store)[0]
    assert (batch.policy_ids, batch.completions, batch.requested, batch.priority, batch.by_id) == ((base.id,), 3, 40, 1, people.local.id)
    assert batch.sampling == Sampling(temperature=0.7, top_p=1.0, top_k=5, max_new_tokens=COLLECTING.max_new_tokens)
    assert shown[section.timer].active is True and "0 of 40" in shown[section.list] and "about 2 min left" in shown[section.list]
    assert section.list not in section.follow(shown[section.list], HERE), "what has not changed is not sent again"
    batches.add_generated(store, batch.id, 10)
    assert "10 of 40" in section.follow(shown[section.list], HERE)[section.list]
    shown = section.act(pressed("cancel", batch.id), HERE)
    assert shown[section.timer].active is False and "cancelled" in shown[section.list]
    assert batches.get(store, batch.id).cancelled_at is not None


def test_what_is_said_of_a_batch_fits_its_priority(store, part):
    section, base = part.batches, policies.ensure_base(store, "m")
    add(store, "Q")
    said = {name: section.ask(asked(section, [base.id], priority=name), HERE)[section.message] for name in ("high", "normal", "low")}
    assert "before all others" in said["high"] and "when nothing else waits" in said["low"]
    assert not any("before" in said[name] for name in ("normal", "low"))
    # What is said is what the server does: it takes them in this order.
    assert [batch.priority for batch in batches.unfinished(store)] == [1, 0, -1]


def test_an_invalid_batch_is_refused(store, part):
    section, base = part.batches, policies.ensure_base(store, "m")
    assert "No prompt in use is chosen" in section.ask(asked(section, [base.id]), HERE)[section.message]
    add(store, "Q")
    assert "at least one policy version" in section.ask(asked(section, []), HERE)[section.message]
    assert "2 to 9 answers" in section.ask(asked(section, [base.id], answers=10), HERE)[section.message]
    assert "temperature must be 0 to 2" in section.ask(asked(section, [base.id], temperature=3), HERE)[section.message]
    assert "Longest answer is empty" in section.ask(asked(section, [base.id], longest=None), HERE)[section.message]
    assert batches.all_batches(store) == []


def test_only_versions_that_can_answer_are_offered(store, part, server):
    assert "There is no policy version" in part.batches.open(HERE)[part.batches.message]
    base = policies.ensure_base(store, "m")
    imported, distant = policies.ensure_external(store, "somebody's"), policies.ensure_external(store, "distant")
    offered = dict(part.batches.open(HERE)[part.batches.who].choices)
    assert offered == {base.name: base.id} and imported.id not in offered.values()
    server.collect_from("distant")
    assert dict(part.batches.open(HERE)[part.batches.who].choices) == {base.name: base.id, distant.name: distant.id}


def test_a_server_that_is_down_is_shown_above_the_waiting_batches(store, part, server):
    batches.request(store, [policies.ensure_base(store, "m").id], completions=2, sampling=Sampling(), count=1, by=None)
    server.fall_over("no answer from the policy server")
    assert "Nothing is generated now. No answer from the policy server" in part.batches.open(HERE)[part.batches.list]


def test_a_server_that_is_down_still_lets_versions_be_chosen(store, part, server):
    server.fall_over("gone")
    with pytest.raises(PolicyServerDown):
        server.status()
    base = policies.ensure_base(store, "m")
    assert dict(part.batches.open(HERE)[part.batches.who].choices) == {base.name: base.id}


def test_what_a_batch_will_do_is_said_before_it_does_it(store, part, server):
    section, base = part.batches, policies.ensure_base(store, "m")
    add(store, *(f"bike {n}" for n in range(26)))
    add(store, *(f"held-out bike {n}" for n in range(4)), split="heldout")
    add(store, "church", kind="churches")
    opened = section.open(HERE)
    assert ("bikes", "bikes") in opened[section.prompts.kind].choices
    assert "Choose the models" in opened[section.outlook]
    kind = {section.prompts.kind: "bikes"}
    shown = section.choose_prompts(asked(section, [base.id], answers=4, wanted=2) | kind, HERE)
    assert shown[section.count] == 30, "as many as prompts were chosen"
    # 15% of 30 is 4.5: never more than the share.
    assert "30 comparisons × 4 answers = 120 answers" in shown[section.outlook] and "≈" not in shown[section.outlook]
    assert "26 comparisons teach (training prompts), 4 measure" in shown[section.outlook] and "60 judgments" in shown[section.outlook]
    server.fill(2.0)
    assert "120 answers ≈ 2 min" in section.foresee(asked(section, [base.id], count=30, answers=4, wanted=2) | kind, HERE)
    assert "Choose the models" in section.foresee(asked(section, []) | kind, HERE)
    assert "No prompt in use is chosen" in section.foresee(asked(section, [base.id]) | {section.prompts.text: "train"}, HERE)
    assert batches.all_batches(store) == [], "nothing was requested"
    section.ask(asked(section, [base.id], count=30, wanted=2) | kind, HERE)
    assert [(b.prompts, b.wanted) for b in batches.all_batches(store)] == [(PromptFilter(kind="bikes"), 2)]


def test_a_batch_is_given_to_accounts(store, part, people, auth):
    section, base = part.batches, policies.ensure_base(store, "m")
    add(store, "Q")
    assert section.open(HERE)[section.annotators].visible is False, "there is nobody to choose"
    lea = sign_in(store, auth, "Lea", "lead")
    ann = accounts.create(store, "Ann", "long enough", ["annotator"]).annotator
    accounts.disable(store, accounts.create(store, "Tim", "long enough", ["annotator"]).id)
    assert section.open(lea)[section.annotators].choices == [("Ann", ann.id)]
    section.ask(asked(section, [base.id], annotators=[ann.id]), lea)
    (batch,) = batches.all_batches(store)
    assert batch.annotator_ids == (ann.id,)
    shown = section.act(pressed("assign", batch.id), lea)
    assert shown[section.assigned] == batch.id and shown[section.judges].value == [ann.id]
    shown = section.assign(batch.id, [], lea)
    assert "Batch 1 is assigned" in shown[section.message] and "only for" not in shown[section.list]
    assert batches.get(store, batch.id).annotator_ids == ()
    assert "Press Assign beside a batch" in section.assign(None, [], lea)[section.message]
