"""What becomes of the sound that the video had."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from audio_processor import write_mix
from utils.helpers import InputError
from video_processor import MediaLimits, VideoInfo

_LEAST_DB, _MOST_DB = -60.0, 0.0


@dataclass(frozen=True)
class OldSound:
    """What to do with it.

    Attributes:
        rule: none (the new speech alone is heard), original (the old sound alone is), mix (it is under the speech).
        level_db: for mix: how loud it then is, dB.
    """

    rule: str = "none"
    level_db: float = 0.0

    @classmethod
    def parse(cls, text: str) -> OldSound:
        """Read none, original or for example mix:-12dB.

        Raises:
            InputError: it is none of these.
        """
        if text in ("none", "original"):
            return cls(text)
        match = re.fullmatch(r"mix:(-?\d+(?:\.\d+)?)(?:dB|db)?", text)
        if match is None or not _LEAST_DB <= float(match[1]) <= _MOST_DB:
            raise InputError(
                f"The value '{text}' of --keep-audio is not known; use none, original or mix:-12dB "
                f"({_LEAST_DB:g} to {_MOST_DB:g})."
            )
        return cls("mix", float(match[1]))

    def check(self, info: VideoInfo) -> None:
        """Raise InputError where there is nothing to keep."""
        if self.rule != "none" and not info.has_audio:
            raise InputError(f"The video {info.path} has no sound that could be kept; leave out --keep-audio.")

    def heard(self, info: VideoInfo, speech: Path, speech_s: float, folder: Path, limits: MediaLimits) -> Path:
        """The file whose sound goes into the result.

        Args:
            info: the video.
            speech: the new speech.
            speech_s: its length, seconds.
            folder: for a file that has to be made.
            limits: what is too big.
        """
        if self.rule == "none":
            return speech
        if self.rule == "original":
            return info.path
        target = folder / "mixed.wav"
        write_mix(speech, info.path, self.level_db, max(speech_s, info.duration or 0.0), target, limits)
        return target
