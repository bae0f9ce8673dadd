"""What holds for every test."""

from hypothesis import settings

# A loaded machine is slow, which says nothing about the code: no example fails for the time that it took.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
