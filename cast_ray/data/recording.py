"""How a video file on any storage is read: whole, or here and there without reading all of it."""

from __future__ import annotations

import io
import os
from typing import Any

import pyarrow as pa

from cast_ray.data.decoders.container import open_container
from cast_ray.data.media import check_size
from cast_ray.data.storage import filesystem, retried
from cast_ray.errors import UserError

__all__ = ["Recording"]

CHUNK = 2**18
"""Bytes that FFmpeg asks for at a time; its default of 32 KiB would be one request each on remote storage."""


class Recording:
    """One video file for several clips; opened once, when it is needed.

    A fault of the storage inside FFmpeg comes out as FFmpeg's error or not at all, so it is kept for `check`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._whole: bytes | None = None
        self._file: _File | None = None
        self._container: Any = None

    def whole(self) -> bytes:
        """All bytes.

        Raises:
            UserError: they cannot be read.
            UnreadableVideo: they are more than a shard holds of a clip; nothing is read then.
        """
        if self._whole is None:
            self._whole = retried(self._read_whole, what=self.uri)
        return self._whole

    def container(self) -> Any:
        """The file as an `av` container, which is read from where it is."""
        if self._container is None:
            source: Any = self._open_file() if self._whole is None else io.BytesIO(self._whole)
            self._container = open_container(source, buffer_size=CHUNK)
        return self._container

    def check(self) -> None:
        """Raise the `UserError` of a storage that failed, or does not answer at this moment."""
        if self._file is not None and self._file.fault is not None:
            raise self._file.fault

    def close(self) -> None:
        """Let go of the container; it may be opened again."""
        # Not closed: a thread that was given up may still be inside.
        self._container = self._file = None

    def _read_whole(self) -> bytes:
        storage, path = filesystem(self.uri)
        with storage.open_input_file(path) as source:
            check_size("file", source.size())
            data: bytes = source.read()
            return data

    def _open_file(self) -> _File:
        self._file = _File(self.uri)
        return self._file


class _File:
    """What FFmpeg reads from: a file object over ranges, each of which is read again after a fault."""

    def __init__(self, uri: str) -> None:
        self.fault: UserError | None = None
        self._uri, self._position = uri, 0
        self._opened: pa.NativeFile | None = None
        self._size = int(self._retried(lambda: self._source().size()))

    def read(self, size: int) -> bytes:
        position = self._position
        size = max(min(size, self._size - position), 0)
        # Stands for as long as the storage does not answer.
        self.fault = UserError(f"reading {self._uri} did not finish; see that the storage can be reached")
        data: bytes = self._retried(lambda: self._source().read_at(size, position))
        self.fault = None
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def _source(self) -> pa.NativeFile:
        if self._opened is None:
            storage, path = filesystem(self._uri)
            self._opened = storage.open_input_file(path)
        return self._opened

    def _forget(self) -> None:
        self._opened = None

    def _retried(self, work: Any) -> Any:
        try:
            return retried(work, what=self._uri, before_retry=self._forget)
        except UserError as error:
            self.fault = error
            raise
