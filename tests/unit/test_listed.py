"""What a configuration lists, by the names with which keepalived tells of it."""

from __future__ import annotations

import pytest
from saltext.lvs.listed import listed

TEXT = """# /etc/keepalived/keepalived.conf
vrrp_sync_group G1 {
  group {
    VirtIP_10
  }
}
vrrp_sync_group "G 2" {
  group {
    VirtIP_11
  }
}
virtual_server 10.10.10.10 80 {
  protocol TCP
  real_server 10.10.10.41 80 {
    weight 1
  }
}
virtual_server 10.10.10.10 53 {
  protocol UDP
  real_server 10.10.10.42 53 {
  }
}
virtual_server 10.10.10.10 53 {
  real_server 10.10.10.43 53 {
  }
}
virtual_server fd00::0010 80 {
  protocol TCP
  real_server fd00::0041 8080 {
  }
}
virtual_server fwmark 7 {
  protocol TCP
  real_server 10.10.10.41 {
  }
}
virtual_server group web {
  protocol TCP
  real_server 10.10.10.41 80 {
  }
}
virtual_server nonsense {
}
"""
HAS = [
    ("[10.10.10.10]:tcp:80", None),
    ("[10.10.10.10]:tcp:80", "[10.10.10.41]:tcp:80"),
    ("[10.10.10.10]:udp:53", "[10.10.10.42]:udp:53"),
    ("[10.10.10.10]:tcp:53", "[10.10.10.43]:tcp:53"),
    ("[fd00::10]:tcp:80", "[fd00::41]:tcp:8080"),
    ("FWM 7", None),
    ("FWM 7", "[10.10.10.41]:none:0"),
    ("[web]:0", "[10.10.10.41]:tcp:80"),
]
LACKS = [
    ("[10.10.10.10]:udp:80", None),
    ("[10.10.10.10]:tcp:80", "[10.10.10.42]:tcp:80"),
    ("[10.10.10.10]:tcp:53", "[10.10.10.42]:udp:53"),
    ("[10.10.10.10]:tcp:80", "[10.10.10.41]:tcp:81"),
    ("FWM 8", None),
    ("[other]:0", None),
]


@pytest.mark.parametrize("name", HAS, ids=map(str, HAS))
def test_what_is_listed_is_found(name: tuple[str, str | None]) -> None:
    assert listed(TEXT).has(*name)


@pytest.mark.parametrize("name", LACKS, ids=map(str, LACKS))
def test_what_is_not_listed_is_not_found(name: tuple[str, str | None]) -> None:
    assert not listed(TEXT).has(*name)


def test_sync_groups_are_listed_by_name() -> None:
    assert listed(TEXT).groups == {"G1", "G 2"}
