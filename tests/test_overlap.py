"""Windows that overlap: nothing lost, nothing twice, full windows wherever possible, soft changes between them."""

from __future__ import annotations

import numpy as np
import pytest

from utils.overlap import OverlappingWindows


def run(count: int, window: int, overlap: int) -> tuple[list[tuple[int, np.ndarray]], list[list[int]]]:
    """Give in 0, 1, 2, ...; the picture of an item is its number plus 10 for each window made before."""
    made: list[list[int]] = []

    def make(items: list[int]) -> np.ndarray:
        pictures = np.array(items) + 10 * len(made)
        made.append(list(items))
        return np.broadcast_to(pictures[:, None, None, None].astype(np.float32), (len(items), 2, 2, 3))

    windows = OverlappingWindows(make, window, overlap)
    result = [pair for item in range(count) for pair in windows.add(item)]
    return result + windows.finish(), made


@pytest.mark.parametrize("count", [0, 1, 3, 7, 8, 9, 14, 15, 20, 21, 50])
@pytest.mark.parametrize(("window", "overlap"), [(8, 2), (8, 0), (1, 0), (4, 3)])
def test_each_item_comes_out_once_in_order(count: int, window: int, overlap: int) -> None:
    result, made = run(count, window, overlap)
    assert [item for item, _ in result] == list(range(count))
    assert all(len(items) == min(count, window) for items in made)


def test_the_change_between_windows_is_gradual() -> None:
    result, made = run(14, 8, 2)
    assert made == [list(range(8)), list(range(6, 14))]
    added = [round(float(picture[0, 0, 0])) - item for item, picture in result]
    assert added == [0] * 6 + [3, 7] + [10] * 6


def test_no_window_is_made_for_what_is_known_already() -> None:
    _, made = run(8, 8, 2)
    assert len(made) == 1


def test_a_window_within_its_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        OverlappingWindows(lambda items: np.empty(0), 4, 4)
