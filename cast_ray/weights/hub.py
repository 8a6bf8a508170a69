"""Where the weights behind a name are: in a local folder, or on a hub from which they are fetched into it.

A name is `MODEL/TAG` of open_clip's table of pretrained models (`ViT-B-16/openai`) or a repository of the Hugging Face
hub (`MCG-NJU/videomae-base`). Its weights lie in `FOLDER/NAME/`, which appears only when complete, beside a
`source.json` with revision and hashes. Machines without a network get the folder copied. A folder of that name that
somebody else made (git, another downloader) is used as it is and never changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cast_ray.errors import UserError
from cast_ray.weights.read import INDEX, SETTINGS_FILE, WEIGHT_FILES, WEIGHT_SUFFIXES, choose_files, index_parts

__all__ = [
    "SOURCE_FILE",
    "Repository",
    "choose_file",
    "complete",
    "fetch",
    "is_name",
    "locate",
    "origin",
    "repository_of",
    "weights_folder",
]

VARIABLE = "CAST_RAY_WEIGHTS"
DEFAULT_FOLDER = Path("~/.cache/cast_ray/weights")
SOURCE_FILE = "source.json"
CONNECT_TIMEOUT = 10.0
"""Seconds until a hub that does not answer counts as out of reach."""
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
LOCAL_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EMFILE, errno.ENFILE),
}
"""Numbers of system errors of files, as against those of the network."""
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Where on the Hugging Face hub the weights of a name are."""

    repo: str
    files: tuple[str, ...]
    """Names of files to look for, the best first."""
    activation: str | None = None
    """'quick_gelu' or 'gelu' for CLIP of open_clip; None where a config.json tells it, or nobody."""


def weights_folder(folder: Path | None = None) -> Path:
    """The folder of named weights: the given one, else CAST_RAY_WEIGHTS, else ~/.cache/cast_ray/weights."""
    return Path(folder or os.environ.get(VARIABLE) or DEFAULT_FOLDER).expanduser()


def is_name(source: str | Path) -> bool:
    """Whether a source is a name on a hub and not a path: two words around one slash, and no such file."""
    if isinstance(source, Path) or Path(source).expanduser().exists():
        return False
    return NAME.fullmatch(source) is not None and Path(source).suffix not in WEIGHT_SUFFIXES


def locate(source: str | Path, folder: Path | None = None) -> Path:
    """The file or folder of a source: itself if it is a path, else the folder of its name, fetched if necessary.

    Raises:
        UserError: there is no such file, or the name cannot be fetched.
    """
    if is_name(source):
        return fetch(str(source), folder)
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(
            f"weights {source} does not exist; give a file, a folder, or a name such as ViT-B-16/openai "
            "(`cast-ray weights list` shows names)"
        )
    return path


def origin(source: str | Path, path: Path) -> str:
    """How notes call a source that was found at `path`: a name that was not fetched here with the place."""
    if not is_name(source) or (path / SOURCE_FILE).is_file():
        return str(source)
    return f"{source} (in {path}, not fetched by this program)"


def complete(name: str, folder: Path | None = None) -> Path | None:
    """The local folder of a name, None if there is none.

    Raises:
        UserError: a file there is shorter or longer than when it was fetched, as after an interrupted copy; or the
            folder was made by somebody else and holds no usable weights.
    """
    target = weights_folder(folder) / name
    if not (target / SOURCE_FILE).is_file():
        return _made_by_others(target)
    try:
        files = json.loads((target / SOURCE_FILE).read_text())["files"]
        sizes = {file: int(facts["bytes"]) for file, facts in files.items()}
        if not sizes:
            raise ValueError("it names no files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{target / SOURCE_FILE} is damaged ({error!r}); remove {target} and fetch it again") from error
    for file, size in sizes.items():
        if not (target / file).is_file() or (target / file).stat().st_size != size:
            raise UserError(
                f"{target / file} is not complete ({size} bytes expected); remove {target} and fetch it again"
            )
    return target


def _made_by_others(target: Path) -> Path | None:
    """A folder without source.json if it holds weights; None if it is not there or empty."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        if not target.is_dir():
            raise UserError("it is no folder")
        choose_files(target)
    except UserError as error:
        raise UserError(
            f"{target} was not fetched by this program and holds no usable weights ({error}); complete it, or move it "
            "away to fetch the weights again"
        ) from error
    return target


def fetch(name: str, folder: Path | None = None) -> Path:
    """The local folder of a name, downloaded if it is not there; several processes may ask at once.

    Raises:
        UserError: there is no such name, no network, no room for the files, or the hub answers with something else
            than was announced.
    """
    found = complete(name, folder)
    if found is not None:
        return found
    from filelock import FileLock

    root = weights_folder(folder)
    repository = repository_of(name)
    try:
        # Before the lock, so that where there is no network all processes find out at the same time.
        revision, offered = _look_up(repository)
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name.replace('/', '--')}.lock"):
            return complete(name, folder) or _download(name, root, repository, revision, offered)
    except UserError:
        raise
    except Exception as error:  # the transport's own exceptions change with the hub library's version
        if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
            raise UserError(
                f"weights '{name}' cannot be written to {root} ({error}); make room there, or choose another folder "
                f"(--folder, or {VARIABLE})"
            ) from error
        raise _unreachable(name, repository, root, error) from error


def repository_of(name: str) -> Repository:
    """Where the weights of a name are, by open_clip's own tables or as a repository of that name."""
    import open_clip

    model, _, tag = name.partition("/")
    known = open_clip.pretrained.get_pretrained_cfg(model, tag)
    if not known:
        return Repository(repo=name, files=WEIGHT_FILES)
    repo, _, file = known["hf_hub"].rpartition("/")
    quick = known.get("quick_gelu") or (open_clip.get_model_config(model) or {}).get("quick_gelu", False)
    names = (Path(file).with_suffix(".safetensors").name, file) if file else OPEN_CLIP_FILES
    return Repository(repo=repo, files=names, activation="quick_gelu" if quick else "gelu")


def _look_up(repository: Repository) -> tuple[str, dict[str, str | None]]:
    """Revision of a repository, and its files with the SHA-256 that the hub announces (if it does).

    Unlike a download this does not try again and again where there is no network.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi(endpoint=_endpoint())
    info = hub.model_info(repository.repo, files_metadata=True, timeout=CONNECT_TIMEOUT)
    return str(info.sha), {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()}


def _download(name: str, root: Path, repository: Repository, revision: str, offered: Mapping[str, str | None]) -> Path:
    import huggingface_hub

    staging = root / f".{name.replace('/', '--')}.part"
    waiting = [choose_file(repository, list(offered)), *(file for file in (SETTINGS_FILE,) if file in offered)]
    facts: dict[str, dict[str, Any]] = {}
    while waiting:
        file = waiting.pop(0)
        huggingface_hub.hf_hub_download(
            repository.repo,
            file,
            revision=revision,
            local_dir=staging,
            etag_timeout=CONNECT_TIMEOUT,
            endpoint=_endpoint(),
        )
        facts[file] = {"bytes": (staging / file).stat().st_size, "sha256": _sha256(staging / file)}
        if offered.get(file) not in (None, facts[file]["sha256"]):
            shutil.rmtree(staging)
            raise UserError(f"{file} of '{repository.repo}' arrived damaged (its hash differs); fetch it again")
        if file.endswith(INDEX):
            waiting += index_parts(staging / file)
    source = {"name": name, "repository": repository.repo, "revision": revision, "activation": repository.activation}
    (staging / SOURCE_FILE).write_text(json.dumps({**source, "files": facts}, indent=2) + "\n")
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(target)  # only onto nothing or an empty folder
    return target


def choose_file(repository: Repository, offered: list[str]) -> str:
    """The best weights file that a repository offers, formats without pickle first.

    Raises:
        UserError: it offers none, or several of which none has a usual name.
    """
    for name in repository.files:
        if name in offered:
            return name
    others = sorted(name for name in offered if Path(name).suffix in WEIGHT_SUFFIXES and "/" not in name)
    safe = [name for name in others if name.endswith(".safetensors")]
    for names in (safe, others):
        if len(names) == 1:
            return names[0]
    raise UserError(
        f"'{repository.repo}' has {f'several weights files {others}' if others else 'no weights file'} and none of "
        f"{list(repository.files)}; download the right one yourself and give its path"
    )


def _unreachable(name: str, repository: Repository, root: Path, error: Exception) -> UserError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"'{repository.repo}' is only for those who accepted its terms: accept them, then `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return UserError(
            f"there is no '{name}': it is neither a file, nor in open_clip's table, nor a repository on the hub; "
            "`cast-ray weights list` shows names that work"
        )
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return UserError(
        f"weights '{name}' are not in {root}, and {_endpoint()} does not give them ({reason}). On a machine "
        f"with network run `cast-ray weights fetch {name} --folder FOLDER`, copy FOLDER here and set {VARIABLE}=FOLDER"
    )


def _endpoint() -> str:
    """The hub's address; HF_ENDPOINT names a mirror, as everywhere with this hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
