"""The Lead page: who may do what, and how it opens."""

import inspect

import gradio as gr
import pytest
from lead_page import EN, HERE, asking, pressed, sign_in

from feedback_ui.lead import lead_view
from feedback_ui.server.auth import Refused
from storage.content import batches, policies
from storage.core.records import Sampling

READING = {
    "enter", "open", "load", "include", "open_item", "view", "follow", "show_newer", "show_older",
}  # fmt: skip
"""Handlers that only show something; a researcher may have them too. All others change something, or begin to."""


def called(handler, request):
    """Calls a handler with empty fields."""
    given = {}
    for name, parameter in inspect.signature(handler).parameters.items():
        kind = str(parameter.annotation)
        given[name] = request if "Request" in kind else pressed("x", 1) if "EventData" in kind else {} if name == "values" else None
    return handler(**given)


def handlers(app):
    return {f"{type(fn.fn.__self__).__name__}.{fn.fn.__name__}": fn.fn for fn in app.fns.values() if hasattr(fn.fn, "__self__")}


def test_every_handler_checks_access(store, app, auth):
    sign_in(store, auth, "Lea", "lead")
    annotator = sign_in(store, auth, "Ann", "annotator")
    researcher = sign_in(store, auth, "Res", "researcher")
    every = handlers(app)
    assert len(every) >= 30
    for name, handler in every.items():
        for request in (annotator, asking()):
            with pytest.raises(Refused):
                called(handler, request)
        if name.split(".")[1] not in READING:
            with pytest.raises(Refused, match="role"):
                called(handler, researcher)


def test_who_may_only_read_sees_no_buttons(store, lead, part, auth, waiting):
    sign_in(store, auth, "Lea", "lead")
    request = sign_in(store, auth, "Res", "researcher")
    batches.request(store, [policies.all_versions(store)[0].id], completions=2, sampling=Sampling(), count=1, by=None)
    shown = lead.enter("comparisons", None, request)
    assert "for a lead" in shown[lead.reading]
    assert shown[part.batches.asking].visible is False and shown[part.gold.setting].visible is False
    assert "rl-table" in shown[part.batches.list] and "data-act" not in shown[part.batches.list]
    assert "Judgments for each comparison" in part.settings.open(request)[part.settings.readers]


def test_coming_to_the_page_opens_the_section_that_was_left(lead, part):
    assert part.quality.overview in lead.enter("", None, HERE)
    assert part.audit.entries in lead.enter("audit", None, HERE) and part.quality.overview not in lead.enter("audit", None, HERE)
    assert part.quality.overview in lead.enter("no such section", None, HERE)


def test_a_link_opens_its_comparison_above_the_sections_once(lead, waiting, store, auth):
    opened = lead.enter("audit", waiting[0].id, HERE)
    assert "Why does bread rise?" in opened[lead.linked_item] and 'data-testid="item"' in opened[lead.linked_item]
    assert lead.enter("audit", None, HERE)[lead.linked_item] == ""
    assert "no comparison 99" in lead.enter("", 99, HERE)[lead.linked_item]
    sign_in(store, auth, "Lea", "lead")
    researcher = sign_in(store, auth, "Res", "researcher")
    read_only = lead.enter("", waiting[0].id, researcher)[lead.linked_item]
    assert "Why does bread rise?" in read_only and "data-act" not in read_only


def test_every_section_opens_in_korean_and_says_what_to_do_next(lead, part, store):
    policies.ensure_base(store, "m")
    for name, section in vars(part).items():
        shown = section.open(asking("ko-KR"))
        said = "".join(value for value in shown.values() if isinstance(value, str)).strip()
        assert not said or any("가" <= letter <= "힣" for letter in said), name
    assert "아직" in part.quality.open(asking("ko"))[part.quality.overview]


def test_a_click_that_no_table_sends_is_refused_in_words(part):
    for event in (gr.EventData(None, None), gr.EventData(None, {"act": "lift", "row": "1; DROP"}), gr.EventData(None, {"row": 1})):
        assert "reload the page" in part.exclusions.choose(event, HERE)[part.exclusions.message]
        assert "reload the page" in part.quality.open_item(event, HERE)


def test_a_draft_is_not_lost_by_looking_at_another_section(part, people):
    section = part.guidelines
    assert section.load("", HERE)[section.editor] == ""
    section.publish("One", HERE)
    assert section.load("", HERE) == {section.editor: "One", section.preview: lead_view.guideline_preview(EN, "One")}
    section.publish("Two", HERE)
    assert section.load("One", HERE)[section.editor] == "Two", "an older version is no draft"
    assert section.editor not in section.load("Three, half wri", HERE)
<<<<<<< HEAD


# ---- settings


def filled(section, **changes):
    """The form's values as they open, with some typed anew."""
    opened = section.open(HERE)
    values = {field: opened[field].value if isinstance(opened[field], gr.Dropdown) else opened[field] for field in section.fields.values()}
    return values | {section.fields[name]: value for name, value in changes.items()}


def test_settings_are_saved_as_a_version(store, part):
    section = part.settings
    said = section.change(filled(section, overlap=3, gold_share=0.1, aspects="helpful, honest ,", rationale="required", flags=False), HERE)
    assert "Saved" in said
    assert settings.current(store) == ProjectSettings(
        overlap=3, gold_share=0.1, aspects=("helpful", "honest"), rationale="required", flags=False
    )
    assert settings.current(store) == section_values(section)


def section_values(section):
    """The values that the opened form would save."""
    from feedback_ui.lead.settings import _value

    values = filled(section)
    return ProjectSettings(**{name: _value(EN, name, values[field]) for name, field in section.fields.items()})


def test_settings_that_will_not_do_are_told_and_not_saved(store, part):
    section = part.settings
    assert "overlap must be 1 to 20" in section.change(filled(section, overlap=0), HERE)
    assert "Share of gold is empty" in section.change(filled(section, gold_share=None), HERE)
    assert settings.current(store) == ProjectSettings()


def test_every_setting_is_in_the_form_with_its_docstring_as_help(part):
    helps = {p.arg_name: p.description for p in docstring_parser.parse_from_object(ProjectSettings).params}
    assert set(part.settings.fields) == set(helps)
    for name, help_ in helps.items():
        assert EN(f"lead.settings.{name}.help") == help_
        assert part.settings.fields[name].info.key == f"lead.settings.{name}.help"


# ---- prompts


def test_a_file_of_prompts_is_imported_and_its_wrong_rows_are_named(store, part, tmp_path):
    section = part.prompts
    assert "No prompts yet" in section.open(HERE)[section.counts]
    file = tmp_path / "some.jsonl"
    other = {"messages": [{"role": "user", "content": "Q2"}], "split": "heldout"}
    rows = [{"prompt": "Q1", "kind": "story", "split": "train"}, {"prompt": ""}, other]
    file.write_text("\n".join(map(json.dumps, rows)) + '\n{"prompt": "<b>', encoding="utf-8")
    shown = section.import_file(str(file), HERE)
    assert "2 prompts added" in shown[section.message] and "2 rows were left out" in shown[section.message]
    assert "Line 2: a message is empty" in shown[section.message] and "Line 4: not JSON" in shown[section.message]
    assert prompts.by_kind(store) == [("imported", "heldout", 1), ("story", "train", 1)]
    assert "some.jsonl" in shown[section.imports] and "2 wrong rows left out" in shown[section.imports]
    assert "imported before" in section.import_file(str(file), HERE)[section.message]
    assert "choose it again" in section.import_file(None, HERE)[section.message]


def test_typed_prompts_are_one_a_line_and_an_import_can_be_undone(store, part, people):
    section = part.prompts
    shown = section.add_lines("One?\n\n  Two?  \nOne?", "chat", "train", HERE)
    assert shown[section.lines] == "" and "2 prompts added. 1 was there already." in shown[section.message]
    assert [(p.text, p.kind, p.split) for p in prompts.of_split(store)] == [("One?", "chat", "train"), ("Two?", "chat", "train")]
    assert imports.all_imports(store)[0].by_id == people.local.id
    shown = section.undo(pressed("undo", 1), HERE)
    assert "Import 1 is undone" in shown[section.message] and prompts.of_split(store) == []
    assert "undone" in shown[section.imports] and "data-act" not in shown[section.imports]
    assert "undone before" in section.undo(pressed("undo", 1), HERE)[section.message]
    assert "at least one" in section.add_lines(" \n", "chat", "auto", HERE)[section.message]


# ---- batches


def asked(section, who, **changes):
    values = {field: field.value for field in section.numbers.values()} | {section.who: who, section.priority: "normal"}
    return values | {getattr(section, name): value for name, value in changes.items()}


def test_a_batch_is_asked_for_followed_and_cancelled(store, part, server, people):
    section = part.batches
    base = policies.ensure_base(store, "m")
    assert section.open(HERE)[section.timer].active is False
    server.fill(3.0)
    shown = section.ask(asked(section, [base.id], count=40, answers=3, top_k=5, priority="high"), HERE)
    batch = batches.all_batches(store)[0]
    assert (batch.policy_ids, batch.completions, batch.requested, batch.priority, batch.by_id) == ((base.id,), 3, 40, 1, people.local.id)
    assert batch.sampling == Sampling(temperature=0.7, top_p=1.0, top_k=5, max_new_tokens=96)
    assert shown[section.timer].active is True and "0 of 40" in shown[section.list] and "about 2 min left" in shown[section.list]
    assert section.list not in section.follow(shown[section.list], HERE), "what has not changed is not sent again"
    batches.add_generated(store, batch.id, 10)
    assert "10 of 40" in section.follow(shown[section.list], HERE)[section.list]
    shown = section.cancel(pressed("cancel", batch.id), HERE)
    assert shown[section.timer].active is False and "cancelled" in shown[section.list]
    assert batches.get(store, batch.id).cancelled_at is not None


def test_a_batch_that_will_not_do_is_refused(store, part):
    section, base = part.batches, policies.ensure_base(store, "m")
    assert "at least one policy version" in section.ask(asked(section, []), HERE)[section.message]
    assert "2 to 9 answers" in section.ask(asked(section, [base.id], answers=10), HERE)[section.message]
    assert "temperature must be 0 to 2" in section.ask(asked(section, [base.id], temperature=3), HERE)[section.message]
    assert "Longest answer is empty" in section.ask(asked(section, [base.id], longest=None), HERE)[section.message]
    assert batches.all_batches(store) == []


def test_only_versions_that_can_answer_are_offered(store, part, server):
    assert "No policy version" in part.batches.open(HERE)[part.batches.message]
    base = policies.ensure_base(store, "m")
    imported, distant = policies.ensure_external(store, "somebody's"), policies.ensure_external(store, "distant")
    offered = dict(part.batches.open(HERE)[part.batches.who].choices)
    assert offered == {base.name: base.id} and imported.id not in offered.values()
    server.collect_from("distant")
    assert dict(part.batches.open(HERE)[part.batches.who].choices) == {base.name: base.id, distant.name: distant.id}


def test_a_server_that_is_down_is_told_beside_what_waits(store, part, server):
    batches.request(store, [policies.ensure_base(store, "m").id], completions=2, sampling=Sampling(), count=1, by=None)
    server.fall_over("no answer from the policy server")
    assert "Nothing is written now. No answer from the policy server" in part.batches.open(HERE)[part.batches.list]


def test_waiting_times_follow_the_line_and_leave_out_what_is_stuck():
    def batch(number, made, priority=0, cancelled=None):
        return Batch(number, (1,), 2, Sampling(), 10, made, priority, None, "2026-01-01T00:00:00+00:00", cancelled)

    every = [batch(5, 10), batch(4, 0, cancelled="2026-01-02T00:00:00+00:00"), batch(3, 4, priority=1), batch(2, 0), batch(1, 5)]
    html = lead_view.batch_list(EN, every, {}, {}, notes={"2": "The adapter is <missing>."}, seconds_per_comparison=20.0, acts=True)
    rows = html.split("<tr>")[2:]
    # Batch 3 is more urgent: 6 x 20 s; batch 1 waits for it and for its own 5. Batch 2 is stuck and says why.
    states = ("done", "cancelled", "about 2 min left", "The adapter is &lt;missing&gt;.", "about 4 min left")
    assert [[said in row for said in states] for row in rows] == [[i == j for j in range(5)] for i in range(5)]
    assert [row.count('data-act="cancel"') for row in rows] == [0, 0, 1, 1, 1]


# ---- gold


@pytest.fixture
def of_three(store):
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": "Three?"},), split="train")], source="test")
    prompt, version = prompts.of_split(store)[0], policies.ensure_base(store, "m")
    ids = [
        completions.add(
            store, prompt_id=prompt.id, policy_version_id=version.id, text=f"answer <i>{i}</i>", sampling=Sampling(), seed=0,
            finish_reason="stop", latency_s=0.1,
        )
        for i in range(3)
    ]  # fmt: skip
    return comparisons.get(store, comparisons.add(store, prompt.id, ids, purpose="collect"))


@pytest.mark.parametrize(
    "said, tiers",
    [("B > A = C", ((1,), (0, 2))), (" c>b >a ", ((2,), (1,), (0,))), ("a=b=c", ((0, 1, 2),))],
)
def test_a_known_order_is_read(of_three, said, tiers):
    ids = [c.id for c in of_three.completions]
    found = lead_view.tiers_of(EN, said, of_three)
    assert found == tuple(tuple(ids[place] for place in tier) for tier in tiers)
    assert lead_view.tiers_of(EN, lead_view.letters(of_three, found), of_three) == tuple(tuple(sorted(tier)) for tier in found)


@pytest.mark.parametrize(
    "said, problem",
    [
        ("B > A", "C is missing"), ("A > B > C > A", "A stands there twice"), ("A > D > B", "D is no answer here"),
        ("A B C", "A B C is no answer"), ("", "∅ is no answer"), ("A > > B = C", "∅ is no answer"), ("1 > 2 > 3", "1 is no answer"),
    ],
)  # fmt: skip
def test_what_is_no_order_is_refused_with_its_cause(of_three, said, problem):
    with pytest.raises(lead_view.BadOrder, match=problem):
        lead_view.tiers_of(EN, said, of_three)


def test_a_gold_answer_is_set_shown_and_measured(store, part, of_three, people, judge):
    section = part.gold
    assert "There is no comparison 99" in section.show(99, HERE)[section.message]
    assert "Type the number" in section.show(None, HERE)[section.message]
    shown = section.show(of_three.id, HERE)
    for said in ("Three?", "answer &lt;i&gt;2&lt;/i&gt;", "m</span>"):
        assert said in shown[section.opened]
    assert "C is missing" in section.set_answer(of_three.id, "B > A", "", HERE)[section.message]
    shown = section.set_answer(of_three.id, "B > A = C", "B is <right>", HERE)
    ids = [c.id for c in of_three.completions]
    assert gold.answer(store, of_three.id) == ((ids[1],), (ids[0], ids[2]))
    assert "not judged yet" in shown[section.list] and "B &gt; A = C" in shown[section.list]
    settings.change(store, ProjectSettings(gold_share=0.5), None)
    for annotator, order in ((people.ann, (1, 0, 2)), (people.tom, (0, 1, 2))):
        meet_gold(store, annotator, of_three, order)
    assert "1 of 2" in section.open(HERE)[section.list]
    assert section.choose(pressed("open", of_three.id), HERE)[section.order] == "B > A = C"
    assert "B is <right>" in {entry.detail for entry in audit.entries(store)}


def meet_gold(store, annotator, comparison, order):
    """Judges a gold comparison as if the queue had chosen it for this annotator."""
    shown = presentations.record(store, comparison, annotator.id, purpose="gold")
    tiers = tuple((comparison.completions[place].id,) for place in order)
    return judgments.save(store, shown.id, annotator.id, verdict="rank", tiers=tiers)


# ---- exclusions


def test_an_annotators_votes_are_excluded_and_lifted(store, part, people, waiting, judge):
    section = part.exclusions
    votes = [judge(people.ann), judge(people.ann)]
    assert "Nothing is excluded" in section.open(HERE)[section.list]
    assert ("Ann", people.ann.id) in section.open(HERE)[section.annotator].choices
    shown = section.exclude(people.ann.id, "", "", "too fast", "One second <each>", HERE)
    assert "2 judgments excluded" in shown[section.message] and "One second &lt;each&gt;" in shown[section.list]
    assert not any(history.get(store, vote.id).judgment.counts for vote in votes)
    chosen = section.choose(pressed("lift", 1), HERE)
    assert chosen[section.lifted] == 1 and "Lift exclusion 1: Too fast" in chosen[section.which]
    assert "needs a reason" in section.lift(1, " ", HERE)[section.message]
    shown = section.lift(1, "It was the other Ann", HERE)
    assert "count again" in shown[section.message] and "data-act" not in shown[section.list]
    assert all(history.get(store, vote.id).judgment.counts for vote in votes)
    assert "lifted before" in section.lift(1, "again", HERE)[section.message]
    assert "Press Lift" in section.lift(None, "x", HERE)[section.message]


def test_single_judgments_and_a_day_narrow_an_exclusion(store, part, people, waiting, judge):
    section = part.exclusions
    first, second = judge(people.ann), judge(people.ann)
    section.exclude(None, "", f"#{first.id}", "my own rule", "why", HERE)
    assert not history.get(store, first.id).judgment.counts and history.get(store, second.id).judgment.counts
    assert exclusions.all_exclusions(store)[0].rule == "my own rule"
    assert "excluded" in section.exclude(people.ann.id, second.created_at[:10], "", "other", "why", HERE)[section.message]
    assert "no judgment to exclude" in section.exclude(people.ann.id, "2999-01-01", "", "other", "why", HERE)[section.message]


@pytest.mark.parametrize(
    "given, problem",
    [
        ((None, "", "", "other", "why"), "Choose an annotator"), ((None, "", "x", "other", "why"), "X is no judgment"),
        ((1, "yesterday", "", "other", "why"), "Yesterday is no day"), ((None, "", "77", "other", "why"), "not in the store"),
        ((None, "", "77", "other", ""), "needs a rule and a reason"),
    ],
)  # fmt: skip
def test_an_exclusion_of_nothing_is_refused(part, people, given, problem):
    section = part.exclusions
    assert problem in section.exclude(*given, HERE)[section.message]


def test_the_first_wrong_gold_answer_is_where_trust_ended(store, part, people, of_three):
    section = part.exclusions
    gold.set_answer(store, of_three.id, tuple((c.id,) for c in of_three.completions), None)
    settings.change(store, ProjectSettings(gold_share=0.5), None)
    assert "no gold comparison wrongly" in section.fill_since(people.tom.id, HERE)[section.message]
    wrong = meet_gold(store, people.tom, of_three, (1, 0, 2))
    shown = section.fill_since(people.tom.id, HERE)
    assert shown[section.since] == wrong.created_at and shown[section.rule] == "gold accuracy"
    assert "Choose an annotator" in section.fill_since(None, HERE)[section.message]


def test_tables_of_quality_lead_to_the_form(lead, part, people):
    shown = lead.exclude_from(pressed("exclude", people.ann.id), HERE)
    assert shown[lead.tabs].selected == "exclusions" and shown[part.exclusions.annotator].value == people.ann.id
    shown = lead.exclude_from(pressed("exclude-one", 12), HERE)
    assert shown[part.exclusions.judgment] == "12" and shown[part.exclusions.annotator].value is None
    assert part.exclusions.judgment not in part.exclusions.open(HERE), "the tab that opens then must not empty the form again"


# ---- quality


def test_quality_shows_figures_annotators_and_items(store, part, people, waiting, judge):
    settings.change(store, ProjectSettings(overlap=2), None)
    for annotator, orders in ((people.ann, ((0, 1), (0, 1))), (people.tom, ((0, 1), (1, 0)))):
        for order in orders:
            judge(annotator, order)
    shown = part.quality.open(HERE)
    counts = shown[part.quality.counts]
    assert "<dt>Judgments today (UTC)</dt><dd>4</dd>" in counts and "<dt>Judged by two or more</dt><dd>2</dd>" in counts
    assert 'data-figure="unanimous"' in shown[part.quality.overview] and "1 of 2" in shown[part.quality.overview]
    table = shown[part.quality.annotators]
    assert "&lt;b&gt;Tom&lt;/b&gt;" in table and "<b>Tom" not in table and table.count('data-act="exclude"') == 2
    rows = shown[part.quality.items].split("<tr>")[2:]
    assert [row.count("0%") for row in rows] == [1, 1] and "100%" not in rows[0] and "100%" in rows[1], "the lowest comes first"


def test_an_item_tells_everything_that_was_said_of_it(store, part, people, waiting, judge):
    settings.change(store, ProjectSettings(overlap=2), None)
    comparison = waiting[0]
    judge(people.ann, (0, 1), strength="slightly", rationale="Because <i>so</i>", flags=(Flag("unsafe", "knives & forks"),))
    # Either of the two may come first.
    vote = next(vote for vote in (judge(people.tom, (1, 0)), judge(people.tom, (1, 0))) if vote.comparison_id == comparison.id)
    exclusions.exclude(store, [vote.id], rule="too fast", reason="In <1 s", by=None)
    html = part.quality.open_item(pressed("open", comparison.id), HERE)
    assert "Why does bread rise?" in html and html.count("SecretModel") == 2, "the lead may know who wrote what"
    first, second = html.split("<li ")[1:]
    assert 'data-counts="true"' in first and "A &gt; B" in first and "slightly better" in first and "Counts." in first
    assert "Because &lt;i&gt;so&lt;/i&gt;" in first and "Unsafe" in first and "knives &amp; forks" in first
    assert 'data-counts="false"' in second and "B &gt; A" in second and "exclusion 1. Too fast: In &lt;1 s" in second
    assert first.count("data-act") == 1 and second.count("data-act") == 0, "what does not count need not be excluded"
    assert "There is no comparison" in part.quality.open_item(pressed("open", 99), HERE)


def test_simulated_annotators_come_in_only_when_asked_for(store, part, waiting):
    rule = annotators.ensure(store, "robot", "simulated", "length")
    judgments.add_simulated(store, waiting[0].id, rule.id, tiers=tuple((c.id,) for c in waiting[0].completions))
    assert "robot" not in part.quality.open(HERE)[part.quality.annotators]
    assert "robot" in part.quality.include(True, HERE)[part.quality.annotators]


@pytest.mark.parametrize(
    "spread, drawn",
    [
        ((0.5, 0.25, 1.0), "left:25.0%;width:75.0%"),
        ((-0.2, -0.5, 0.1), "left:0.0%;width:10.0%"),
        ((0.3, None, None), "left:30.0%;width:0.0%"),
    ],
)
def test_intervals_are_drawn_between_0_and_1(spread, drawn):
    assert drawn in quality_view.interval(spread)


def test_a_side_that_matters_stands_out():
    rows = [quality_view._left_cell(EN, LeftShare(0.9, 0.7, 0.98, 20, p)) for p in (0.0004, 0.2)]
    assert "rl-warn" in rows[0] and "p &lt; 0.001" in rows[0]
    assert "rl-warn" not in rows[1] and "p = 0.200" in rows[1]


# ---- accounts


def test_the_first_account_turns_sign_in_on(store, part, auth):
    section = part.accounts
    opened = section.open(HERE)
    assert "turns sign-in on, for good" in opened[section.warning]
    assert set(opened[section.new_roles].value) == {"annotator", "lead", "researcher"}
    assert "needs the role lead" in section.add("Ann", "long enough", ["annotator"], HERE)[section.message]
    assert "8" in section.add("Lea", "short", ["lead"], HERE)[section.message] and not accounts.any_accounts(store)
    shown = section.add("Lea", "long enough", ["lead"], HERE)
    assert "sign-in is on now" in shown[section.message] and 'href=""' in shown[section.message] and shown[section.adding].visible is False
    assert shown[section.warning] == "" and "long enough" not in str(shown)
    with pytest.raises(Refused):
        section.open(HERE)


def test_accounts_are_added_changed_and_disabled(store, part, auth):
    request = sign_in(store, auth, "Lea", "lead")
    section = part.accounts
    shown = section.add("<b>Ann</b>", "long enough", ["annotator"], request)
    ann = accounts.named(store, "<b>Ann</b>")
    assert "may sign in now" in shown[section.message] and "&lt;b&gt;Ann" in shown[section.list] and shown[section.new_password] == ""
    opened = section.edit(pressed("edit", ann.id), request)
    assert opened[section.roles].value == ["annotator"] and opened[section.editing].visible is True
    section.set_roles(ann.id, ["annotator", "researcher"], request)
    assert accounts.get(store, ann.id).roles == {"annotator", "researcher"}
    section.set_password(ann.id, "another one", request)
    assert accounts.sign_in(store, "<b>Ann</b>", "another one")
    assert "disabled" in section.disable_or_enable(ann.id, request)[section.list] and accounts.get(store, ann.id).disabled
    section.disable_or_enable(ann.id, request)
    assert not accounts.get(store, ann.id).disabled
    lea = accounts.named(store, "Lea")
    assert "only lead" in section.disable_or_enable(lea.id, request)[section.message]
    assert "No account is chosen" in section.set_roles(None, ["lead"], request)[section.message]
    whom = store.row("SELECT by_id FROM account_events WHERE act = 'disabled'")["by_id"]
    assert whom == lea.annotator.id


# ---- audit


def test_the_audit_is_paged_newest_first(store, part, people, monkeypatch):
    monkeypatch.setattr("feedback_ui.lead.audit.ROWS", 2)
    section = part.audit
    assert "Nobody has done anything" in section.open(HERE)[section.entries]
    for text in ("one", "two", "three"):
        guidelines.publish(store, text, people.local.id)
    first = section.open(HERE)
    assert first[section.entries].count("<tr>") == 3 and first[section.older].interactive and not first[section.newer].interactive
    assert "guidelines 3" in first[section.entries] and "guidelines 1" not in first[section.entries]
    last = section.show_older(first[section.skipped], HERE)
    assert "guidelines 1" in last[section.entries] and last[section.newer].interactive and not last[section.older].interactive
    assert "guidelines 3" in section.show_newer(last[section.skipped], HERE)[section.entries]


def test_the_audit_is_told_in_the_readers_language(store, part, people, of_three):
    settings.change(store, ProjectSettings(overlap=4), people.local.id)
    batch = batches.request(store, [policies.all_versions(store)[0].id], completions=2, sampling=Sampling(), count=7, by=people.local.id)
    batches.cancel(store, batch.id, people.local.id)
    vote = judgments.save(store, queue.next_presentation(store, people.ann.id)[1].id, people.ann.id, verdict="skip", skip_reason="<odd>")
    exclusions.exclude(store, [vote.id], rule="too fast", reason="why", by=people.local.id)
    accounts.create(store, "Lea", "long enough", ["lead"], people.local.id)
    english, korean = (
        lead_view.audit_list(words, audit.entries(store), {a.id: a.name for a in annotators.all_annotators(store)}) for words in (EN, KO)
    )
    for said in ("overlap = 4", "7 comparisons", "0 of 7 made", "Too fast: why", "account Lea", "&lt;odd&gt;"):
        assert said in english, said
    assert "비교 7개" in korean and "너무 빠름: why" in korean


def test_versions_that_are_gone_leave_a_number():
    one = Batch(1, (7, 8), 2, Sampling(), 1, 1, 0, None, "2026-01-01T00:00:00+00:00", None)
    known = {7: PolicyVersion(7, "<v7>", "base", "m", None, None, "2026-01-01")}
    assert "&lt;v7&gt;, #8" in lead_view.batch_list(EN, [one], known, {}, notes={}, seconds_per_comparison=None, acts=True)


def test_a_server_that_is_down_still_lets_versions_be_chosen(store, part, server):
    server.fall_over("gone")
    with pytest.raises(PolicyServerDown):
        server.status()
    base = policies.ensure_base(store, "m")
    assert dict(part.batches.open(HERE)[part.batches.who].choices) == {base.name: base.id}
=======
>>>>>>> refs/heads/main
