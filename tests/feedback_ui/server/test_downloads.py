"""Files that a lead had made: only their owner fetches them, once, and nothing else of the folder goes out."""

import os

import pytest
from served_app import served
from waiting import until

from feedback_ui.server import download_files
from storage.people import accounts

LINES = b"a line\n" * 300_000
"""More than one chunk."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with served(tmp_path_factory.mktemp("downloads")) as site:
        site.add_accounts()
        yield site


@pytest.fixture
def made(site):
    """A file of the lead's."""
    owner = next(account.annotator.id for account in accounts.all_accounts(site.store) if account.name == "lead")
    path = download_files.new_folder(site.store, owner) / "rankloop-trl-2026-11-28.jsonl"
    path.write_bytes(LINES)
    return path


def test_the_owner_fetches_a_file_once(site, made):
    address = "/" + download_files.link(made)
    head = site.clients["lead"].head(address)
    assert head.status_code == 200 and head.headers["content-length"] == str(len(LINES)) and made.exists()
    # Part of it may not be asked for: it would be deleted before the rest was fetched.
    reply = site.clients["lead"].get(address, headers={"range": "bytes=0-9"})
    assert reply.status_code == 200 and reply.content == LINES
    assert reply.headers["content-disposition"] == f'attachment; filename="{made.name}"'
    assert reply.headers["cache-control"] == "no-store" and reply.headers["x-content-type-options"] == "nosniff"
    until(lambda: not made.parent.exists())
    gone = site.clients["lead"].get(address)
    assert gone.status_code == 404 and "Export again" in gone.json()["error"]


@pytest.mark.parametrize("who, status", [("nobody", 401), ("annotator", 403), ("researcher", 403), ("other lead", 404)])
def test_nobody_else_does(site, made, who, status):
    for method in ("get", "head"):
        assert getattr(site.clients[who], method)("/" + download_files.link(made)).status_code == status
    assert made.read_bytes() == LINES


def test_a_download_that_is_broken_off_can_be_tried_again(site, made):
    # More than the buffers between server and browser hold.
    os.truncate(made, 64 << 20)
    with site.clients["lead"].stream("GET", "/" + download_files.link(made)) as reply:
        next(reply.iter_raw(10))
    assert site.clients["lead"].head("/" + download_files.link(made)).status_code == 200
    assert len(site.clients["lead"].get("/" + download_files.link(made)).content) == 64 << 20
    until(lambda: not made.parent.exists())


def test_nothing_else_goes_out(site, made):
    made.with_name("link").symlink_to(site.folder / "rankloop.db")
    made.with_name("folder").mkdir()
    for name in ("link", "folder", ".", "..", "%2e%2e", "..%2f..%2frankloop.db", "other.jsonl", made.name + "%00"):
        reply = site.clients["lead"].get(f"/download/{made.parent.name}/{name}")
        assert reply.status_code in (404, 400), name
    for token in ("x", "0" * 32, ".", "%2e%2e", made.parent.name.upper() + "x"):
        assert site.clients["lead"].get(f"/download/{token}/{made.name}").status_code == 404
    assert made.exists()


def test_a_link_in_the_place_of_the_folder_is_not_followed(site, made, tmp_path):
    (tmp_path / made.name).write_text("not for browsers")
    made.unlink()
    made.parent.rmdir()
    made.parent.symlink_to(tmp_path, target_is_directory=True)
    assert site.clients["lead"].get("/" + download_files.link(made)).status_code == 404


def test_a_new_file_replaces_the_one_before(site, made):
    owner = int(made.parent.parent.name)
    folder = download_files.new_folder(site.store, owner)
    assert not made.exists() and folder.is_dir() and not list(folder.iterdir())
    assert folder.stat().st_mode & 0o077 == 0 and download_files.root_of(site.store).stat().st_mode & 0o077 == 0


def test_the_folder_is_emptied_at_the_start(tmp_path):
    left = tmp_path / "downloads" / "1" / ("0" * 32)
    left.mkdir(parents=True)
    (left / "old.jsonl").write_text("{}")
    with served(tmp_path):
        assert not left.exists()
