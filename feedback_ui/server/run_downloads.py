"""Files that researchers download from a run: its adapter and its metrics. They are made as they are sent, and kept nowhere."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from feedback_ui.server.access import refusal
from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import translator_for
from rlhf.runs import run_files
from rlhf.runs.run_files import NoAdapter
from storage.core.data_folder import is_run_id
from storage.core.records import Run
from storage.project import runs

ADAPTER = "/runs/{run_id}/adapter.zip"
METRICS = "/runs/{run_id}/metrics.csv"


class RunDownloads:
    def __init__(self, auth: Auth):
        self.auth = auth

    def adapter(self, request: Request, run_id: str) -> Response:
        """The adapter as a zip; 404 with the reason for a run that has none."""
        self.auth.reads(request, "researcher")
        translate = translator_for(request)
        if (run := self._run(run_id)) is None:
            return refusal(404, translate("download.no_run"))
        try:
            found = run_files.adapter(self.auth.store, run)
        except NoAdapter as error:
            return refusal(404, translate(f"download.no_adapter.{error.reason}"))
        headers = _as_file(f"{run.id}-adapter.zip")
        if request.method == "HEAD":
            return Response(headers=headers, media_type="application/zip")
        return StreamingResponse(run_files.zipped(found), media_type="application/zip", headers=headers)

    def metrics(self, request: Request, run_id: str) -> Response:
        """All metrics as CSV, one value a line."""
        self.auth.reads(request, "researcher")
        if (run := self._run(run_id)) is None:
            return refusal(404, translator_for(request)("download.no_run"))
        text = run_files.metrics_csv(runs.metrics(self.auth.store, run.id))
        return Response(text, media_type="text/csv; charset=utf-8", headers=_as_file(f"{run.id}-metrics.csv"))

    def _run(self, run_id: str) -> Run | None:
        return next((run for run in runs.all_runs(self.auth.store) if run.id == run_id and is_run_id(run_id)), None)


def _as_file(name: str) -> dict[str, str]:
    # A run's id needs no escaping: it has neither quotation marks nor line ends.
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
