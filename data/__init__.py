"""From raw videos to training batches."""

import utils  # noqa: F401 - before any library: nothing phones home
