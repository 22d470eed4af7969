"""Pairs of a better and a worse answer, as TRL, LLaMA-Factory, Axolotl and OpenRLHF read them.

Read are a prompt of its own, as text or messages and under any of its usual names, or conversations that begin with the same
turns. A text that both answers begin with is not taken for a prompt. A ranking of K completions is written as all its ordered pairs,
one JSONL row each, in the layout of the tool; the fields beside the pair have the same names in all of them. Pairs have no weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from json.encoder import encode_basestring as quoted

from storage.core.records import Message
from storage.exchange import export, field_maps, mapped
from storage.exchange.rows import Found, NewComparison, Record, check_different
from storage.exchange.things import THINGS, UNNAMED
from storage.judging.judgments import ordered_pairs

KEEPS = ("system", "turns", "order", "models", "annotator", "simulated", "time", "kind", "heldout")

KEPT_BY_LLAMA_FACTORY = tuple(thing for thing in KEEPS if thing != "order")


def read(record: Record) -> Iterator[Found]:
    """One comparison with one vote."""
    for found in mapped.read(field_maps.TRL, record):
        if isinstance(found, NewComparison):
            check_different(*found.completions[:2])
        yield found


def omits_odd_turns(held: frozenset[str], vote: export.ExportedVote) -> str | None:
    """As `export.omits_ties`, and prompts whose turns do not alternate: LLaMA-Factory skips them."""
    return THINGS["order"] if "order" in held else export.omits_ties(held, vote)


Layout = Callable[[str, str, str], str]
"""The beginning of a row, from the messages as JSON text, and the better and the worse answer."""


def rows(layout: Layout, comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[str]:
    """A row for each ordered pair, as JSON text."""
    answers = {answer.id: answer for answer in comparison.completions}
    # Rows are assembled from JSON text: decoding and encoding the same prompt for each of its pairs took two thirds of the time.
    for vote in votes:
        end = _end(comparison, vote)
        for better, worse in ordered_pairs(vote.tiers):
            one, other = answers[better], answers[worse]
            yield layout(comparison.messages, one.text, other.text) + _models(("chosen_model", one), ("rejected_model", other)) + end


def _models(*named: tuple[str, export.ExportedCompletion]) -> str:
    return "".join(f',"{name}":{quoted(answer.model)}' for name, answer in named if answer.model != UNNAMED)


def _end(comparison: export.ExportedComparison, vote: export.ExportedVote) -> str:
    rule = f',"annotator_rule":{quoted(vote.rule)}' if vote.rule else ""
    return (
        f',"annotator":{quoted(vote.annotator)},"annotator_kind":"{vote.annotator_kind}"{rule},"created_at":"{vote.created_at}"'
        f',"kind":{quoted(comparison.kind)},"split":"{comparison.split}"}}'
    )


def _turn(text: str) -> str:
    return f'{{"role":"assistant","content":{quoted(text)}}}'


def _explicit(messages: str, better: str, worse: str) -> str:
    return f'{{"prompt":{messages},"chosen":[{_turn(better)}],"rejected":[{_turn(worse)}]'


def _implicit(messages: str, better: str, worse: str) -> str:
    return f'{{"chosen":{messages[:-1]},{_turn(better)}],"rejected":{messages[:-1]},{_turn(worse)}]'


def _axolotl(messages: str, better: str, worse: str) -> str:
    return f'{{"messages":{messages},"chosen":{_turn(better)},"rejected":{_turn(worse)}'


_FROM = {"system": "system", "user": "human", "assistant": "gpt"}


def _sharegpt(messages: str, better: str, worse: str) -> str:
    turns = ",".join(f'{{"from":"{_FROM[turn["role"]]}","value":{quoted(turn["content"])}}}' for turn in json.loads(messages))
    chosen, rejected = (f'{{"from":"gpt","value":{quoted(text)}}}' for text in (better, worse))
    return f'{{"conversations":[{turns}],"chosen":{chosen},"rejected":{rejected}'


def _alpaca(messages: str, better: str, worse: str) -> str:
    turns: list[Message] = json.loads(messages)
    system, talk = (turns[0]["content"], turns[1:]) if turns[0]["role"] == "system" else ("", turns)
    texts = [quoted(turn["content"]) for turn in talk]
    history = ",".join(f"[{question},{answer}]" for question, answer in zip(texts[:-1:2], texts[1::2], strict=True))
    return (
        f'{{"instruction":{texts[-1]},"input":"","chosen":{quoted(better)},"rejected":{quoted(worse)},"system":{quoted(system)},'
        f'"history":[{history}]'
    )


write = export.Writer(partial(rows, _explicit), KEEPS, export.omits_ties, as_pairs=True)
write_implicit = export.Writer(partial(rows, _implicit), KEEPS, export.omits_ties, as_pairs=True)
write_axolotl = export.Writer(partial(rows, _axolotl), KEEPS, export.omits_ties, as_pairs=True)
write_sharegpt = export.Writer(partial(rows, _sharegpt), KEPT_BY_LLAMA_FACTORY, omits_odd_turns, as_pairs=True)
write_alpaca = export.Writer(partial(rows, _alpaca), KEPT_BY_LLAMA_FACTORY, omits_odd_turns, as_pairs=True)
