"""The user-mode Linux kernel: fetched once, from the mirror that apt already uses."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.lab import cache
from tests.lab.errors import LabError

# From sid, because older ones (6.1, 6.12) panic on processors with AMX. The kernel's own C library
# comes along: it wants a newer one than a stable release has. Nothing of it is installed.
PACKAGES = ("user-mode-linux", "libc6", "libgcc-s1")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Where user-mode Linux finds its own /proc, /dev, and this machine's files.
MOUNT_POINTS = ("dev", "host", "proc", "root", "tmp")


def fetch() -> Path:
    """The folder with the unpacked kernel, downloaded if the cache has none."""
    return cache.build_once("kernel", _fill)


def is_fetched() -> bool:
    """Whether the cache has the kernel. It brings its own library: no update outdates it."""
    return cache.place("kernel").is_dir()


def _fill(root: Path) -> None:
    mirror = debian_mirror()
    print(f"lab: fetching the user-mode Linux kernel from {mirror} (once)", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for deb in _download(mirror, Path(scratch)):
            subprocess.run(["dpkg", "-x", deb, root], check=True)
    # sid's packages count on a merged /usr; an unpacked folder has no such links.
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in MOUNT_POINTS:
        (root / name).mkdir(exist_ok=True)


def debian_mirror() -> str:
    """The address of the Debian mirror in apt's own configuration."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = [line.partition("|")[2] for line in targets.splitlines() if line.startswith("Debian|")]
    mirrors = [address for address in found if "security" not in address]
    if not mirrors or not Path(KEYRING).exists():
        raise LabError(
            "this kernel has no IPVS, and its stand-in (user-mode Linux) comes from Debian's "
            "archive, which apt is not set up for here: on Ubuntu and others load ip_vs and dummy "
            "(modprobe), or run on Debian after apt-get update"
        )
    return mirrors[0]


def _download(mirror: str, scratch: Path) -> list[Path]:
    """Download the packages into ``scratch``; apt checks their signatures."""
    (scratch / "lists" / "partial").mkdir(parents=True)
    sources = scratch / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror} sid main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": scratch / "lists",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    for task in (["update"], ["download", *PACKAGES]):
        done = subprocess.run([*apt, *task], cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"apt-get {task[0]} for the lab's kernel failed:\n{done.stderr}")
    return sorted(scratch.glob("*.deb"))
