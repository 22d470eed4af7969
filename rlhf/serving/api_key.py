"""The API key of the policy server, which every request must bring that reaches it from another machine. No torch here."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.serving.endpoints import EndpointOptionError, read_key
from rlhf.serving.http_origin import is_loopback

MIN_KEY_CHARS = 16
"""Characters of a key; a shorter one can be guessed."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option that names the key's file. A key is no argument: other users of the machine see those."""
    parser.add_argument(
        "--api-key-file", metavar="FILE", type=Path,
        help="the file that holds the key of the policy server; requests without it are refused",
    )  # fmt: skip


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The same option as a list of arguments, for the policy server's process."""
    return ["--api-key-file", str(args.api_key_file.absolute())] if args.api_key_file else []


def read(file: Path | None) -> str:
    """The key in the file; empty where no file is named.

    Raises:
        EndpointOptionError: it holds no key, or one that is too short.
    """
    key = read_key(None, file)
    if key and len(key) < MIN_KEY_CHARS:
        raise EndpointOptionError(
            f"{file} holds a key of {len(key)} characters, and {MIN_KEY_CHARS} are needed: make one with `openssl rand -hex 24`"
        )
    return key


def for_host(host: str, file: Path | None) -> str:
    """The key of a server at this address.

    Raises:
        EndpointOptionError: other machines reach the address, and there is no key; or the key is not right.
    """
    key = read(file)
    if not key and not is_loopback(host):
        raise EndpointOptionError(
            f"--host {host}: without a key everybody who reaches that address could use the model: put a key into a file, and name it "
            "with --api-key-file"
        )
    return key
