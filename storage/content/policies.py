"""Policy versions: a base model, a base model with a tuned adapter, or an external model that generated completions.

The weights are files; the store has their paths.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path, PurePosixPath

from storage.core.data_folder import DataFolder, inside
from storage.core.database import Database, StoreError, now
from storage.core.records import PolicyKind, PolicyVersion


def ensure_base(store: Database, base_model: str, *, name: str | None = None) -> PolicyVersion:
    """The version of a base model without an adapter, created at the first use.

    Args:
        base_model: hub id or local folder.
        name: name of a new version; the last part of `base_model` if None.
    """
    with store.atomic():
        if known := base(store, base_model):
            return known
        wanted = name or re.split(r"[/\\]", base_model.rstrip("/\\"))[-1] or base_model
        return _insert(store, name=_free_name(store, wanted), kind="base", base_model=base_model)


def base(store: Database, base_model: str) -> PolicyVersion | None:
    """The version of a base model without an adapter; None before its first use."""
    row = store.row("SELECT * FROM policy_versions WHERE kind = 'base' AND base_model = ?", [base_model])
    return None if row is None else _from_row(row)


def ensure_external(store: Database, name: str) -> PolicyVersion:
    """The version of a model that rankloop does not run, identified by its name. Created at the first use.

    Raises:
        StoreError: the name belongs to a base or tuned version.
    """
    with store.atomic():
        known = _find(store, name)
        if known is None:
            return _insert(store, name=name, kind="external", base_model=name)
    if known.kind != "external":
        raise StoreError(f"{name} is a {known.kind} version of this store: give the external model another name.")
    return known


def ensure_imported(store: Database, name: str, *, import_id: int) -> int:
    """The id of the version of this name, of any kind: a file may name a version of this store. An unknown name becomes external."""
    known = store.value("SELECT id FROM policy_versions WHERE name = ?", [name])
    if known is not None:
        return int(known)
    return store.insert(
        "policy_versions", {"name": name, "kind": "external", "base_model": name, "created_at": now(), "import_id": import_id}
    )


def register_tuned(store: Database, *, name: str, base_model: str, adapter_path: Path | str, run_id: str) -> PolicyVersion:
    """Adds the version that a run trained. The adapter's path is stored relative to the data folder, so that the folder can move.

    A relative `adapter_path` is relative to the data folder. A second call with the same arguments returns the first version.

    Raises:
        StoreError: the name is taken, the adapter lies outside `runs` of the data folder, or there is no such run.
    """
    relative = _inside_data_folder(store, Path(adapter_path))
    with store.atomic():
        known = _find(store, name)
        if known is None:
            return _insert(store, name=name, kind="tuned", base_model=base_model, adapter_path=relative, run_id=run_id)
    if (known.base_model, known.adapter_path, known.run_id) != (base_model, relative, run_id):
        raise StoreError(f"There is a policy version {name} already: choose another name.")
    return known


def adapter_folder(store: Database, version: PolicyVersion) -> Path | None:
    """The folder of the version's adapter; None for a version without one.

    Raises:
        StoreError: the path leads out of `runs` of the data folder, also by a link.
    """
    if version.adapter_path is None:
        return None
    runs = DataFolder(store.path.parent).runs
    try:
        path = PurePosixPath(version.adapter_path)
        if path.is_absolute() or path.parts[:1] != (runs.name,) or ".." in path.parts:
            raise StoreError(f"it is {version.adapter_path!r}")
        return inside(store.path.parent / path, runs)
    except (StoreError, TypeError, ValueError) as error:
        raise StoreError(
            f"The adapter of {version.name} cannot be used ({error}): it must be in runs/ of the data folder, and not a link out of it. "
            "Put the folder there, or restore a backup."
        ) from error


def all_versions(store: Database) -> list[PolicyVersion]:
    """Every version, oldest first."""
    return [
        _from_row(row)
        for row in store.rows("SELECT * FROM policy_versions WHERE coalesce(import_id, 0) NOT IN unfinished_imports ORDER BY id")
    ]


def get(store: Database, version_id: int) -> PolicyVersion:
    """One version.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM policy_versions WHERE id = ?", [version_id])
    if row is None:
        raise StoreError(f"There is no policy version with the id {version_id}: reload the page.")
    return _from_row(row)


def by_name(store: Database, name: str) -> PolicyVersion:
    """The version of this name.

    Raises:
        StoreError: there is none; the message lists the names of all versions.
    """
    version = _find(store, name)
    if version is None:
        known = ", ".join(version.name for version in all_versions(store)) or "none yet"
        raise StoreError(f"There is no policy version {name}. Choose one of: {known}.")
    return version


def latest_tuned(store: Database, base_model: str) -> PolicyVersion | None:
    """The newest tuned version over this base model; None before the first."""
    row = store.row("SELECT * FROM policy_versions WHERE kind = 'tuned' AND base_model = ? ORDER BY id DESC LIMIT 1", [base_model])
    return None if row is None else _from_row(row)


def _find(store: Database, name: str) -> PolicyVersion | None:
    row = store.row("SELECT * FROM policy_versions WHERE name = ?", [name])
    return None if row is None else _from_row(row)


def _free_name(store: Database, wanted: str) -> str:
    name, attempt = wanted, 1
    while _find(store, name) is not None:
        attempt += 1
        name = f"{wanted}-{attempt}"
    return name


def _inside_data_folder(store: Database, path: Path) -> str:
    root = store.path.parent
    if path.is_relative_to(root):
        path = path.relative_to(root)
    elif path.is_absolute():
        path = Path(path.resolve())
        if not path.is_relative_to(root.resolve()):
            raise StoreError(f"{path} is outside the data folder {root}: save the adapter under it.")
        path = path.relative_to(root.resolve())
    if ".." in path.parts:
        raise StoreError(f"{path} leads out of the data folder {root}: save the adapter under it.")
    if path.parts[:1] != ("runs",):
        raise StoreError(f"{path} is not in runs of the data folder {root}: save the adapter there.")
    return path.as_posix()


def _insert(
    store: Database,
    *,
    name: str,
    kind: PolicyKind,
    base_model: str,
    adapter_path: str | None = None,
    run_id: str | None = None,
) -> PolicyVersion:
    version = PolicyVersion(0, name, kind, base_model, adapter_path, run_id, now())
    new_id = store.insert(
        "policy_versions",
        {
            "name": name,
            "kind": kind,
            "base_model": base_model,
            "adapter_path": adapter_path,
            "run_id": run_id,
            "created_at": version.created_at,
        },
    )
    return PolicyVersion(new_id, name, kind, base_model, adapter_path, run_id, version.created_at)


def _from_row(row: sqlite3.Row) -> PolicyVersion:
    return PolicyVersion(
        row["id"],
        row["name"],
        row["kind"],
        row["base_model"],
        row["adapter_path"],
        row["run_id"],
        row["created_at"],
    )
