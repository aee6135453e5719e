"""LatentSync 1.5 and 1.6 (github.com/bytedance/LatentSync): the public network, in our own code."""
