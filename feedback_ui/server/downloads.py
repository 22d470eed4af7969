"""Sends the files that the app made for a lead. Each is fetched once, and deleted then.

A file is deleted when it has been sent whole, when its owner has another one made, and when the server starts. An interrupted download
leaves it there, for another try.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from feedback_ui.server import download_files
from feedback_ui.server.auth import Auth
from feedback_ui.server.bodies import BadBody

CHUNK_BYTES = 1 << 20


class Downloads:
    """The route that sends these files.

    Raises:
        OSError: the folder cannot be emptied.
    """

    def __init__(self, auth: Auth):
        self.auth = auth
        if (folder := download_files.root_of(auth.store)).exists():
            shutil.rmtree(folder)

    async def send(self, request: Request) -> Response:
        """Sends leads their own file, and deletes it after its last byte."""
        owner = self.auth.acts(request, "lead").annotator.id
        path = download_files.find(self.auth.store, owner, request.path_params["token"], request.path_params["name"])
        if path is None:
            raise BadBody(404, "body.not_there_any_more")
        headers = {"content-length": str(path.stat().st_size), "content-disposition": f'attachment; filename="{path.name}"'}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="application/octet-stream")
        return StreamingResponse(_once(path), headers=headers | {"cache-control": "no-store"}, media_type="application/octet-stream")


async def _once(path: Path) -> AsyncIterator[bytes]:
    """The file in chunks. It is deleted when the last one was taken, and not where the browser leaves before."""
    with await run_in_threadpool(open, path, "rb") as file:
        while chunk := await run_in_threadpool(file.read, CHUNK_BYTES):
            yield chunk
    await run_in_threadpool(download_files.delete, path)
