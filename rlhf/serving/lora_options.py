"""The policy server's options for trainers that sample with it: which adapters it loads for them, and which log-probabilities it returns.

No torch here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs")
"""Of the model's own distribution at temperature 1, or of the one that tokens are sampled from; vLLM's names."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options, the same for `rankloop policy-server` and for the process that it starts."""
    parser.add_argument(
        "--lora-folder", metavar="DIR", type=Path,
        help="let clients load adapters from below this folder while the server runs, as `rankloop train --rollouts` does; off without it",
    )  # fmt: skip
    parser.add_argument(
        "--logprobs-mode", choices=LOGPROBS_MODES, default=LOGPROBS_MODES[0],
        help="log-probabilities of the model at temperature 1, or of the distribution sampled from, which --rollouts needs",
    )  # fmt: skip


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The same options as a list of arguments."""
    folder = ["--lora-folder", str(args.lora_folder.absolute())] if args.lora_folder else []
    return [*folder, "--logprobs-mode", args.logprobs_mode]
