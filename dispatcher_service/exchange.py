"""What a unit of cost is worth in quality at an alpha: λ of `Objective.UTILITY`, and back."""

import math

LARGEST = 1e6
"""No rate is further from 0."""

_EVEN = 0.5
_STRAIGHT = 0.25
"""Within this of alpha ½, λ is alpha - ½."""


def rate(alpha: float) -> float:
    """λ: the win probability that the whole way from the cheapest cost to the dearest must bring.

    Strictly increasing and finite, odd around alpha ½. Within ¼ of that it is alpha - ½: there two models decide as by
    a threshold. Beyond, `±(¼ + (d - ¼) / (4·(½ - d)))` for the distance d, without a kink, up to some 10⁶: a model
    that costs a thousandth of the way more may have to earn it.

    Args:
        alpha: in [0, 1].
    """
    distance = alpha - _EVEN
    if abs(distance) <= _STRAIGHT:
        return distance
    beyond = (abs(distance) - _STRAIGHT) / max(4.0 * (_EVEN - abs(distance)), _STRAIGHT / LARGEST)
    return math.copysign(_STRAIGHT + beyond, distance)


def alpha_of(rate: float) -> float:
    """The inverse of the function `rate`, for any rate."""
    size = min(abs(rate), LARGEST)
    beyond = 4.0 * (size - _STRAIGHT)
    distance = size if beyond <= 0 else (beyond * _EVEN + _STRAIGHT) / (1.0 + beyond)
    return _EVEN + math.copysign(distance, rate)
