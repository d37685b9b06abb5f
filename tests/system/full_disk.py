"""The disk of the database runs full, and is freed again: clear refusals, no loss, no restart.

usage: full_disk.py      (exit status 77, said aloud, where a small file system can't be mounted)
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

import host
import rpc
from pool import Member, form, until


def mount_small(directory):
    os.makedirs(directory)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "reeve", directory]).returncode == 0


def free_bytes(directory):
    st = os.statvfs(directory)
    return st.f_bavail * st.f_frsize


def fill(directory, leave=0):
    """Takes whatever is left, but for so many bytes."""
    with open(f"{directory}/ballast", "wb") as f:
        try:
            while leave == 0 or free_bytes(directory) > leave:
                f.write(b"x" * 65536)
                f.flush()
        except OSError:
            pass


def write_until_refused(client, vm, codes=("SR_FULL",)):
    last = None
    for i in range(200000):
        try:
            client.change("VM.set_fields", self=vm, fields={"name_description": f"{i} " + "x" * 4000})
            last = i
        except rpc.Refused as e:
            assert e.code in codes, e
            assert e.retryable, e
            return last, str(e)
    raise AssertionError("never refused")


def told_of(client, name):
    return [m["body"] for m in client.call("message.get_all_records").values() if m["name"] == name]


def told_beforehand(client, state):
    """That little is left, while it can be told; and that there is enough again."""
    host = list(client.call("host.get_all_records").values())[0]
    assert not host["state_disk_low"] and host["state_disk_free"] > 5 << 20, host
    fill(state, leave=3 << 20)
    until("it is told of", lambda: told_of(client, "HOST_DISK_LOW"), 60)
    assert state in told_of(client, "HOST_DISK_LOW")[0], told_of(client, "HOST_DISK_LOW")
    assert list(client.call("host.get_all_records").values())[0]["state_disk_free"] < 5 << 20
    os.unlink(f"{state}/ballast")
    until("there is room again", lambda: told_of(client, "HOST_DISK_HAS_ROOM"), 60)
    assert len(told_of(client, "HOST_DISK_LOW")) == 1


def wait_for(h, look, patience=60):
    """A client that `look` is true of."""
    end = time.monotonic() + patience
    while True:
        try:
            client = rpc.Client(h.socket)
            if look(client):
                return client
            client.close()
        except (OSError, rpc.Refused):
            pass
        assert h.process.poll() is None, h.tail()
        assert time.monotonic() < end, "not within a minute; " + h.tail()
        time.sleep(0.1)


def answers(client):
    """Whether questions are answered; they never are from a database that was not read."""
    try:
        assert client.call("pool.get_all"), "an empty database was shown"
        return True
    except rpc.Refused as e:
        assert e.code == "SR_FULL" and "free some space" in str(e), e
        return False


def takes_changes(client, vm):
    try:
        client.change("VM.set_fields", self=vm, fields={"name_description": "again"})
        return True
    except rpc.Refused as e:
        assert e.retryable, e
        return False


def full_at_start(h, client, state, vm, snapshot):
    """Killed and started on a full disk: it says so, and goes on by itself when there is space."""
    if snapshot:  # what it can tell then
        for i in range(20000):
            client.send("VM.set_fields", self=vm, fields={"name_description": f"{i}"})
            if i % 100 == 99:
                for _ in range(100):
                    client.receive()
    fill(state)
    write_until_refused(client, vm)
    client.close()
    h.kill()
    fill(state)
    h.start(wait=False)
    client = wait_for(h, lambda c: answers(c) or not snapshot)
    if snapshot:
        assert client.call("VM.get_record", self=vm)["name_label"] == "vm1"
    try:
        client.change("VM.set_fields", self=vm, fields={"name_description": "never"})
        raise AssertionError("changed without space")
    except rpc.Refused as e:
        print(f"at the start: {e}")
        assert e.code == "SR_FULL" and e.retryable and "free some space" in str(e), e
    client.close()
    os.unlink(f"{state}/ballast")
    wait_for(h, lambda c: answers(c) and takes_changes(c, vm)).close()


def full_master(directory):
    """A pool of three whose master's disk fills up: another host leads, and takes changes."""
    members = [Member(directory, f"host{i + 1}") for i in range(3)]
    first = members[0]
    mount_small(f"{first.directory}/state")
    try:
        client = form(members)
        vm = client.change("VM.create", record={"name_label": "vm1"})
        until("all vote", lambda: all(
            h["raft_role"] == "voter" for h in client.call("host.get_all_records").values()), 60)
        fill(f"{first.directory}/state")
        # A slow machine has handed over by then: the change that was on its way is unknown.
        write_until_refused(client, vm, ("SR_FULL", "OUTCOME_UNKNOWN"))
        other = members[1].client()
        hosts = {u: h["name_label"] for u, h in other.call("host.get_all_records").items()}
        until("another host leads", lambda: hosts[
            list(other.call("pool.get_all_records").values())[0]["master"]] != "host1", 60)
        until("it takes changes", lambda: takes_changes(other, vm), 60)
        print("the master whose disk is full handed over")
        os.unlink(f"{first.directory}/state/ballast")
        until("the former master follows", lambda: takes_changes(client, vm), 60)
        client.close()
        other.close()
        for member in members:
            member.stop()
    finally:
        for member in members:
            if member.process and member.process.poll() is None:
                member.kill()
        subprocess.run(["umount", f"{first.directory}/state"], check=False)


def main():
    directory = tempfile.mkdtemp(prefix="reeve-full-")
    state = f"{directory}/state"
    if not mount_small(state):
        print("SKIPPED: no right to mount a tmpfs here")
        sys.exit(77)
    h = host.Host(directory)
    try:
        client = h.start()
        vm = client.change("VM.create", record={"name_label": "vm1"})
        told_beforehand(client, state)
        fill(state)
        last, words = write_until_refused(client, vm)
        print(f"refused after change {last}: {words}")
        assert client.call("VM.get_record", self=vm)["name_description"].startswith(f"{last} ")
        os.unlink(f"{state}/ballast")
        end = time.monotonic() + 30
        while True:
            try:
                client.change("VM.set_fields", self=vm, fields={"name_description": "after"})
                break
            except rpc.Refused as e:
                assert time.monotonic() < end, f"still refused with space free: {e}"
                time.sleep(0.2)
        client.close()
        h.kill()
        client = h.start()
        assert client.call("VM.get_record", self=vm)["name_description"] == "after"
        for snapshot in False, True:
            full_at_start(h, client, state, vm, snapshot)
            client = h.client()
        client.close()
        h.stop()
        print("went on by itself once there was space; nothing lost")
        full_master(directory)
    finally:
        if h.process and h.process.poll() is None:
            h.kill()
        subprocess.run(["umount", "-l", state], check=True)
    shutil.rmtree(directory)


main()
