"""The project's current settings and guidelines, read once per request and passed to everything that the request calls."""

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
