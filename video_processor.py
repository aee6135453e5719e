"""Video files in and out, frame by frame: times, rotation, colour tags and sound are kept.

The front of the package `video`: what other rooms may use.
"""

from utils.media import MediaLimits
from utils.pictures import Patch
from video.broadcast import CLOCK, LiveEncoder, Packet
from video.encoders import CODECS
from video.fragments import LiveMuxer
from video.glimpses import glimpses
from video.loops import LoopReader, loop_order, write_loop
from video.painted import painted_frame, painted_info
from video.playback import fitted_frames
from video.rates import FEWEST_FPS, Filled, at_rate
from video.reader import VideoReader, probe_video, to_display
from video.sequence import SEQUENCE, FrameSequence, PngSequence
from video.size import Size, moved
from video.stills import IMAGE_FPS
from video.transparency import COLOUR_PATTERN, Backdrop
from video.types import Colour, Frame, LightLevels, VideoInfo
from video.writer import VideoWriter

__all__ = [
    "Backdrop",
    "CLOCK",
    "CODECS",
    "COLOUR_PATTERN",
    "Colour",
    "FEWEST_FPS",
    "Filled",
    "Frame",
    "FrameSequence",
    "IMAGE_FPS",
    "LightLevels",
    "LiveEncoder",
    "LiveMuxer",
    "LoopReader",
    "MediaLimits",
    "Packet",
    "Patch",
    "Size",
    "PngSequence",
    "SEQUENCE",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "at_rate",
    "fitted_frames",
    "glimpses",
    "loop_order",
    "moved",
    "painted_frame",
    "painted_info",
    "probe_video",
    "to_display",
    "write_loop",
]
