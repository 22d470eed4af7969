"""Where the API key of the rollout server is: options of the command line alone.

The key stands neither in an argument, which other users of the machine see, nor in the run's row, which pages show. A page's form cannot
name a file or a variable: whoever filled it in could have its contents sent to an address of their choice. No torch here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.serving.endpoints import read_key


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a variable or a file, the same for `rankloop train` and for the worker that it starts."""
    parser.add_argument(
        "--rollouts-key-env", metavar="VARIABLE",
        help="the environment variable that holds the API key of the --rollouts server; repeat it with --resume",
    )  # fmt: skip
    parser.add_argument(
        "--rollouts-key-file", metavar="FILE", type=Path,
        help="the file that holds the API key of the --rollouts server; repeat it with --resume",
    )  # fmt: skip


def named(args: argparse.Namespace) -> bool:
    """Whether the command line names a key."""
    return bool(args.rollouts_key_env or args.rollouts_key_file)


def read(args: argparse.Namespace) -> str:
    """The key; empty where none is named.

    Raises:
        EndpointOptionError: both are named, or the named one holds no key.
    """
    return read_key(args.rollouts_key_env, args.rollouts_key_file)


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The same options as a list of arguments, for the worker's process."""
    found = ["--rollouts-key-env", args.rollouts_key_env] if args.rollouts_key_env else []
    return [*found, *(["--rollouts-key-file", str(args.rollouts_key_file.absolute())] if args.rollouts_key_file else [])]
