"""Each sample configuration of keepalived's own documentation can be said in the pillar.

That they mean the same to keepalived then is tried in tests/kernel/test_importing.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from saltext.lvs import conffile, importing, keepalived, model

from tests.golden.cases import TEMPLATE

# Where Debian's package has them.
SAMPLES = Path("/usr/share/doc/keepalived/samples")
PREFIX = "keepalived.conf."
EXPRESSED = (
    *("HTTP_GET.port", "IPv6", "PING_CHECK", "SMTP_CHECK", "SSL_GET", "UDP_CHECK", "fwmark"),
    *("conditional_conf", "inhibit", "sample", "status_code", "track_interface", "virtualhost"),
    *("vrrp", "vrrp.routes", "vrrp.rules", "vrrp.static_ipaddress"),
)
SECURITY = (
    "keepalived.global_defs has script_user: root, enable_script_security: True now, without which "
    "scripts are not accepted"
)
# What is in the pillar in another way, or not, and why.
OTHERWISE = {
    "misc_check": [f"misc_path /usr/local/bin/script.sh: {SECURITY}"],
    "misc_check_arg": [f'misc_path "/usr/local/bin/script.sh arg1 arg2": {SECURITY}'],
    "quorum": [f"quorum_up /usr/local/sbin/quorum-up.sh: {SECURITY}"],
    "vrrp.localcheck": [f'script "killall -0 sshd": {SECURITY}'],
    "vrrp.scripts": [f'notify_backup "/usr/local/bin/vrrp.back arg1 arg2": {SECURITY}'],
    "vrrp.sync": [f'notify_backup "/usr/local/bin/vrrp.back arg1 arg2": {SECURITY}'],
    "virtual_server_group": [
        "virtual_server group VSG_1 {: taken over as it stands, in extra: the pillar has no other "
        "way"
    ],
    "vrrp.lvs_syncd": ["vrrp_sync_group VG1 {: not taken over: the group has no members"],
}
WANTED: dict[str, list[str]] = {**{name: [] for name in EXPRESSED}, **OTHERWISE}


def test_these_are_all_samples() -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"no {SAMPLES}: apt-get install keepalived, with its documentation")
    assert {path.name for path in SAMPLES.glob(f"{PREFIX}*")} == {
        f"{PREFIX}{name}" for name in WANTED
    }


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_sample_can_be_said_in_the_pillar(name: str) -> None:
    path = SAMPLES / f"{PREFIX}{name}"
    if not path.exists():
        pytest.skip(f"no {path}: apt-get install keepalived, with its documentation")
    found = importing.to_pillar(conffile.read(str(path)), "lb1")
    assert [f"{note.words}: {note.why}" for note in found.notes] == WANTED[name]
    cluster = model.from_pillar(importing.joined(found.pillar, found.secrets))
    text = keepalived.render(cluster, "lb1", TEMPLATE)
    assert "Director lb1 of cluster" in text
