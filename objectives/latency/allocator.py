"""The C library's memory, kept while times are taken.

glibc gives freed memory back to the system and asks for it again, page by page, and whether it does so depends on what ran
before. On a small model that moves times more than a schedule does. A server keeps its memory, as allocators made for
servers do, and so does a measurement. Elsewhere than on glibc nothing is done.
"""

import ctypes
from functools import cache
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
MOST = 2**31 - 1


def keep(device: torch.device) -> str:
    """Give no memory back from now on; how the allocator behaves, in words for a protocol."""
    if device.type != "cpu":
        return "torch"
    library = _glibc()
    kept = library is not None and library.mallopt(M_TRIM_THRESHOLD, MOST) and library.mallopt(M_MMAP_MAX, 0)
    return "glibc, memory kept" if kept else "default"


def release() -> None:
    """Give back once what is free now."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "malloc_trim") else None
