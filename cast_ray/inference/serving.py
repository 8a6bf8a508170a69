"""What answers HTTP requests: a Ray Serve application that takes a clip and returns its classes as JSON.

A clip is the body of POST /predict. It goes to a temporary file, is loaded in a process of its own (`DecodeProcess`)
and then predicted; whatever is wrong with it becomes a JSON object {error, hint} with a status of 400 to 499. What is
wrong with the service has 500 to 599.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from ray import serve
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cast_ray.checks import require_positive
from cast_ray.data.decode import Unreadable
from cast_ray.errors import UserError
from cast_ray.evaluation.device import Device, chosen_device
from cast_ray.evaluation.trained import TrainedModel
from cast_ray.inference.decode_process import DecodeProcess
from cast_ray.inference.parts import Loaded
from cast_ray.inference.recogniser import Recogniser

__all__ = ["Limits", "Service", "application"]

UPLOAD_S = 300.0
"""Seconds that an upload may take."""
FIRST_S = 15.0
"""Seconds that any upload may take; what takes longer must have come at `LEAST_RATE`, so that a client that sends
hardly anything does not hold a place."""
LEAST_RATE = 50_000.0
"""Bytes per second, on average."""
DRAINED_SHARE = 4.0
"""Of the limit, how much more of a body that is too large is read and thrown away: a client that is still sending does
not see the answer."""
MAX_TOP = 1000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all together, may ask for."""

    max_mb: float = 100.0
    """Size of a clip in megabytes (10^6 bytes)."""
    max_seconds: float = 120.0
    """Length of a clip."""
    time_limit_s: float = 30.0
    """Seconds that decoding a clip may take."""
    max_queue: int = 8
    """Clips that may wait in each replica for the one that is being predicted; more are turned away."""

    def __post_init__(self) -> None:
        for name in ("max_mb", "max_seconds", "time_limit_s"):
            require_positive(name.replace("_", "-"), getattr(self, name))
        if self.max_queue < 0:
            raise UserError(f"max-queue is {self.max_queue}; give 0 or more")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1e6)


class Refused(Exception):  # noqa: N818 - an answer
    """A request that gets no prediction."""

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status, self.error, self.hint = status, error, hint

    def response(self) -> JSONResponse:
        headers = {"Retry-After": "5"} if self.status == 503 else {}
        return JSONResponse({"error": self.error, "hint": self.hint}, status_code=self.status, headers=headers)


app = FastAPI(title="cast_ray", docs_url=None, redoc_url=None)


@app.exception_handler(Refused)
async def _refused(request: Request, refused: Refused) -> JSONResponse:
    return refused.response()


@app.exception_handler(HTTPException)
async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    hint = "there are GET /, GET /health and POST /predict"
    return Refused(error.status_code, str(error.detail), hint).response()


@app.exception_handler(RequestValidationError)
async def _bad_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    return Refused(422, f"{first['loc'][-1]}: {first['msg']}", f"give top=1 to top={MAX_TOP}").response()


@app.exception_handler(Exception)
async def _failed(request: Request, error: Exception) -> JSONResponse:
    # The stack trace goes to the replica's log, and not to whoever asked.
    said = str(error) if isinstance(error, UserError) else "the service failed on this request"
    return Refused(500, said, "this is not the clip's fault; ask whoever runs the service").response()


class Service:
    """One replica: a model, a process that decodes, and a short queue.

    Args:
        model: what predicts.
        device: where; auto takes a GPU if there is one.
        threads: for the network on a CPU.
        limits: see there.
    """

    def __init__(self, model: TrainedModel, device: Device, threads: int, limits: Limits) -> None:
        import torch

        torch.set_num_threads(threads)
        self._limits = limits
        self._inside = 0
        self._one_at_a_time = threading.Lock()
        self._problem = ""
        try:
            self._model = Recogniser.of(model, device=chosen_device(device), time_limit_s=limits.time_limit_s)
        except UserError as error:  # Serve would try again and again, and bury the message
            self._problem = str(error)
            return
        self._decoder = DecodeProcess(replace(self._model.loader, longest_s=limits.max_seconds))

    def problem(self) -> str:
        """Why the model could not be loaded; nothing if it could."""
        return self._problem

    @app.get("/")
    async def page(self) -> HTMLResponse:
        """A page to try it."""
        return HTMLResponse(resources.files("cast_ray.inference").joinpath("page.html").read_text(encoding="utf-8"))

    @app.get("/health")
    async def health(self) -> dict[str, Any]:
        """Which model this is, and what it accepts."""
        self._check_loaded()
        limits = self._limits
        return {
            "status": "ok",
            "model": self._model.name,
            "classes": self._model.label_map.num_classes,
            "waiting": self._inside,
            "limits": {
                "max_mb": limits.max_mb,
                "max_seconds": limits.max_seconds,
                "time_limit_s": limits.time_limit_s,
                "max_queue": limits.max_queue,
            },
        }

    @app.post("/predict")
    async def predict(self, request: Request, top: int = Query(5, ge=1, le=MAX_TOP)) -> dict[str, Any]:
        """The classes of the clip in the body, as `Prediction.to_dict`."""
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            await self._receive(request, None)
            raise Refused(415, "this is a form (multipart, curl -F), which is not read", _how(request))
        self._check_loaded()
        self._check_queue()
        with tempfile.NamedTemporaryFile(prefix="cast-ray-upload-") as file:
            await self._receive(request, file)
            async with self._turn():
                loaded = await asyncio.to_thread(self._decoder.load, file.name)
                return await asyncio.to_thread(self._answer, loaded, top)

    async def _receive(self, request: Request, file: Any) -> None:
        """Write the body into `file`, or nowhere; raise `Refused` if it is empty, too large or too slow."""
        limit, size = self._limits.max_bytes, 0
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(FIRST_S) as patience:
                async for chunk in request.stream():
                    size += len(chunk)
                    patience.reschedule(started + min(FIRST_S + size / LEAST_RATE, UPLOAD_S))
                    if size > (1 + DRAINED_SHARE) * limit:
                        break
                    if file is not None and size <= limit:
                        file.write(chunk)
        except TimeoutError:
            seconds = asyncio.get_running_loop().time() - started
            error = f"the upload is too slow: {size:,} bytes in {seconds:.0f} s"
            hint = f"send at least {LEAST_RATE / 1000:g} kB/s, and all of it in {UPLOAD_S:g} s; or a smaller file"
            raise Refused(408, error, hint) from None
        except ClientDisconnect:
            raise Refused(400, "the upload broke off", "send it again") from None
        if size > limit:
            hint = "cut or shrink it: ffmpeg -i clip.mp4 -vf scale=-2:256 small.mp4"
            raise Refused(413, f"the file is larger than {self._limits.max_mb:g} MB", hint)
        if not size:
            raise Refused(422, "the body is empty", _how(request))
        if file is not None:
            file.flush()

    def _check_loaded(self) -> None:
        if self._problem:  # of a replica that Serve has started later, when nobody asked for `problem`
            raise Refused(503, f"the model could not be loaded: {self._problem}", "ask whoever runs the service")

    def _check_queue(self) -> None:
        if self._inside > self._limits.max_queue:
            raise Refused(503, f"{self._inside} clips are being predicted or wait already", "try again in some seconds")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        self._check_queue()  # others may have come during the upload
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def _answer(self, loaded: Loaded, top: int) -> dict[str, Any]:
        try:
            with self._one_at_a_time:
                return self._model.answer(loaded, name="upload").to_dict(top)
        except Unreadable as error:
            raise Refused(422, f"the clip cannot be used: {error.reason}", self._hint()) from None

    def _hint(self) -> str:
        limits = self._limits
        return (
            f"send a video (mp4, mov, mkv, webm, avi ...) of at most {limits.max_seconds:g} s and {limits.max_mb:g} MB "
            "that plays to its end"
        )


def _how(request: Request) -> str:
    return f"send the file itself as the body: curl --data-binary @clip.mp4 '{request.url}'"


# Not as decorators: under its own name the class is found again in other processes, with the types that its methods
# name. A class that a decorator has replaced is sent by value, without them.
RECOGNISER = serve.deployment(serve.ingress(app)(Service), name="recogniser")


def application(
    model: TrainedModel, *, replicas: int, num_cpus: float, num_gpus: float, limits: Limits
) -> serve.Application:
    """What `serve.run` takes.

    Args:
        model: what predicts; at a place that all machines of the cluster can read.
        replicas: copies of the model.
        num_cpus: CPU cores for each; the network uses that many threads.
        num_gpus: GPUs for each, or a part of one; 0 computes on the CPU.
        limits: of requests.
    """
    device: Device = "cuda" if num_gpus else "cpu"
    deployment = RECOGNISER.options(
        num_replicas=replicas,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        # Beyond the queue of a replica there are uploads, the page and /health; it turns away by itself.
        max_ongoing_requests=4 * (limits.max_queue + 8),
    )
    return deployment.bind(model, device, max(1, int(num_cpus)), limits)
