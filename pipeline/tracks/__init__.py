"""Movement tracks: how a sound, a text or a video becomes a `pipeline.track.Track`, and its formats."""
