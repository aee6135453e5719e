"""The networks: tensors in, tensors out."""

import utils  # noqa: F401 - before any library: nothing phones home
