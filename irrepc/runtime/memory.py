"""Memory: ask the allocator to keep what is freed, so that large outputs do not fault in page by page at every call."""

from __future__ import annotations

import ctypes
import platform

# malloc.h of glibc
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
TOP_PAD = 2**26
"""Bytes by which the heap grows at once."""


def keep_freed_memory() -> bool:
    """Keep freed memory in the process, for good; return whether that could be done.

    By default glibc maps every array above 32 MiB anew and gives it back when it is freed: each call then pays a page
    fault for every 4 KiB that it writes.  Meant for programs that compute the same shapes again and again, such as
    training and dynamics; the process keeps its largest size.  Elsewhere than on glibc nothing happens: False.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, TOP_PAD))
    return all([mallopt(option, value) == 1 for option, value in settings])
