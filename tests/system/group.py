"""The local group that may call: its members get in with the role that was set for it, and
nobody else does.

usage: group.py
"""
import grp
import os
import shutil
import subprocess
import tempfile

import host

NOBODY = 65534


def as_nobody(h, gid, *words):
    """What `reeve` says to a user who is in that group alone."""
    return subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={gid}", "--clear-groups",
         f"{h.directory}/reeve", f"--url=ipc://{h.socket}", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def main():
    group, other = grp.getgrgid(1), grp.getgrgid(2)
    base = tempfile.mkdtemp(prefix="reeve-group-")
    os.chmod(base, 0o755)
    shutil.copy(f"{host.BUILD}/cli/reeve", base)  # that user may not enter the build's folder
    h = host.Host(base, {"rpc.group": group.gr_name})
    try:
        h.start().close()
        for name in ("rpc.sock", "events.sock"):
            there = os.stat(f"{base}/run/{name}")
            assert (there.st_gid, there.st_mode & 0o777) == (group.gr_gid, 0o660), there
        member = as_nobody(h, group.gr_gid, "host-list", "--minimal")
        assert member.returncode == 0 and member.stdout.strip(), member
        change = as_nobody(h, group.gr_gid, "vm-create", "name-label=web1")
        assert change.returncode and "RBAC_PERMISSION_DENIED" in change.stderr, change
        stranger = as_nobody(h, other.gr_gid, "host-list")
        assert stranger.returncode, stranger
        h.stop()
    finally:
        if h.process and h.process.poll() is None:
            h.kill()
        shutil.rmtree(base)
    print("group: all right")


if __name__ == "__main__":
    main()
