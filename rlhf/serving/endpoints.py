"""Which outside models write answers: from the command line, or from a TOML file."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from storage.content import policies
from storage.core.database import Database

REQUESTS_PER_MINUTE = 300
"""Default budget of one endpoint; attempts that failed count too."""

MAX_KEY_CHARS = 10_000
"""Characters of a key's file that are read."""


class EndpointOptionError(ValueError):
    """The options or the file that name endpoints are wrong; the message says where and how."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model behind OpenAI's chat protocol."""

    url: str
    """Ends in `/v1` at most servers."""
    model: str
    """The model's name there."""
    name: str = ""
    """The name of its policy version here, shown on the leaderboard; the model's own where it is empty."""
    api_key: str = field(default="", repr=False)
    requests_per_minute: int = REQUESTS_PER_MINUTE

    @property
    def version(self) -> str:
        return self.name or self.model


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that name endpoints, the same for `rankloop serve` and for the policy server that it starts."""
    parser.add_argument(
        "--endpoint", metavar="URL", action="append", default=[],
        help="collect answers from this OpenAI-compatible endpoint instead (ends in /v1); give it several times to compare models",
    )  # fmt: skip
    parser.add_argument(
        "--endpoint-model", metavar="NAME", action="append", default=[], help="the model to ask there; one for each --endpoint"
    )
    parser.add_argument("--endpoint-key-env", metavar="VARIABLE", help="the environment variable that holds the endpoint's API key")
    parser.add_argument("--endpoint-key-file", metavar="FILE", type=Path, help="the file that holds the endpoint's API key")
    parser.add_argument(
        "--endpoints", metavar="FILE", type=Path,
        help="a TOML file of [[endpoint]] tables: url, model, and optionally name, api_key_env, api_key_file, requests_per_minute",
    )  # fmt: skip


def from_options(args: argparse.Namespace) -> list[Endpoint]:
    """The endpoints that the options name; none where they name none.

    Raises:
        EndpointOptionError: options that contradict each other, a file or a key that cannot be read.
    """
    if args.endpoints and (args.endpoint or args.endpoint_model or args.endpoint_key_env or args.endpoint_key_file):
        raise EndpointOptionError("--endpoints names every endpoint: leave out --endpoint, --endpoint-model and their key")
    if args.endpoints:
        return from_file(args.endpoints)
    key = read_key(args.endpoint_key_env, args.endpoint_key_file)
    if key and not args.endpoint:
        raise EndpointOptionError("a key without an --endpoint: name the endpoint that it is for")
    return named(args.endpoint, args.endpoint_model, key=key)


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The same options as a list of arguments, for the policy server's process. A key itself is never among them."""
    found = [text for url in args.endpoint for text in ("--endpoint", url)]
    found += [text for model in args.endpoint_model for text in ("--endpoint-model", model)]
    if args.endpoint_key_env:
        found += ["--endpoint-key-env", args.endpoint_key_env]
    if args.endpoint_key_file:
        found += ["--endpoint-key-file", str(args.endpoint_key_file.absolute())]
    if args.endpoints:
        found += ["--endpoints", str(args.endpoints.absolute())]
    return found


def named(urls: Sequence[str], models: Sequence[str], *, key: str = "") -> list[Endpoint]:
    """The endpoints of the command line: the first URL with the first model, and so on; one URL may serve several models.

    Raises:
        EndpointOptionError: their numbers differ, an address is none, two are the same, or a key would go to several servers.
    """
    if len(urls) == 1 and len(models) > 1:
        urls = list(urls) * len(models)
    if len(urls) != len(models):
        raise EndpointOptionError(
            f"{len(urls)} --endpoint and {len(models)} --endpoint-model: give a model for each endpoint, in the same order"
        )
    if key and len({_origin(url) for url in urls}) > 1:
        raise EndpointOptionError("one key for several servers: name each server's own key in a file for --endpoints")
    return _checked([Endpoint(url, model, api_key=key) for url, model in zip(urls, models, strict=True)])


def from_file(path: Path) -> list[Endpoint]:
    """The endpoints of a TOML file: tables `[[endpoint]]` with the fields of `_FIELDS`, of which url and model must be there.

    Raises:
        EndpointOptionError: the file cannot be read, or a table is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EndpointOptionError(f"{path}: {error}") from error
    entries = tables.get("endpoint")
    if set(tables) - {"endpoint"} or not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise EndpointOptionError(f"{path}: must hold tables [[endpoint]] and nothing else")
    endpoints = []
    for number, entry in enumerate(entries, 1):
        try:
            endpoints.append(_from_table(entry, path.parent))
        except EndpointOptionError as error:
            raise EndpointOptionError(f"{path}: endpoint {number}: {error}") from error
    return _checked(endpoints)


def named_apart(store: Database, base_model: str, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The endpoints with names that no base or tuned version of the store has: `MODEL@HOST` where one has the model's own.

    Another server may well have the model that this program has.

    Raises:
        EndpointOptionError: a base or tuned version has the name that the file gives an endpoint.
    """
    policies.ensure_base(store, base_model)
    taken = {version.name for version in policies.all_versions(store) if version.kind != "external"}
    apart = []
    for endpoint in endpoints:
        if endpoint.version in taken:
            if endpoint.name:
                raise EndpointOptionError(f"{endpoint.name} is a policy version of this store: give the endpoint another name")
            endpoint = replace(endpoint, name=f"{endpoint.model}@{_origin(endpoint.url)[1]}")
        apart.append(endpoint)
    return _checked(apart)


_FIELDS: Mapping[str, type] = {
    "url": str, "model": str, "name": str, "api_key_env": str, "api_key_file": str, "requests_per_minute": int,
}  # fmt: skip


def _from_table(entry: Mapping[str, Any], folder: Path) -> Endpoint:
    if "api_key" in entry:
        raise EndpointOptionError("a key does not stand in this file: name its variable (api_key_env) or its own file (api_key_file)")
    for name, value in entry.items():
        if name not in _FIELDS:
            raise EndpointOptionError(f"unknown field {name!r}: use {', '.join(_FIELDS)}")
        if type(value) is not _FIELDS[name]:
            raise EndpointOptionError(f"{name} must be {'a whole number' if _FIELDS[name] is int else 'text'}, not {value!r}")
    if missing := [name for name in ("url", "model") if not entry.get(name)]:
        raise EndpointOptionError(f"{' and '.join(missing)} is missing")
    file = entry.get("api_key_file")
    key = read_key(entry.get("api_key_env"), folder / file if file else None)
    return Endpoint(entry["url"], entry["model"], entry.get("name", ""), key, entry.get("requests_per_minute", REQUESTS_PER_MINUTE))


def read_key(variable: str | None, file: Path | None) -> str:
    """The key from an environment variable or a file; empty where neither is named. Blanks around it are no part of it.

    Raises:
        EndpointOptionError: both are named, or the named one holds no key.
    """
    if variable and file:
        raise EndpointOptionError("a key comes from a variable or from a file: name one of them")
    if file:
        try:
            with file.open(encoding="utf-8") as opened:
                key = opened.read(MAX_KEY_CHARS).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise EndpointOptionError(f"the key's file {file}: {getattr(error, 'strerror', None) or 'no text'}") from error
    elif variable:
        key = os.environ.get(variable, "").strip()
    else:
        return ""
    if not key:
        raise EndpointOptionError(f"{file or f'the environment variable {variable}'} holds no key")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointOptionError(f"{file or f'the environment variable {variable}'} holds more than a key: put the key alone there")
    return key


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _checked(endpoints: list[Endpoint]) -> list[Endpoint]:
    names: set[str] = set()
    for endpoint in endpoints:
        scheme, host = _origin(endpoint.url)
        if scheme not in ("http", "https") or not host or "@" in host:
            raise EndpointOptionError(f"{endpoint.url!r} is no address of a server: it begins with http:// or https:// and ends in /v1")
        if not 1 <= endpoint.requests_per_minute <= 100_000:
            raise EndpointOptionError(f"requests_per_minute must be 1 to 100,000, not {endpoint.requests_per_minute}")
        if endpoint.version in names:
            raise EndpointOptionError(
                f"two endpoints are called {endpoint.version!r}: give one of them another name in a file for --endpoints"
            )
        names.add(endpoint.version)
    return endpoints
