"""The History page's server functions: listing and correcting one's own judgments."""

import json

import pytest

from feedback_ui.judging.history import PAGE_ROWS, HistoryService
from feedback_ui.shared.i18n import Translator
from storage.content import comparisons, completions, policies, prompts
from storage.core.records import Details, Flag, IdealAnswer, ProjectSettings, Sampling
from storage.judging import exclusions, judgments, presentations, queue
from storage.people import annotators
from storage.project import settings

EN = Translator("en")


@pytest.fixture
def service(store):
    return HistoryService(store)


@pytest.fixture
def put(store):
    """Makes comparisons of that many answers each, shows each to the annotator, and returns the presentations."""
    policy = policies.ensure_base(store, "SecretModel")

    def made(annotator, *sizes, purpose="vote"):
        shown = []
        for size in sizes:
            question = f"Question {store.value('SELECT count(*) FROM prompts')}?"
            prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": question},), split="train")], source="test")
            prompt = prompts.of_split(store)[-1]
            ids = [
                completions.add(
                    store, prompt_id=prompt.id, policy_version_id=policy.id, text=f"answer {i} to {question}", sampling=Sampling(),
                    seed=0, finish_reason="stop", latency_s=0.1,
                )
                for i in range(size)
            ]  # fmt: skip
            comparison = comparisons.get(store, comparisons.add(store, prompt.id, ids, purpose="collect"))
            shown.append(presentations.record(store, comparison, annotator.id, purpose=purpose))
        return shown

    return made


def rank(store, shown, tiers, **more):
    """Saves a judgment given in slots."""
    tiers = tuple(tuple(shown.order[slot] for slot in tier) for tier in tiers)
    return judgments.save(store, shown.id, shown.annotator_id, verdict="rank", tiers=tiers, **more)


def skip(store, shown, reason="Broken prompt", **more):
    return judgments.save(store, shown.id, shown.annotator_id, verdict="skip", skip_reason=reason, **more)


def id_of(service, annotator, token):
    """The id of the judgment that a token names."""
    return service.tokens.open("judgment", token, annotator.id)


def name_of(service, judgment):
    return service.tokens.seal("judgment", judgment.id, judgment.annotator_id)


def rows(service, annotator, **filters):
    return service.rows(annotator, EN, filters)["rows"]


def test_each_kind_of_judgment_has_its_text(store, service, local, put):
    pair, tied, bad, skipped, ranked, partial, all_bad = put(local, 2, 2, 2, 2, 4, 4, 3)
    rank(store, pair, [[1], [0]], details=Details(strength="slightly"))
    rank(store, tied, [[0, 1]])
    rank(store, bad, [[0, 1]], all_bad=True)
    skip(store, skipped)
    rank(store, ranked, [[1], [3, 0], [2]])
    rank(store, partial, [[2], [0]])
    rank(store, all_bad, [[0, 1, 2]], all_bad=True)
    found = rows(service, local)
    assert [row["verdict"] for row in reversed(found)] == [
        "B is slightly better", "Tie", "Both bad", "Skipped: Broken prompt", "2 > 1 = 4 > 3", "3 > 1", "All bad",
    ]  # fmt: skip
    assert [row["marks"] for row in reversed(found)][5] == ["partial"]
    assert found[-1]["prompt"] == "Question 0?"


def test_a_predefined_skip_reason_is_translated(store, service, local, put):
    first, second = put(local, 2, 2)
    skip(store, first, "Broken prompt")
    skip(store, second, "두 가지를 묻습니다")
    verdicts = [row["verdict"] for row in service.rows(local, Translator("ko"), {})["rows"]]
    assert verdicts == ["건너뜀: 두 가지를 묻습니다", "건너뜀: 잘못된 질문"]


def test_filters(store, service, local, put):
    a, b, c = put(local, 2, 2, 2)
    first = rank(store, a, [[0], [1]], details=Details(rationale="Clearer wording"))
    second = skip(store, b, details=Details(flags=(Flag("unsafe"),)))
    third = rank(store, c, [[0], [1]])
    exclusions.exclude(store, [third.id], rule="too fast", reason="Under two seconds.", by=None)

    def ids(**filters):
        return [id_of(service, local, row["id"]) for row in rows(service, local, **filters)]

    assert ids() == [third.id, second.id, first.id]
    assert ids(verdict="rank") == [third.id, first.id]
    assert ids(verdict="skip") == [second.id]
    assert ids(flagged=True) == [second.id]
    assert ids(excluded=True) == [third.id]
    assert ids(text="CLEARER") == [first.id]
    assert ids(text="question 2") == [third.id]
    assert ids(text="nothing of the kind") == []
    # Invalid filters are ignored.
    assert ids(verdict="retract", text=3, before="x") == [third.id, second.id, first.id]
    assert rows(service, local, excluded=True)[0]["excluded"] == {"rule": "too fast", "reason": "Under two seconds."}


def test_pages_go_back_without_gap_or_double(store, service, local, put):
    judged = [rank(store, shown, [[0], [1]]).id for shown in put(local, *[2] * (PAGE_ROWS + 3))]
    first = service.rows(local, EN, {})
    second = service.rows(local, EN, {"before": first["older"]})
    assert [id_of(service, local, row["id"]) for row in first["rows"] + second["rows"]] == judged[::-1]
    assert (len(first["rows"]), second["older"]) == (PAGE_ROWS, None)


def test_one_sees_only_ones_own(store, service, local, put):
    other = annotators.ensure(store, "other")
    theirs = rank(store, put(other, 2)[0], [[0], [1]])
    assert rows(service, local) == []
    hidden = service.one(local, EN, {"judgment_id": name_of(service, theirs)})
    assert hidden == {"problem": EN("judging.superseded")}
    assert hidden["problem"] in service.correct(local, EN, {"judgment_id": name_of(service, theirs), "choice": "a"})["problem"]
    for nonsense in ({}, {"judgment_id": "1"}, {"judgment_id": 999}, {"judgment_id": True}, {"judgment_id": theirs.id}):
        assert set(service.one(local, EN, nonsense)) == {"problem"}
    assert judgments.get(store, theirs.id).counts


def test_past_judgments_are_blind_and_gold_looks_like_a_vote(store, service, local, put):
    shapes = set()
    for purpose in ("vote", "gold", "repeat"):
        (shown,) = put(local, 2, purpose=purpose)
        judged = rank(store, shown, [[0], [1]])
        assert judgments.get(store, judged.id).purpose == purpose
        row = rows(service, local)[0]
        view = service.one(local, EN, {"judgment_id": name_of(service, judged)})["view"]
        assert "SecretModel" not in json.dumps([row, view])
        shapes.add(json.dumps([sorted(row), row["marks"], row["excluded"], row["verdict"], sorted(view), view["judgment"]]))
        for completion_id in shown.order:
            assert f'"{completion_id}"' not in json.dumps(view)
    assert len(shapes) == 1


def test_an_opened_judgment_is_shown_in_slots(store, service, local, put):
    settings.change(store, ProjectSettings(aspects=("Clear",), flags=False), None)
    (shown,) = put(local, 2)
    a, b = shown.order
    details = Details("better", {b: {"Clear": 4}}, "Because.", IdealAnswer("Mine", a), (Flag("unsafe", "n", b), Flag("broken_prompt")))
    judged = rank(store, shown, [[1], [0]], details=details)
    view = service.one(local, EN, {"judgment_id": name_of(service, judged)})["view"]
    assert view["judgment"] == {
        "choice": "b", "reason": None, "tiers": [[1], [0]], "strength": "better", "aspects": {"1": {"Clear": 4}}, "rationale": "Because.",
        "ideal": {"text": "Mine", "slot": 0},
        "flags": [{"kind": "unsafe", "note": "n", "slot": 1}, {"kind": "broken_prompt", "note": "", "slot": None}],
    }  # fmt: skip
    # Existing answers stay editable although the project no longer asks for them.
    assert (view["inputs"]["flags"], view["inputs"]["ideal"], view["inputs"]["rationale"]) == (True, True, "optional")
    assert len(view["sources"]) == 2


def test_a_correction_supersedes_the_judgment(store, service, local, put):
    (shown,) = put(local, 2)
    judged = rank(store, shown, [[0], [1]])
    act = {"judgment_id": name_of(service, judged), "choice": "b", "strength": "slightly"}
    reply = service.correct(local, EN, act)
    assert (reply["replaces"], reply["row"]["verdict"]) == (name_of(service, judged), "B is slightly better")
    assert reply["row"]["marks"] == ["corrected"]
    corrected = judgments.get(store, id_of(service, local, reply["row"]["id"]))
    assert (corrected.supersedes, corrected.tiers, corrected.counts) == (judged.id, ((shown.order[1],), (shown.order[0],)), True)
    # The earlier judgment stays, and no longer counts.
    assert (judgments.get(store, judged.id).tiers, judgments.get(store, judged.id).counts) == (judged.tiers, False)
    assert [row["id"] for row in rows(service, local)] == [name_of(service, corrected)]
    # A second request after a lost reply changes nothing.
    assert service.correct(local, EN, act) == reply
    assert store.value("SELECT count(*) FROM judgments") == 2


def test_a_skip_can_become_a_ranking_and_a_ranking_a_skip(store, service, local, put):
    a, b = put(local, 4, 2)
    skipped, ranked = skip(store, a), rank(store, b, [[0], [1]])
    first = service.correct(local, EN, {"judgment_id": name_of(service, skipped), "choice": "rank", "tiers": [[1], [0, 2, 3]]})
    second = service.correct(local, EN, {"judgment_id": name_of(service, ranked), "choice": "skip", "reason": "Unsafe content"})
    assert (first["row"]["verdict"], second["row"]["verdict"]) == ("2 > 1 = 3 = 4", "Skipped: Unsafe content")


def test_an_invalid_correction_is_refused(store, service, local, put):
    judged = rank(store, put(local, 2)[0], [[0], [1]])
    for bad in ({"choice": "c"}, {"choice": "rank", "tiers": [[0], [5]]}, {}):
        assert service.correct(local, EN, {"judgment_id": name_of(service, judged)} | bad)["problem"].startswith("Not saved. ")
    assert [row["id"] for row in rows(service, local)] == [name_of(service, judged)]


def test_an_undone_judgment_is_gone_from_the_list(store, service, local, put):
    put(local, 2)
    _, shown = queue.next_presentation(store, local.id)
    judged = rank(store, shown, [[0], [1]])
    judgments.undo(store, local.id)
    assert rows(service, local) == []
    assert set(service.correct(local, EN, {"judgment_id": name_of(service, judged), "choice": "a"})) == {"problem"}


def test_a_correction_in_a_stale_tab_is_told_what_the_store_has(store, service, local, put):
    (shown,) = put(local, 2)
    judged = rank(store, shown, [[0], [1]])
    name = name_of(service, judged)
    saved = service.correct(local, EN, {"judgment_id": name, "choice": "b"})
    assert service.correct(local, EN, {"judgment_id": name, "choice": "b"}) == saved
    stale = service.correct(local, EN, {"judgment_id": name, "choice": "tie"})
    assert "B is better" in stale["problem"] and stale["stored"] == saved["row"]["id"]
    # A correction of the correction is what the store has then.
    last = service.correct(local, EN, {"judgment_id": stale["stored"], "choice": "tie"})
    assert service.correct(local, EN, {"judgment_id": name, "choice": "b"})["stored"] == last["row"]["id"]
    judgments.undo(store, local.id)
    assert "stored" not in service.correct(local, EN, {"judgment_id": name, "choice": "b"})
