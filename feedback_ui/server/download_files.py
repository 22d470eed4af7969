"""The folder of the files that the app makes for one lead: `<data folder>/downloads/<annotator id>/<32 hex digits>/`. No Gradio."""

from __future__ import annotations

import re
import secrets
import shutil
import stat
from pathlib import Path
from urllib.parse import quote

from storage.core.data_folder import DataFolder
from storage.core.database import Database

ROUTE = "/download/{token}/{name}"

_TOKEN = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def root_of(store: Database) -> Path:
    return DataFolder(store.path.absolute().parent).downloads


def new_folder(store: Database, owner: int) -> Path:
    """An empty folder for a file of this annotator. The one that they had before is deleted."""
    of_owner = root_of(store) / str(owner)
    shutil.rmtree(of_owner, ignore_errors=True)
    folder = of_owner / secrets.token_hex(16)
    of_owner.parent.mkdir(mode=0o700, exist_ok=True)
    of_owner.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    return folder


def find(store: Database, owner: int, token: str, name: str) -> Path | None:
    """The file of that name, if it was made for this annotator and is still a regular file."""
    if not _TOKEN.fullmatch(token) or not _NAME.fullmatch(name):
        return None
    folder = root_of(store) / str(owner) / token
    path = folder / name
    try:
        # The folder is checked as well, so that no symbolic link is followed.
        is_regular = stat.S_ISDIR(folder.lstat().st_mode) and stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return None
    return path if is_regular else None


def delete(path: Path) -> None:
    """Deletes a file that `find` has returned, with its folder."""
    shutil.rmtree(path.parent, ignore_errors=True)


def link(path: Path) -> str:
    """The address of a file in a `new_folder`, relative to the page's."""
    return ROUTE.lstrip("/").format(token=path.parent.name, name=quote(path.name))
