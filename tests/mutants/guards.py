"""Every guard that is taken away in turn."""

from mutants.guards_batching import BATCHING
from mutants.guards_costs import COSTS
from mutants.guards_models import MODELS
from mutants.guards_requests import REQUESTS

MUTANTS = (*BATCHING, *COSTS, *REQUESTS, *MODELS)
