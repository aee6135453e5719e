"""The doors of the program: command line, HTTP API, web page, and the job service under the last two.

They know of the rest what `pipeline/` hands on. In this folder itself lies what all of them share.
"""

import utils  # noqa: F401 - before any library: nothing phones home
