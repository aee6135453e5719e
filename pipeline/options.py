"""What a user may choose for one run, and what is refused before anything heavy is loaded.

Apart from the pipeline, so that the web page and the HTTP API check what they take in without loading PyTorch.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import engines
from audio_processor import probe_audio
from faces.choice import FaceChoice
from faces.sprites import MouthSet
from pipeline.layer import SUFFIXES, layer_for
from pipeline.old_sound import OldSound
from utils.config import MediaLimits as MediaConfig
from utils.helpers import InputError
from video_processor import (
    CODECS,
    COLOUR_PATTERN,
    SEQUENCE,
    Backdrop,
    MediaLimits,
    Size,
    VideoWriter,
    probe_video,
)

FITS, RESTS = ("bounce", "loop", "freeze", "cut"), ("still", "keep", "cut")
SPRITES = "sprites"
"""The engine that lays drawn mouths over faces."""

LAYERS, ERASES = ("no", *SUFFIXES), ("auto", "yes", "no")
CHOICES = {"fit": FITS, "rest": RESTS, "codec": CODECS, "layer": LAYERS, "erase": ERASES}
"""Options that are one of a few words."""

RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 1000),
    "guidance": (0, 20),
    "seed": (0, 2**63 - 1),
    "crf": (0, 51),
    "fps": (1, 120),
    "min_confidence": (0, 1),
}
"""Least and greatest value of options that are numbers."""

WORDS = {"crf": "auto"}
"""Words that such an option may be instead."""

MIN_ADAPT_S, MAX_ADAPT_S = 1.0, 3600.0


@dataclass(frozen=True)
class Options:
    """What a user may choose for one run.

    Attributes:
        steps: denoising steps; more is finer and slower. None: as the engine is used to.
        guidance: exaggeration of the sound's influence, 1 = none; more takes twice as long. None: as the engine is
            used to.
        seed: of the random noise; the same number gives the same result.
        fit: what to do when the sound is longer than the video: bounce, loop, freeze, cut.
        rest: what to do when the video is longer than the sound: still (the mouth rests to the end), keep (the lips of
            the video go on), cut.
        face: which face speaks: largest, left, right, speaker (whose lips fit the video's own sound), index:N (0 is the
            leftmost), point:X,Y or point:X,Y@SECONDS; of a drawn face that is not found, box:X,Y,W,H around it or
            mouth:X,Y,W,H around its mouth, also with @SECONDS.
        min_confidence: how sure to be of a face before it gets a new mouth, 0 to 1; see `faces.usable`.
        codec: auto (H.264; HEVC for more than 8 bits; VP9 or AV1 in WebM), h264, hevc, ffv1 (lossless) or prores.
        crf: quality as H.264 counts it, 0 best to 51 worst; 16 is hard to tell from the source. auto: good, with no
            more bits a second than the source needs.
        fast: less work for each frame: windows overlap less, and the file is larger at the same quality.
        engine: what draws the mouths, see --list-engines. None: what is loaded.
        background: what stands behind a picture that can be seen through: white, black, #rrggbb, or on the command line
            a picture's name. None: it stays so where the file can hold that, else white.
        size: of the result: its longest side, or as 1280x720 (fitted in, with bars), px. None: that of the video; large
            still pictures are made smaller.
        fps: frames per second of the result. None: as the video has them; fewer than 12 are shown again while somebody
            speaks, 25 a second.
        keep_audio: what becomes of the video's own sound: none, original (it alone is heard) or mix:-12dB (under the
            speech, so loud).
        layer: no, or only what is new, on a transparent picture to put over any footage: webm (VP9), mov (ProRes 4444)
            or png (a sequence, in one .zip).
        erase: whether the mouth that is there is painted over before one is laid there (engine sprites): auto (yes, but
            not in a layer), yes, no.
        adapt: seconds in which the model may first learn from the video with its own sound; 0 = not at all.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int = 1
    fit: str = "bounce"
    rest: str = "still"
    face: str = "largest"
    codec: str = "auto"
    crf: int | str = 16
    fast: bool = False
    adapt: float = 0.0
    min_confidence: float = 0.5
    engine: str | None = None
    background: str | None = None
    size: str | None = None
    keep_audio: str = "none"
    fps: float | None = None
    layer: str = "no"
    erase: str = "auto"

    @property
    def erases(self) -> bool:
        """Whether a mouth that is there is painted over."""
        return self.erase == "yes" or (self.erase == "auto" and self.layer == "no")

    @property
    def suffix(self) -> str:
        """File type that fits the codec or the layer, where nobody has named one."""
        if self.layer != "no":
            return SUFFIXES[self.layer]
        return ".mkv" if self.codec == "ffv1" else ".mp4"

    def check(self) -> None:
        """Raise InputError for a value that cannot be used."""
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise InputError(f"The option {name} cannot be '{value}'; use one of {', '.join(known)}.")
        for name, (least, greatest) in RANGES.items():
            value = getattr(self, name)
            if value == WORDS.get(name) or value is None:
                continue
            if isinstance(value, str) or not least <= value <= greatest:
                word = f" or {WORDS[name]}" if name in WORDS else ""
                raise InputError(f"The option {name} must be {least:g} to {greatest:g}{word}, not {value}.")
        if self.adapt and not MIN_ADAPT_S <= self.adapt <= MAX_ADAPT_S:
            raise InputError(
                f"The time to adapt must be {MIN_ADAPT_S:g} to {MAX_ADAPT_S:g} s (0: not at all), not {self.adapt:g} s."
            )
        FaceChoice.parse(self.face)
        if self.engine is not None:
            engines.check_name(self.engine)
        self.backdrop()
        self.picture_size()
        OldSound.parse(self.keep_audio)

    def picture_size(self, stills_to: int = 0) -> Size:
        """The size to which pictures are brought, `stills_to`: the longest side of a still one, px; 0: as it is."""
        return Size.parse(self.size, stills_to)

    def backdrop(self) -> Backdrop | None:
        """What is asked for as background; raises InputError where it is no colour and no picture."""
        return None if self.background is None else Backdrop.parse(self.background)

    def background_file(self) -> Path | None:
        """The picture that is the background, if one is."""
        named = self.background is not None and not re.match(COLOUR_PATTERN, self.background)
        return Path(self.background) if named else None


def check_inputs(
    video: Path, audio: Path | None, output: Path, options: Options, media: MediaConfig, mouths: Path | None = None
) -> None:
    """Refuse what cannot work before anything heavy is loaded.

    Args:
        video: a video or a portrait image.
        audio: a file with the new speech; None: it is still to be made.
        output: the video to write.
        options: choices.
        media: what is too big.
        mouths: folder or .zip of drawn mouths; None: nobody brought any.

    Raises:
        InputError: an input is missing, damaged, too big or of the wrong kind, an option is out of range, or the
            output cannot be written or is one of the inputs.
    """
    options.check()
    inputs = tuple(path for path in (video, audio, options.background_file()) if path is not None)
    for path in inputs:
        if path.is_file() and path.stat().st_size > media.max_file_gb * 1e9:
            raise InputError(f"The file {path} is larger than {media.max_file_gb:g} GB; give a smaller one.")
    info = probe_video(video, media_limits(media), options.picture_size())
    OldSound.parse(options.keep_audio).check(info)
    if audio is not None:
        probe_audio(audio, media_limits(media))
    check_output(output, inputs)
    if mouths is not None:
        MouthSet.read(mouths)
    if options.layer != "no":
        _check_layer(output, options)
        return
    # Opens nothing yet, but knows what fits into which file.
    if output.suffix.lower() == SEQUENCE and options.codec == "auto":
        return
    VideoWriter(output, info, options.codec, backdrop=options.backdrop())


def _check_layer(output: Path, options: Options) -> None:
    if layer_for(output) != options.layer:
        raise InputError(f"A layer of the kind {options.layer} is written as {options.suffix}, not as {output.name}.")
    if options.background is not None:
        raise InputError("A layer has no background: leave one of the two out.")


def media_limits(media: MediaConfig) -> MediaLimits:
    """The limits in the terms of the video reader."""
    return MediaLimits(media.max_width * media.max_height, media.max_duration_s, media.max_streams)


def check_output(output: Path, inputs: tuple[Path, ...]) -> None:
    """Raise InputError where a file cannot be written, or is one of the inputs."""
    if output.is_dir():
        raise InputError(f"The output {output} is a folder; give the name of a file.")
    if any(output.exists() and output.samefile(path) for path in inputs):
        raise InputError(f"The output {output} is also an input; give it another name.")
    folder = output.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write into the folder {output.parent}; choose another output folder.")
