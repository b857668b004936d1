"""The small shared package behind the notebooks. Start reading at train.py."""

import ctypes
import sys

if sys.platform == "linux":
    # By default glibc hands every freed block of some megabytes back to the system and fetches it anew, zeroed page by page,
    # in the next training step. Keeping up to 1 GiB makes an epoch of notebook 01's CNN 1.2 times as fast on two cores.
    try:
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, 1 << 30)
    except AttributeError:  # another C library
        pass
