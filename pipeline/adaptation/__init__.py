"""Adaptation: before generating, a copy of the networks learns from the input video with its own sound.

`adapt` is the way in. It needs a video whose sound belongs to its picture; the sync network `syncnet_judge` decides
that first (sound.py). Then two parts are learnt: how the person's lips follow the sound (speech.py), and how the
person's mouth looks (picture.py). Each is used only if it comes out better on frames that were left out.
"""

from pipeline.adaptation.learning import AdaptationReport, adapt
from pipeline.adaptation.parts import Budget, Change, Skipped

__all__ = ["AdaptationReport", "Budget", "Change", "Skipped", "adapt"]
