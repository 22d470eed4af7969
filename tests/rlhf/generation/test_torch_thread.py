"""The thread in which a process with several threads computes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rlhf.generation.engine import GenerationEngine
from rlhf.generation.torch_thread import TorchThread
from rlhf.models.backbone import Backbone


def test_functions_run_one_after_another_in_one_thread() -> None:
    thread = TorchThread()
    seen: list[tuple[int, threading.Thread]] = []
    done = [thread.submit(lambda number=number: seen.append((number, threading.current_thread()))) for number in range(20)]
    for future in done:
        future.result(10)
    assert seen == [(number, thread.thread) for number in range(20)]


def test_an_error_reaches_who_asked_and_the_thread_goes_on() -> None:
    thread = TorchThread()
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 / 0).result(10)
    assert thread.submit(lambda: 7).result(10) == 7


def test_the_engine_generates_in_the_thread_that_loaded_the_model(tiny_folder: Path) -> None:
    thread = TorchThread()
    engine = GenerationEngine(thread.submit(lambda: Backbone.load(tiny_folder, "cpu", "float32")).result(60), thread=thread)
    engine.start()
    try:
        assert engine.call(threading.current_thread) is thread.thread
    finally:
        engine.close()
    assert thread.submit(lambda: 7).result(10) == 7
