"""Enumerations that every request looks things up by."""

import enum


class ClosedSet(enum.Enum):
    """An enumeration whose members are as quick to find in a dictionary as any object.

    `enum.Enum` hashes them by their names, in Python, and a call looks up some thirty. Members are unique, so that
    their identity does as well; the hash differs from one process to the next, as that of a name does.
    """

    __hash__ = object.__hash__
