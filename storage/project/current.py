"""The project as it is now: its settings and guidelines, read once for an act and handed on to all that the act does."""

from __future__ import annotations

from dataclasses import dataclass

from storage.core.database import Database
from storage.core.records import Guidelines, ProjectSettings
from storage.project import guidelines, settings


@dataclass(frozen=True, slots=True)
class Project:
    """The current settings and guidelines; `guidelines` is None before the first version."""

    settings: ProjectSettings
    guidelines: Guidelines | None


def load(store: Database) -> Project:
    return Project(settings.current(store), guidelines.current(store))
