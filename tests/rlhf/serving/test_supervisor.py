"""The policy server as a child process: it is restarted when it dies, and killed when it does not stop."""

import signal
import sys

from waiting import PATIENCE_S, until

from rlhf.serving import supervisor


class Sleeper(supervisor.PolicyServer):
    """A stand-in process that dies when told."""

    def __init__(self, tmp_path, code):
        super().__init__(tmp_path, tmp_path / "logs" / "server.log", [])
        self._command = [sys.executable, "-c", code]


def test_a_server_that_dies_is_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "QUICK_DEATH_S", 0.0)
    process = Sleeper(tmp_path, "import time; time.sleep(600)")
    real = process._stopping.wait
    process._stopping.wait = lambda seconds: real(seconds / 50)
    process.start()
    first = process._process
    first.kill()
    until(lambda: process._process is not first and process._process.poll() is None)
    process.stop()
    assert process._process.poll() is not None and not process._thread.is_alive()


def test_a_server_that_dies_at_once_is_not_started_in_a_loop(tmp_path):
    process = Sleeper(tmp_path, "print('no luck')")
    pauses, real = [], process._stopping.wait

    def wait(seconds):
        """A pause passes at once; between two looks at the process there is a moment."""
        if seconds == 0.5:
            return real(0.01)
        pauses.append(seconds)
        return len(pauses) == 7

    process._stopping.wait = wait
    process.start()
    process._thread.join(PATIENCE_S)
    process.stop()
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert process.log_file.read_text().count("no luck") == 7


def test_a_server_that_will_not_go_is_killed(tmp_path):
    process = Sleeper(
        tmp_path, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    process.start()
    until(lambda: "up" in process.log_file.read_text())
    real = process._process.wait
    process._process.wait = lambda timeout=None: real(timeout and 0.3)
    process.stop()
    assert process._process.returncode == -signal.SIGKILL


def test_a_server_on_demand_runs_while_it_is_needed(tmp_path, monkeypatch):
    class Waiting(supervisor.PolicyServer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._command = [sys.executable, "-c", "import time; time.sleep(600)"]

    monkeypatch.setattr(supervisor, "PolicyServer", Waiting)
    server = supervisor.PolicyServerOnDemand(tmp_path, tmp_path / "server.log", [])
    server.keep(False)
    assert server._running is None
    server.keep(True)
    first = server._running
    server.keep(True)
    assert server._running is first and first._process.poll() is None and first.base_url == server.base_url
    server.keep(False)
    assert server._running is None and first._process.poll() is not None
    server.keep(True)
    again = server._running
    assert again is not first and again.base_url == server.base_url
    server.stop()
    assert again._process.poll() is not None
