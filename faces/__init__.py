"""Faces in images: detection, mesh, tracking, alignment, mouth shape and paste-back. Knows nothing of audio."""
