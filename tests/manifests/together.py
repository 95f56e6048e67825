"""Objects of several folders, as one cluster would have them."""

from collections.abc import Sequence

from manifests.bundle import Bundle, Manifest, label
from manifests.rules_cluster import NAMESPACED

_HOLDS_DATA = "PersistentVolumeClaim"


def together(bundles: Sequence[Bundle]) -> tuple[Bundle, list[str]]:
    """The objects of several folders, and those that two of them cannot both have, a sentence each.

    These are the ones that two folders have in different ways, and claims: who deletes a folder deletes their data.

    A folder whose objects state no namespace is taken to be applied in that of the others (`kubectl apply -n`), if
    these have one.
    """
    spaces = {one["metadata"]["namespace"] for each in bundles for one in each.objects if _states_namespace(one)}
    objects: dict[tuple[str, ...], Manifest] = {}
    differing = []
    for bundle in bundles:
        adopted = spaces if len(spaces) == 1 and not any(map(_states_namespace, bundle.objects)) else set[str]()
        for one in [_placed(one, adopted) for one in bundle.objects]:
            key = (one["apiVersion"], one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"])
            if key in objects and one["kind"] == _HOLDS_DATA:
                differing.append(
                    f"{label(one)}: two folders have it: what deletes one of them (kubectl delete -k) would delete the "
                    "data of the other; expected two names"
                )
            elif objects.setdefault(key, one) != one:
                differing.append(
                    f"{label(one)}: two folders have it, and not the same: the last one applied would hold"
                )
    return Bundle(list(objects.values())), differing


def _placed(one: Manifest, namespaces: set[str]) -> Manifest:
    if not namespaces or one["kind"] not in NAMESPACED:
        return one
    return {**one, "metadata": {**one["metadata"], "namespace": next(iter(namespaces))}}


def _states_namespace(one: Manifest) -> bool:
    return "namespace" in one["metadata"]
