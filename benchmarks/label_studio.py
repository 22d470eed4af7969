"""Label Studio community as pip installs it, in a virtual environment of its own: started, filled and loaded.

Its own SQLite default, the server that `label-studio start` starts, its REST API with a token for each annotator. Its telemetry
is turned off. An annotator asks `GET /api/projects/ID/next`, which locks the task for them, and posts the
annotation, as its own labelling screen does.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import time
from pathlib import Path

import httpx2

from benchmarks.annotating import Tally
from benchmarks.filling import answer
from benchmarks.wire import Wire
from tests.browser.program import HOST, as_if_started_by_hand, eventually, free_port

ADMIN_TOKEN = "a" * 40

CONFIG = """
<View>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="pw" toName="a,b"/>
  <Text name="a" value="$a"/>
  <Text name="b" value="$b"/>
</View>
"""

PEOPLE = """
import os, pathlib, sys
import label_studio
sys.path.insert(0, str(pathlib.Path(label_studio.__file__).parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "label_studio.core.settings.label_studio")
import django
django.setup()
from organizations.models import Organization
from rest_framework.authtoken.models import Token
from users.models import User
organization = Organization.objects.first()
for n in range(int(sys.argv[1])):
    user = User.objects.create(email=f"annotator{n}@example.org", username=f"annotator{n}")
    organization.add_user(user)
    user.active_organization = organization
    user.save()
    print("TOKEN", Token.objects.get_or_create(user=user)[0].key)
"""

QUIET = {
    "COLLECT_ANALYTICS": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "", "LATEST_VERSION_CHECK": "false",
    "FEATURE_FLAGS_OFFLINE": "true",
}  # fmt: skip

LEFT, RIGHT = "left", "right"


class LabelStudio:
    """A project of pairs with an overlap, and annotators with a token each."""

    def __init__(self, folder: Path, venv: Path, *, people: int, tasks: int, overlap: int):
        self.folder, self.venv, self.people, self.tasks, self.overlap = folder, venv, people, tasks, overlap
        self.port = free_port()
        self.database = folder / "label_studio.sqlite3"
        self._process: subprocess.Popen | None = None
        self._project = 0
        self._tokens: list[str] = []
        self.environment = os.environ | QUIET | {"LABEL_STUDIO_BASE_DATA_DIR": str(folder)}

    def version(self) -> str:
        code = "from importlib.metadata import version; print(version('label-studio'))"
        return subprocess.run([self.venv / "bin/python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(self.venv / "bin/label-studio"), "start", "--no-browser", "--data-dir", str(self.folder), "--port", str(self.port),
            "--internal-host", HOST, "--username", "admin@example.org", "--password", "only for a benchmark",
            "--user-token", ADMIN_TOKEN, "--enable-legacy-api-token",
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self.environment,
                preexec_fn=as_if_started_by_hand,
            )  # fmt: skip
        eventually(self._serves, "Label Studio serves", within_s=1200, every_s=0.5)
        made = subprocess.run(
            [self.venv / "bin/python", "-c", PEOPLE, str(self.people)], capture_output=True, text=True, env=self.environment,
        )  # fmt: skip
        self._tokens = [line.split()[1] for line in made.stdout.splitlines() if line.startswith("TOKEN ")]
        if len(self._tokens) != self.people:
            raise RuntimeError(f"Label Studio made {len(self._tokens)} of {self.people} people:\n{made.stdout}\n{made.stderr}")
        self._fill()

    def _serves(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Label Studio ended:\n{(self.folder / 'server.log').read_text()[-3000:]}")
        try:
            return httpx2.get(f"http://{HOST}:{self.port}/health", timeout=5).is_success
        except httpx2.HTTPError:
            return False

    def _fill(self) -> None:
        rng = random.Random(0)
        with httpx2.Client(base_url=f"http://{HOST}:{self.port}", headers={"Authorization": f"Token {ADMIN_TOKEN}"}, timeout=300) as admin:
            project = {"title": "benchmark", "label_config": CONFIG, "maximum_annotations": self.overlap}
            self._project = admin.post("/api/projects", json=project).raise_for_status().json()["id"]
            for first in range(0, self.tasks, 1000):
                numbers = range(first, min(first + 1000, self.tasks))
                rows = [{"data": {"prompt": f"Question {n // 10}?", "a": answer(rng), "b": answer(rng)}} for n in numbers]
                admin.post(f"/api/projects/{self._project}/import", json=rows).raise_for_status()

    def judge(self, seconds: float) -> Tally:
        """Lets all annotators judge at the same time, for `seconds` seconds."""
        return asyncio.run(self._judge(seconds))

    async def _judge(self, seconds: float) -> Tally:
        tally, began = Tally(), time.monotonic()
        await asyncio.gather(*(self._work(token, began + seconds, tally, n) for n, token in enumerate(self._tokens)))
        tally.seconds = time.monotonic() - began
        return tally

    async def _work(self, token: str, until: float, tally: Tally, seed: int) -> None:
        rng = random.Random(seed)
        wire = Wire(HOST, self.port, {"Authorization": f"Token {token}"})
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                status, task = await wire.ask("GET", f"/api/projects/{self._project}/next")
                if status == 404:
                    break
                if status != 200:
                    tally.problems[f"next: {status} {str(task)[:160]}"] += 1
                    continue
                choice = rng.choice((LEFT, RIGHT))
                value = {"from_name": "pw", "to_name": "a", "type": "pairwise", "value": {"selected": choice}}
                path = f"/api/tasks/{task['id']}/annotations/?project={self._project}"
                status, reply = await wire.ask("POST", path, {"lead_time": 1.0, "result": [value]})
            except OSError:
                tally.unanswered += 1
                continue
            tally.took_ms.append(1000 * (time.perf_counter() - began))
            if status == 201:
                tally.acknowledged.append((reply["completed_by"], task["id"], choice))
            else:
                tally.problems[f"annotation: {status} {str(reply)[:160]}"] += 1
        await wire.close()

    def assigned_badly(self) -> dict[str, int]:
        """Counts of annotations in its database beyond what the project asked for."""
        connection = sqlite3.connect(self.database)
        table = "task_completion"
        found = {
            "annotations": f"SELECT count(*) FROM {table}",
            "beyond the overlap": f"SELECT coalesce(sum(n - {self.overlap}), 0) FROM "
            f"(SELECT count(*) AS n FROM {table} GROUP BY task_id HAVING n > {self.overlap})",
            "twice by one annotator": f"SELECT count(*) FROM (SELECT 1 FROM {table} GROUP BY task_id, completed_by_id HAVING count(*) > 1)",
        }
        figures = {what: connection.execute(sql).fetchone()[0] for what, sql in found.items()}
        connection.close()
        return figures

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
