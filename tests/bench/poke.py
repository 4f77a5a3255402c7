"""In a director: write lines into keepalived's FIFO, or kill keepalived, when told to.

By itself, with any Python: each line of its input is a line for the FIFO that its argument names,
or ``kill PID``. Answers with the time before, in seconds of ``time.monotonic()``.
"""

import os
import signal
import sys
import time


def main() -> None:
    """Do what each line of the input asks for."""
    fifo = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
    for line in sys.stdin:
        began = time.monotonic()
        if line.startswith("kill "):
            os.kill(int(line.split()[1]), signal.SIGKILL)
        else:
            os.write(fifo, line.encode())
        print(began, flush=True)


if __name__ == "__main__":
    main()
