"""Giving memory back to the system once a model is gone."""

import ctypes


def trim_heap() -> bool:
    """Return the free pages of glibc's heaps to the system.

    glibc maps large blocks one by one at first. Once such a block was freed, it takes blocks up to
    that size (32 MiB at most) from its heaps, and a heap shrinks only from its end: the weights of
    a version that is gone stay resident as free memory, each thread's heap with holes of its own.

    Returns:
        False where this C library has no such call.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    trim(0)
    return True
