"""The built-in redaction: addresses and keys go, words stay, and it takes no time to speak of."""

import time

import pytest

from dispatcher_service.records import redaction

# Split, so that no scanner takes them for real ones.
OPENAI = "sk-" + "proj-abcDEF0123456789abcDEF0123456789"
GITHUB = "ghp_" + "0123456789abcdefABCDEF0123456789abcd"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nAAAA\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Write to ada.lovelace+x@mail.example.co.uk, please", "Write to [email], please"),
        (f"my key is {OPENAI}.", "my key is [key]."),
        (f"git push with {GITHUB}", "git push with [key]"),
        (f"aws {AWS}", "aws [key]"),
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer [key]"),
        (f"before\n{PEM}\nafter", "before\n[key]\nafter"),
        ('{"api_key": "0123456789abcdef0123"}', '{"api_key": "[key]"}'),
        ("password=hunter2hunter2hunter2", "password=[key]"),
        ("A password is a concept; a token has 4 letters.", "A password is a concept; a token has 4 letters."),
        ("2 + 2 @ home, 3.14, sk-8", "2 + 2 @ home, 3.14, sk-8"),
    ],
)
def test_addresses_and_keys_are_taken_out_and_words_stay(text: str, kept: str) -> None:
    assert redaction.mask(text) == kept


@pytest.mark.parametrize("piece", ["a", "a@", "a.", "eyJ", "key=", "-----BEGIN PRIVATE KEY-----", "sk-", "=" * 50])
def test_a_large_text_of_near_misses_is_no_trap(piece: str) -> None:
    started = time.process_time()
    redaction.mask(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 20  # a backtracking pattern would take hours


def test_a_hook_is_named_by_module_and_function() -> None:
    assert redaction.load(redaction.BUILT_IN) is redaction.mask
    assert redaction.load("string:capwords")("two words") == "Two Words"


@pytest.mark.parametrize("path", ["", "no.such:thing", "string:nothing", "string", "string:digits", "builtins:len"])
def test_a_wrong_hook_says_what_to_write(path: str) -> None:
    with pytest.raises(ValueError, match=r"write|must take"):
        redaction.load(path)
