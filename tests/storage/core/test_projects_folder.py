"""The folder of several projects: names, and that no name and no link leads out of it."""

import pytest

from storage.core.database import Database, StoreError
from storage.core.projects_folder import ProjectsFolder


@pytest.mark.parametrize("name", ["a", "chat", "2026-chat", "a" * 40])
def test_names_of_projects(tmp_path, name):
    assert ProjectsFolder(tmp_path).project(name).database == tmp_path / name / "rankloop.db"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "Chat", "-a", "a.b", "a b", "a\n", "a" * 41, "accounts", "\u0430", "a\0", None, 1],
)
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(StoreError, match="is no project's name"):
        ProjectsFolder(tmp_path).project(name)


def test_only_folders_with_a_store_inside_the_folder_are_projects(tmp_path):
    folder, elsewhere = ProjectsFolder(tmp_path / "all"), tmp_path / "elsewhere"
    assert folder.names() == []
    for place in (folder.root / "chat", folder.root / "code", folder.root / "Other", folder.accounts.root, elsewhere):
        Database(place / "rankloop.db").close()
    (folder.root / "empty").mkdir()
    (folder.root / "link").symlink_to(elsewhere)
    (folder.root / "loop").symlink_to(folder.root / "loop")
    (folder.root / "file").write_text("")
    assert folder.names() == ["chat", "code"]
    with pytest.raises(StoreError, match="leads out of the folder"):
        folder.existing("link")
    with pytest.raises(StoreError, match="There is no project empty"):
        folder.existing("empty")
