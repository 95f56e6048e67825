"""Every target, by name."""

from fuzz.bodies import BODIES
from fuzz.files import CONFIGS, GOLDEN, LABELS, MANIFESTS
from fuzz.pictures import PICTURES
from fuzz.requests import REQUESTS
from fuzz.signatures import SIGNATURES
from fuzz.versions import VERSIONS

_ALL = (REQUESTS, BODIES, PICTURES, MANIFESTS, CONFIGS, LABELS, GOLDEN, SIGNATURES, VERSIONS)
TARGETS = {target.name: target for target in _ALL}
