"""What is refused before a track is made; light, see `pipeline.tracks.options`."""

from __future__ import annotations

from pathlib import Path

from audio_processor import probe_audio
from faces.choice import FaceChoice
from pipeline.options import media_limits
from pipeline.tracks.formats import Format, check_avatar
from utils.config import MediaLimits as MediaConfig
from utils.helpers import InputError
from video_processor import probe_video


def check_track_inputs(
    files: tuple[Path | None, Path | None, Path | None], has_text: bool, face: str, chosen: Format, media: MediaConfig
) -> None:
    """Raise InputError where a track cannot be made of what was given.

    Args:
        files: sound, video and avatar; None = not given.
        has_text: whether a text was given.
        face: which face of the video.
        chosen: the format.
        media: what is too big.
    """
    audio, video, avatar = files
    if video is not None and (audio is not None or has_text):
        raise InputError("A track is of the mouth that a video shows, or of speech: leave one of them out.")
    if video is None and audio is None and not has_text:
        raise InputError("Give a sound (audio_file), a text (text_input), both, or a video (video_file).")
    if avatar is not None:
        check_avatar(avatar, chosen.avatar)
    check_said(chosen, has_text)
    if audio is not None:
        probe_audio(audio, media_limits(media))
    if video is not None:
        if probe_video(video, media_limits(media)).is_image:
            raise InputError("A still picture shows no movement: give a video, a sound or a text for a track.")
        FaceChoice.parse(face)


def check_said(chosen: Format, has_text: bool) -> None:
    """Raise InputError where a format holds words and nobody says which."""
    if chosen.words and not has_text:
        raise InputError("This format holds words: give what is said as text_input.")
