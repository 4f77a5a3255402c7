"""Addresses and ports as people write them."""

from __future__ import annotations

import ipaddress
import re

import pytest
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.reading import Section, port_number, split_endpoint

ENDPOINTS: dict[str, tuple[str, str, str | None]] = {
    "IPv4": ("10.10.10.10:80", "10.10.10.10", "80"),
    "IPv4 without a port": ("10.10.10.10", "10.10.10.10", None),
    "IPv4 and a service": ("10.10.10.10:http", "10.10.10.10", "http"),
    "IPv6": ("[fd00::10]:80", "fd00::10", "80"),
    "IPv6 without a port": ("[fd00::10]", "fd00::10", None),
    "IPv6 and a service": ("[FD00::A]:http", "fd00::a", "http"),
    "IPv6 without brackets": ("fd00::10", "fd00::10", None),
    "IPv6 that might be IPv4 and a port": ("12:34::56", "12:34::56", None),
    "IPv6 that ends like IPv4": ("::ffff:10.10.10.10", "::ffff:10.10.10.10", None),
}


@pytest.mark.parametrize(("text", "address", "port"), ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_an_address_is_split_from_its_port(text: str, address: str, port: str | None) -> None:
    meant = ipaddress.ip_address(address)
    assert split_endpoint(text) == (meant.version, meant.packed, port)


NO_ENDPOINTS = {
    "nothing": "",
    "a name": "rs1:80",
    "no address": ":80",
    "no port behind the colon": "10.10.10.10:",
    "no port behind the brackets": "[fd00::10]:",
    "a port and white space": "10.10.10.10:80 -6",
    "too short for IPv4": "10.10.10:80",
    "too large for IPv4": "10.10.10.256:80",
    "IPv4 in brackets": "[10.10.10.10]:80",
    "half a bracket": "[fd00::10",
    "IPv6 with a gap too many": "fd00::1::2",
    "an address with its interface": "fe80::1%eth0",
}


@pytest.mark.parametrize("text", NO_ENDPOINTS.values(), ids=NO_ENDPOINTS.keys())
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        split_endpoint(text)


PORTS = {"none": ("0", 0), "the last": ("65535", 65535), "padded": ("00080", 80)}


@pytest.mark.parametrize(("text", "port"), PORTS.values(), ids=PORTS.keys())
def test_a_port_is_a_number(text: str, port: int) -> None:
    assert port_number(text) == port


@pytest.mark.parametrize("text", ["", "65536", "000080", "-1", "+1", "8_0", "http", "\u0661"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        port_number(text)


def test_nothing_below_the_secrets_is_shown_not_even_in_a_misspelt_place() -> None:
    section = Section({"vrrp_instance": {"V": {"auth_pass": "MY_PASS"}}}, "lvs_secrets")
    with pytest.raises(InvalidConfig) as caught:
        section.finish()
    assert str(caught.value).startswith("lvs_secrets:vrrp_instance is **********; ")
    assert "MY_PASS" not in repr(caught.value.problems[0].value)


def test_a_list_of_names_may_hold_anything() -> None:
    with pytest.raises(InvalidConfig, match=r"^x:servers is \[\]; it should be a name"):
        list(Section({"servers": [[]]}, "x").named("servers"))
