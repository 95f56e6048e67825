"""Every target, by name."""

from fuzz.files import CONFIGS, GOLDEN, LABELS, MANIFESTS
from fuzz.pictures import PICTURES
from fuzz.requests import REQUESTS
from fuzz.signatures import SIGNATURES

TARGETS = {target.name: target for target in (REQUESTS, PICTURES, MANIFESTS, CONFIGS, LABELS, GOLDEN, SIGNATURES)}
