"""What somebody has put into the page, as the form of the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.options import SPRITES
from serving.page.marking import MARKS

SPEEDS = (0.5, 2.0)
"""The slowest and the fastest speed of a text, 1 = as usual."""

_ADAPT_S = 60


@dataclass(frozen=True)
class Wish:
    """What somebody has put into the page, in the order of its inputs.

    Attributes:
        who: "portrait" or "video": which of the two is open.
        portrait: a file.
        video: a file.
        face: which face, see `FaceChoice.parse`.
        what: "sound" or "text": which of the two is open.
        sound: a file.
        text: to be spoken.
        lang: of the text, or "auto".
        voice: for the text, as "language/name"; "" is the usual one.
        speed: of the text.
        adapt: learn from the video first.
        steps: denoising steps; 0: as many as the engine is used to.
        fit: see `Options`.
        rest: see `Options`.
        engine: what draws the mouths; "" or None: the usual one.
    """

    who: str
    portrait: str | None
    video: str | None
    face: str
    what: str
    sound: str | None
    text: str
    lang: str
    voice: str | None
    speed: float
    adapt: bool
    steps: int
    fit: str
    rest: str
    engine: str | None

    @classmethod
    def with_files(cls, told: Mapping[str, Any], source: str | None, speech: str | None) -> Wish:
        """Undo `without_files`.

        Args:
            told: what it gave.
            source: the portrait or the video.
            speech: the sound; None for a text.
        """
        files = {"portrait": None, "video": None, told["who"]: source, "sound": speech}
        return cls(**told | files)

    def without_files(self) -> dict[str, Any]:
        """As JSON, which holds no paths; what is open is what was used."""
        who = "portrait" if self.source == self.portrait else "video"
        what = "text" if self.speech is None else "sound"
        return asdict(self) | {"portrait": None, "video": None, "sound": None, "who": who, "what": what}

    @property
    def source(self) -> str | None:
        """The portrait or the video: the one that is open, or else the one there is."""
        given = {"portrait": self.portrait, "video": self.video}
        return given.get(self.who) or self.portrait or self.video

    @property
    def speech(self) -> str | None:
        """The sound; None: the text is to be spoken."""
        return self.sound if self.what == "sound" or not (self.text or "").strip() else None

    def spoken_by(self) -> tuple[str, str]:
        """Language and voice of the text, see the function `spoken_by`."""
        return spoken_by(self.lang, self.voice)

    def fields(self) -> dict[str, str]:
        """As the form of the HTTP API."""
        fields = {"engine": self.engine or "", "steps": str(self.steps or ""), "fit": self.fit, "rest": self.rest}
        fields["face"] = self.face or "largest"
        if fields["face"].startswith(MARKS) and not self.engine:
            fields["engine"] = SPRITES  # the others need more than a place
        if self.adapt:
            fields["adapt"] = f"{_ADAPT_S}s"
        if self.speech is None:
            lang, voice = self.spoken_by()
            fields |= {"text_input": self.text, "lang": lang, "voice": voice, "speed": str(self.speed)}
        return fields


def spoken_by(lang: str, voice: str | None) -> tuple[str, str]:
    """Language and voice of a text: a voice that is chosen has its language, where none was chosen.

    Args:
        lang: a language, or "auto".
        voice: "language/name"; "" or None is the usual one.
    """
    language, _, name = (voice or "").rpartition("/")
    return language if language and lang == "auto" else lang, name
