"""A conversation on the Demo page: the versions, the turns with what each was asked for, and the link that holds all of it. No Gradio.

The link holds no answers: with the same seed each version writes them again. Whoever sends one may write anything into it, so that
`from_link` checks every value.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from rlhf.runs.typed_json import UnreadableRecord, from_json
from rlhf.serving.limits import (
    MAX_ANSWER_TOKENS,
    MAX_CONVERSATION_CHARS,
    MAX_DEMO_CHARS,
    MAX_DEMO_LINK_CHARS,
    MAX_DEMO_TURNS,
    MAX_DEMO_VERSIONS,
)
from storage.core.records import Message, Sampling

Verdict = Literal["a", "b", "tie", "both_bad", "none"]
"""What a blind turn came to; `none` if its names were shown without a vote."""

LETTERS = "ABCD"
MAX_SEED = 2**31 - 1
MAX_VERSION_NAME_CHARS = 200


class Refusal(Exception):
    """What was asked for cannot be done; `key` and `values` are a text of the locale files."""

    def __init__(self, key: str, **values: Any):
        super().__init__(key)
        self.key, self.values = key, values


@dataclass(frozen=True, slots=True)
class Answer:
    """One version's answer, or what there is of it."""

    text: str = ""
    finish_reason: str = ""
    """`stop` or `length` if it is complete, `stopped` if the visitor ended it; empty while it is written, and if it broke off."""
    problem: str = ""
    """Why it broke off, as a sentence."""
    latency_s: float = 0.0

    @property
    def complete(self) -> bool:
        return self.finish_reason in ("stop", "length")


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and the answers to it, with what they were sampled with."""

    user: str
    seed: int
    sampling: Sampling
    order: tuple[int, ...]
    """The versions that answer, by their position in the conversation, in the order shown."""
    answers: tuple[Answer, ...] = ()
    """In the order shown; empty before the first was begun."""
    verdict: Verdict | None = None
    """Of a blind turn, once its names are shown."""
    continued: int | None = None
    """The answer, by its place in the order shown, from which all versions go on; None if each goes on from its own."""

    @property
    def pending(self) -> list[int]:
        """The places whose answers are missing or broke off."""
        return [place for place in range(len(self.order)) if not (self.answers and self.answers[place].finish_reason)]

    def with_answer(self, place: int, answer: Answer) -> Turn:
        answers = list(self.answers or [Answer()] * len(self.order))
        answers[place] = answer
        return replace(self, answers=tuple(answers))


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything that the page shows of one conversation. It is kept on the server, which a blind turn depends on."""

    versions: tuple[str, ...] = ()
    blind: bool = False
    turns: tuple[Turn, ...] = ()

    @property
    def hidden(self) -> bool:
        """Whether the last turn's names are not shown yet."""
        return self.blind and bool(self.turns) and self.turns[-1].verdict is None

    @property
    def votable(self) -> bool:
        """Whether the last turn waits for a vote: it is blind, and all of its answers are complete."""
        return self.hidden and bool(self.turns[-1].answers) and all(answer.complete for answer in self.turns[-1].answers)

    def name(self, turn: int, place: int) -> str:
        """The version that answered there."""
        return self.versions[self.turns[turn].order[place]]

    def messages(self, turn: int, place: int) -> list[Message]:
        """What that version is sent: the conversation up to its answer."""
        version = self.turns[turn].order[place]
        messages: list[Message] = []
        for earlier in self.turns[:turn]:
            at = earlier.order.index(version) if earlier.continued is None else earlier.continued
            messages.append({"role": "user", "content": earlier.user})
            messages.append({"role": "assistant", "content": earlier.answers[at].text})
        return [*messages, {"role": "user", "content": self.turns[turn].user}]

    def with_turn(self, number: int, turn: Turn) -> Conversation:
        return replace(self, turns=(*self.turns[:number], turn, *self.turns[number + 1 :]))

    def asked(
        self, versions: Sequence[str], blind: bool, prompt: str, sampling: Sampling, seed: int, rng: random.Random | None = None
    ) -> Conversation:
        """The conversation with one more turn; unchanged where the prompt is empty and earlier answers are still missing.

        The versions and whether they are hidden are those of the first turn. A blind turn draws two of them, and their order.

        Raises:
            Refusal: the prompt is empty or too long, too few versions are chosen, or the last blind turn has no verdict yet.
        """
        if not prompt.strip():
            if any(turn.pending for turn in self.turns):
                return self
            raise Refusal("demo.empty_prompt")
        if len(prompt) > MAX_DEMO_CHARS:
            raise Refusal("demo.too_long", found=len(prompt), limit=MAX_DEMO_CHARS)
        if len(self.turns) >= MAX_DEMO_TURNS:
            raise Refusal("demo.too_many_turns", limit=MAX_DEMO_TURNS)
        if self.hidden:
            raise Refusal("demo.vote_first")
        if self.turns:
            begun = self
        else:
            chosen = tuple(dict.fromkeys(versions))
            if not chosen or (blind and len(chosen) < 2):
                raise Refusal("demo.choose_two" if blind else "demo.choose_versions")
            if len(chosen) > MAX_DEMO_VERSIONS:
                raise Refusal("demo.too_many_versions", limit=MAX_DEMO_VERSIONS)
            begun = Conversation(chosen, blind)
        if (length := sum(len(text) for turn in begun.turns for text in _texts(turn)) + len(prompt)) > MAX_CONVERSATION_CHARS:
            raise Refusal("demo.too_long_conversation", found=length, limit=MAX_CONVERSATION_CHARS)
        return replace(begun, turns=(*begun.turns, Turn(prompt, seed, sampling, begun.draw(rng))))

    def draw(self, rng: random.Random | None = None) -> tuple[int, ...]:
        """Which versions answer the next turn, in which order."""
        places = range(len(self.versions))
        return tuple((rng or random.SystemRandom()).sample(places, 2)) if self.blind else tuple(places)

    def retried(self, rng: random.Random | None = None) -> Conversation:
        """The last turn without its answers, with the next seed; a blind one is drawn again.

        Raises:
            Refusal: there is no turn yet.
        """
        if not self.turns:
            raise Refusal("demo.nothing_to_retry")
        last = self.turns[-1]
        order = self.draw(rng) if self.blind else last.order
        again = Turn(last.user, (last.seed + 1) % (MAX_SEED + 1), last.sampling, order, continued=None if self.blind else last.continued)
        return self.with_turn(len(self.turns) - 1, again)

    def stopped(self) -> Conversation:
        """Answers that were being written when the visitor pressed Stop end there; where nothing had come they stay missing."""
        turns = tuple(
            replace(
                turn,
                answers=tuple(
                    replace(answer, finish_reason="stopped") if answer.text and not answer.finish_reason and not answer.problem else answer
                    for answer in turn.answers
                ),
            )
            for turn in self.turns
        )
        return replace(self, turns=turns)

    def judged(self, verdict: Verdict) -> Conversation:
        """The last turn with its names shown. The conversation goes on from the better answer, without one from the first."""
        last = replace(self.turns[-1], verdict=verdict, continued=1 if verdict == "b" else 0)
        return self.with_turn(len(self.turns) - 1, last)


def _texts(turn: Turn) -> list[str]:
    """The texts of a turn that count towards the length of what a version is sent: the longest answer, because each has its own."""
    return [turn.user, max((answer.text for answer in turn.answers), key=len, default="")]


# ---- links


@dataclass(frozen=True, slots=True)
class _LinkedTurn:
    u: str
    s: int
    t: float
    p: float
    k: int
    n: int
    o: list[int]
    c: int | None = None


@dataclass(frozen=True, slots=True)
class _Linked:
    """What a link holds; the names are short because the link is long."""

    m: list[str]
    turns: list[_LinkedTurn] = field(default_factory=list)


def to_link(conversation: Conversation) -> str:
    """The conversation without its answers, as text for an address.

    Raises:
        Refusal: there is no turn, the names of the last one are hidden, or the link would be too long.
    """
    if not conversation.turns:
        raise Refusal("demo.nothing_to_link")
    if conversation.hidden:
        raise Refusal("demo.vote_first")
    turns = [
        _LinkedTurn(
            turn.user,
            turn.seed,
            turn.sampling.temperature,
            turn.sampling.top_p,
            turn.sampling.top_k,
            turn.sampling.max_new_tokens,
            list(turn.order),
            turn.continued,
        )
        for turn in conversation.turns
    ]
    encoded = json.dumps(asdict(_Linked(list(conversation.versions), turns)), ensure_ascii=False, separators=(",", ":")).encode()
    link = base64.urlsafe_b64encode(encoded).decode().rstrip("=")
    if len(link) > MAX_DEMO_LINK_CHARS:
        raise Refusal("demo.link_too_long", found=len(link), limit=MAX_DEMO_LINK_CHARS)
    return link


def from_link(link: str) -> Conversation:
    """The conversation of a link, with no answer yet. A conversation that was blind is open: its names are in the link.

    Raises:
        Refusal: this is no such link.
    """
    try:
        if len(link) > MAX_DEMO_LINK_CHARS:
            raise ValueError("too long")
        decoded = json.loads(base64.b64decode(link + "=" * (-len(link) % 4), altchars=b"-_", validate=True))
        linked = from_json(_Linked, decoded)
        turns = tuple(_turn(turn, len(linked.m)) for turn in linked.turns)
        conversation = Conversation(tuple(linked.m), False, turns)
        _check(conversation)
    except (UnreadableRecord, ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise Refusal("demo.bad_link") from error
    return conversation


def _turn(linked: _LinkedTurn, versions: int) -> Turn:
    order = tuple(linked.o)
    _require(0 < len(order) == len(set(order)) and all(0 <= place < versions for place in order))
    _require(linked.c is None or 0 <= linked.c < len(order))
    _require(linked.c is not None or len(order) == versions)
    _require(bool(linked.u.strip()) and len(linked.u) <= MAX_DEMO_CHARS)
    _require(0 <= linked.s <= MAX_SEED and 0 <= linked.t <= 2 and 0 < linked.p <= 1)
    _require(0 <= linked.k <= MAX_SEED and 1 <= linked.n <= MAX_ANSWER_TOKENS)
    return Turn(linked.u, linked.s, Sampling(linked.t, linked.p, linked.k, linked.n), order, continued=linked.c)


def _check(conversation: Conversation) -> None:
    names = conversation.versions
    _require(0 < len(names) <= MAX_DEMO_VERSIONS and len(set(names)) == len(names))
    _require(all(name.strip() and len(name) <= MAX_VERSION_NAME_CHARS for name in names))
    _require(0 < len(conversation.turns) <= MAX_DEMO_TURNS)


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError("a value is out of its bounds")
