"""Random cases are the same in every run, and no test fails for being slow on a busy machine."""

from hypothesis import settings

settings.register_profile("faltung", derandomize=True, deadline=None)
settings.load_profile("faltung")
