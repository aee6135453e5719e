"""How much one person may have here: jobs that are not finished, and bytes that are kept."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from serving.jobs.store import ACTIVE, QUEUED, JobStore
from serving.problems import busy
from utils.config import ServiceConfig

LOCAL_OWNER = "local"
"""Owner of all jobs where there are no API keys. Nobody knows who is who then, so nobody has limits of one's own."""
PAGE_UPLOADS, PAGE_SHOWN = Path("page", "uploads"), Path("page", "shown")
"""Where in the data folder the page keeps what browsers have sent, and what it shows of each job."""

_COUNTED = ("result-", "preview-")  # shown files that are counted already, by the rows of their jobs


def uploads_of(data_dir: Path, owner: str) -> Path:
    """The folder of what one person has sent to the page."""
    return data_dir / PAGE_UPLOADS / hashlib.sha256(owner.encode()).hexdigest()[:32]  # any name makes a folder's name


def check_queue(config: ServiceConfig, store: JobStore, owner: str) -> None:
    """Refuse one job more than may wait.

    Raises:
        Problem: 429, the queue or the key is at its limit.
    """
    if store.count(QUEUED) >= config.max_queue:
        raise busy("queue-full", f"{config.max_queue} jobs are waiting already; try again later.")
    if owner != LOCAL_OWNER:
        active = sum(store.count(state, owner) for state in ACTIVE)
        if active >= config.max_jobs_per_key:
            raise busy("too-many-jobs", f"This key has {active} jobs that are not finished; wait for one of them.")


def check_quota(config: ServiceConfig, store: JobStore, owner: str, incoming: int) -> None:
    """Refuse more bytes than one key may keep, by whichever door they come.

    Args:
        config: the service's configuration.
        store: the rows.
        owner: name of the API key.
        incoming: bytes that would be added.

    Raises:
        Problem: 429, the key's quota is used up.
    """
    if owner == LOCAL_OWNER:
        return
    kept = kept_bytes(config, store, owner)
    if kept + incoming > config.max_gb_per_key * 1e9:
        raise busy(
            "quota-full",
            f"This key keeps {kept / 1e9:.1f} GB of its {config.max_gb_per_key:g} GB here, and that would be too much; "
            "delete jobs that are no longer needed, or give smaller files.",
        )


def kept_bytes(config: ServiceConfig, store: JobStore, owner: str) -> int:
    """Bytes that are kept for somebody: inputs of jobs, results, uploads of the page, and inputs that it shows."""
    shown = {path.name: path for path in (config.data_dir / PAGE_SHOWN).glob("*")}
    theirs = [shown[job_id] for job_id in store.owned(owner, shown)]
    return store.kept(owner) + _bytes_in([*uploads_of(config.data_dir, owner).glob("*"), *theirs])


def has_disk(config: ServiceConfig, incoming: int = 0) -> bool:
    """The disk has room for so many bytes more."""
    return shutil.disk_usage(config.data_dir).free - incoming > config.min_free_gb * 1e9


def _bytes_in(folders: Collection[Path]) -> int:
    """Of the files right in these folders, each counted once however many names it has; results are not counted."""
    sizes: dict[tuple[int, int], int] = {}
    for path in (path for folder in folders for path in folder.glob("*") if not path.name.startswith(_COUNTED)):
        with suppress(FileNotFoundError):  # has just been moved or deleted
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
