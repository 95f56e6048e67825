"""Every guard that is taken away in turn."""

from mutants.guards_batch_jobs import BATCH_JOBS
from mutants.guards_batching import BATCHING
from mutants.guards_boundary import BOUNDARY
from mutants.guards_clients import CLIENTS
from mutants.guards_coalescing import COALESCING
from mutants.guards_costs import COSTS
from mutants.guards_gates import GATES
from mutants.guards_hangs import HANGS
from mutants.guards_http import HTTP
from mutants.guards_lateness import LATENESS
from mutants.guards_models import MODELS
from mutants.guards_parallel import PARALLEL
from mutants.guards_requests import REQUESTS
from mutants.guards_rows import ROWS
from mutants.guards_security import SECURITY
from mutants.guards_sync import SYNC
from mutants.guards_transport import TRANSPORT
from mutants.guards_variants import VARIANTS

MUTANTS = (
    *BATCHING,
    *PARALLEL,
    *COSTS,
    *COALESCING,
    *TRANSPORT,
    *SECURITY,
    *REQUESTS,
    *MODELS,
    *BOUNDARY,
    *ROWS,
    *HTTP,
    *CLIENTS,
    *BATCH_JOBS,
    *GATES,
    *HANGS,
    *LATENESS,
    *SYNC,
    *VARIANTS,
)
