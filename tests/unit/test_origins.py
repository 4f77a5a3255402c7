"""Which place of the pillar a line of keepalived.conf comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import origins

TEXT = """\
# Managed by Salt.
# Director lb1 of cluster prod.

global_defs {
    router_id LVS_PRI
    notification_email {
        noc@example.com
    }
    vrrp_garp_interval 0.1
    lvs_sync_daemon eth0 VirtIP_10 id 10
}

vrrp_script chk {
    script "/bin/true"
}

vrrp_instance VirtIP_10 {
    interface eth9
    authentication {
        auth_pass "stars"
    }
    virtual_ipaddress {
        10.10.10.10/32 dev eth9
    }
}

# web
virtual_server 10.10.10.10 80 {
    lvs_sched wlcc
    # rs1
    real_server 10.10.10.41 80 {
        weight 50
        uthreshold 7
        TCP_CHECK {
            retry 0
        }
    }
}

# From lvs:keepalived:extra.
vrrp_rlimit_rttimes {
    a b
}
"""


def where(line: str) -> str:
    """The pillar path of the first line that begins so."""
    numbers = [n for n, text in enumerate(TEXT.split("\n"), 1) if text.strip().startswith(line)]
    return origins.path(TEXT, numbers[0])


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("global_defs", "lvs:keepalived:global_defs"),
        ("router_id", "lvs:directors"),
        ("noc@", "lvs:alerts:notification_email"),
        ("vrrp_garp_interval", "lvs:keepalived:global_defs:vrrp_garp_interval"),
        ("lvs_sync_daemon", "lvs:sync_daemon"),
        ("vrrp_script", "lvs:keepalived:vrrp_scripts:chk"),
        ("script", "lvs:keepalived:vrrp_scripts:chk:script"),
        ("vrrp_instance", "lvs:vrrp_instances:VirtIP_10"),
        ("interface", "lvs:vrrp_instances:VirtIP_10:interface"),
        ("auth_pass", "lvs_secrets:vrrp_instances:VirtIP_10:auth_pass"),
        ("10.10.10.10/32", "lvs:vrrp_instances:VirtIP_10:virtual_ipaddress"),
        ("virtual_server", "lvs:virtual_servers:web"),
        ("lvs_sched", "lvs:virtual_servers:web:scheduler"),
        ("real_server", "lvs:virtual_servers:web:real_servers:rs1"),
        ("weight", "lvs:virtual_servers:web:real_servers:rs1:weight"),
        ("uthreshold", "lvs:virtual_servers:web:real_servers:rs1:upper_threshold"),
        ("retry", "lvs:virtual_servers:web:real_servers:rs1:check"),
        ("vrrp_rlimit", "lvs:keepalived:extra:vrrp_rlimit_rttimes"),
        ("a b", "lvs:keepalived:extra:vrrp_rlimit_rttimes:a"),
        ("# web", ""),
        ("}", "lvs:alerts:notification_email"),
    ],
)
def test_a_line_leads_to_its_place_in_the_pillar(line: str, path: str) -> None:
    assert where(line) == path


@given(st.text(alphabet='ab{}#"\n :_', max_size=200), st.integers(-2, 50))
def test_no_text_and_no_number_is_too_strange(text: str, number: int) -> None:
    assert isinstance(origins.path(text, number), str)
