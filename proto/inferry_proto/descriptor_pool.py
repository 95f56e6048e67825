"""The descriptor pool of Inferry's messages, apart from protobuf's default one.

Other clients of the Open Inference Protocol register the same message names in the default
pool; a pool of our own lets both live in one process. The generated stubs import this module
in place of `google.protobuf.descriptor_pool` and ask it for `Default()`.
"""

from google.protobuf.descriptor_pool import DescriptorPool

_POOL = DescriptorPool()


def Default() -> DescriptorPool:  # noqa: N802 - the name the generated stubs call
    """The one pool that holds every Inferry message and service."""
    return _POOL
