"""Files that leads upload: stored in a folder of the app, under names that reveal nothing about the server, and deleted early.

A browser names an upload as `<32 hex digits>/<name>`. The folder, `<data folder>/uploads/<annotator id>/`, is never sent to a
browser. An upload serves one call and is deleted after it, unless the call has kept it for a later one; unused uploads are deleted
when their owner uploads more, or when the server starts.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from feedback_ui.server.auth import Auth
from feedback_ui.server.bodies import BadBody
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError

MAX_UPLOADS = 4
"""Maximum number of uploads of one account at the same time; a further one replaces the oldest."""

UPLOAD_NAME = re.compile(r"([0-9a-f]{32})/([^/\0]{1,100})")


class Uploads:
    """The folder for uploads of one store.

    Raises:
        OSError: the folder cannot be made or emptied.
    """

    def __init__(self, auth: Auth):
        self.auth = auth
        self.root = DataFolder(auth.store.path.absolute().parent).uploads
        if self.root.exists():
            shutil.rmtree(self.root)
        self.root.mkdir(mode=0o700)

    async def receive(self, request: Request) -> Response:
        """Stores one file, the field `files` of a form, and returns the name by which a call can use it."""
        owner = self.auth.acts(request, "lead").annotator.id
        async with request.form(max_files=1, max_fields=0) as form:
            file = form.get("files")
            if not isinstance(file, UploadFile):
                raise BadBody(400, "body.no_file")
            return JSONResponse([await run_in_threadpool(self._keep, owner, file.filename or "", file.file)])

    async def send(self, request: Request) -> Response:
        """Sends visitors their own upload, as a download and not for display."""
        visitor = self.auth.reads(request, "lead")
        path = self.find(visitor.annotator.id, request.path_params["path_or_url"])
        if path is None:
            raise BadBody(403, "body.not_uploaded")
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    def find(self, owner: int, named: object) -> Path | None:
        """The path of the upload of that name, if this annotator has uploaded it and it is still a regular file."""
        if not isinstance(named, str) or not (parts := UPLOAD_NAME.fullmatch(named)) or parts[2] in (".", ".."):
            return None
        folder = self.root / str(owner) / parts[1]
        path = folder / parts[2]
        try:
            # The folder is checked as well, so that no symbolic link is followed.
            is_regular = stat.S_ISDIR(folder.lstat().st_mode) and stat.S_ISREG(path.lstat().st_mode)
        except (OSError, ValueError):
            return None
        return path if is_regular else None

    def discard(self, paths: Iterable[Path]) -> None:
        """Deletes uploads whose paths `find` has returned."""
        for path in paths:
            shutil.rmtree(path.parent, ignore_errors=True)
        # Gradio's upload button leaves an empty file each time.
        for left in self.root.iterdir():
            if not left.is_dir():
                left.unlink(missing_ok=True)

    def _keep(self, owner: int, filename: str, content: BinaryIO) -> str:
        folder_of_owner = self.root / str(owner)
        folder_of_owner.mkdir(mode=0o700, exist_ok=True)
        self._make_room(folder_of_owner)
        token = secrets.token_hex(16)
        folder = folder_of_owner / token
        folder.mkdir(mode=0o700)
        name = safe_name(filename)
        try:
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                shutil.copyfileobj(content, file)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return f"{token}/{name}"

    def _make_room(self, folder_of_owner: Path) -> None:
        by_age = sorted(folder_of_owner.iterdir(), key=lambda folder: folder.lstat().st_mtime_ns)
        for folder in by_age[: max(0, len(by_age) - MAX_UPLOADS + 1)]:
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)


def keep(store: Database, owner: int, path: Path) -> Path:
    """Keeps an upload beyond the call that it came with, among the uploads of its owner. Whoever keeps it calls `drop` in the end.

    Raises:
        StoreError: there is no room for it.
    """
    folder = DataFolder(store.path.absolute().parent).uploads / str(owner) / secrets.token_hex(16)
    kept = folder / path.name
    try:
        folder.mkdir(mode=0o700, parents=True)
        try:
            os.link(path, kept)
        except OSError:
            # Not every file system has hard links.
            shutil.copyfile(path, kept)
    except OSError as error:
        drop(kept)
        raise StoreError(f"{path.name} cannot be kept ({error.strerror or error}): import it without a preview.") from error
    return kept


def drop(kept: Path) -> None:
    """Deletes an upload that was kept."""
    shutil.rmtree(kept.parent, ignore_errors=True)


def safe_name(filename: str) -> str:
    """A file name without folders or special characters, at most 60 characters; an import stores it as its source."""
    last = re.split(r"[/\\]", filename)[-1]
    stem, dot, ending = re.sub(r"[^\w.\- ]", "_", last).strip(". ").rpartition(".")
    name = f"{stem[:44]}{dot}{ending[:15]}" if stem else ending[:60]
    return name or "upload"
