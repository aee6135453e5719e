"""Scores results against real videos: the parts of ``evaluate.py``."""
