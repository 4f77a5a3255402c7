"""Tests on the lab's kernel: each in a network of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import inside, namespaces


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab() -> None:
    inside.require("tests/kernel")


@pytest.fixture
def netns() -> Iterator[None]:
    """A new, empty network namespace (loopback up) for the test and the programs that it starts."""
    with namespaces.own_network():
        yield
