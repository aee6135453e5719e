"""Gets the weights of an engine from the hub: pinned, resumed where it broke off, and only the right ones."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engines.catalogue import ENTRIES, SHARED, Published, Shelf, WeightFile
from utils import hub_allowed
from utils.helpers import InputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_PARTS = ".download"
_HASH_BLOCK = 16 * 2**20  # bytes
_SPARE = 1.02  # of the disk: file systems need some room

Say = Callable[[str], None]


def get_engine(name: str, shelf: Shelf, accept: bool, say: Say) -> None:
    """Download what is missing of an engine.

    Args:
        name: of a built-in engine.
        shelf: where the weights go.
        accept: the licence is accepted.
        say: tells a person what is going on.

    Raises:
        InputError: there is no such engine, its licence is not accepted, the disk is full, the hub cannot be reached,
            or what came is not what was published.
    """
    if name not in ENTRIES:
        raise InputError(f"There is no engine '{name}' to get; use one of {', '.join(ENTRIES)}.")
    entry = ENTRIES[name]
    say(f"{name}: {entry.licence}")
    if not (accept or shelf.accepted(name)):
        raise InputError(f"The licence of {name} is to be accepted: add --accept-licence to the command.")
    missing = shelf.missing(name)
    _check_offered(name, missing, shelf)
    _check_room(missing, shelf, say)
    for file in missing:
        _get(file, shelf.folder / (SHARED if file.shared else name), say)
    if entry.asks:
        shelf.accept(name)
    say(f"The engine {name} is installed: choose it with --engine {name}.")


def _check_offered(name: str, missing: list[WeightFile], shelf: Shelf) -> None:
    unknown = [file.names[0] for file in missing if file.published is None]
    if unknown:
        raise InputError(
            f"Nobody is known to publish {', '.join(unknown)} for the engine {name}: train it or ask who did, put it "
            f"into {shelf.folder / name}, and run this again to accept the licence."
        )


def _check_room(missing: list[WeightFile], shelf: Shelf, say: Say) -> None:
    if not missing:
        return
    needed = sum(file.published.size for file in missing)
    shelf.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(shelf.folder).free
    for file in missing:
        say(f"  {file.role}: {file.published.repo}, {file.published.path}, {_size(file.published.size)}")
    say(f"  to download: {_size(needed)}; free in {shelf.folder}: {_size(free)}")
    if needed * _SPARE > free:
        raise InputError(
            f"The disk of {shelf.folder} has {_size(free)} left, but {_size(needed)} are needed; make room."
        )


def _get(file: WeightFile, folder: Path, say: Say) -> None:
    """Download one file beside its place, check it, and only then put it there."""
    published = file.published
    parts = folder / _PARTS / published.repo.replace("/", "--")
    got = _download(published, parts)
    say(f"  checking {published.path}")
    if (found := _sha256(got)) != published.sha256:
        shutil.rmtree(parts)
        raise InputError(
            f"The file {published.path} of {published.repo} is not the published one (its sha256 is {found[:12]}..., "
            f"not {published.sha256[:12]}...); nothing was installed."
        )
    target = folder / file.names[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(got, target)
    shutil.rmtree(parts)
    if not any((folder / _PARTS).iterdir()):
        (folder / _PARTS).rmdir()


def _download(published: Published, parts: Path) -> Path:
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        with hub_allowed():
            commit = _commit(api, published)
            path = _path(api, published, commit)
            return Path(api.hf_hub_download(published.repo, path, revision=commit, local_dir=parts))
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
        raise InputError(
            f"The file {published.path} of {published.repo} could not be downloaded ({reason}); run the same command "
            "again, it goes on where it stopped."
        ) from error


def _commit(api: HfApi, published: Published) -> str | None:
    """The pinned revision; the newest where that is gone from the history: the hash decides anyway."""
    if published.commit is None:
        return None
    known = (commit.commit_id for commit in api.list_repo_commits(published.repo))
    return next((name for name in known if name.startswith(published.commit)), None)


def _path(api: HfApi, published: Published, commit: str | None) -> str:
    """Where the file is in the repository; mirrors may keep it elsewhere."""
    files = api.list_repo_files(published.repo, revision=commit)
    if published.path in files:
        return published.path
    alike = [name for name in files if Path(name).name == Path(published.path).name]
    if len(alike) != 1:
        raise InputError(f"The repository {published.repo} has no file {published.path} any more; see docs/engines.md.")
    return alike[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
