"""The guards of degrading: which variants may answer for a version, and when one is asked."""

from mutants.mutant import Mutant

_TEST_RULES = ("tests/server/models/test_variants.py",)
_SHARES = ("tests/server/batching/test_fair_share.py",)
_RELIEF = ("tests/server/batching/test_relief.py",)
_SHARING = "tests/server/services/test_sharing_with_variants.py"
_SERVED = "tests/contract/test_degrading.py"

VARIANTS = (
    Mutant("variant-no-chain", "variants: they have none themselves", "if False:", _TEST_RULES),
    Mutant("variant-same-graph", "variants: made of the graph that is served", "if made is None:", _TEST_RULES),
    Mutant("variant-loss", "variants: their loss is bounded", "if made.points_lost > most_points:", _TEST_RULES),
    Mutant("variant-same-face", "variants: callers notice no other difference", "return True", _TEST_RULES),
    Mutant("variant-accepted", "variants: only those that are accepted", "chosen = list(variants)", _TEST_RULES),
    Mutant("variant-faster", "variants: no slower one on the same device", "return True", _TEST_RULES),
    Mutant("variants-follow", "variants: those that are served now", "", _TEST_RULES),
    Mutant(
        "request-accept-variant",
        "request: what it accepts is checked",
        "",
        (f"{_SERVED}::test_what_accepts_nothing_that_is_known_is_refused_with_what_was_expected",),
    ),
    Mutant(
        "degrade-request-first",
        "degrading: a request's word goes before the model's",
        "return in_order(model, served, model.accepts)",
        (f"{_SERVED}::test_a_model_may_accept_variants_for_all_requests_but_those_that_say_no",),
    ),
    Mutant(
        "degrade-variant-sheds",
        "degrading: a variant that sheds is not asked",
        "",
        (f"{_SERVED}::test_a_base_that_sheds_still_reads_what_its_variant_may_answer",),
    ),
    Mutant(
        "degrade-variant-rows",
        "degrading: a variant gets no more rows than it takes",
        "return True",
        (f"{_SERVED}::test_a_request_with_more_rows_than_the_variant_takes_is_refused_by_the_base",),
    ),
    Mutant(
        "degrade-turns",
        "degrading: a variant is told what it computes in its base's place",
        "",
        (f"{_SERVED}::test_a_variant_is_told_what_it_computes_in_its_bases_place",),
    ),
    Mutant(
        "degrade-fails",
        "degrading: a variant whose batch failed is not asked for a second",
        "return tuple(self._registry.variants(model))",
        (f"{_SHARING}::test_a_variant_whose_batches_fail_is_asked_once_a_second",),
    ),
    Mutant(
        "degrade-turns-short",
        "degrading: turns come sooner only for more than a batch",
        "is_short = True",
        (f"{_SHARING}::test_turns_come_sooner_for_what_is_more_than_a_batch",),
    ),
    Mutant(
        "capacity-follows",
        "capacity: found again after each batch",
        "",
        (f"{_SHARING}::test_a_variant_that_becomes_slower_than_its_base_is_asked_no_more_within_seconds",),
    ),
    Mutant("relief-device-shared", "relief: only by a variant on the same device", "return True", _TEST_RULES),
    Mutant(
        "relief-not-for-bulk",
        "relief: not for bulk requests",
        "if share_a_device(instead_of, variant):",
        (f"{_SHARING}::test_bulk_requests_relieve_no_base",),
    ),
    Mutant("relief-ends", "relief: it ends", "self._phase = Phase.RELIEVED", _RELIEF),
    Mutant("relief-own-requests", "relief: not where the variant has its own requests", "if False:", _RELIEF),
    Mutant("relief-full-batch", "relief: the base takes less than a full batch", "allowed = 0", _RELIEF),
    Mutant("relief-tried", "relief: a base is tried before it ends", "pass", _RELIEF),
    Mutant("relief-refusing", "relief: nothing is taken while requests are refused", "if False:", _RELIEF),
    Mutant("variant-turns-sooner", "fair share: what is charged to the base, the variant is spared", "", _SHARES),
    Mutant("variant-own-requests", "fair share: its own requests a variant pays", "cost = variant.last_cost", _SHARES),
)
