"""Keeping TensorFlow's start-up talk off the user's screen."""

import os
import sys
import tempfile


def import_tensorflow_quietly(*, verbose: bool) -> None:
    """Import TensorFlow, and show what it wrote only if that fails or is asked for.

    Its C++ part writes to file descriptor 2 before any setting about logging is read; so that is
    led into a file meanwhile. Call it once, from the command line's entry, before other threads
    start.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the export reads TensorFlow's graph
    # Without it TensorFlow computes no channels_first on a CPU; by itself it uses it on some processors only.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if verbose:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # 2 still reports that there is no GPU
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as talk:
        os.dup2(talk.fileno(), 2)
        try:
            import tensorflow as tf  # noqa: F401 - for what importing does
        except BaseException:
            talk.seek(0)
            os.write(screen, talk.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
