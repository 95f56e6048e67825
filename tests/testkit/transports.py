"""Transports by name, those that are processes included."""

from inferry_server.front_ends.plan import FrontEndPlan
from inferry_server.front_ends.transport import FrontEndsTransport
from inferry_server.rpc.router import Router
from inferry_server.settings.settings import TRANSPORTS
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import Transport, make_transport
from testkit.servers import FRONT_ENDS

ALL_TRANSPORTS = (*TRANSPORTS, FRONT_ENDS)


def make(name: str, router: Router, options: TransportOptions) -> Transport:
    """A transport, not started; FRONT_ENDS for one front end in a process of its own."""
    if name != FRONT_ENDS:
        return make_transport(name, router, options)
    plan = FrontEndPlan(address="", transport="completion_queue", options=options, log_level="error")
    return FrontEndsTransport(router, options, plan, 1)
