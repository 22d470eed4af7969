"""Any Python function as what PPO is paid: `rankloop train --reward module:function`. No torch.

Code is named on a command line and nowhere else. A run's row records the name, so that its figures can be explained, but a
name that only stands in a row starts nothing: the worker is told on its own command line as well, and both must agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from storage.core.records import Message

RewardFunction = Callable[[list[list[Message]], list[str]], list[float]]
"""`function(prompts, completions)`: one reward for each completion; higher is better. Rewards are paid as they are."""


class RewardFunctionError(Exception):
    """The function cannot be had or may not be run; the message says why and what to do."""


def load(name: str) -> RewardFunction:
    """The function behind `module:function`; the working directory is searched too.

    Raises:
        RewardFunctionError: there is no such function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise RewardFunctionError(f"--reward {name!r}: write it as module:function, such as my_rewards:brevity")
    # A console script searches its own folder in place of this one.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        remedy = f"Run it from the folder that holds {module}, or install that."
        raise RewardFunctionError(f"--reward {name}: {error}. {remedy}") from error
    if not callable(function):
        raise RewardFunctionError(f"--reward {name}: is a {type(function).__name__}, no function of prompts and completions")
    return cast(RewardFunction, function)


def agreed(recorded: str | None, said: str | None) -> RewardFunction | None:
    """The function of a run, if the command line names the one that its row records; None for a run that has none.

    Raises:
        RewardFunctionError: they differ, or it cannot be had.
    """
    if recorded == said:
        return None if said is None else load(said)
    if recorded is None:
        raise RewardFunctionError(f"--reward {said}: the run was started without one. Leave it out, or start a new run.")
    raise RewardFunctionError(
        f"the run is paid by the Python function {recorded}, and code runs only when a command line names it: add --reward {recorded}"
    )


def values(function: RewardFunction, name: str, prompts: list[list[Message]], completions: list[str]) -> list[float]:
    """What the function says, checked.

    Raises:
        RewardFunctionError: not one finite number for each completion.
    """
    found = list(function(prompts, completions))
    if len(found) != len(completions):
        raise RewardFunctionError(f"{name} gave {len(found)} rewards for {len(completions)} completions: return one for each")
    numbers = [float(value) for value in found]
    if wrong := [n for n in numbers if not abs(n) < float("inf")]:
        raise RewardFunctionError(f"{name} gave {wrong[0]}: return finite numbers, PPO cannot learn from others")
    return numbers
