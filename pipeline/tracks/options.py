"""What a user may choose for a track; light, so that the page and the HTTP API check it without loading PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.helpers import InputError

RANGES: dict[str, tuple[float, float]] = {"fps": (1, 240), "smooth": (0, 0.5), "strength": (0, 3)}
EXTENDED = "GHX"


@dataclass(frozen=True)
class TrackOptions:
    """What a user may choose for a track.

    Attributes:
        fps: frames per second of what is written frame by frame.
        smooth: seconds over which a mouth flows into the next one, to each side; 0 = at once.
        strength: how far the mouth moves, 1 = as people do, 0 = not at all.
        extended: which of Rhubarb's extended shapes G, H and X are used.
        format: name of the format, see `pipeline.tracks.formats`; None = by the file's ending.
        seed: of the movement's chance; the same number gives the same movement.
    """

    fps: float = 30.0
    smooth: float = 0.06
    strength: float = 1.0
    extended: str = EXTENDED
    format: str | None = None
    seed: int = 1

    def check(self) -> None:
        """Raise InputError for a value that cannot be used."""
        for name, (least, greatest) in RANGES.items():
            value = getattr(self, name)
            if not least <= value <= greatest:
                raise InputError(f"The option {name} must be {least:g} to {greatest:g}, not {value:g}.")
        if odd := set(self.extended) - set(EXTENDED):
            raise InputError(f"There is no extended shape '{min(odd)}'; give some of the letters GHX, or nothing.")
