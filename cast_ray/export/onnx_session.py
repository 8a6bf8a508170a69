"""How onnxruntime runs an exported file: without torch, as a program that serves it would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

__all__ = ["OnnxSession"]

ERRORS_ONLY = 3
"""onnxruntime's level of messages: its remarks on nodes that it did not fuse are for its authors."""


class OnnxSession:
    """An ONNX file, ready to run on the CPU.

    Args:
        path: of the file.
        threads: of the session; None: as many as there are cores.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, media: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        return dict(zip(self._outputs, self._session.run(None, dict(media)), strict=True))
