"""Renders chat templates under limits of time, memory and length, in a process of its own.

A chat template comes with a model and is a program: nested loops may never end, and strings may double until memory is exhausted.
Every rendering therefore happens in `rlhf.models.chat_template_process`, by transformers' own function and in its sandbox, and that
process is ended when it goes over a limit. One such process serves this one, and is started when it is first needed.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from jinja2 import TemplateError

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

        Templates that know `enable_thinking` are rendered without reasoning unless it is asked for.
        """
        if sanitize_control_tokens or return_assistant_tokens_mask:
            raise NotImplementedError("a chat template that is rendered elsewhere does not say where its parts are")
        is_batch = bool(conversation) and not isinstance(conversation[0], dict)
        conversations = [
            [{key: value for key, value in message.items() if value is not None} for message in messages]
            for messages in (conversation if is_batch else [conversation])
        ]
        texts = renderer().render(
            conversations,
            self.get_chat_template(chat_template, tools),
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **{"enable_thinking": False, **self.special_tokens_map, **template_kwargs},
        )
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
