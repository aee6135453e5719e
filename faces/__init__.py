"""Faces in images: detection, mesh, tracking, alignment, mouth shape and paste-back. Knows nothing of audio."""

import utils  # noqa: F401 - before any library: nothing phones home
