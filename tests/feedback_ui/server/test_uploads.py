"""Files that a body names: only the visitor's own uploads are found, and no other path is looked at."""

import json
import os
import threading

import pytest
from served_app import served
from waiting import PATIENCE_S, fastest

META = {"meta": {"_type": "gradio.FileData"}}
SECRET = "not for browsers"
ROW = b'{"prompt": "Why does bread rise?", "kind": "explain"}\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with served(tmp_path_factory.mktemp("files")) as site:
        site.add_accounts()
        yield site


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "secret.jsonl").write_text(SECRET)
    os.mkfifo(folder / "fifo")
    return folder


def claim(path, **more) -> dict:
    return {"path": path, **META, **more}


def hidden_in(found: dict) -> list:
    """The same claim at every place of a body's data where Gradio would find it."""
    deep = found
    for _ in range(30):
        deep = {"next": [deep]}
    return [found, [found], [[found]], {"value": found}, {"a": {"b": [1, found]}}, deep]


def everywhere(site, who, data):
    """The answers of every route that takes a body with values."""
    client = site.clients[who]
    predict = {"fn_index": site.handler("import_file"), "data": [data, "recognised", "", "", False], "session_hash": "files"}
    yield client.post("/gradio_api/run/predict", json=predict)
    yield client.post("/gradio_api/run/predict", json=predict | {"data": [None], "event_data": data})
    yield client.post("/gradio_api/queue/join", json=predict)
    asked = {"data": data, "component_id": site.component("compare"), "fn_name": "judge", "session_hash": "files"}
    for path in ("/gradio_api/component_server", "/gradio_api/component_server/"):
        yield client.post(path, json=asked)
    for path in ("/gradio_api/cancel", "/gradio_api/reset"):
        yield client.post(path, json={"event_id": "x", "fn_index": 0, "session_hash": "files", "more": data})


@pytest.fixture
def copies(site):
    """What lies in the folder for uploads and in the system's folder for temporary files, before and after."""
    before = set(site.uploads())
    yield lambda: set(site.uploads()) - before


@pytest.mark.parametrize("who", ["lead", "annotator", "researcher"])
def test_a_file_of_the_server_is_refused_on_every_route(site, elsewhere, copies, who):
    secret = str(elsewhere / "secret.jsonl")
    for found in (claim(secret), claim(secret, url="http://127.0.0.1:1/x"), {"path": secret}, claim(secret, is_stream=True)):
        for data in hidden_in(found):
            for reply in everywhere(site, who, data):
                assert reply.status_code in (400, 403), (found, data, reply.request.url, reply.text)
                assert "not a file that you have uploaded" in reply.json()["error"]
                assert SECRET not in reply.text
    assert not copies()


NO_UPLOADS = [
    "/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd", "/", "", ".", "..", "~/.ssh/id_rsa", "//etc/passwd", "x\0y",
    "file:///etc/passwd", "http://127.0.0.1:1/x", "https://example.invalid/x", "/gradio_api/file=/etc/passwd", "a" * 5000,
    "../rankloop.db", "00000000000000000000000000000000/../../rankloop.db", "uploads", "\u202e/etc/passwd", "C:\\x",
]  # fmt: skip


@pytest.mark.parametrize("path", NO_UPLOADS)
def test_what_is_no_upload_is_refused_at_once(site, path):
    replies = []

    def predict():
        replies.append(site.predict("lead", "import_file", [claim(path), "recognised", "", "", False]))

    assert fastest(predict, 2) < 2
    for reply in replies:
        assert reply.status_code == 400 and "not a file that you have uploaded" in reply.json()["error"]


@pytest.mark.parametrize("path", [None, 7, True, ["/etc/passwd"], {"path": "/etc/passwd"}, 1.5])
def test_a_path_that_is_not_text_is_refused(site, path):
    assert site.predict("lead", "import_file", [claim(path), "recognised", "", "", False]).status_code == 400


def test_meta_that_is_not_an_object_is_refused(site):
    for meta in ("gradio.FileData", 7, ["_type"], None, {"_type": ["gradio.FileData"]}):
        assert site.predict("lead", "import_file", [{"path": "/etc/passwd", "meta": meta}, "recognised", "", "", False]).status_code == 400


def test_an_escaped_key_names_a_file_too(site, elsewhere):
    for key in (r"\u0070ath", r"p\u0061th"):
        found = json.dumps(claim("/etc/passwd")).replace("path", key)
        body = f'{{"fn_index": {site.handler("import_file")}, "session_hash": "s", "data": [{found}, "recognised", "", "", false]}}'
        reply = site.clients["lead"].post("/gradio_api/run/predict", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400 and "not a file that you have uploaded" in reply.json()["error"]


def test_a_fifo_does_not_block_the_server(site, elsewhere):
    """Whoever opens a FIFO waits for the other end; the event loop must never."""
    for path in (str(elsewhere / "fifo"), "/dev/zero"):
        stuck = threading.Thread(
            target=lambda path=path: site.predict("annotator", "import_file", [claim(path), "recognised", "", "", False]), daemon=True
        )
        stuck.start()
        assert site.clients["nobody"].get("/sign-in").status_code == 200
        stuck.join(PATIENCE_S)
        assert not stuck.is_alive()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "link to a folder"])
def test_only_a_regular_file_in_the_folder_counts(site, elsewhere, kind):
    """Whatever got into the folder by another way than an upload."""
    uploaded = site.upload("lead", ROW).json()[0]
    (lies,) = [path for path in site.uploads() if str(path).endswith(uploaded)]
    lies.unlink()
    if kind == "symlink":
        lies.symlink_to(elsewhere / "secret.jsonl")
    elif kind == "fifo":
        os.mkfifo(lies)
    elif kind == "folder":
        lies.mkdir()
    else:
        token = lies.parent
        token.rmdir()
        token.symlink_to(elsewhere, target_is_directory=True)
        uploaded = f"{token.name}/secret.jsonl"
    assert site.predict("lead", "import_file", [claim(uploaded), "recognised", "", "", False]).status_code == 400
    assert site.clients["lead"].get(f"/gradio_api/file={uploaded}").status_code in (403, 404)


def test_an_upload_is_imported_and_deleted(site, copies):
    uploaded = site.upload("lead", ROW, "good.jsonl").json()[0]
    assert len(copies()) == 1
    reply = site.predict(
        "lead", "import_file", [claim(uploaded, url="/gradio_api/file=x", orig_name="../../x", size=3), "recognised", "", "", False]
    )
    assert reply.status_code == 200 and site.store.value("SELECT count(*) FROM prompts") == 1
    assert site.store.value("SELECT source FROM imports") == "good.jsonl"
    assert not copies()


def test_an_upload_is_deleted_when_its_import_fails_too(site, copies):
    for content, name in ((b"no rows", "bad.jsonl"), (ROW, "wrong.exe"), (b"\xff\xfe", "bytes.jsonl")):
        uploaded = site.upload("lead", content, name).json()[0]
        assert len(copies()) == 1
        site.predict("lead", "import_file", [claim(uploaded), "recognised", "", "", False])
        assert not copies(), name


def test_an_upload_is_for_an_import_by_who_uploaded_it(site):
    uploaded = site.upload("lead", ROW).json()[0]
    for who in ("other lead", "annotator", "researcher"):
        assert site.predict(who, "import_file", [claim(uploaded), "recognised", "", "", False]).status_code == 400, who
        assert site.clients[who].get(f"/gradio_api/file={uploaded}").status_code in (403, 404), who
    assert site.clients["lead"].get(f"/gradio_api/file={uploaded}").content == ROW
    # Not where the page hands files in, and through the queue nobody would know when the act has ended.
    assert site.predict("lead", "add_lines", [claim(uploaded), "x", "auto"]).status_code == 400
    join = {"fn_index": site.handler("import_file"), "data": [claim(uploaded), "recognised", "", "", False], "session_hash": "s"}
    assert site.clients["lead"].post("/gradio_api/queue/join", json=join).status_code == 400


def test_an_upload_cannot_leave_its_folder(site):
    for name in ("../../up.jsonl", "/etc/up.jsonl", "..", ".", "a/b/up.jsonl", "x\0.jsonl", "é" * 300, "..\\..\\up.jsonl", ".hidden"):
        reply = site.upload("lead", ROW, name)
        assert reply.status_code == 200, name
        assert str(site.folder) not in reply.text and not reply.json()[0].startswith("/"), "a browser learns no path of this machine"
    assert not [path for path in site.folder.rglob("*up.jsonl") if site.folder / "uploads" not in path.parents]
    assert all(path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0 for path in site.uploads())


def test_what_is_no_upload_form_is_refused(site, copies):
    client = site.clients["lead"]
    path = "/gradio_api/upload"
    assert client.post(path, content=b"x", headers={"content-type": "multipart/form-data; boundary=x"}).status_code == 400
    assert client.post(path, content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert client.post(path, content=b"x", headers={"content-type": "text/plain"}).status_code in (400, 415)
    assert client.post(path, data={"files": "text"}).status_code in (400, 415)
    assert client.post(path, files=[("files", ("a.jsonl", ROW)), ("files", ("b.jsonl", ROW))]).status_code == 400
    assert client.post(path, files={"other": ("a.jsonl", ROW)}).status_code == 400
    assert not copies()


def test_a_new_upload_replaces_the_oldest_of_its_owner(site):
    before = len(site.uploads())
    for _ in range(12):
        assert site.upload("other lead", ROW).status_code == 200
    assert len(site.uploads()) - before <= 4


def test_files_of_the_server_do_not_go_out(site, elsewhere):
    named = [str(elsewhere / "secret.jsonl"), "/etc/passwd", str(site.store.path.absolute()), "/proc/self/environ", "/dev/zero", "."]
    for who in ("lead", "researcher", "annotator"):
        for path in named:
            for written in (path, path.lstrip("/"), "//" + path, path.replace("/", "%2f"), f"x/../..{path}"):
                reply = site.clients[who].get(f"/gradio_api/file={written}")
                assert reply.status_code in (403, 404), (who, written)
                assert SECRET not in reply.text and "root:" not in reply.text


def test_the_folder_is_emptied_at_the_start(tmp_path):
    left = tmp_path / "uploads" / "1" / ("0" * 32)
    left.mkdir(parents=True)
    (left / "old.jsonl").write_bytes(ROW)
    (tmp_path / "kept.txt").write_text("kept")
    (left / "link").symlink_to(tmp_path / "kept.txt")
    with served(tmp_path) as site:
        assert not site.uploads()
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_gradio_checks_files_too(site, elsewhere, monkeypatch):
    """The second wall: with the guard's look at bodies away, Gradio refuses what is not in the app's own folder."""
    from feedback_ui.server import access

    monkeypatch.setattr(access.AccessMiddleware, "_checked_body", lambda self, request, visitor, body: (body, []))
    before = {path for path in site.folder.rglob("*")}
    for path in (elsewhere / "secret.jsonl", "/dev/zero", "/etc/passwd", site.store.path.absolute()):
        reply = site.predict("lead", "import_file", [claim(str(path)), "recognised", "", "", False])
        assert reply.status_code != 200 and SECRET not in reply.text
    assert {path for path in site.folder.rglob("*")} - before == set()
    assert json.dumps(SECRET) not in site.clients["lead"].get("/config").text
