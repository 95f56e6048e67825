"""Which server each connection of a load test goes to, where there are several and several processes send."""

_CHANNELS = 4  # connections of a process in an open loop, at the least; one has a limit of calls at a time


def place_of_user(number: int, *, process: int, processes: int) -> int:
    """The place of a process's user among all users; servers take turns over places.

    Args:
        number: of the user in its process, from 0.
        process: its number, from 0.
        processes: that have users; 1 where nobody knows, then processes begin at different servers all the same.
    """
    return number * processes + process


def places_of_channels(process: int, *, servers: int) -> range:
    """The places of an open loop's connections: as many to each server, in every process."""
    count = -(-_CHANNELS // servers) * servers
    return range(process * count, (process + 1) * count)
