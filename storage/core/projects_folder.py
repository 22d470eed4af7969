"""The folder of several projects that one program serves: a data folder for each project, and one for the accounts of all of them.

`DIR/NAME/` is the data folder of the project NAME, `DIR/accounts/` holds the names, passwords and sessions of everybody. Each is a data
folder like any other, for `backup`, `restore` and `doctor` too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.core.data_folder import DataFolder, inside
from storage.core.database import StoreError

ACCOUNTS = "accounts"

PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""A project's name is that of its folder and a part of its address: at most 40 small letters, digits and hyphens."""


@dataclass(frozen=True, slots=True)
class ProjectsFolder:
    """The folder of all projects."""

    root: Path

    @property
    def accounts(self) -> DataFolder:
        return DataFolder(self.root / ACCOUNTS)

    @property
    def logs(self) -> Path:
        return self.accounts.logs

    def project(self, name: str) -> DataFolder:
        """The data folder of a project, which need not exist.

        Raises:
            StoreError: it is no project's name, or the folder is a link to somewhere else.
        """
        if not is_project_name(name):
            raise StoreError(
                f"{name!r} is no project's name: it has at most 40 small letters, digits and hyphens, begins with a letter or a digit, "
                f"and is not {ACCOUNTS}."
            )
        return DataFolder(inside(self.root / name, self.root))

    def existing(self, name: str) -> DataFolder:
        """The data folder of a project that is there.

        Raises:
            StoreError: there is none of this name.
        """
        folder = self.project(name)
        if not folder.database.is_file():
            raise StoreError(f"There is no project {name} in {self.root}: `rankloop projects list` shows all of them.")
        return folder

    def names(self) -> list[str]:
        """The name of every project, sorted. A folder without a store is no project, and a link to elsewhere is left out."""
        if not self.root.is_dir():
            return []
        return sorted(each.name for each in self.root.iterdir() if is_project_name(each.name) and self._holds_project(each))

    def _holds_project(self, folder: Path) -> bool:
        try:
            return DataFolder(inside(folder, self.root)).database.is_file()
        except StoreError:
            return False


def is_project_name(value: Any) -> bool:
    return isinstance(value, str) and PROJECT_NAME.fullmatch(value) is not None and value != ACCOUNTS
