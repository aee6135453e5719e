"""The window in which this project's own networks see a mouth: `lite`, the sync networks, the network for covered
mouths, and the mouth shapes. Engines of others have windows of their own, see `faces.alignment.Geometry`."""

from __future__ import annotations

from faces.alignment import Geometry

WINDOW_SIZE = 160
MOUTH_WINDOW = Geometry(WINDOW_SIZE, WINDOW_SIZE, origin=(48, 88))  # x, y in the canonical face of 256x256 px

# The rectangle of it that `lite` draws: x0, y0, x1, y1. Outside of it nothing is ever pasted.
GENERATED = (16, 48, 144, 152)
