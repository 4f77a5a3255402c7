"""Services of a host that starts them the System V way."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tests.lab.host import Host
from tests.lab.waiting import until

_SCRIPT = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          {name}
# Required-Start:    $network $remote_fs
# Required-Stop:     $network $remote_fs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: {name}
### END INIT INFO
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
pidfile=/run/{name}.pid

start() {{
    start-stop-daemon --start --oknodo --quiet --background --make-pidfile --pidfile $pidfile \\
        --output /var/log/{name}.out --startas {program} -- {arguments}
}}

stop() {{
    start-stop-daemon --stop --oknodo --quiet --retry TERM/20/KILL/5 \\
        --pidfile $pidfile --remove-pidfile
}}

# By a process of its own, as with systemd: a minion that restarts itself kills its job, which is
# where this runs.
restart() {{
    touch $pidfile.restarting
    setsid --fork sh -c '"$0" stop; "$0" start; rm -f '$pidfile.restarting "$0"
    while [ -e $pidfile.restarting ]; do sleep 0.1; done
}}

case "$1" in
    start) start ;;
    stop) stop ;;
    restart | force-reload) restart ;;
    status) start-stop-daemon --status --pidfile $pidfile ;;
    *) echo "Usage: $0 start|stop|restart|force-reload|status" >&2; exit 3 ;;
esac
"""


def install(host: Host, name: str, command: Sequence[str]) -> None:
    """Make ``command`` (absolute path, arguments) the service ``name``, enabled at boot.

    It runs in the foreground; what it prints goes to ``/var/log/<name>.out``.
    """
    program, *arguments = command
    script = _SCRIPT.format(
        name=name, program=shlex.quote(program), arguments=shlex.join(arguments)
    )
    host.write(f"/etc/init.d/{name}", script, mode=0o755)
    host.run(["ln", "-sfn", f"../init.d/{name}", f"/etc/rc2.d/S02{name}"], check=True)


def start(host: Host, name: str) -> None:
    """Start the service ``name`` now."""
    host.run(["service", name, "start"], check=True)


def restart(host: Host, name: str) -> None:
    """Stop the service ``name``, and start it when its process is gone: Debian's own scripts start
    nothing beside what has not ended yet.
    """
    host.run(["service", name, "stop"], check=True)
    wait_until_gone(host, name)
    start(host, name)


def wait_until_gone(host: Host, program: str) -> None:
    """Wait until no process of a program is left; its children may need a moment to follow it."""
    look = ["pgrep", "-x", program]
    until(lambda: host.run(look).returncode, f"{program} to be gone from {host.name}", pause=0.2)
