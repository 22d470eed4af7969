"""Adapters that clients load while the server runs, by the two calls that vLLM has for it. Only from one folder, which an option names.

A trainer sends its policy so (`rankloop train --rollouts`). Such an adapter answers under its name until it is unloaded or the server
stops; it is no policy version, and the store knows nothing of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse

from rlhf.generation.policy_service import PolicyService, PushRefused
from rlhf.generation.protocol.errors import ApiError
from rlhf.generation.protocol.requests import ProtocolModel, refuse_unsupported
from rlhf.generation.request import ModelReleased
from rlhf.safe_files import ModelError

log = logging.getLogger("rankloop.serve")

RELEASED_RETRY_S = 60
"""After how many seconds a client should try again that was refused because a training round has the accelerator's memory."""


class LoadRequest(ProtocolModel):
    """Asks to load an adapter."""

    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str = Field(min_length=1, max_length=4096)
    load_inplace: bool = False

    @model_validator(mode="after")
    def _supported(self) -> LoadRequest:
        refuse_unsupported(self.model_extra or {}, {"is_3d_lora_weight": (False,)})
        return self


class UnloadRequest(ProtocolModel):
    """Asks to unload one."""

    lora_name: str = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _supported(self) -> UnloadRequest:
        refuse_unsupported(self.model_extra or {}, {})
        return self


def add_routes(app: FastAPI, service: PolicyService, folder: Path) -> None:
    """The two routes. Adapters are read from below `folder` alone, by their real place: a link leads nowhere else."""
    allowed = folder.resolve()

    @app.post("/v1/load_lora_adapter", response_model=None)
    async def load_lora_adapter(request: LoadRequest) -> PlainTextResponse:
        await run_in_threadpool(load, service, allowed, request)
        log.info("adapter %s is loaded", ascii(request.lora_name))
        return PlainTextResponse(f"Success: LoRA adapter '{request.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter", response_model=None)
    async def unload_lora_adapter(request: UnloadRequest) -> PlainTextResponse:
        try:
            await run_in_threadpool(service.unload_pushed, request.lora_name)
        except KeyError:
            raise ApiError(404, f"no adapter {request.lora_name!r} was loaded here", param="lora_name") from None
        return PlainTextResponse(f"Success: LoRA adapter '{request.lora_name}' removed successfully.")


def load(service: PolicyService, allowed: Path, request: LoadRequest) -> None:
    """Loads what a request names. Raises ApiError where it cannot."""
    found = inside(request.lora_path, allowed)
    if found is None:
        raise ApiError(
            400,
            "lora_path: adapters are read from the folder of the server's --lora-folder alone",
            param="lora_path",
        )
    if not (found / "adapter_config.json").is_file():
        raise ApiError(404, f"Loading lora {request.lora_name} failed: No adapter found for {request.lora_path}", param="lora_path")
    try:
        service.push(request.lora_name, found, replace=request.load_inplace)
    except PushRefused as error:
        raise ApiError(400, str(error), param="lora_name") from error
    except ModelReleased as error:
        raise ApiError(503, str(error), code="model_released", retry_after_s=RELEASED_RETRY_S) from error
    except ModelError as error:
        raise ApiError(400, str(error).replace(str(found), request.lora_path), param="lora_path", code="adapter_not_readable") from error


def inside(path: str, allowed: Path) -> Path | None:
    """The real place of a path if it lies below the allowed folder; None otherwise, whether or not something is there."""
    try:
        found = Path(path).resolve()
    except (OSError, ValueError, RuntimeError):
        # A zero byte, or links in a circle.
        return None
    return found if found != allowed and found.is_relative_to(allowed) else None
