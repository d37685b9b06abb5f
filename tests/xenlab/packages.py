"""Debian's Xen and kernels, at whatever version apt offers, unpacked and cached.

One folder per set of versions: CACHE/VERSIONS/root is the unpacked packages. Nothing is
installed on this machine.
"""
import glob
import hashlib
import os
import re
import shutil
import subprocess

CACHE = os.environ.get("REEVE_XENLAB_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "reeve-xenlab"
)


class Missing(Exception):
    """Something this machine lacks; the message says what to do."""


def _apt(*words):
    done = subprocess.run(
        ["apt-cache", *words], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def _depends(package, pattern):
    found = re.search(rf"Depends: ({pattern})", _apt("depends", package))
    return found.group(1) if found else None


def _wanted():
    """The packages by name: what Debian's metapackages stand for today."""
    hypervisor = _depends("xen-system-amd64", r"xen-hypervisor-[0-9.]+-amd64")
    utils = _depends("xen-system-amd64", r"xen-utils-[0-9.]+")
    kernel = _depends("linux-image-amd64", r"linux-image-[0-9][^ \n]*")
    cloud = _depends("linux-image-cloud-amd64", r"linux-image-[0-9][^ \n]*")
    names = [hypervisor, utils, kernel, cloud, "xen-utils-common", "xenstore-utils"]
    return None if None in names else names


def _version(package):
    found = re.search(r"^Version: (.*)$", _apt("show", "--no-all-versions", package), re.M)
    return found.group(1) if found else ""


class Packages:
    """root: the unpacked packages; xen: "4.17"; kernel, cloud: kernel releases."""

    def __init__(self, folder):
        self.folder = folder
        self.root = os.path.join(folder, "root")
        with open(os.path.join(folder, "names")) as f:
            names = f.read().split()
        self.xen = re.search(r"[0-9.]+", names[1]).group(0)
        self.kernel = names[2].removeprefix("linux-image-")
        self.cloud = names[3].removeprefix("linux-image-")


def _newest():
    stamps = glob.glob(os.path.join(CACHE, "*", "complete"))
    return os.path.dirname(max(stamps, key=os.path.getmtime)) if stamps else None


def get(log):
    """The newest packages apt offers; the cached ones where apt knows none."""
    names = _wanted()
    if names is None and not os.path.isdir("/var/lib/apt/lists/partial"):
        raise Missing("the lab needs Debian's packages, and there is no apt here")
    if names is None:
        old = _newest()
        if old:
            return Packages(old)
        log("apt knows no Xen packages: apt-get update")
        subprocess.run(["apt-get", "-qq", "update"], check=False, timeout=300)
        names = _wanted()
        if names is None:
            raise Missing("apt offers no xen-system-amd64: is this Debian, with network?")
    versions = "\n".join(f"{name} {_version(name)}" for name in names)
    folder = os.path.join(CACHE, hashlib.sha256(versions.encode()).hexdigest()[:16])
    if not os.path.exists(os.path.join(folder, "complete")):
        _fetch(names, folder, log)
    return Packages(folder)


def _fetch(names, folder, log):
    log("fetching Debian's Xen and kernels, about 100 MB, once: " + " ".join(names))
    shutil.rmtree(folder, ignore_errors=True)
    root = os.path.join(folder, "root")
    os.makedirs(root)
    for attempt in (1, 2):
        done = subprocess.run(
            ["apt-get", "-q", "download", *names],
            cwd=folder, capture_output=True, text=True, timeout=900, check=False,
        )
        if done.returncode == 0:
            break
        if attempt == 2:
            raise Missing(f"apt-get download failed: {done.stderr.strip()[-400:]}")
        # Lists older than the archive name versions that are gone.
        subprocess.run(["apt-get", "-qq", "update"], check=False, timeout=300)
    for deb in sorted(glob.glob(os.path.join(folder, "*.deb"))):
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True, timeout=300)
        os.unlink(deb)
    with open(os.path.join(folder, "names"), "w") as f:
        f.write("\n".join(names) + "\n")
    with open(os.path.join(folder, "complete"), "w"):
        pass
