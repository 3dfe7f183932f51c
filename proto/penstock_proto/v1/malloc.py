"""What gRPC frees stays with the process: it is wanted again for the next message.

grpcio makes each message anew, 1 MiB a time, and glibc gives such memory back to the kernel as soon as it is freed: 230
page faults for each MB received, more CPU than copying it. See docs/decisions/freed-messages.md.
"""

import ctypes
import os
from functools import cache
from typing import Final

_TRIM_THRESHOLD: Final = -1  # numbers of malloc.h
_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 32 << 20
_LARGEST: Final = 4 << 20
_CHOSEN: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed() -> bool:
    """Tell glibc, once in a process, to keep up to 32 MiB of what was freed at the end of each of its heaps.

    False, and nothing was changed, where the user has set one of glibc's own variables for that, or there is no glibc.
    """
    if any(name in os.environ for name in _CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
