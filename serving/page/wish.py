"""What somebody has put into the page, as the form of the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass

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
        voice: for the text; "" is the usual one.
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

    @property
    def source(self) -> str | None:
        """The portrait or the video: the one that is open, or else the one there is."""
        given = {"portrait": self.portrait, "video": self.video}
        return given.get(self.who) or self.portrait or self.video

    @property
    def speech(self) -> str | None:
        """The sound; None: the text is to be spoken."""
        return self.sound if self.what == "sound" or not (self.text or "").strip() else None

    def fields(self) -> dict[str, str]:
        """As the form of the HTTP API."""
        fields = {"engine": self.engine or "", "steps": str(self.steps or ""), "fit": self.fit, "rest": self.rest}
        fields["face"] = self.face or "largest"
        if self.adapt:
            fields["adapt"] = f"{_ADAPT_S}s"
        if self.speech is None:
            fields |= {"text_input": self.text, "lang": self.lang, "voice": self.voice or "", "speed": str(self.speed)}
        return fields
