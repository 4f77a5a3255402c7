"""What is shown of a text with passwords in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import masking

STARS = "**********"

MASKED: dict[str, tuple[str, list[str], str]] = {
    "a text without passwords": ("a b\n\nc {\n}\n", [], "a b\n\nc {\n}\n"),
    "an empty text": ("", ["MY_PASS"], ""),
    "a line that sets one": ("  auth_pass MY_PASS\n}\n", [], f"  auth_pass {STARS}\n}}\n"),
    "one in quotes, with a comment after it": ('auth_pass "a b" # x\n', [], f"auth_pass {STARS}\n"),
    "a block on one line": ("x { auth_pass MY_PASS }", [], f"x {{ auth_pass {STARS}"),
    "a definition": ("$AUTH_PASS=MY_PASS\n", [], f"$AUTH_PASS={STARS}\n"),
    "another keyword for one": ("auth_hmac 7 MY_PASS\r\n", [], f"auth_hmac {STARS}\n"),
    "the kind of a password": ("auth_type PASS\n", [], "auth_type PASS\n"),
    "a block that is called so": ("vrrp_instance bypass {\n", [], "vrrp_instance bypass {\n"),
    "a line that contains one": ("# it is MY_PASS!\nb\n", ["MY_PASS"], f"{STARS}\nb\n"),
    "one in another word": ("notify /x?p=MY_PASS&y\n", ["MY_PASS"], f"{STARS}\n"),
    "one that a program quotes": (
        "KeyError: 'a\\\\nbc'\n",
        ["a\\nbc"],
        f"{STARS}\n",
    ),
    "a short one, as a word": ("a 1x b\n10 11x\n", ["1x"], f"{STARS}\n10 11x\n"),
    "a short one, in quotes": ("a '1x'\n", ["1x"], f"{STARS}\n"),
    "one that is a word of the file too": (
        "interface eth0\nauth_pass eth0\n",
        ["eth0"],
        f"{STARS}\nauth_pass {STARS}\n",
    ),
    "one before the keyword": ("MY_PASS auth_pass x\n", ["MY_PASS"], f"{STARS}\n"),
}


@pytest.mark.parametrize(("text", "passwords", "expected"), MASKED.values(), ids=MASKED.keys())
def test_a_text_is_shown_without_passwords(text: str, passwords: list[str], expected: str) -> None:
    assert masking.masked(text, passwords) == expected


def test_a_changed_password_shows_as_two_lines_that_look_alike() -> None:
    old = "a {\n    auth_pass OLD_PASS\n}\n"
    new = 'a {\n    auth_pass "NEW_PASS"\n}\n'
    assert masking.diff(old, new, ["NEW_PASS"], "x.conf") == (
        "--- x.conf\n+++ x.conf\n@@ -1,3 +1,3 @@\n"
        f" a {{\n-    auth_pass {STARS}\n+    auth_pass {STARS}\n }}\n"
    )


def test_a_former_password_is_not_shown_elsewhere_either() -> None:
    old = "# OLD_PASS\nauth_pass OLD_PASS\n"
    assert masking.diff(old, "", [], "x.conf") == (
        f"--- x.conf\n+++ x.conf\n@@ -1,2 +0,0 @@\n-{STARS}\n-auth_pass {STARS}\n"
    )


def test_a_new_file_is_shown_whole() -> None:
    assert masking.diff("", "a\nauth_pass b\n", ["b"], "x.conf") == (
        f"--- x.conf\n+++ x.conf\n@@ -0,0 +1,2 @@\n+a\n+auth_pass {STARS}\n"
    )


def test_a_missing_end_of_the_last_line_is_told() -> None:
    assert masking.diff("a\n", "a", [], "x.conf") == (
        "--- x.conf\n+++ x.conf\n@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n"
    )


lines = st.sampled_from(["a", "b", "c", "{", "}", "", "\r", "x\x0by"])
texts = st.lists(lines, max_size=20).map("\n".join)


@given(texts, texts)
def test_a_diff_makes_the_new_text_of_the_old_one(old: str, new: str) -> None:
    assert patched(old, masking.diff(old, new, [], "x")) == new


def patched(old: str, diff: str) -> str:
    """What ``patch`` makes of a text."""
    was, now, done = re.findall(r"[^\n]*\n|[^\n]+", old), "", 0
    # An end of file without a newline is told on a line of its own.
    for line in re.findall(r"[^\n]*\n", diff.replace("\n\\ No newline at end of file\n", "\0\n"))[
        2:
    ]:
        head = re.fullmatch(r"@@ -(\d+)(?:,(\d+))? .*\n", line)
        if head:
            start = int(head[1]) - (head[2] != "0")
            now += "".join(was[done:start])
            done = start
            continue
        text = line[1:].replace("\0\n", "")
        if line[0] in " -":
            assert was[done] == text
            done += 1
        if line[0] in " +":
            now += text
    return now + "".join(was[done:])


passwords = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=4, max_size=8)


@given(st.lists(passwords | st.sampled_from(["auth_pass", " ", "\n", '"'])), passwords)
def test_no_password_of_four_characters_is_ever_shown(words: list[str], password: str) -> None:
    text = "".join(word + password for word in words)
    shown = masking.masked(text, [password])
    assert password not in shown.replace(STARS, "")
