"""Figures of agreement, annotators and items."""

from lead_page import HERE, meet_gold, pressed

from storage.core.records import Flag, ProjectSettings
from storage.judging import exclusions, gold, judgments
from storage.people import annotators
from storage.project import settings


def test_exclusion_starts_at_the_first_gold_failure(store, part, people, of_three):
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
    reliable = shown[part.quality.reliability]
    assert "&lt;b&gt;Tom&lt;/b&gt;" in reliable and "<b>Tom" not in reliable and reliable.count("/ 2</span>") == 2, "two shared pairs each"
    rows = shown[part.quality.items].split("<tr>")[2:]
    assert [row.count("0%") for row in rows] == [1, 1] and "100%" not in rows[0] and "100%" in rows[1], "the lowest comes first"


def test_a_comparison_shows_all_its_judgments(store, part, people, waiting, judge):
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


def test_the_target_stands_above_everything_and_counts_what_people_did_here(store, part, people, judge, waiting):
    assert part.quality.open(HERE)[part.quality.target] == ""
    settings.change(store, settings.ProjectSettings(target_judgments=3, daily_goal=2), None)
    judge(people.ann)
    shown = part.quality.open(HERE)[part.quality.target]
    assert "3 judgments" in shown and "1 of 3 is there" in shown and "At 1.0 a day (1 day so far) it is reached on" in shown
