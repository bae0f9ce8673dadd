"""What is taken out of texts before they are kept: e-mail addresses and keys, or what a function of your own takes out.

`mask` recognises forms, not meanings: names and secrets in plain words pass it. A text whose hook fails is not kept.
"""

import importlib
import re
from collections.abc import Callable

Redact = Callable[[str], str]
"""Takes a message's text and returns what may be kept of it. Called off the event loop; must not block for long."""

BUILT_IN = "dispatcher_service.records.redaction:mask"

# Bounded repetitions only: the time grows with the text and with nothing else.
_EMAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_PEM = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:\s{0,4}[\w-]{1,40}: [^\n]{0,200}\n){0,8}[A-Za-z0-9+/=\s]{0,20000}"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
)
_KEYS = re.compile(
    r"""
      \b(?:sk|pk|rk|pnt|ghp|gho|ghu|ghs|ghr|glpat|hf|xox[abprs])[-_][A-Za-z0-9_-]{12,400}   # makers' prefixes
    | \bgithub_pat_\w{20,200}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                                                     # AWS
    | \bAIza[\w-]{30,60}                                                                # Google
    | \beyJ[\w-]{8,4000}\.[\w-]{8,8000}\.[\w-]{8,4000}                                  # JSON Web Tokens
    """,
    re.VERBOSE,
)
_NAMED = re.compile(
    r"""
    (?P<name>(?i:api[-_ ]?key|secret|token|password|passwd|authorization|bearer)["']?\s{0,4}(?:[:=]\s{0,4}|\s)["']?
      (?:(?i:bearer|basic)\s)?)
    (?P<key>(?=[^\s"']{0,400}\d)[A-Za-z0-9+/=_.~-]{16,400})
    """,
    re.VERBOSE,
)


def mask(text: str) -> str:
    """E-mail addresses become `[email]`; private keys, tokens and what stands after a word like `api_key` `[key]`."""
    text = _PEM.sub("[key]", text)
    text = _KEYS.sub("[key]", text)
    text = _NAMED.sub(r"\g<name>[key]", text)
    return _EMAIL.sub("[email]", text)


def load(path: str) -> Redact:
    """The function that `module:function` names.

    Raises:
        ValueError: there is none, or it does not turn a text into a text; says what to do.
    """
    module, colon, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name) if colon else None
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path}: {error}: write the import path of a function, as in {BUILT_IN}") from error
    if not callable(function):
        raise ValueError(f"{path}: write module:function, as in {BUILT_IN}")
    redact: Redact = function
    if not isinstance(redact("a text"), str):
        raise ValueError(f"{path}: must take a text and return one")
    return redact
