"""The lab: hosts with IPVS in the memory of one machine, for tests, the demo and people.

``python -m tests.lab run -- COMMAND`` gives a command a kernel with IPVS; in it, ``Lab`` makes
hosts.
"""

from __future__ import annotations

from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import HOSTS, VIP, Lab
from tests.lab.waiting import until

__all__ = ["HOSTS", "VIP", "Host", "Lab", "LabError", "until"]
