"""How files on any storage are opened, written whole, and read again after a fault.

Any path or URI that `pyarrow.fs` opens: a folder, s3://bucket/path, gs://bucket/path. Servers that speak S3 without
being AWS are named by AWS_ENDPOINT_URL.

A fault of the storage is waited for, `PATIENCE_S` in all; the last attempt may take another `REQUEST_TIMEOUT_S` times
`SDK_ATTEMPTS`, if the server accepts requests and never answers them.
"""

from __future__ import annotations

import errno
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from cast_ray.errors import UserError

__all__ = [
    "PARTIAL",
    "absolute",
    "check_writable",
    "file_sizes",
    "filesystem",
    "is_local",
    "joined",
    "read_bytes",
    "retried",
    "written_whole",
]

Result = TypeVar("Result")

PATIENCE_S = 60.0
LONGEST_WAIT_S = 15.0
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, SDK_ATTEMPTS = 5.0, 20.0, 2
PARTIAL = ".part"
"""How the names of files end that are still being written."""
LARGEST_COPY = 5 * 2**30
"""Bytes that S3 copies in one request, and so the largest file that can get its name in the end."""
HOPELESS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET", "PERMISSION_DENIED")
"""Parts of messages of errors that no waiting mends; S3 and GCS have no error numbers."""

logger = logging.getLogger(__name__)


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI or local path, and the path inside it."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    if "#" in uri or " " in uri:
        raise UserError(f"storage '{uri}' has a blank or '#', which a URI cannot have; write %20 or %23 instead")
    try:
        if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in uri:
            uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={REQUEST_TIMEOUT_S:g}"  # its own: 15 minutes
        storage, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"cannot open storage '{uri}': {error}; give a folder, or a URI such as s3://bucket/path"
        ) from error
    if not path:
        raise UserError(f"storage '{uri}' names no bucket; give a URI such as s3://bucket/path")
    return _with_timeouts(storage) if isinstance(storage, pafs.S3FileSystem) else storage, path


def absolute(place: str | Path) -> str:
    """The path or URI without what depends on this process and its user."""
    return str(place) if "://" in str(place) else str(Path(place).expanduser().absolute())


def is_local(uri: str) -> bool:
    """Whether files below `uri` lie in a file system that is mounted on this machine."""
    return "://" not in uri or uri.startswith("file://")


def _with_timeouts(storage: pafs.S3FileSystem) -> pafs.S3FileSystem:
    """The same with time limits: without, a server that never answers holds a request for minutes."""
    _, (options,) = storage.__reduce__()  # nothing else tells the options that the URI and the environment made
    limits = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "request_timeout": REQUEST_TIMEOUT_S,
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=SDK_ATTEMPTS),
    }
    return pafs.S3FileSystem(**(options | limits))


def joined(uri: str, *names: str) -> str:
    """The path or URI of something below `uri`, whose options (?endpoint_override=...) stay at the end."""
    place, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return "/".join([place.rstrip("/"), *names]) + mark + options


def check_writable(uri: str) -> None:
    """Raise `UserError` unless files can be written below `uri`; the folder is made if it is missing."""
    storage, path = filesystem(uri)
    probe = f"{path}/.probe-{uuid.uuid4().hex}"
    _check_bucket(storage, path, uri)
    try:
        storage.create_dir(path, recursive=True)
        with storage.open_output_stream(probe) as sink:
            sink.write(b"probe")
        storage.delete_file(probe)
    except (OSError, pa.ArrowException) as error:  # the latter from GCS
        raise UserError(
            f"cannot write to storage '{uri}': {error}; give a folder or URI that you may write to"
        ) from error


def _check_bucket(storage: pafs.FileSystem, path: str, uri: str) -> None:
    """On GCS only, where a folder is made together with its bucket, whose name may be a slip."""
    if storage.type_name != "gcs":
        return
    bucket = path.partition("/")[0]
    with suppress(OSError, pa.ArrowException):  # who may write need not be allowed to ask
        if storage.get_file_info(bucket).type == pafs.FileType.NotFound:
            raise UserError(f"cannot write to storage '{uri}': there is no bucket '{bucket}'; make it, or give another")


@contextmanager
def written_whole(storage: pafs.FileSystem, path: str, *, replace: bool = True) -> Iterator[pa.NativeFile]:
    """A stream to a file that has its name only when the block has ended without an error; else nothing stays.

    Args:
        storage: file system.
        path: of the file.
        replace: take the place of a file of that name; False: if somebody else wrote it meanwhile, that one stays.

    Raises:
        UserError: the disk is full, a quota is used up, or the file is larger than the storage allows.
    """
    part = f"{path}.{uuid.uuid4().hex}{PARTIAL}"  # two jobs may write the same file at once
    try:
        with storage.open_output_stream(part) as sink:
            yield sink
            size = sink.tell()
        if isinstance(storage, pafs.S3FileSystem) and size > LARGEST_COPY:
            raise UserError(f"'{path}' has {size / 2**30:.1f} GiB, S3 allows 5; put fewer clips into a shard")
        if replace or storage.get_file_info(path).type != pafs.FileType.File:
            storage.move(part, path)
        else:
            storage.delete_file(part)
    except BaseException as error:
        with suppress(OSError):
            storage.delete_file(part)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left to write '{path}'; free some and start again: what is complete is kept"
            ) from error
        raise


def read_bytes(uri: str) -> bytes:
    """A whole file; `UserError` if it cannot be read, after retries where that may help."""
    storage, path = filesystem(uri)

    def read() -> bytes:
        with storage.open_input_stream(path) as source:
            return source.read()

    return retried(read, what=uri)


def file_sizes(uris: Sequence[str]) -> list[int]:
    """Bytes of each file, which all lie on one storage; `UserError` if some are missing."""
    if not uris:
        return []
    storage, _ = filesystem(uris[0])
    paths = [filesystem(uri)[1] if "://" in uri else uri for uri in uris]
    infos = retried(lambda: storage.get_file_info(paths), what=f"the sizes of {len(uris)} videos")
    missing = [uri for uri, info in zip(uris, infos, strict=True) if info.type != pafs.FileType.File]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(uris)} video files are not there, for example {', '.join(missing[:3])}; "
            "correct the annotations, or bring the files"
        )
    return [info.size for info in infos]


def retried(work: Callable[[], Result], *, what: str, before_retry: Callable[[], object] | None = None) -> Result:
    """Do `work`; after a fault of the storage wait and do it again, for `PATIENCE_S` in all.

    Args:
        work: reads from storage, or does something there that may be done twice.
        what: the file's name, for messages.
        before_retry: is called before `work` is done again, for example to open the file anew.

    Raises:
        UserError: the file is not there, or the storage did not recover.
    """
    import tenacity

    def announce(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        logger.warning("no access to %s (attempt %d), trying again: %s", what, state.attempt_number, error)
        if before_retry is not None:
            before_retry()

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, OSError) and not _is_final(error)),
        stop=tenacity.stop_after_delay(PATIENCE_S),
        wait=tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
        before_sleep=announce,
        reraise=True,
    )
    try:
        return retrying(work)
    except OSError as error:
        tries = "" if _is_final(error) else f" after {retrying.statistics['attempt_number']} attempts"
        raise UserError(
            f"no access to {what}{tries}: {error}; see that the storage can be reached, and start the same command "
            "again: nothing is lost"
        ) from error


def _is_final(error: OSError) -> bool:
    known = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError)
    return known or error.errno in (errno.ENOSPC, errno.EDQUOT) or any(word in str(error) for word in HOPELESS)
