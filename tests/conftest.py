"""Hypothesis profiles for every test, chosen by ``HYPOTHESIS_PROFILE`` (default ``dev``)."""

import os

from hypothesis import HealthCheck, Verbosity, settings

# A slow oracle and a shared machine make wall-clock deadlines meaningless.
_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=60, **_QUIET)
# CI must fail for the same reason twice: no random seed and no saved examples.
settings.register_profile(
    "ci", max_examples=200, derandomize=True, database=None, print_blob=True, **_QUIET
)
settings.register_profile("debug", max_examples=10, verbosity=Verbosity.verbose, **_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
