"""Debian's Xen and kernels, at whatever version apt offers, unpacked and cached.

One folder per set of versions: CACHE/VERSIONS/root is the unpacked packages. Nothing is
installed on this machine.
"""
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess

CACHE = os.environ.get("REEVE_XENLAB_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "reeve-xenlab"
)


# For all of the packages, per attempt.
FETCH_S, ATTEMPTS = 240, 3
UPDATE_S = 120


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


def _ask():
    """{package: version} of what Debian's metapackages stand for today; None without."""
    hypervisor = _depends("xen-system-amd64", r"xen-hypervisor-[0-9.]+-amd64")
    utils = _depends("xen-system-amd64", r"xen-utils-[0-9.]+")
    kernel = _depends("linux-image-amd64", r"linux-image-[0-9][^ \n]*")
    cloud = _depends("linux-image-cloud-amd64", r"linux-image-[0-9][^ \n]*")
    names = [hypervisor, utils, kernel, cloud, "xen-utils-common", "xenstore-utils"]
    if None in names:
        return None
    shown = _apt("show", "--no-all-versions", *names)
    versions = dict(re.findall(r"^Package: (\S+)\n(?:.*\n)*?Version: (\S+)$", shown, re.M))
    return {name: versions.get(name, "") for name in names}


def _offered():
    """As _ask, remembered until apt's lists change: asking apt takes seconds."""
    lists = "/var/lib/apt/lists"
    if not os.path.isdir(lists):
        raise Missing("the lab needs Debian's packages, and there is no apt here")
    stamp = str(os.stat(lists).st_mtime_ns)
    memory = os.path.join(CACHE, "offered.json")
    try:
        with open(memory) as f:
            known = json.load(f)
        if known["stamp"] == stamp:
            return known["packages"]
    except (OSError, ValueError, KeyError):
        pass
    found = _ask()
    if found:
        os.makedirs(CACHE, exist_ok=True)
        with open(memory, "w") as f:
            json.dump({"stamp": stamp, "packages": found}, f)
    return found


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


def _update():
    """Without network apt's lists stay as they are."""
    try:
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False,
                       timeout=UPDATE_S)
    except (subprocess.TimeoutExpired, OSError):
        pass


def get(log):
    """The newest packages apt offers; the cached ones where apt knows none."""
    if not _offered():
        old = _newest()
        if old:
            return Packages(old)
        log("apt knows no Xen packages: apt-get update")
        _update()
    for _ in range(ATTEMPTS):
        offered = _offered()
        if not offered:
            raise Missing("apt offers no xen-system-amd64: is this Debian, with network?")
        key = "\n".join(f"{name} {version}" for name, version in offered.items())
        folder = os.path.join(CACHE, hashlib.sha256(key.encode()).hexdigest()[:16])
        if os.path.exists(os.path.join(folder, "complete")):
            return Packages(folder)
        why = _fetch(list(offered), folder, log)
        if why is None:
            return Packages(folder)
        log(f"apt-get download failed: {why}")
        # Lists older than the archive name versions, and kernels, that are gone.
        _update()
    old = _newest()
    if old:
        log("going on with the packages that were fetched before")
        return Packages(old)
    raise Missing(f"Debian's Xen packages can't be fetched: {why}")


def _download(names, folder):
    """None, or why not all of the packages came."""
    try:
        done = subprocess.run(
            ["apt-get", "-q", "-o", "Acquire::Retries=3", "download", *names],
            cwd=folder, capture_output=True, text=True, timeout=FETCH_S, check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {FETCH_S} s"
    if done.returncode == 0:
        return None
    return next((line for line in done.stderr.splitlines() if line.startswith("E: ")), "E: no reason told")


def _fetch(names, folder, log):
    """None, or why not."""
    log("fetching Debian's Xen and kernels, about 100 MB, once: " + " ".join(names))
    shutil.rmtree(folder, ignore_errors=True)
    root = os.path.join(folder, "root")
    os.makedirs(root)
    why = _download(names, folder)
    if why is not None:
        return why
    for deb in sorted(glob.glob(os.path.join(folder, "*.deb"))):
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True, timeout=300)
        os.unlink(deb)
    with open(os.path.join(folder, "names"), "w") as f:
        f.write("\n".join(names) + "\n")
    with open(os.path.join(folder, "complete"), "w"):
        pass
    return None
