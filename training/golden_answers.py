"""Answers of our own writing, whose scores every artefact that judges answers must reproduce.

Right and wrong ones, cut off ones, refusals, code, other scripts, and some around and far beyond the windows. No prompt
or answer of any data set is among them.
"""

from training.golden import Conversation, conversations

Judged = tuple[Conversation, tuple[str, str]]
"""A conversation and two answers to it. Where one answer is judged, it is the first."""

_PAIRS = (
    ("14 × 6 = 84. 84 + 96 = 180 rolls.\n#### 180", "14 * 6 = <<14*6=84>>84, and 96 - 84 = <<96-84=12>>12.\n#### 12"),
    ("8 * 3.50 = $28.00, half of it is 28 / 2 = $14.00. She has $14.00 left.", "8 x 3.5 = 27.\nThe answer is 13.5"),
    ("x = 5", "3x = 15, so x = 15 / 3 = 5."),
    ("I cannot answer that.", "It depends; perhaps B, although A is not impossible."),
    ("The answer is: C", "C"),
    ("First, 120 / 4 = 30. Then 30 + 4 =", "120 / 4 = 30, 30 + 4 = 34. So 34."),
    ("```python\ndef greet(name):\n    return f'hello {name}'\n```", "```python\ndef greet(name):\n    return 'hi'"),
    ("道岔让列车从一条轨道转到另一条轨道。", "Не знаю."),
    ("5" * 300, "10 / 3 = 3.33, rounded (about 3.3)"),
    ("Yes.\nYes.\nYes.\nYes.", "🚂🚃🚃🚃 are three wagons: 4 - 1 = 3"),
    ("-7", "7"),
    ("No answer of this length says much, and yet it goes on. " * 60, "Short."),
    ("On day 3 tenant 4 spent 5 dollars; 500 - 5 = 495. " * 400 + "495", "x " * 2_100 + "= 495"),
    ("\\boxed{42}", "[CLS] 42 [SEP]"),
)


def judged() -> list[Judged]:
    """All of them, always in the same order: every conversation of `golden`, the answers in turn."""
    return [
        (conversation, _PAIRS[place % len(_PAIRS)])
        for place, conversation in enumerate(conversations())
        if place % 2 == 0 or place >= len(conversations()) - 8
    ]
