"""The disk that every host starts from: this machine's, made neutral.

It is one overlay layer over the machine's files, shared by all hosts and made anew with each lab.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lab import cache, packages

FOLDER = Path("/run/lab/base")
MACHINE = Path("/run/lab/machine")
PACKAGES = "var/lib/lab-packages"

# The machine's private settings, and the traces of what the formula makes.
REMOVED = (
    *("etc/salt", "etc/pip.conf", "root/.config/pip", "root/.pip", "srv"),
    *("etc/keepalived", "etc/ipvsadm.rules", "etc/network"),
    *("var/lib/saltext-lvs", "var/cache/salt"),
    *("etc/apt/sources.list", "etc/apt/sources.list.d", "var/lib/apt/lists"),
    # Container images forbid that packages start their services; a machine does not.
    "usr/sbin/policy-rc.d",
    # Hosts do not boot with systemd. Where its command is there all the same, Salt takes that for
    # an image that is being built, in which no service can be started.
    "usr/bin/systemctl",
    # Indexing manuals takes eight of the ten seconds of an installation.
    "var/lib/man-db/auto-update",
)


def build(names: Mapping[str, str]) -> None:
    """Make the layer at ``FOLDER``; ``names`` maps the hosts' names to their addresses."""
    root = FOLDER / "root"
    for folder in (root, FOLDER / "upper", FOLDER / "work"):
        folder.mkdir(parents=True)
    options = f"lowerdir={MACHINE},upperdir={FOLDER}/upper,workdir={FOLDER}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", root], check=True)
    try:
        _uninstall(root, packages.INSTALLED_BY_US)
        for path in REMOVED:
            _remove(root / path)
        for path, text in _files(names).items():
            _remove(root / path)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            (root / path).chmod(0o755 if text.startswith("#!") else 0o644)
        # Not in the cache itself: apt reads as a user who may not look into root's home.
        shutil.copytree(packages.fetch(), root / PACKAGES)
        (root / "lib/modules").mkdir(exist_ok=True)
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)
        _refresh_apt(root)
    finally:
        subprocess.run(["umount", "--recursive", root], check=True)


def _files(names: Mapping[str, str]) -> dict[str, str]:
    hosts = "".join(f"{address}\t{name}\n" for name, address in names.items())
    return {
        "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{hosts}",
        "etc/resolv.conf": "",
        # Salt asks for it where there is no systemd; Debian's own belongs to an init system.
        "usr/sbin/runlevel": "#!/bin/sh\necho N 2\n",
        "etc/apt/sources.list": f"deb [trusted=yes] file:/{PACKAGES} ./\n",
        "etc/pip.conf": f"[global]\nno-index = true\nfind-links = {cache.folder()}/wheels\n",
    }


def _uninstall(root: Path, names: tuple[str, ...]) -> None:
    """Take packages off the disk, as if they had never been there.

    dpkg would do it too, in ten seconds.
    """
    dpkg = root / "var/lib/dpkg"
    for name in names:
        listing = dpkg / "info" / f"{name}.list"
        files = listing.read_text().split("\n") if listing.exists() else []
        for path in (root / file.lstrip("/") for file in files if file):
            if not path.is_dir():
                path.unlink(missing_ok=True)
        for path in (*dpkg.glob(f"info/{name}.*"), *root.glob(f"etc/rc?.d/???{name}")):
            path.unlink()
        for path in (root / "etc/systemd/system").glob(f"*.wants/{name}.service"):
            path.unlink()
    status = dpkg / "status"
    status.write_text(packages.without(status.read_text(), names))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refresh_apt(root: Path) -> None:
    for name in ("proc", "dev"):
        subprocess.run(["mount", "--rbind", f"/{name}", root / name], check=True)
    subprocess.run(
        ["chroot", root, "apt-get", "-q", "update"],
        check=True,
        capture_output=True,
    )
