"""The calls of Ray's Jobs REST API that start, look at and stop a job, over HTTP: Ray itself is not imported, and its version may differ.

Each answer is bounded in size and time, and no redirect is followed, because a request may bring a token.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import httpx2

CONNECT_S, ANSWER_S, SUBMIT_S = 3.0, 10.0, 30.0
"""Longest wait for a connection, for an answer, and for the answer to a submission, in seconds."""

MAX_ANSWER_BYTES, MAX_LOG_BYTES = 1 << 20, 32 << 20
"""Size of an answer, and of one that holds a job's whole log."""

MAX_ERROR_CHARS = 300
"""Characters of a refusal that are shown."""

MAX_TOKEN_CHARS = 10_000
"""Characters of a token's file that are read."""

JobStatus = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


class RayError(Exception):
    """The cluster gave no answer that is Ray's; the message says what came instead. What became of a job is not known."""


class NotConnected(RayError):
    """Nothing listens at the address: a request has certainly not arrived."""


class RayRefused(RayError):
    """Ray answered, and refuses this request."""


class AddressError(ValueError):
    """The address is not one of a Ray dashboard; the message says how it must look."""


@dataclass(frozen=True, slots=True)
class RayJobInfo:
    """A job as Ray describes it."""

    status: JobStatus
    message: str


class RayApi:
    """One cluster's Jobs API. `address` is that of the dashboard, such as `http://127.0.0.1:8265`."""

    def __init__(self, address: str, token: str = ""):
        self.address = checked_address(address)
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        self._http = httpx2.Client(headers=headers, timeout=timeout, follow_redirects=False)

    def ray_version(self) -> str:
        """The version of Ray that answers.

        Raises:
            RayError: no answer, or not Ray's.
        """
        return str(self._json("GET", "/api/version").get("ray_version", ""))

    def submit(self, request: Mapping[str, Any]) -> None:
        """Submits a job under the `submission_id` of the request.

        Raises:
            NotConnected: the cluster has not got it.
            RayRefused: it refuses it.
            RayError: it may have got it: `job` will tell.
        """
        self._json("POST", "/api/jobs/", request, within_s=SUBMIT_S)

    def job(self, job_id: str) -> RayJobInfo | None:
        """The job; None if the cluster knows none of this id.

        Raises:
            RayError: no answer, or not Ray's.
        """
        found = self._of_job("GET", job_id, "")
        if found is None:
            return None
        status, message = found.get("status"), found.get("message")
        if status not in ("PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"):
            raise RayError(f"its answer has the unknown status {str(status)[:40]!r}")
        return RayJobInfo(status, message if isinstance(message, str) else "")

    def logs(self, job_id: str) -> str:
        """What the job has written so far; empty if the cluster knows none of this id.

        Raises:
            RayError: no answer, not Ray's, or a log of more than `MAX_LOG_BYTES`.
        """
        found = self._of_job("GET", job_id, "/logs", MAX_LOG_BYTES)
        return str((found or {}).get("logs", ""))

    def stop(self, job_id: str) -> None:
        """Asks for the job to be stopped. A job that still waits is stopped when it begins, and waits until then.

        Raises:
            RayError: no answer, or not Ray's.
        """
        self._of_job("POST", job_id, "/stop")

    def _of_job(self, method: str, job_id: str, part: str, most_bytes: int = MAX_ANSWER_BYTES) -> dict[str, Any] | None:
        try:
            return self._json(method, f"/api/jobs/{quote(job_id, safe='')}{part}", most_bytes=most_bytes)
        except _Status as refusal:
            # Another server at this address would say 404 in words of its own.
            if refusal.status == 404 and refusal.text.startswith("Job ") and job_id in refusal.text:
                return None
            raise

    def _json(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        *,
        within_s: float = ANSWER_S,
        most_bytes: int = MAX_ANSWER_BYTES,
    ) -> dict[str, Any]:
        status, body = self._request(method, path, content, within_s, most_bytes)
        text = body.decode("utf-8", "replace")
        if status in (502, 503, 504):
            raise RayError(f"a proxy before it answers HTTP {status}")
        if status != 200:
            raise _Status(status, text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RayError("its answer is not JSON: is this the address of a Ray dashboard?") from error
        if not isinstance(value, dict):
            raise RayError("its answer is not an object: is this the address of a Ray dashboard?")
        return value

    def _request(self, method: str, path: str, content: Mapping[str, Any] | None, within_s: float, most_bytes: int) -> tuple[int, bytes]:
        give_up_at = time.monotonic() + within_s
        timeout, body = httpx2.Timeout(within_s, connect=CONNECT_S), bytearray()
        try:
            with self._http.stream(method, f"{self.address}{path}", json=content, timeout=timeout) as response:
                for piece in response.iter_raw():
                    body += piece
                    if len(body) > most_bytes:
                        raise RayError(f"its answer is larger than {most_bytes:,} bytes")
                    if time.monotonic() > give_up_at:
                        raise RayError(f"no whole answer within {within_s:.0f} s")
                return response.status_code, bytes(body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise NotConnected(f"no connection ({str(error)[:MAX_ERROR_CHARS] or type(error).__name__})") from error
        except httpx2.TimeoutException as error:
            raise RayError(f"no answer within {within_s:.0f} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RayError(f"no answer ({type(error).__name__}: {str(error)[:MAX_ERROR_CHARS]})") from error


class _Status(RayRefused):
    """An answer with another status than 200."""

    def __init__(self, status: int, text: str):
        self.status, self.text = status, text
        super().__init__(_reason(status, text))


def _reason(status: int, text: str) -> str:
    if status in (401, 403):
        return f"it asks for a token (HTTP {status}): set RAY_AUTH_TOKEN, or put the token into a file and name that in RAY_AUTH_TOKEN_PATH"
    if 300 <= status < 400:
        return f"it redirects to another address (HTTP {status}), which is not followed"
    # Ray's refusals are tracebacks; the last line is the error.
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return f"HTTP {status}" + (f": {lines[-1][:MAX_ERROR_CHARS]}" if lines else "")


def checked_address(text: str) -> str:
    """The address without a slash at its end.

    Raises:
        AddressError: it is not `http://` or `https://` with a host, or has a user name, a query or a fragment.
    """
    try:
        url = urlsplit(text.strip())
        right = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        right = False
    if not right or "@" in url.netloc or url.query or url.fragment:
        raise AddressError(f"{text}: is not the address of a Ray dashboard, such as http://127.0.0.1:8265")
    return text.strip().rstrip("/")


def read_token(environment: Mapping[str, str] | None = None, home: Path | None = None) -> str:
    """The token that Ray's own client would send: RAY_AUTH_TOKEN, or that of the file RAY_AUTH_TOKEN_PATH, or of `~/.ray/auth_token`.

    Empty without one, and where RAY_AUTH_MODE is `disabled`.

    Raises:
        AddressError: the file that is named cannot be read or is empty.
    """
    names = os.environ if environment is None else environment
    if names.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return ""
    if token := names.get("RAY_AUTH_TOKEN", "").strip():
        return _sendable(token, "RAY_AUTH_TOKEN")
    if named := names.get("RAY_AUTH_TOKEN_PATH"):
        return _from_file(Path(named))
    default = (home or Path.home()) / ".ray" / "auth_token"
    return _from_file(default) if default.is_file() else ""


def _from_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            token = file.read(MAX_TOKEN_CHARS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressError(f"the token of Ray cannot be read from {path}: {error}") from error
    if not token:
        raise AddressError(f"{path} holds no token for Ray")
    return _sendable(token, str(path))


def _sendable(token: str, where: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise AddressError(f"{where} holds characters that no token has: it must be one word")
    return token
