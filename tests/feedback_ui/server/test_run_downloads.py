"""A run's files over HTTP: who gets them, what they hold, and what is answered where there are none."""

import io
import zipfile

import pytest
from served_app import served

from storage.project import runs
from tests.rlhf.runs.test_run_files import register

FILES = ("adapter.zip", "metrics.csv")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with served(tmp_path_factory.mktemp("downloads")) as site:
        site.add_accounts()
        for run_id in ("r 1", "r2"):
            runs.create(site.store, run_id, config={}, seed=0, versions={})
            runs.log_metrics(site.store, run_id, 1, {"objective/kl": 0.5})
        runs.finish(site.store, "r 1", "done", result={})
        register(site.store, "r 1")
        yield site


def test_a_researcher_gets_the_adapter_and_the_metrics(site):
    reply = site.clients["researcher"].get("/runs/r%201/adapter.zip")
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/zip"
    assert reply.headers["content-disposition"] == 'attachment; filename="r 1-adapter.zip"' and reply.headers["cache-control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors"] and archive.testzip() is None
    reply = site.clients["researcher"].get("/runs/r2/metrics.csv")
    assert (reply.status_code, reply.text) == (200, "step,metric,value\n1,objective/kl,0.5\n")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("file", FILES)
def test_nobody_else_gets_them(site, file):
    answers = {who: site.clients[who].get(f"/runs/r%201/{file}").status_code for who in ("nobody", "annotator", "lead")}
    assert answers == {"nobody": 401, "annotator": 403, "lead": 403}


def test_what_is_not_there_is_said(site):
    researcher = site.clients["researcher"]
    reply = researcher.get("/runs/r2/adapter.zip", headers={"accept-language": "en"})
    assert reply.status_code == 404 and "in its last step" in reply.json()["error"]
    for named in ("r9", "..", "%2e%2e", "r2%00", "..%2f..%2fr2", "r2%0a"):
        for file in FILES:
            assert researcher.get(f"/runs/{named}/{file}").status_code == 404, (named, file)
    assert researcher.get("/runs/r2/log.txt").status_code == 404
    head = researcher.head("/runs/r%201/adapter.zip")
    assert (head.status_code, head.content) == (200, b"")


def test_no_temporary_file_is_left(site):
    before = {path for path in site.folder.rglob("*")}
    site.clients["researcher"].get("/runs/r%201/adapter.zip")
    assert {path for path in site.folder.rglob("*") if "rankloop.db" not in path.name} <= before
