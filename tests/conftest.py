"""What holds for every test."""

from hypothesis import HealthCheck, settings

# Speed is measured by the benchmark, never by a test: on a busy machine an example may take its time.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
