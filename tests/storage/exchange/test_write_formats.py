"""Written rows, and that they read back: each writer by hand on a small store, round trips on many."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.core.database import Database, StoreError
from storage.core.records import Details, IdealAnswer, Timing
from storage.exchange import imports, undos
from storage.exchange.formats import FORMATS, NATIVE, READABLE, WRITABLE
from storage.judging import exclusions, judgments, queue

JSON_LISTS = ("argilla", "labelstudio", "alpacaeval")


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def small(store):
    """Two people on one pair of answers, and one ranking of three with a tie, in a conversation."""
    rows = [
        {"prompt": "Why?", "completions": ["a", "b"], "models": ["m1", "m2"], "tiers": [[1], [0]], "shown": [1, 0], "annotator": "Ann",
         "created_at": "2025-01-02T03:04:05Z", "strength": "slightly", "rationale": "clear",
         "aspects": [{"honest": 2}, {"honest": 5}], "ideal": "ab", "active_ms": 7, "kind": "science", "split": "train"},
        {"prompt": "Why?", "completions": ["a", "b"], "models": ["m1", "m2"], "choice": "both_bad", "annotator": "Bob",
         "created_at": "2025-01-02T03:04:06Z"},
        {"messages": [user("Hi"), assistant("Yes?"), user("More ß")],
         "completions": ["x", "y", "z"], "tiers": [[2], [0, 1]], "annotator": "Ann", "created_at": "2025-01-02T03:04:07Z",
         "split": "train"},
    ]  # fmt: skip
    imports.import_rows(store, rows, "plain")
    return store


def written(store, name, path, **options):
    count = FORMATS[name].write(store, path, names=True, **options).written
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if name in JSON_LISTS else [json.loads(line) for line in text.splitlines()]
    return count, rows


TALK = [user("Hi"), assistant("Yes?"), user("More ß")]


def test_trl_with_the_prompt_implicit(small, tmp_path):
    count, rows = written(small, "trl-implicit", tmp_path / "x")
    assert count == 3
    assert rows[0] == {
        "chosen": [user("Why?"), assistant("b")], "rejected": [user("Why?"), assistant("a")], "chosen_model": "m2",
        "rejected_model": "m1", "annotator": "Ann", "annotator_kind": "human", "created_at": "2025-01-02T03:04:05.000+00:00",
        "kind": "science", "split": "train",
    }  # fmt: skip
    assert [(row["chosen"], row["rejected"]) for row in rows[1:]] == [
        ([*TALK, assistant("z")], [*TALK, assistant("x")]),
        ([*TALK, assistant("z")], [*TALK, assistant("y")]),
    ]


def test_hh_rlhf(small, tmp_path):
    count, rows = written(small, "hh-rlhf", tmp_path / "x")
    assert count == 3 and rows[0] == {"chosen": "\n\nHuman: Why?\n\nAssistant: b", "rejected": "\n\nHuman: Why?\n\nAssistant: a"}
    assert rows[1]["chosen"] == "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: More ß\n\nAssistant: z"


def test_oasst(small, tmp_path):
    count, rows = written(small, "oasst", tmp_path / "x")
    assert count == 3
    root = rows[2]["prompt"]
    assert (root["text"], root["role"], root["replies"][0]["role"]) == ("Hi", "prompter", "assistant")
    assert [(r["text"], r["rank"]) for r in root["replies"][0]["replies"][0]["replies"]] == [("x", 1), ("y", 1), ("z", 0)]


def test_ultrafeedback(small, tmp_path):
    count, rows = written(small, "ultrafeedback", tmp_path / "x")
    assert count == 2 and rows[0]["instruction"] == "Why?" and rows[0]["models"] == ["m1", "m2"]
    assert [(c["response"], c["overall_score"]) for c in rows[0]["completions"]] == [("a", 1.0), ("b", 10.0)]


def test_helpsteer3(small, tmp_path):
    count, rows = written(small, "helpsteer3", tmp_path / "x")
    assert (count, rows) == (
        1,
        [
            {
                "domain": "science",
                "context": [user("Why?")],
                "response1": "a",
                "response2": "b",
                "model1": "m1",
                "model2": "m2",
                "overall_preference": 0,
                "individual_preference": [
                    {"score": 1, "reasoning": "clear", "annotator": "Ann"},
                    {"score": 0, "reasoning": "", "annotator": "Bob"},
                ],
            }
        ],
    )


def test_argilla(small, tmp_path):
    count, rows = written(small, "argilla", tmp_path / "x")
    assert count == 2 and rows[0]["fields"] == {"prompt": "Why?", "response_1": "a", "response_2": "b"}
    assert rows[0]["responses"] == {
        "preference": [
            {"value": [{"rank": 1, "value": "response_2"}, {"rank": 2, "value": "response_1"}], "user_id": "Ann"},
            {"value": [{"rank": 1, "value": "response_1"}, {"rank": 1, "value": "response_2"}], "user_id": "Bob"},
        ],
        "rationale": [{"value": "clear", "user_id": "Ann"}],
    }
    assert rows[1]["fields"]["prompt"] == TALK


def test_labelstudio(small, tmp_path):
    count, rows = written(small, "labelstudio", tmp_path / "x")
    # Bob's sides are not known, and Ann's ranking of three has a tie among two, which no Ranker can say.
    assert count == 2
    assert rows[1]["data"] == {"prompt": "Why?", "left": "b", "right": "a", "left_model": "m2", "right_model": "m1"}
    (annotation,) = rows[1]["annotations"]
    assert annotation["result"][0]["value"] == {"selected": "left"} and annotation["completed_by"] == {"email": "Ann"}
    assert [(one["from_name"], one["value"]) for one in annotation["result"][1:]] == [
        ("verdict", {"choices": ["left is slightly better"]}), ("honest_right", {"rating": 2}), ("honest_left", {"rating": 5}),
        ("reason", {"text": ["clear"]}),
    ]  # fmt: skip
    assert [item["id"] for item in rows[0]["data"]["answers"]] == ["answer_1", "answer_2"]
    assert rows[0]["annotations"][0]["result"][0]["value"] == {"choices": ["both bad"]}


def test_arena(small, tmp_path):
    count, rows = written(small, "arena", tmp_path / "x")
    assert count == 2
    # Ann saw b on the left.
    assert [(row["model_a"], row["model_b"], row["winner"], row["judge"]) for row in rows] == [
        ("m2", "m1", "model_a", "Ann"),
        ("m1", "m2", "tie (bothbad)", "Bob"),
    ]
    assert rows[0]["conversation_a"] == [user("Why?"), assistant("b")] and rows[0]["tstamp"] == 1735787045.0


ABOUT = {
    "chosen_model": "m2", "rejected_model": "m1", "annotator": "Ann", "annotator_kind": "human",
    "created_at": "2025-01-02T03:04:05.000+00:00", "kind": "science", "split": "train",
}  # fmt: skip


def test_llama_factory_as_conversations_and_as_instructions(small, tmp_path):
    rows = [{"messages": [{"role": "system", "content": "Be brief."}, *TALK], "completions": ["x", "y"], "choice": 1}]
    imports.import_rows(small, rows, "plain")
    count, rows = written(small, "llama-factory", tmp_path / "x")
    assert count == 4 and rows[0] == {
        "conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt", "value": "b"},
        "rejected": {"from": "gpt", "value": "a"}, **ABOUT,
    }  # fmt: skip
    assert [turn["from"] for turn in rows[3]["conversations"]] == ["system", "human", "gpt", "human"]
    count, rows = written(small, "llama-factory-alpaca", tmp_path / "x")
    assert count == 4 and rows[0] == {
        "instruction": "Why?", "input": "", "chosen": "b", "rejected": "a", "system": "", "history": [], **ABOUT,
    }  # fmt: skip
    assert (rows[3]["system"], rows[3]["history"], rows[3]["instruction"]) == ("Be brief.", [["Hi", "Yes?"]], "More ß")


def test_llama_factory_skips_turns_that_do_not_alternate_so_they_are_left_out(store, tmp_path):
    rows = [{"messages": [user("Hi"), user("Why?")], "completions": ["x", "y"], "choice": 0, "split": "train"}]
    imports.import_rows(store, rows, "plain")
    exported = FORMATS["llama-factory"].write(store, tmp_path / "x")
    assert (exported.written, exported.left_out, exported.lost) == (0, 1, {"turns of one role in a row": 1})
    assert FORMATS["trl"].write(store, tmp_path / "x").lost == {}


def test_axolotl(small, tmp_path):
    count, rows = written(small, "axolotl", tmp_path / "x")
    assert count == 3 and rows[0] == {"messages": [user("Why?")], "chosen": assistant("b"), "rejected": assistant("a"), **ABOUT}


def test_openrlhf_has_the_prompt_in_both_conversations(small, tmp_path):
    assert written(small, "openrlhf", tmp_path / "x") == written(small, "trl-implicit", tmp_path / "y")


def test_kto(small, tmp_path):
    count, rows = written(small, "kto", tmp_path / "x")
    # Two rows for each pair, as TRL has it; Bob's tie has none.
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [
        ("b", True), ("a", False), ("z", True), ("x", False), ("z", True), ("y", False),
    ]  # fmt: skip
    assert count == 6 and rows[0] == {
        "prompt": [user("Why?")],
        "completion": [assistant("b")],
        "label": True,
        "model": "m2",
        "rationale": "clear",
    } | {name: value for name, value in ABOUT.items() if not name.endswith("_model")}


def test_alpacaeval(small, tmp_path):
    count, rows = written(small, "alpacaeval", tmp_path / "x")
    # Ann saw b first.
    assert count == 2 and rows[0] == {
        "instruction": "Why?", "output_1": "b", "output_2": "a", "generator_1": "m2", "generator_2": "m1", "preference": 1,
        "annotator": "Ann", "dataset": "science", "split": "train",
    }  # fmt: skip
    assert rows[1]["preference"] == 1.5


def test_helpsteer2_preference(small, tmp_path):
    count, rows = written(small, "helpsteer2-preference", tmp_path / "x")
    assert count == 2 and rows[0] == {
        "prompt": "Why?", "response_1": "b", "response_2": "a", "preference_strength": -1, "preference_elaboration": "clear",
    }  # fmt: skip
    assert rows[1]["preference_strength"] == 0


def test_arena_55k(store, tmp_path):
    rows = [
        {"messages": TALK, "completions": ["=x", "y"], "models": ["m1", "m2"], "choice": 1, "shown": [1, 0]},
        {"prompt": "Why?", "completions": ["a", "b"], "choice": "tie"},
    ]
    imports.import_rows(store, rows, "plain")
    path = tmp_path / "x.csv"
    assert FORMATS["arena-55k"].write(store, path).written == 2
    first, second = csv.DictReader(path.open(encoding="utf-8"))
    assert (first["prompt"], first["response_a"], first["response_b"]) == ('["Hi","More ß"]', '["Yes?","y"]', '["Yes?","=x"]')
    assert [first[name] for name in ("model_a", "winner_model_a", "winner_model_b", "winner_tie", "sides_known")] == [
        "m2", "1", "0", "0", "true",
    ]  # fmt: skip
    assert (second["winner_tie"], second["sides_known"]) == ("1", "false")


@pytest.mark.parametrize("name", ["arena", "arena-55k", "labelstudio", "jsonl", "csv"])
def test_sides_that_nobody_recorded_stay_unknown(name, store, tmp_path, empty_store):
    """A battle stands in some order: rows whose file calls one answer chosen would always be won on the left."""
    rows = [{"prompt": f"Q {number}", "chosen": "x", "rejected": "y", "annotator": "a"} for number in range(3)]
    imports.import_rows(store, rows, "trl")
    path = tmp_path / ("x.csv" if name in ("arena-55k", "csv") else "x.json")
    FORMATS[name].write(store, path)
    other = Database(shutil.copyfile(empty_store, tmp_path / "other.db"))
    imports.import_file(other, path, name)
    assert [row[0] for row in other.rows("SELECT sides_known FROM presentations")] == [0, 0, 0]
    other.close()


def test_what_is_lost_is_counted_judgment_by_judgment(small, tmp_path):
    exported = FORMATS["hh-rlhf"].write(small, tmp_path / "x")
    # Ann's and Bob's votes on two answers and Ann's on three: only Ann recorded a side, a reason, ...
    assert (exported.judgments, exported.left_out) == (3, 1)
    assert exported.lost == {
        "annotators": 3, "times": 3, "ties": 2, "model names": 2, "kinds of prompts": 2, "sides": 1, "strengths": 1, "reasons": 1,
        "ratings of aspects": 1, "ideal answers": 1, "time taken": 1, "marks that all answers are bad": 1,
    }  # fmt: skip
    assert exported.reshaped == {"rankings of more than two answers, as their pairs": 1}


def test_a_dialogue_that_would_read_as_another_is_counted(store, tmp_path):
    rows = [{"prompt": "Hi\n\nAssistant: Yes", "completions": ["x ", "y"], "choice": 0, "split": "train"}]
    imports.import_rows(store, rows, "plain")
    lost = FORMATS["hh-rlhf"].write(store, tmp_path / "x").lost
    assert lost["pairs that a dialogue tells otherwise: headings, white space"] == 1


def test_plain(small, tmp_path):
    count, rows = written(small, "jsonl", tmp_path / "x")
    assert count == 3 and rows[0] == {
        "comparison": 1,
        "messages": [user("Why?")],
        "completions": ["a", "b"],
        "models": ["m1", "m2"],
        "shown": [1, 0],
        "tiers": [[1], [0]],
        "all_bad": False,
        "partial": False,
        "strength": "slightly",
        "rationale": "clear",
        "aspects": [{"honest": 2}, {"honest": 5}],
        "ideal": "ab",
        "annotator": "Ann",
        "annotator_kind": "human",
        "created_at": "2025-01-02T03:04:05.000+00:00",
        "active_ms": 7,
        "kind": "science",
        "split": "train",
    }
    assert (rows[1]["all_bad"], rows[1]["tiers"], rows[2]["tiers"]) == (True, [[0, 1]], [[2], [0, 1]])


def test_plain_as_csv_holds_lists_as_json(small, tmp_path):
    path = tmp_path / "x.csv"
    assert FORMATS["plain"].write(small, path).written == 3
    first = next(csv.DictReader(path.open(encoding="utf-8")))
    assert (first["tiers"], first["all_bad"], first["idle_ms"]) == ("[[1],[0]]", "false", "")
    assert first["aspects"] == '[{"honest":2},{"honest":5}]'


def test_plain_by_the_ending_of_the_name(small, tmp_path):
    assert FORMATS["plain"].write(small, tmp_path / "x.parquet").written == 3
    assert (tmp_path / "x.parquet").read_bytes().startswith(b"PAR1")
    assert FORMATS["plain"].write(small, tmp_path / "x.jsonl.gz").written == 3
    assert (tmp_path / "x.jsonl.gz").read_bytes().startswith(b"\x1f\x8b")
    with pytest.raises(StoreError, match="end the name in .jsonl, .csv or .parquet"):
        FORMATS["plain"].write(small, tmp_path / "x")


def test_sft_demonstrations(world, tmp_path):
    world.comparisons(2)
    for text in ("Better.", "Best."):
        shown = queue.next_presentation(world.store, world.ann.id)[1]
        judgments.save(
            world.store, shown.id, world.ann.id, verdict="rank", tiers=tuple((item,) for item in shown.order),
            details=Details(ideal=IdealAnswer(text, shown.order[0])),
        )  # fmt: skip
    exclusions.exclude(world.store, [1], rule="r", reason="r", by=None)
    path = tmp_path / "sft.jsonl"
    assert FORMATS["sft"].write(world.store, path).written == 1
    row = json.loads(path.read_text())
    assert row["prompt"] == [user("Why is the sky blue?")] and row["completion"] == [assistant("Best.")]
    assert row["annotator"] == world.ann.pseudonym and row["edit_distance"] > 0


def test_prompts_leave_out_retired_ones(store, tmp_path):
    imports.import_rows(store, [{"prompt": "One?", "kind": "k", "split": "heldout"}], "prompts")
    second, _ = imports.import_rows(store, [{"prompt": "Two?"}], "prompts")
    undos.undo(store, second)
    assert FORMATS["prompts"].write(store, tmp_path / "x").written == 1
    assert json.loads((tmp_path / "x").read_text()) == {"messages": [user("One?")], "kind": "k", "split": "heldout"}


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if format.write and name not in ("prompts", "sft")])
def test_names_excluded_and_simulated_votes_stay_out(name, world, tmp_path):
    one, two, _ = world.comparisons(3)
    world.rank(world.ann)
    excluded = world.rank(world.ann)
    exclusions.exclude(world.store, [excluded.id], rule="r", reason="r", by=None)
    world.skip(world.ann)
    world.rule_ranks(one)
    world.rule_ranks(two)
    path = tmp_path / "x.jsonl"
    exported = FORMATS[name].write(world.store, path)
    # Two answers of one judgment are two rows of KTO.
    assert (exported.judgments, exported.left_out, exported.written) == (1, 0, 2 if name == "kto" else 1)
    assert exported.aside == {"excluded judgments": 1, "simulated judgments (--include-simulated)": 2}
    assert exported.lost["skipped comparisons"] == 1
    assert b"Ann" not in path.read_bytes()
    exported = FORMATS[name].write(world.store, path, include_simulated=True)
    assert (exported.judgments, exported.left_out) == (3, 0) and exported.aside == {"excluded judgments": 1}


def test_the_shown_order_and_the_timing_of_a_judgment_made_here(world, tmp_path):
    world.comparisons(1)
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    tiers = ((shown.order[1],), (shown.order[0],))
    judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=tiers, details=Details(timing=Timing(900, 20, 950)))
    _, (row,) = written(world.store, "jsonl", tmp_path / "x")
    assert row["tiers"] == [[row["shown"][1]], [row["shown"][0]]]
    assert (row["active_ms"], row["idle_ms"], row["client_ms"]) == (900, 20, 950) and row["server_ms"] >= 0


def test_progress_is_told_up_to_the_end(small, tmp_path):
    for name, format in FORMATS.items():
        if format.write is None:
            continue
        reported = []
        format.write(small, tmp_path / f"{name}.jsonl", progress=lambda done, total: reported.append((done, total)))  # noqa: B023
        assert not reported or reported[-1][0] == reported[-1][1] == {"sft": 1}.get(name, 3), name


def test_every_format_is_read_or_written():
    assert set(READABLE) | set(WRITABLE) == {*FORMATS, NATIVE} and "sft" not in READABLE


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
NAME = st.sampled_from(["Ann", "Bob", 'Zoë, the "2nd"', "소라"])


@st.composite
def judged(draw):
    """A plain row with a vote, as somebody might have written it."""
    completions = draw(st.lists(TEXT, min_size=2, max_size=4, unique=True))
    order = draw(st.permutations(range(len(completions))))
    ranked = order[: draw(st.integers(2, len(order)))]
    cut = draw(st.integers(0, len(ranked) - 1))
    tiers = [[index] for index in ranked[:cut]] + [sorted(ranked[cut:])]
    return {
        "prompt": "Q: " + draw(TEXT),
        "completions": completions,
        "models": draw(st.lists(st.sampled_from(["m1", "m2", "a,b"]), min_size=len(completions), max_size=len(completions))),
        "tiers": tiers,
        "shown": list(draw(st.permutations(range(len(completions))))),
        "all_bad": draw(st.booleans()),
        "annotator": draw(NAME),
        "created_at": draw(st.sampled_from(["2025-01-02T03:04:05.678+00:00", "1999-12-31T23:59:59.000+00:00"])),
        "rationale": draw(st.sampled_from(["", "clear", 'two\nlines, "quoted"'])),
        "kind": draw(st.sampled_from(["imported", "science"])),
        "split": draw(st.sampled_from(["train", "heldout"])),
    }


def exported_votes(store):
    """Every vote by what it says, whatever the ids."""
    found = []
    for item in judgments.active(store):
        text = {key: (completion.text, completion.policy_version_id) for key, completion in item.completions.items()}
        slots = store.value("SELECT slots FROM presentations WHERE id = ?", [item.judgment.presentation_id])
        name = {row["id"]: row["name"] for row in store.rows("SELECT id, name FROM policy_versions")}
        found.append((
            item.prompt.messages, item.prompt.kind, item.prompt.split, item.annotator.name, item.judgment.created_at, item.judgment.all_bad,
            item.judgment.partial, item.judgment.rationale,
            [sorted((text[key][0], name[text[key][1]]) for key in tier) for tier in item.judgment.tiers],
            [(text[key][0], name[text[key][1]]) for key in json.loads(slots)],
        ))  # fmt: skip
    return sorted(found, key=repr)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jsonl", "csv"])
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(judged(), min_size=1, max_size=6))
def test_plain_votes_survive_the_way_out_and_in(name, rows):
    expect_same_votes(name, rows)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(rows=st.lists(judged(), min_size=1, max_size=6))
def test_plain_votes_survive_parquet(rows):
    """Fewer examples: a process of its own decodes each file."""
    expect_same_votes("parquet", rows)


def expect_same_votes(name, rows):
    with tempfile.TemporaryDirectory() as folder:
        one, other = Database(Path(folder, "one.db")), Database(Path(folder, "other.db"))
        _, report = imports.import_rows(one, rows, "plain")
        assert report.judgments == len(rows), report
        path = Path(folder, "rows")
        # Of one annotator's votes on a comparison the latest counts.
        exported = FORMATS[name].write(one, path, names=True)
        assert (exported.judgments, exported.left_out, exported.lost) == (len(rows) - report.outdated, 0, {})
        _, again = imports.import_file(other, path, name)
        assert (again.judgments, again.wrong) == (exported.judgments, 0), again
        assert exported_votes(other) == exported_votes(one)
        one.close()
        other.close()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(judged(), min_size=1, max_size=6))
def test_pairs_survive_between_explicit_and_implicit_prompts(rows):
    with tempfile.TemporaryDirectory() as folder:
        one, other = Database(Path(folder, "one.db")), Database(Path(folder, "other.db"))
        imports.import_rows(one, rows, "plain")
        explicit, implicit, again = (Path(folder, name) for name in ("explicit", "implicit", "again"))
        number = FORMATS["trl"].write(one, explicit, names=True).written
        assert FORMATS["trl-implicit"].write(one, implicit, names=True).written == number
        if number:
            _, report = imports.import_file(other, implicit, "trl")
            assert (report.judgments, report.wrong) == (number, 0), report
        FORMATS["trl"].write(other, again, names=True)
        assert sorted(again.read_text(encoding="utf-8").splitlines()) == sorted(explicit.read_text(encoding="utf-8").splitlines())
        one.close()
        other.close()
