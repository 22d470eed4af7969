"""Renders chat templates under limits of time, memory and length, in a process of its own.

A chat template comes with a model and is a program: nested loops may never end, and strings may double until memory is exhausted.
Every rendering therefore happens in `rlhf.models.chat_template_process`, by transformers' own function and in its sandbox, and that
process is ended when it goes over a limit. One such process serves this one, and is started when it is first needed.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from jinja2 import TemplateError

from rlhf.models.reasoning import END, START

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as TokenizerBase
else:
    # A mixin: `bound` puts it before the class of a tokenizer that exists already.
    TokenizerBase = object

CPU_S = 2.0
"""Processor time for one rendering, in seconds. Ordinary ones take less than a millisecond."""

WALL_S = 60.0
"""Longest wait for a rendering or for the process to start, in seconds: a machine may be busy."""

MEMORY_BYTES = 512 << 20
"""Memory that a rendering may use beyond that of the process at its start."""

LONGEST = 4_000_000
"""Most characters of a rendering's input, and of its output."""

PRIVATE_USE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))
"""Characters that Unicode gives no meaning."""

PRERENDERED = "{{ messages[0]['content'] }}"


class ChatTemplateError(TemplateError):
    """A conversation cannot be rendered: the template refuses it, or went over a limit."""


class ChatTemplateLimit(ChatTemplateError):
    """The template went over a limit of time, memory or length."""


class TemplateRenderer:
    """Owns one rendering process and restarts it after it was killed. Threads take turns."""

    def __init__(self, *, cpu_s: float = CPU_S, memory_bytes: int = MEMORY_BYTES, longest: int = LONGEST):
        self.cpu_s, self.memory_bytes, self.longest = cpu_s, memory_bytes, longest
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts the process if it does not run, without waiting for it."""
        with self._lock:
            self._running()

    def render(self, conversations: Sequence[Sequence[dict[str, Any]]], template: str, **template_kwargs: Any) -> list[str]:
        """The text of each conversation.

        Raises:
            ChatTemplateError: the template cannot be compiled, or refuses the conversation.
            ChatTemplateLimit: it took too much time or memory, or came out too long.
        """
        request = json.dumps({"conversations": conversations, "chat_template": template, **template_kwargs})
        if len(request) > self.longest:
            raise ChatTemplateLimit(
                f"the conversation has {len(request):,} characters, of which {self.longest:,} can be rendered: shorten it"
            )
        with self._lock:
            reply = self._ask(request.encode() + b"\n")
        if "texts" in reply:
            texts: list[str] = reply["texts"]
            return texts
        if "limit" in reply:
            raise ChatTemplateLimit(self._over(reply["limit"]))
        raise ChatTemplateError(reply["message"] or reply["error"])

    def _over(self, limit: str) -> str:
        allowed = {
            "time": f"{self.cpu_s:g} s of processor time",
            "memory": f"{self.memory_bytes >> 20} MiB of memory",
            "length": f"{self.longest:,} characters",
        }
        return f"the chat template took more than {allowed[limit]} for one rendering: use a model with another template"

    def _ask(self, line: bytes) -> dict[str, Any]:
        process = self._running()
        try:
            stdin, _ = _pipes(process)
            stdin.write(line)
            stdin.flush()
            answer = self._line(process)
        except BrokenPipeError:
            answer = b""
        if answer.endswith(b"\n"):
            reply: dict[str, Any] = json.loads(answer)
            return reply
        try:
            code = process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            # It is stuck without using processor time.
            process.kill()
            code = process.wait() and -signal.SIGPROF
        self._close(process)
        if code in (-signal.SIGPROF, -signal.SIGKILL):
            # The second is what the kernel sends where there is no memory left.
            return {"limit": "time" if code == -signal.SIGPROF else "memory"}
        return {"error": "ended", "message": f"the process that renders chat templates ended with status {code}"}

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The process's output up to the end of a line; less if it ends or takes too long."""
        output, until = bytearray(), time.monotonic() + WALL_S
        _, stdout = _pipes(process)
        with selectors.DefaultSelector() as waiting:
            waiting.register(stdout, selectors.EVENT_READ)
            while not output.endswith(b"\n") and waiting.select(max(0.0, until - time.monotonic())):
                if not (more := os.read(stdout.fileno(), 1 << 16)):
                    break
                output += more
        return bytes(output)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._close(self._process)
        if self._process is None:
            limits = (self.cpu_s, self.memory_bytes, self.longest)
            command = [sys.executable, "-m", "rlhf.models.chat_template_process", *map(str, limits)]
            # Its own session, so that Ctrl-C reaches only this process. When this process is gone, stdin ends and the renderer exits.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        return self._process

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        for pipe in _pipes(process):
            with suppress(BrokenPipeError):
                pipe.close()
        self._process = None

    def stop(self) -> None:
        with self._lock:
            if (process := self._process) is not None:
                process.kill()
                process.wait()
                self._close(process)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """The process's stdin and stdout."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process that renders chat templates was started without pipes")
    return process.stdin, process.stdout


@cache
def renderer() -> TemplateRenderer:
    """This process's renderer, which is stopped at exit."""
    shared = TemplateRenderer()
    atexit.register(shared.stop)
    return shared


def control_tokens(tokenizer: Any, template: str) -> list[str]:
    """The tokens with which the template marks turns: the special ones, and the other added ones that it names. Longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special or token.content in template}
    # A template names spaces and the marks of reasoning as text, too; neither ends a turn.
    return sorted((token for token in added if not token.isspace() and token not in (START, END)), key=len, reverse=True)


class CutMark:
    """A character that no message has: between the characters of a control token that a message spells out, it keeps them apart."""

    def __init__(self, character: str, spelled: re.Pattern[str]):
        self.character, self.spelled = character, spelled

    def inside(self, value: Any) -> Any:
        """The conversations with every spelled-out control token cut; their keys and roles are left."""
        if isinstance(value, str):
            return self.spelled.sub(lambda found: self.character.join(found[0]), value)
        if isinstance(value, dict):
            return {key: part if key == "role" else self.inside(part) for key, part in value.items()}
        return [self.inside(part) for part in value] if isinstance(value, (list, tuple)) else value

    def encode(self, tokenizer: Any, text: str) -> list[int]:
        """Token ids of a rendered text. It is tokenised in pieces, so that what was cut is text."""
        first, *others = text.split(self.character)
        ids: list[int] = tokenizer.encode(first, add_special_tokens=False)
        # After a line break, because SentencePiece puts a space before what begins a text.
        line_break: list[int] = tokenizer.encode("\n", add_special_tokens=False)
        for piece in filter(None, others):
            encoded: list[int] = tokenizer.encode("\n" + piece, add_special_tokens=False)
            begins = encoded[: len(line_break)] == line_break
            ids += encoded[len(line_break) :] if begins else tokenizer.encode(piece, add_special_tokens=False)
        return ids


def cut_mark(conversations: Any, tokens: Sequence[str]) -> CutMark | None:
    """What cuts the control tokens that the conversations spell out; None where they spell out none."""
    spelled = re.compile("|".join(map(re.escape, tokens)) or "(?!)")
    texts = list(_texts(conversations))
    if not any(spelled.search(text) for text in texts):
        return None
    used = set().union(*texts)
    return CutMark(next(character for character in map(chr, PRIVATE_USE) if character not in used), spelled)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for key, part in value.items() if key != "role" for text in _texts(part))
    elif isinstance(value, (list, tuple)):
        yield from (text for part in value for text in _texts(part))


class BoundedTemplate(TokenizerBase):
    """A mixin before a tokenizer's class: chat templates are rendered under limits, all else is unchanged."""

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Any = None,
        documents: Any = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        sanitize_control_tokens: bool = False,
        padding: Any = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: Any = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: dict[str, Any] | None = None,
        **template_kwargs: Any,
    ) -> Any:
        """As transformers' method, without the options that need the positions of rendered parts in the text.

        Templates that know `enable_thinking` are rendered without reasoning unless it is asked for. Control tokens that a message
        spells out are tokenised as the text that they are; those that the template writes itself are control tokens.
        """
        if sanitize_control_tokens or return_assistant_tokens_mask:
            raise NotImplementedError("a chat template that is rendered elsewhere does not say where its parts are")
        is_batch = bool(conversation) and not isinstance(conversation[0], dict)
        conversations = [
            [{key: value for key, value in message.items() if value is not None} for message in messages]
            for messages in (conversation if is_batch else [conversation])
        ]
        template = self.get_chat_template(chat_template, tools)
        # Only text that is tokenised can be kept from being read as control tokens.
        cut = cut_mark(conversations, control_tokens(self, template)) if tokenize else None
        texts = renderer().render(
            conversations if cut is None else cut.inside(conversations),
            template,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **{"enable_thinking": False, **self.special_tokens_map, **template_kwargs},
        )
        if cut is not None:
            rows = [cut.encode(self, text) for text in texts]
            if truncation and max_length is not None:
                rows = [row[:max_length] if self.truncation_side == "right" else row[-max_length:] for row in rows]
            encoded: dict[str, Any] = {"input_ids": rows if is_batch or return_tensors else rows[0]}
            padded = self.pad(encoded, padding=padding, max_length=max_length, return_tensors=return_tensors)
            return padded if return_dict else padded["input_ids"]
        rendered = [[{"role": "user", "content": text}] for text in texts]
        return super().apply_chat_template(
            rendered if is_batch else rendered[0],
            chat_template=PRERENDERED,
            tokenize=tokenize,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            return_dict=return_dict,
            tokenizer_kwargs=tokenizer_kwargs,
        )


def bound(tokenizer: Any) -> Any:
    """Makes the tokenizer render its chat template under limits from now on, and returns it."""
    kind = type(tokenizer)
    if not isinstance(tokenizer, BoundedTemplate):
        tokenizer.__class__ = type(kind.__name__, (BoundedTemplate, kind), {"__module__": kind.__module__})
    return tokenizer
