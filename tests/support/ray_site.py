"""A small server that speaks Ray's Jobs API as Ray 2.60 does, and runs each entrypoint as Ray does: in a shell that leads a process group.

Its answers have the fields, statuses and texts that a real cluster gave (`tests/rlhf/runs/test_real_ray.py` asks one).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

PENDING = (
    "Job has not started yet. It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become available. "
    "It may be waiting for the runtime environment to be set up."
)
DIED = (
    "Job supervisor actor died: The actor died unexpectedly before finishing this task.\n\tclass_name: JobSupervisor\n\tpid: 16458\n"
    "\tname: _ray_internal_job_actor_rankloop-r1128-0501-6f32-79bbc4\n\tnamespace: SUPERVISOR_ACTOR_RAY_NAMESPACE\n\tip: 192.0.2.2\n"
    "The actor died because its node has died. Node Id: 51ba\n"
    "\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
)


@dataclass
class Job:
    request: dict
    log: Path
    process: subprocess.Popen | None = None
    stopping: bool = False
    set_status: tuple[str, str] | None = None

    def status(self) -> tuple[str, str]:
        """Status and message."""
        if self.set_status is not None:
            return self.set_status
        if self.process is None:
            return "PENDING", PENDING
        code = self.process.poll()
        if code is None:
            return "RUNNING", "Job is currently running."
        if self.stopping:
            return "STOPPED", "Job was intentionally stopped."
        if code == 0:
            return "SUCCEEDED", "Job finished successfully."
        tail = "\n".join(self.log.read_text().splitlines()[-10:])
        return "FAILED", f"Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):\n{tail}\n"

    def begin(self) -> None:
        env = os.environ | self.request.get("runtime_env", {}).get("env_vars", {}) | {"PYTHONUNBUFFERED": "1"}
        with self.log.open("a") as output:
            output.write(f"Running entrypoint for job {self.request['submission_id']}: {self.request['entrypoint']}\n")
            output.flush()
            self.process = subprocess.Popen(
                self.request["entrypoint"], shell=True, start_new_session=True, stdout=output, stderr=subprocess.STDOUT, env=env
            )


@dataclass
class RaySite:
    """A cluster. Set `full`, and jobs wait for resources; set `token`, and requests need it; `go_down` and `come_back` do what they say."""

    folder: Path
    full: bool = False
    token: str = ""
    answer: tuple[int, dict[str, str], bytes] | None = None
    """Status, headers and body of every answer, in place of Ray's."""
    jobs: dict[str, Job] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Authorization header of each request."""
    port: int = 0

    def __post_init__(self) -> None:
        self.come_back()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def newest(self) -> Job:
        return list(self.jobs.values())[-1]

    def come_back(self) -> None:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._reply(*site.reply("GET", self.path, self.headers.get("Authorization", ""), b""))

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._reply(*site.reply("POST", self.path, self.headers.get("Authorization", ""), content))

            def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except ConnectionError:
                    # The client had read enough.
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def go_down(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        self.go_down()
        for job in self.jobs.values():
            if job.process is not None:
                if job.process.poll() is None:
                    os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()

    def reply(self, method: str, path: str, authorization: str, content: bytes) -> tuple[int, dict[str, str], bytes]:
        self.asked.append((method, path, authorization))
        if self.answer is not None:
            return self.answer
        if self.token and authorization != f"Bearer {self.token}":
            return 401, {}, b"Unauthorized: Missing authentication token"
        if path == "/api/version":
            return as_json({"version": "4", "ray_version": "2.60.0", "ray_commit": "b7f4", "session_name": "session"})
        if (method, path) == ("POST", "/api/jobs/"):
            return self._submit(json.loads(content))
        _, _, _, job_id, *rest = map(unquote, path.split("/"))
        if job_id not in self.jobs:
            return 404, {"Content-Type": "text/plain"}, f"Job {job_id} does not exist".encode()
        job = self.jobs[job_id]
        match method, rest:
            case "GET", []:
                status, message = job.status()
                code = job.process.poll() if job.process is not None else None
                return as_json({"type": "SUBMISSION", "job_id": None, "driver_exit_code": code, "error_type": None,
                                "metadata": job.request.get("metadata"), "status": status, "message": message,
                                "submission_id": job_id, "entrypoint": job.request["entrypoint"]})  # fmt: skip
            case "GET", ["logs"]:
                return as_json({"logs": job.log.read_text()})
            case "POST", ["stop"]:
                there = job.status()[0] in ("PENDING", "RUNNING")
                job.stopping = job.stopping or there
                if there and job.process is not None:
                    os.killpg(job.process.pid, signal.SIGTERM)
                return as_json({"stopped": there})
        return 405, {}, b"405: Method Not Allowed"

    def _submit(self, request: dict) -> tuple[int, dict[str, str], bytes]:
        job_id = request["submission_id"]
        if job_id in self.jobs:
            return 500, {"Content-Type": "text/plain"}, b".\n\n"
        job = self.jobs[job_id] = Job(request, self.folder / f"{job_id}.log")
        job.log.touch()
        if not self.full:
            job.begin()
        return as_json({"job_id": job_id, "submission_id": job_id})


def as_json(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
