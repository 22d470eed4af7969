"""A Python function as the scorer of PPO: `rankloop train --reward module:function`. No torch.

Only a command line can name the function. A run's row records the name for reference, but code is never loaded by a name from
a row: the worker's command line must name the same function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from storage.core.records import Message

RewardFunction = Callable[[list[list[Message]], list[str]], list[float]]
"""`function(prompts, completions)`: one score for each completion; higher is better. Scores are not normalised."""


class RewardFunctionError(Exception):
    """The function cannot be loaded or may not be run; the message says why and what to do."""


def load(name: str) -> RewardFunction:
    """The function behind `module:function`; the working directory is searched too.

    Raises:
        RewardFunctionError: the name is not `module:function`, or there is no such function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise RewardFunctionError(f"--reward {name!r}: write it as module:function, such as my_rewards:brevity")
    # Python searches a console script's own folder instead of the working directory.
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


def load_confirmed(recorded: str | None, named: str | None) -> RewardFunction | None:
    """The reward function of a run, once the command line names the one that the run's row records; None for a run without one.

    Raises:
        RewardFunctionError: the two names differ, or the function cannot be loaded.
    """
    if recorded == named:
        return None if named is None else load(named)
    if recorded is None:
        raise RewardFunctionError(f"--reward {named}: the run was started without one. Leave it out, or start a new run.")
    raise RewardFunctionError(
        f"the run is scored by the Python function {recorded}, and code runs only when a command line names it: add --reward {recorded}"
    )


def checked_scores(function: RewardFunction, name: str, prompts: list[list[Message]], completions: list[str]) -> list[float]:
    """The function's scores of these completions, checked.

    Raises:
        RewardFunctionError: not one finite number for each completion.
    """
    scores = list(function(prompts, completions))
    if len(scores) != len(completions):
        raise RewardFunctionError(f"{name} gave {len(scores)} rewards for {len(completions)} completions: return one for each")
    numbers = [float(score) for score in scores]
    if not_finite := [n for n in numbers if not abs(n) < float("inf")]:
        raise RewardFunctionError(f"{name} gave {not_finite[0]}: return finite numbers, PPO cannot learn from others")
    return numbers
