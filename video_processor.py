"""Video files in and out, frame by frame: times, rotation, colour tags and sound are kept.

The front of the package `video`: what other rooms may use.
"""

from utils.media import MediaLimits
from utils.pictures import Patch
from video.encoders import CODECS
from video.playback import fitted_frames
from video.reader import VideoReader, probe_video, to_display
from video.types import Colour, Frame, LightLevels, VideoInfo
from video.writer import VideoWriter

__all__ = [
    "CODECS",
    "Colour",
    "Frame",
    "LightLevels",
    "MediaLimits",
    "Patch",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "fitted_frames",
    "probe_video",
    "to_display",
]
