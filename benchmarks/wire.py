"""A minimal HTTP/1.1 client over one kept-alive connection, as a browser tab has, which uses little CPU time.

Fifty of these and the server they load share two cores: an ordinary client would use up as much as the server does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any


class Wire:
    """One client's connection. Opened at the first request, and anew after it broke."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str] | None = None):
        self.host, self.port = host, port
        given = {"Host": f"{host}:{port}", "Accept": "application/json", **(headers or {})}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: Any = None, *, within_s: float = 60.0) -> tuple[int, Any]:
        """The status, and the reply, decoded if it is JSON.

        Raises:
            OSError: the server could not be reached, or ended before it answered; the request may or may not have been processed.
        """
        try:
            return await asyncio.wait_for(self._ask(method, path, body), within_s)
        except (asyncio.IncompleteReadError, ValueError) as error:
            await self.close()
            raise ConnectionError(f"the reply broke off: {error!r}") from error
        except (OSError, TimeoutError):
            await self.close()
            raise

    async def _ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port)
        payload = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: application/json\r\n" if payload else ""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{kind}Content-Length: {len(payload)}\r\n\r\n"
        self._writer.write(head.encode() + payload)
        status, fields = _read_head(await self._reader.readuntil(b"\r\n\r\n"))
        reply = await self._read_body(fields)
        if fields.get("connection", "").lower() == "close":
            await self.close()
        return status, json.loads(reply) if fields.get("content-type", "").startswith("application/json") else reply

    async def _read_body(self, fields: Mapping[str, str]) -> bytes:
        if fields.get("transfer-encoding", "").lower() != "chunked":
            return await self._reader.readexactly(int(fields.get("content-length", 0)))
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readline()
        return b"".join(parts)

    async def close(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest if line)
    return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}
