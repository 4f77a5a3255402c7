"""A small apt repository: what hosts install, so that they can without a network."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from tests.lab import cache
from tests.lab.errors import LabError

# Hosts start without these; whatever else they need and this machine has, hosts have too.
INSTALLED_BY_US = ("keepalived", "ipvsadm", "ifupdown", "network-manager")
STATUS = Path("/var/lib/dpkg/status")


def fetch() -> Path:
    """The folder of the repository, downloaded with apt if the cache has none for this machine."""
    return cache.build_once("packages", _fill, _key())


def is_fetched() -> bool:
    """Whether ``fetch`` has nothing to download."""
    return cache.place("packages", _key()).is_dir()


def _key() -> str:
    """What the repository depends on: it completes what is installed on this machine."""
    installed = versions(without(STATUS.read_text(), INSTALLED_BY_US))
    needs = (INSTALLED_BY_US, sorted(installed.items()))
    return hashlib.sha256(repr(needs).encode()).hexdigest()[:12]


def versions(status: str) -> dict[str, str]:
    """The versions of the installed packages in the text of dpkg's status file, by their names."""
    found = {}
    for part in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Architecture|Status|Version): (.*)$", part, re.M))
        if fields.get("Status", "").endswith(" installed"):
            found[f"{fields['Package']}:{fields['Architecture']}"] = fields["Version"]
    return found


def without(status: str, names: tuple[str, ...]) -> str:
    """The text of dpkg's status file with the packages ``names`` taken out."""
    gone = tuple(f"Package: {name}\n" for name in names)
    kept = [part for part in status.split("\n\n") if not f"{part}\n".startswith(gone)]
    return "\n\n".join(kept)


def _fill(folder: Path) -> None:
    print(f"lab: downloading {', '.join(INSTALLED_BY_US)} for the hosts (once)", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for deb in _download(Path(scratch)):
            deb.rename(folder / deb.name)
    stanzas = [_stanza(deb) for deb in sorted(folder.glob("*.deb"))]
    (folder / "Packages").write_text("\n".join(stanzas))


def _download(scratch: Path) -> list[Path]:
    """Let apt resolve and download them as on this machine without them.

    Where this machine's lists of packages are missing or outdated, new ones are fetched, aside.
    """
    status = scratch / "status"
    status.write_text(without(STATUS.read_text(), INSTALLED_BY_US))
    (scratch / "archives" / "partial").mkdir(parents=True)
    (scratch / "lists" / "partial").mkdir(parents=True)
    apt = [
        *("apt-get", "-q", "-y", "-oAPT::Sandbox::User=root"),
        *(f"-oDir::State::status={status}", f"-oDir::Cache::archives={scratch}/archives"),
    ]
    install = ["--download-only", "--no-install-recommends", "install", *INSTALLED_BY_US]
    lists = f"-oDir::State::Lists={scratch}/lists"
    for attempt in ([*apt, *install], [*apt, lists, "update"], [*apt, lists, *install]):
        done = subprocess.run(attempt, capture_output=True, text=True, check=False)
        if done.returncode == 0 and "install" in attempt:
            return list((scratch / "archives").glob("*.deb"))
    raise LabError(f"apt-get could not download the hosts' packages:\n{done.stderr}")


def _stanza(deb: Path) -> str:
    control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True)
    content = deb.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control.stdout}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n"
