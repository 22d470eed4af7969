"""The verb that runs the policy server alone, as people call it."""

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest
import tiny
from policy_server import until

import launch
from rlhf.serving import supervisor

KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: without a key everybody who reaches that address could use the model"),
        (["--api-key-file", "no-such-file"], "the key's file no-such-file"),
        (["--port", "99999"], "the policy server's port 99999 is not a TCP port"),
    ],
)
def test_what_cannot_be_served_is_told_before_a_model_is_read(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert launch.main(["policy-server", "--data", str(tmp_path / "data"), *arguments]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_the_options_for_trainers_reach_the_process(tmp_path, monkeypatch):
    """What is started differs from a server for clients in these alone; the routes have tests of their own."""
    started = []
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **_: started.append(command) or exit())
    monkeypatch.setattr(launch, "fetch_weights", lambda model: None)
    asked = ["--port", str(supervisor.free_port()), "--lora-folder", str(tmp_path / "runs"), "--logprobs-mode", "processed_logprobs"]
    with pytest.raises(SystemExit):
        launch.main(["policy-server", "--data", str(tmp_path), *asked])
    ((*_, option, folder, mode, value),) = started
    assert [option, folder, mode, value] == ["--lora-folder", str(tmp_path / "runs"), "--logprobs-mode", "processed_logprobs"]


def test_a_port_that_is_taken_is_told(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert launch.main(["policy-server", "--port", port, "--data", str(tmp_path)]) == 2
        assert launch.main(["serve", "--port", str(supervisor.free_port()), "--policy-port", port, "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count(f"the policy server's port {port}") == 2


def call(port, path="/v1/models", key=KEY, **body):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx2.request("POST" if body else "GET", f"http://127.0.0.1:{port}{path}", headers=headers, json=body or None, timeout=60)
    except httpx2.TransportError:
        return None


@pytest.mark.slow
def test_it_answers_whoever_has_the_key_and_only_continues_texts_without_a_template(tmp_path):
    folder, port = tiny.write(tmp_path / "tiny"), supervisor.free_port()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "key").write_text(KEY)
    command = [
        sys.executable, "-m", "launch", "policy-server", "--port", str(port), "--data", str(tmp_path / "data"), "--model", str(folder),
        "--device", "cpu", "--api-key-file", str(tmp_path / "key"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: call(port, "/health") is not None, 240)
        assert [model["id"] for model in call(port).json()["data"]] == ["current", "tiny"]
        assert call(port, key="wrong-wrong-wrong").status_code == 401 and call(port, "/health", key="").status_code == 200
        assert call(port, "/v1/completions", model="tiny", prompt="Once", max_tokens=3).status_code == 200
        reply = call(port, "/v1/chat/completions", model="tiny", messages=[{"role": "user", "content": "Hi"}])
        assert reply.status_code == 400 and reply.json()["error"]["code"] == "no_chat_template"
        assert call(port, "/status").json()["filling"] is False
        # The server's own process is stopped while it is asked, and continued.
        (server,) = psutil.Process(process.pid).children()
        server.suspend()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(call, port, "/v1/completions", model="tiny", prompt="Once", max_tokens=3)
            time.sleep(0.5)
            assert not asked.done()
            server.resume()
            assert asked.result(60).status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in said
    assert call(port, "/health") is None, "the server itself ended too"
