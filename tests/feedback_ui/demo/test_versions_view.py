"""The card of a version, in both languages."""

from dataclasses import replace

from feedback_ui.demo import versions_view
from feedback_ui.shared.i18n import Translator
from rlhf.analysis.version_card import Limit, Outcome, VersionCard
from rlhf.config import RoundConfig
from rlhf.data.pairs import SnapshotManifest
from rlhf.runs.results import Estimate, RoundResult
from storage.core.records import PolicyVersion

EN, KO = Translator("en"), Translator("ko")


def card(kind="tuned", licence="apache-2.0", limits=(), config=None):
    version = PolicyVersion(2, "Small-r1", kind, "default", None, None, "2026-11-02T10:00:00.000+00:00")
    data = SnapshotManifest(40, 32, 8, 30, "ab" * 32, demo_votes=3)
    result = RoundResult(win_rate=Estimate(0.64, 0.55, 0.72, 40), kl=2.5)
    return VersionCard(version, "Small", "org/Small", licence, None, config, data, result, tuple(limits))


def test_a_card_has_data_figures_lineage_and_limits():
    html = versions_view.card(
        EN, card(limits=[Limit("few_pairs", {"pairs": 32}), Limit("not_better", {"figure": "win_rate", "low": 0.45})])
    )
    for text in (
        "<h2>Small-r1</h2>", "An adapter for Small, tuned on this project&#39;s judgments. The base&#39;s licence: apache-2.0.",
        "<dt>pairs it learned from</dt><dd>32</dd>", "<dt>votes of the Demo page left out</dt><dd>3</dd>",
        "<dt>Win rate under the rule</dt><dd>64% (55% to 72%)</dd>", "2.50 nats", "<code>org/Small</code>", "<code>abababa</code>",
        "<li>It learned from 32 preference pairs, which is little.</li>", "the interval of “Win rate under the rule” reaches down to 45%.",
        "The same card is in the version&#39;s folder: README.md.",
    ):  # fmt: skip
        assert text in html, text
    assert "선호 쌍 32개로 학습했는데, 적은 양입니다." in versions_view.card(KO, card(limits=[Limit("few_pairs", {"pairs": 32})]))


def test_options_that_differ_from_the_defaults_are_listed():
    html = versions_view.card(EN, card(config=RoundConfig(seed=5, include_simulated=True, model="/secret/folder")))
    assert "<code>seed = 5</code>" in html and "<code>include_simulated = True</code>" in html and "secret" not in html


def test_a_licence_that_nobody_named_is_a_task():
    assert "look it up before you pass this version on" in versions_view.card(EN, card(licence="unknown"))
    assert "licence" not in versions_view.card(EN, card("external", "unknown", [Limit("external", {})])).replace("rl-", "")


def test_newest_first():
    versions = [PolicyVersion(i, f"v{i}", "tuned", "m", None, None, "") for i in (1, 2)]
    assert versions_view.choices(EN, versions) == [("v2 · tuned", "v2"), ("v1 · tuned", "v1")]


def test_the_decision_is_told_with_who_and_why():
    made = Outcome("promoted", "person", "Ann", "It is <b>kinder</b>.", "2026-11-02T10:00:00.000+00:00")
    html = versions_view.card(EN, replace(card(), outcome=made))
    assert "<h3>Decision</h3>" in html and "<strong>Promoted</strong> Ann, " in html and "It is &lt;b&gt;kinder&lt;/b&gt;." in html
    assert "<strong>Rejected</strong> by its guards, " in versions_view.card(
        EN, replace(card(), outcome=replace(made, key="rejected", by="guards"))
    )
    assert "from the command line" in versions_view.card(EN, replace(card(), outcome=replace(made, who=None)))
    assert "Neither promoted nor rejected yet." in versions_view.card(EN, replace(card(), outcome=Outcome("undecided")))
    assert "Decision" not in versions_view.card(EN, card())


def test_where_training_began_is_part_of_the_lineage():
    began = replace(card(), result=RoundResult(started_from="Small-r0"))
    assert "<dt>Training began at</dt><dd><code>Small-r0</code></dd>" in versions_view.card(EN, began)
    assert "Training began at" not in versions_view.card(EN, card())
