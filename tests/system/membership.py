"""The life of a membership, on real daemons: leaving a pool and what stands in its way, a host
that learns of it only when it comes back, clocks that differ, a damaged state directory.

usage: membership.py [TEST]...
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import host
import rpc
from pool import Member, form, refused, until

BUILD = os.environ["REEVE_BUILD"]


def records(client, cls, **fields):
    return client.call(f"{cls}.get_all_records", min_seq=rpc.Client.seen, **fields)


def by_name(client, cls):
    return {r["name_label"]: u for u, r in records(client, cls).items()}


def pool_name(client):
    return list(records(client, "pool").values())[0]["name_label"]


def host_count(member):
    try:
        client = rpc.Client(member.socket)
        count = len(client.call("host.get_all"))
        client.close()
        return count
    except (OSError, rpc.Refused):
        return 0


def alone(member):
    """It is up again as a pool of its own."""
    until(f"{member.name} is alone", lambda: host_count(member) == 1, 60)


def messages(client, name):
    return [m for m in records(client, "message").values() if m["name"] == name]


class Test:
    """A pool of its own for each test."""

    def __init__(self, count, settings=None):
        self.base = tempfile.mkdtemp(prefix="reeve-membership-")
        self.members = [Member(self.base, f"host{i + 1}") for i in range(count)]
        for m in self.members:
            m.settings.update(settings or {})

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for m in self.members:
            if not m.process or m.process.poll() is not None:
                continue
            if kind:
                print(m.name, m.tail())
                m.kill()
            else:
                m.stop()
        if not kind:
            shutil.rmtree(self.base)


def vm(client, name, **more):
    return client.change("VM.create", record={
        "name_label": name, "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz", **more})


def test_eject():
    """There and back again: what the host had before joining is there after leaving."""
    with Test(3) as t:
        first, second, third = t.members
        client = second.start()
        client.change("pool.set_fields", self=client.call("pool.get_all")[0],
                      fields={"name_label": "mine"})
        former = vm(client, "before")
        client.close()
        second.stop()
        client = form(t.members)
        hosts = by_name(client, "host")
        refused("HANDLE_INVALID", client, "pool.eject", host="00000000-0000-0000-0000-000000000001")

        # What stands in the way, by name.
        guest = vm(client, "guest")
        client.change("VM.start", self=guest, on=hosts["host2"])
        local = client.change("SR.create", name_label="local2", type="file", host=hosts["host2"],
                              device_config={"location": f"{t.base}/local2"})
        disk = client.change("VDI.create", record={
            "name_label": "precious", "SR": local, "virtual_size": 1 << 20})
        shared = client.change("SR.create", name_label="shared", type="file", shared=True,
                               host=hosts["host2"], device_config={"location": f"{t.base}/shared"})
        client.change("PBD.create", record={"host": hosts["host1"], "SR": shared,
                                            "device_config": {"location": f"{t.base}/shared"}})
        words = refused("OPERATION_NOT_ALLOWED", client, "pool.eject", host=hosts["host2"])
        print(words)
        for name in ("host2", "guest", "local2", "precious", "shared"):
            assert name in words, (name, words)
        client.change("VM.hard_shutdown", self=guest)
        client.change("VDI.destroy", self=disk)
        pbds = {r["host"]: u for u, r in records(client, "PBD").items() if r["SR"] == shared}
        client.change("PBD.plug", self=pbds[hosts["host1"]])
        pif = [u for u, r in records(client, "PIF").items() if r["host"] == hosts["host2"]]

        # Asked of a host that is neither the master nor the one that goes.
        other = third.client()
        until("nothing is at work there", lambda: gone(other, hosts["host2"]))
        assert set(by_name(client, "host")) == {"host1", "host3"}
        assert not [r for r in records(client, "PBD").values() if r["host"] == hosts["host2"]]
        assert not set(pif) & set(records(client, "PIF"))
        assert "local2" not in by_name(client, "SR") and "shared" in by_name(client, "SR")
        print(messages(client, "HOST_EJECTED")[0]["body"])
        alone(second)
        rpc.Client.seen = 0  # another pool counts for itself
        mine = second.client()
        assert pool_name(mine) == "mine"
        assert by_name(mine, "VM") == {"before": former}
        assert list(by_name(mine, "host").values()) == [hosts["host2"]]
        print(messages(mine, "HOST_EJECTED")[0]["body"])
        files = os.listdir(f"{second.directory}/state")
        assert "turnover" not in files and "left" not in files, files
        assert not [f for f in files if f.startswith("member.left")], files
        # The same is said once.
        mine.close()
        second.stop()
        mine = second.start()
        assert len(messages(mine, "HOST_EJECTED")) == 1
        vm(mine, "after")  # and it can be changed
        rpc.Client.seen = 0

        # It may come back, by a new token alone.
        token = client.change("pool.issue_join_token")
        mine.close()
        second.join(first, token)
        until("it is live", lambda: all(h["live"] for h in records(client, "host").values())
              and len(records(client, "host")) == 3)
        until("nothing is at work there", lambda: gone(other, hosts["host2"]))
        alone(second)
        rpc.Client.seen = 0
        mine = second.client()
        assert set(by_name(mine, "VM")) == {"before", "after"}
        mine.close()
        other.close()
        client.close()


def gone(client, uuid):
    try:
        client.change("pool.eject", host=uuid)
        return True
    except rpc.Refused as e:
        assert e.code == "OTHER_OPERATION_IN_PROGRESS", e
        return False


def main():
    tests = {name[5:]: f for name, f in globals().items() if name.startswith("test_")}
    for name in sys.argv[1:] or tests:
        begin = time.monotonic()
        tests[name]()
        print(f"{name}: passed in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
