"""What Ray's Jobs API is asked, and what is made of each answer: Ray's, another server's, none."""

import socket

import pytest
from ray_site import RaySite

from rlhf.runs import ray_api
from rlhf.runs.ray_api import AddressError, NotConnected, RayApi, RayError, RayJobInfo, RayRefused


@pytest.fixture
def site(tmp_path):
    site = RaySite(tmp_path)
    yield site
    site.close()


def test_a_job_is_submitted_looked_at_read_and_stopped(site):
    api = RayApi(f"{site.address}/")
    assert api.ray_version() == "2.60.0"
    site.full = True
    api.submit({"entrypoint": "echo hello; sleep 600", "submission_id": "j1"})
    assert api.job("j1").status == "PENDING" and api.job("j1").message.startswith("Job has not started yet.")
    site.newest.begin()
    assert api.job("j1") == RayJobInfo("RUNNING", "Job is currently running.")
    api.stop("j1")
    site.newest.process.wait()
    assert api.job("j1").status == "STOPPED" and "Running entrypoint for job j1" in api.logs("j1")
    assert api.job("j2") is None and api.logs("j2") == ""
    api.stop("j2")
    with pytest.raises(RayRefused, match=r"^HTTP 500$"):
        api.submit({"entrypoint": "true", "submission_id": "j1"})


def test_the_token_is_sent_in_a_header_and_a_refusal_says_where_it_belongs(site):
    site.token = "secret"
    RayApi(site.address, "secret").ray_version()
    assert site.asked == [("GET", "/api/version", "Bearer secret")]
    for token in ("", "other"):
        with pytest.raises(RayRefused, match="RAY_AUTH_TOKEN_PATH") as refused:
            RayApi(site.address, token).ray_version()
        assert "other" not in str(refused.value)


def test_a_redirect_is_not_followed_and_takes_no_token_along(site, tmp_path):
    elsewhere = RaySite(tmp_path)
    site.answer = 307, {"Location": f"{elsewhere.address}/api/version"}, b""
    try:
        with pytest.raises(RayRefused, match="HTTP 307"):
            RayApi(site.address, "secret").ray_version()
        assert elsewhere.asked == []
    finally:
        elsewhere.close()


@pytest.mark.parametrize(
    "answer, words",
    [
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b"[1]"), "not an object"),
        ((200, {}, b"[" * 100_000), "not JSON"),
        ((200, {}, b'{"status": "DREAMING"}'), "unknown status 'DREAMING'"),
        ((200, {}, b"{}"), "unknown status 'None'"),
        ((200, {}, b" " * (ray_api.MAX_ANSWER_BYTES + 1)), "larger than 1,048,576 bytes"),
        ((503, {}, b"Service Unavailable"), "HTTP 503"),
        ((404, {}, b"no such page: j1"), "HTTP 404: no such page: j1"),
        ((500, {}, b"Traceback:\n  File\nValueError: no agent\n"), "HTTP 500: ValueError: no agent"),
    ],
)
def test_an_answer_that_is_not_rays_says_nothing_about_a_job(site, answer, words):
    site.answer = answer
    with pytest.raises(RayError, match=words):
        RayApi(site.address).job("j1")


def test_a_server_that_is_slow_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = RayApi(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RayError, match="no answer within") as slow:
            api._request("GET", "/api/version", None, within_s=0.05, most_bytes=1)
        assert not isinstance(slow.value, NotConnected)


def test_a_cluster_that_is_down_has_certainly_not_got_the_job(site):
    site.go_down()
    with pytest.raises(NotConnected, match="no connection"):
        RayApi(site.address).submit({"entrypoint": "true", "submission_id": "j1"})
    site.come_back()


def test_an_id_cannot_lead_to_another_call(site):
    assert RayApi(site.address).job("../version") is None
    assert site.asked[-1][1] == "/api/jobs/..%2Fversion"


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8265", "ray://h:10001", "http://", "http://u:p@h", "http://h/?a=1", "http://h/#a", "http://h:x", ""]
)
def test_an_address_must_be_that_of_a_dashboard(text):
    with pytest.raises(AddressError, match="such as http://127.0.0.1:8265"):
        RayApi(text)


def test_an_address_may_have_a_path_of_a_proxy():
    assert RayApi("https://ray.example.org/team/").address == "https://ray.example.org/team"


def test_the_token_is_read_where_rays_own_client_reads_it(tmp_path):
    file, default = tmp_path / "token", tmp_path / ".ray" / "auth_token"
    file.write_text("of-file\n")
    default.parent.mkdir()
    assert ray_api.read_token({}, tmp_path) == ""
    default.write_text("of-home")
    assert ray_api.read_token({}, tmp_path) == "of-home"
    assert ray_api.read_token({"RAY_AUTH_TOKEN_PATH": str(file)}, tmp_path) == "of-file"
    both = {"RAY_AUTH_TOKEN_PATH": str(file), "RAY_AUTH_TOKEN": "of-variable"}
    assert ray_api.read_token(both, tmp_path) == "of-variable"
    assert ray_api.read_token(both | {"RAY_AUTH_MODE": "disabled"}, tmp_path) == ""
    file.write_text("\n")
    for named in (file, tmp_path / "gone"):
        with pytest.raises(AddressError, match=str(named)):
            ray_api.read_token({"RAY_AUTH_TOKEN_PATH": str(named)}, tmp_path)
    with pytest.raises(AddressError, match="one word"):
        ray_api.read_token({"RAY_AUTH_TOKEN": "a\r\nHost: b"}, tmp_path)
