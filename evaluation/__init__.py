"""Scores results against real videos: the parts of ``evaluate.py``."""

import utils  # noqa: F401 - before any library: nothing phones home
