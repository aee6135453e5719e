"""Many clips in several processes."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tqdm import tqdm


def run_pool(tasks: list[tuple], function, workers: int, description: str) -> list[tuple]:
    """Call ``function(*task)`` for every task in ``workers`` processes, with a progress bar.

    Returns (first argument, result) of each task, in any order.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures: dict[Future, tuple] = {pool.submit(function, *task): task for task in tasks}
        try:
            done = tqdm(as_completed(futures), total=len(futures), desc=description, unit="clip", mininterval=1.0)
            return [(futures[f][0], f.result()) for f in done]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
