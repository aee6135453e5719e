"""The doors of the program. They know only `pipeline.py`."""
