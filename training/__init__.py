"""The training stages, one module each; `trainer.py` runs them."""

import utils  # noqa: F401 - before any library: nothing phones home
