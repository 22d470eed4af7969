"""The audit log in words."""

from lead_page import EN, KO

from feedback_ui.lead import audit_view
from storage.content import batches, policies
from storage.core.records import ProjectSettings, Sampling
from storage.judging import assignments, exclusions, judgments, prompt_use, queue
from storage.people import accounts, annotators, audit
from storage.project import runs, settings


def test_the_audit_is_in_the_readers_language(store, part, people, of_three):
    settings.change(store, ProjectSettings(overlap=4), people.local.id)
    batch = batches.request(store, [policies.all_versions(store)[0].id], completions=2, sampling=Sampling(), count=7, by=people.local.id)
    batches.cancel(store, batch.id, people.local.id)
    vote = judgments.save(store, queue.next_presentation(store, people.ann.id)[1].id, people.ann.id, verdict="skip", skip_reason="<odd>")
    exclusions.exclude(store, [vote.id], rule="too fast", reason="why", by=people.local.id)
    accounts.create(store, "Lea", "long enough", ["lead"], people.local.id)
    english, korean = (
        audit_view.audit_list(words, audit.entries(store), {a.id: a.name for a in annotators.all_annotators(store)}) for words in (EN, KO)
    )
    for text in ("overlap = 4", "7 comparisons", "0 of 7 made", "Too fast: why", "account Lea", "&lt;odd&gt;"):
        assert text in english, text
    assert "비교 7개" in korean and "너무 빠름: why" in korean


def test_each_entry_links_to_what_was_done(store, part, people, of_three):
    judgments.save(store, queue.next_presentation(store, people.ann.id)[1].id, people.ann.id, verdict="skip", skip_reason="x")
    batch = batches.request(store, [1], completions=2, sampling=Sampling(), count=1, annotator_ids=[people.ann.id], by=people.local.id)
    assignments.assign(store, batch.id, [], people.local.id)
    new = prompt_use.edit(store, of_three.prompt.id, "Four?", people.local.id)
    runs.create(store, "round 1", config={}, seed=7, versions={}, by=None)
    named = {a.id: a.name for a in annotators.all_annotators(store)}
    html = audit_view.audit_list(EN, audit.entries(store), named)
    for address in ("#comparison-1", "#lead/comparisons", "#lead/prompts", "#training/round%201"):
        assert f'href="{address}"' in html, address
    assert f"prompt {new.id}" in html and f"replaces prompt {of_three.prompt.id}" in html
    assert ">Ann</span>" in html and ">everybody</span>" in html


def test_every_act_and_subject_has_its_words():
    for words in (EN, KO):
        assert all(words(f"lead.audit.act.{act.replace(' ', '_')}") for act in audit.ACTS)
