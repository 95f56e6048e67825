"""Rules of host names: those of a route have hosts in common with the listeners that it is attached to."""

from collections.abc import Iterator

from manifests.bundle import Bundle, Manifest, label


def hostname_faults(bundle: Bundle) -> Iterator[str]:
    """Host names of routes that no listener is for: their calls would get the gateway's 404, and nothing tells.

    A route without host names takes those of its listeners. Listeners that are not here may be for any.
    """
    for route in bundle.every("GRPCRoute", "HTTPRoute"):
        names = route["spec"].get("hostnames") or []
        parents = [_listeners(bundle, route, parent) for parent in route["spec"].get("parentRefs") or []]
        known = [listeners for listeners in parents if listeners is not None]
        if len(known) == len(parents):
            together = [one for listeners in known for one in listeners]
            for name in names:
                if together and not any(have_common_hosts(name, hosts) for hosts in together):
                    yield f"{label(route)}: its host name {name} meets no listener; they are for {_told(together)}"
        for listeners in known if len(parents) > 1 else ():
            if names and listeners and not any(have_common_hosts(a, b) for a in names for b in listeners):
                yield f"{label(route)}: no host name of {', '.join(names)} meets the listeners for {_told(listeners)}"


def have_common_hosts(one: str, other: str) -> bool:
    """Whether two names, of a host, of all below one (`*.example.com`) or empty for all, have a host in common."""
    one, other = one.lower(), other.lower()
    if not one or not other or one == other:
        return True
    below, beyond = one.removeprefix("*"), other.removeprefix("*")
    if one.startswith("*.") and other.startswith("*."):
        return below.endswith(beyond) or beyond.endswith(below)
    if one.startswith("*."):
        return other.endswith(below)
    return other.startswith("*.") and one.endswith(beyond)


def _listeners(bundle: Bundle, route: Manifest, parent: Manifest) -> list[str] | None:
    """The host names of the listeners that a route is attached to; None: nobody here knows them."""
    if parent.get("kind", "Gateway") != "Gateway":
        return None
    namespace = parent.get("namespace", route["metadata"].get("namespace"))
    named = [one for one in bundle.every("Gateway") if one["metadata"]["name"] == parent["name"]]
    gateway = next((one for one in named if one["metadata"].get("namespace") == namespace), None)
    if gateway is None:
        return None
    return [
        one.get("hostname", "")
        for one in gateway["spec"]["listeners"]
        if parent.get("sectionName") in (None, one["name"]) and parent.get("port") in (None, one["port"])
    ]


def _told(hosts: list[str]) -> str:
    return ", ".join(dict.fromkeys(one or "every host" for one in hosts))
