"""Threads have their turns in the order in which they asked."""

import threading
import time

from rlhf.generation.fair_lock import FairLock


def waiting(turns: FairLock, number: int) -> None:
    give_up_at = time.monotonic() + 10
    while len(turns._waiting) < number:
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


def test_turns_come_in_the_order_in_which_they_were_asked_for():
    turns, order, threads = FairLock(), [], []

    def work(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        for number in range(6):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            waiting(turns, number + 1)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4, 5]


def test_a_turn_that_fails_is_over():
    turns = FairLock()
    try:
        with turns:
            raise ValueError
    except ValueError:
        pass
    with turns:
        assert turns._taken
    assert not turns._taken
