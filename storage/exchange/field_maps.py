"""The formats that a table can describe: which field of a row is the prompt, the answers, the verdict, and what stands beside.

`mapped` reads rows by such a map; a user writes one as `--map prompt=question,chosen=better`. A path names a field, with `.`
into an object and `[]` for each item of a list: `answers[].text`. `+` joins fields: texts by a line break, answers into a list.
Alternatives are tried in turn. Formats that no table describes have a reader of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

Paths = tuple[str, ...]
"""Alternatives: the first that a row has a value for is read."""

Outcome = int | Literal["tie", "both_bad", "none"]
"""What a verdict says: the index of the better answer, a tie, a tie of bad answers, or nothing."""


GOOD = ("true", "1", "good", "thumbsup", "up", "positive", "desirable")
BAD = ("false", "0", "-1", "bad", "thumbsdown", "down", "negative", "undesirable")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """Where each thing stands in a row."""

    prompt: Paths = ()
    """A text, messages, a dialogue of `Human:` and `Assistant:` turns, or one text for each turn of the user (`path[]`)."""
    usual_prompt: bool = False
    """Whether the alternatives are only usual names: where a row has two of them, none called `prompt`, it is refused."""
    system: Paths = ()
    """A text. Of a joined path each answer has its own, and it is kept where all are the same."""
    history: Paths = ()
    """Turns before the prompt: messages, or pairs of a question and an answer."""
    chosen: Paths = ()
    """The better answer, a text or messages."""
    rejected: Paths = ()
    """The worse answer, or a list of worse ones."""
    completions: Paths = ()
    """The answers: a list (`answers[].text`), or fields joined by `+`."""
    winner: Paths = ()
    """Who is better, in a word of `outcomes`, or by the name of a model."""
    each: bool = False
    """Whether every path of `winner` is a vote of its own, rather than another name for the same vote."""
    flags: Paths = ()
    """Fields that are true where the first, the second, no answer is better; and, if there is a fourth, where both are bad."""
    scores: Paths = ()
    """A number for each answer, higher is better."""
    ranks: Paths = ()
    """A number for each answer, lower is better."""
    label: Paths = ()
    """Whether the one answer is good: true or false, or one of `good` and `bad`."""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    counts_from_one: bool = False
    """Whether a number in `winner` counts the answers from 1 on, where other files of the same fields count from 0 or by other scales."""
    good: Paths = GOOD
    bad: Paths = BAD
    unrated: Paths = ("none", "", "--")
    """Words of `label` that say nothing. A missing value is `none`."""
    strengths: Mapping[str, str] = field(default_factory=dict)
    """How much better, by the word of `winner`."""
    models: Paths = ()
    annotator: Paths = ()
    annotator_kind: Paths = ()
    """`simulated` where a rule judged, and not a person."""
    rule: Paths = ()
    created_at: Paths = ()
    rationale: Paths = ()
    kind: Paths = ()
    split: Paths = ()
    ratings: Mapping[str, str] = field(default_factory=dict)
    """The path of the ratings of each aspect, one for each answer, on a scale from 1 to 10."""
    rating_offset: int = 0
    """Added to each rating: 1 for scales that begin at 0."""
    sides_known: bool = False
    """Whether the annotator saw the answers in the order of the row, unless its field `SIDES_KNOWN` is false."""
    ignored: Paths = ()
    """Fields that only number the row or repeat others. They are named in the summary, but `--strict` lets them pass."""

    def paths(self) -> list[str]:
        """Every path of the map, joined ones apart."""
        named = [
            getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("outcomes", "good", "bad", "unrated", "strengths", "ratings")
        ]
        listed = [path for value in named if isinstance(value, tuple) for path in value] + list(self.ratings.values())
        return list(dict.fromkeys(part for path in listed for part in path.split("+")))

    def verdict_columns(self) -> frozenset[str]:
        """The names of the columns that say which answer is better."""
        return frozenset(part for path in (*self.winner, *self.flags, *self.scores, *self.ranks, *self.label) for part in path.split("+"))

    def columns(self) -> tuple[str, ...]:
        """The names of the columns that the map reads."""
        return tuple(dict.fromkeys(re.split(r"[.\[]", path.removeprefix("rows[]."))[0] for path in self.paths() if path))


SIDES_KNOWN = "sides_known"
"""A field of rankloop's own in rows of formats that have sides: false where nobody recorded them."""

TIES: dict[str, Outcome] = {
    "tie": "tie", "draw": "tie", "equal": "tie", "same": "tie", "both": "tie", "neither": "both_bad", "tie (bothbad)": "both_bad",
    "bothbad": "both_bad", "both_bad": "both_bad", "both bad": "both_bad", "both_good": "tie", "both good": "tie",
}  # fmt: skip
LETTER_OUTCOMES: dict[str, Outcome] = {
    **{f"{stem}{letter}": index for stem in ("", "model_", "response_", "answer_", "assistant_")
       for index, letter in enumerate("ab")},
    "left": 0, "right": 1, "first": 0, "second": 1, "a>b": 0, "b>a": 1, "a=b": "tie", **TIES,
}  # fmt: skip
"""Words that can mean only one thing. Numbers are not among them: some files count from 0, some from 1."""

ONE_TWO: dict[str, Outcome] = {"1": 0, "2": 1, **TIES}
ZERO_ONE: Mapping[str, Outcome] = {"0": 0, "1": 1, **TIES}

PROMPT_COLUMNS = ("prompt", "input.messages", "instruction+input", "question", "query", "context", "context_messages", "messages",
                  "conversations", "conversation", "post")  # fmt: skip
"""Usual names of the prompt, most telling first."""

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")

TRL = FieldMap(
    prompt=PROMPT_COLUMNS, usual_prompt=True, system=SYSTEM_COLUMNS, history=("history",),
    chosen=("chosen", "chosen_response", "preferred_output", "chosen_messages"),
    rejected=("rejected", "rejected_response", "non_preferred_output", "rejected_messages"),
    models=("chosen_model+rejected_model",), annotator=("annotator",), annotator_kind=("annotator_kind",), rule=("annotator_rule",),
    created_at=("created_at",), kind=("kind",), split=("split",), ignored=("id", "prompt_id"),
)  # fmt: skip
"""Pairs of a better and a worse answer, as TRL, LLaMA-Factory, Axolotl and OpenRLHF read them."""

ANSWERS = ("response", "answer", "completion", "output", "generation")
VERDICTS = ("winner", "preference", "preferred", "better", "verdict", "vote", "choice", "label")
"""Usual names of the answers, before `_a` and `_b` or `_1` and `_2`, and of the verdict on them."""

PAIRWISE = FieldMap(
    prompt=PROMPT_COLUMNS, usual_prompt=True, system=SYSTEM_COLUMNS, history=("history",),
    completions=tuple(f"{answer}_a+{answer}_b" for answer in ANSWERS), winner=VERDICTS, models=("model_a+model_b",),
    outcomes=LETTER_OUTCOMES | {f"{answer}_{letter}": index for answer in ANSWERS for index, letter in enumerate("ab")},
    annotator=("annotator", "judge", "user_id"), created_at=("created_at", "timestamp", "tstamp"),
    rationale=("rationale", "reason", "comment", "explanation"), kind=("kind", "category"), split=("split",),
    ignored=("id", "question_id", "prompt_id"),
)  # fmt: skip
"""Two answers beside each other, and which is better."""

_SEVERAL = replace(PAIRWISE, completions=tuple(f"{answer}s" for answer in ANSWERS), winner=(), outcomes={}, models=("models",))

MAPS: dict[str, FieldMap] = {
    "scored": replace(_SEVERAL, scores=("scores", "rewards", "ratings")),
    "ranked": replace(_SEVERAL, ranks=("ranks",)),
    "pairwise": PAIRWISE,
    "pairwise-numbered": replace(
        PAIRWISE, counts_from_one=True, completions=tuple(f"{answer}_1+{answer}_2" for answer in ANSWERS), models=("model_1+model_2",),
        outcomes=ONE_TWO | {f"{name}_{number}": number - 1 for name in (*ANSWERS, "model") for number in (1, 2)}
        | {"first": 0, "second": 1},
    ),
    "alpacaeval": FieldMap(
        prompt=("prompt", "instruction+input"), completions=("output_1+output_2",), winner=("preference",), counts_from_one=True,
        outcomes={"1": 0, "2": 1, "1.5": "tie", "0": "tie"}, models=("generator_1+generator_2",), annotator=("annotator",),
        kind=("dataset",), split=("split",), ignored=("annotator_index", "index", "sample_id"),
    ),
    "llmbar": FieldMap(
        prompt=("instruction+input",), completions=("output_1+output_2",), winner=("label",), outcomes=ONE_TWO, counts_from_one=True,
        ignored=("id", "index", "idx"),
    ),
    "pandalm": FieldMap(
        prompt=("instruction+input",), completions=("response1+response2",),
        winner=("annotator1", "annotator2", "annotator3"), each=True, outcomes={"0": "tie", "1": 0, "2": 1},
        kind=("motivation_app",), ignored=("idx",),
    ),
    "arena-55k": FieldMap(
        prompt=("prompt[]",), completions=("response_a[]+response_b[]",), models=("model_a+model_b",),
        flags=("winner_model_a", "winner_model_b", "winner_tie", "winner_both_bad"), sides_known=True, ignored=("id",),
    ),
    "comparia": FieldMap(
        system=("system_prompt_a+system_prompt_b",), completions=("conversation_a+conversation_b",),
        winner=("chosen_model_name",), flags=("", "", "both_equal"),
        models=("model_a_name+model_b_name",), annotator=("visitor_id", "session_hash"), created_at=("timestamp", "tstamp"),
        rationale=("comments",), sides_known=True,
        ignored=("id", "conversation_pair_id", "model_pair_name", "opening_msg", "conv_turns", "selected_category", "session_hash"),
    ),
    "pku-saferlhf": FieldMap(
        prompt=("prompt",), completions=("response_0+response_1",), winner=("better_response_id",), outcomes=ZERO_ONE,
        models=("response_0_source+response_1_source",), kind=("prompt_source",), ignored=("response_0_sha256", "response_1_sha256"),
    ),
    "shp": FieldMap(
        prompt=("history",), completions=("human_ref_A+human_ref_B",), winner=("labels",), outcomes={"1": 0, "0": 1}, kind=("domain",),
        ignored=("post_id", "c_root_id_A", "c_root_id_B"),
    ),
    "webgpt": FieldMap(
        prompt=("question.full_text", "question"), completions=("answer_0+answer_1",), scores=("score_0+score_1",),
        kind=("question.dataset",), ignored=("question.id", "tokens_0", "tokens_1"),
    ),
    "summarize": FieldMap(
        prompt=("info.title+info.post", "info.title+info.article"),
        completions=("summaries[].text",),
        winner=("choice",), outcomes=ZERO_ONE, models=("summaries[].policy",), annotator=("worker",), rationale=("note",),
        kind=("info.subreddit", "info.site"),
        ignored=("info.id", "batch"),
    ),
    "helpsteer2": FieldMap(
        prompt=("rows[].prompt",), completions=("rows[].response",), scores=("rows[].helpfulness",), rating_offset=1,
        ratings={name: f"rows[].{name}" for name in ("helpfulness", "correctness", "coherence", "complexity", "verbosity")},
    ),
    "helpsteer2-preference": FieldMap(
        prompt=("prompt",), completions=("response_1+response_2",), winner=("preference_strength",),
        outcomes={"-3": 0, "-2": 0, "-1": 0, "0": "tie", "1": 1, "2": 1, "3": 1},
        strengths={"1": "slightly", "2": "better", "3": "significantly", "-1": "slightly", "-2": "better", "-3": "significantly"},
        rationale=("preference_elaboration", "preference_statement"),
    ),
    "nectar": FieldMap(
        prompt=("prompt",), completions=("answers[].answer",), ranks=("answers[].rank",), models=("answers[].model",),
        kind=("source[]",), ignored=("turns", "num_responses"),
    ),
    "distilabel": FieldMap(
        prompt=("instruction", "prompt", "input"), system=SYSTEM_COLUMNS, completions=("generations",), scores=("ratings", "rating"),
        models=("generation_models", "models"), rationale=("rationale",),
        # What a pair was made of is in the ratings.
        ignored=("chosen", "rejected", "chosen_rating", "rejected_rating", "chosen_model", "rejected_model"),
    ),
    "stack-exchange-paired": FieldMap(
        prompt=("question",), chosen=("response_j",), rejected=("response_k",), created_at=("date",), ignored=("qid",),
    ),
    "kto": FieldMap(
        prompt=("prompt", "instruction+input", "question"), system=SYSTEM_COLUMNS, history=("history",),
        completions=("completion", "output", "response", "messages", "conversations", "conversation"), label=("label", "kto_tag"),
        models=("model",), annotator=("annotator",), annotator_kind=("annotator_kind",), rule=("annotator_rule",),
        created_at=("created_at",), rationale=("rationale",), kind=("kind",), split=("split",), ignored=("id", "prompt_id"),
    ),
    "anythingllm": FieldMap(
        prompt=("prompt",), completions=("response",), label=("rating", "feedback", "feedbackScore"), annotator=("username",),
        created_at=("sent_at", "createdAt"), kind=("workspace",), ignored=("id",),
    ),
}  # fmt: skip


def things_of(fields: FieldMap) -> tuple[str, ...]:
    """The `THINGS` that rows of a map can hold."""
    listed = any("[]" in path and "+" not in path for path in fields.completions) or len(fields.rejected) > 0
    talk = bool(fields.history) or fields.usual_prompt or not fields.prompt
    found = {
        "system": bool(fields.system), "turns": talk or any(path.endswith("[]") for path in fields.prompt), "order": talk,
        "ties": bool(fields.scores or fields.ranks or len(fields.flags) > 2 or "tie" in fields.outcomes.values()), "several": listed,
        "unranked": bool(fields.scores or fields.ranks), "all_bad": len(fields.flags) > 3 or "both_bad" in fields.outcomes.values(),
        "models": bool(fields.models), "annotator": bool(fields.annotator) or fields.each, "simulated": bool(fields.annotator_kind),
        "time": bool(fields.created_at), "reason": bool(fields.rationale), "strength": bool(fields.strengths),
        "ratings": bool(fields.ratings), "sides": fields.sides_known, "kind": bool(fields.kind), "heldout": bool(fields.split),
    }  # fmt: skip
    return tuple(name for name, holds in found.items() if holds)
