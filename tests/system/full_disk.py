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


def mount_small(directory):
    os.makedirs(directory)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "reeve", directory]).returncode == 0


def fill(directory):
    """Takes whatever is left, to the last byte."""
    with open(f"{directory}/ballast", "wb") as f:
        try:
            while True:
                f.write(b"x" * 65536)
                f.flush()
        except OSError:
            pass


def write_until_refused(client, vm):
    last = None
    for i in range(200000):
        try:
            client.change("VM.set_fields", self=vm, fields={"name_description": f"{i} " + "x" * 4000})
            last = i
        except rpc.Refused as e:
            assert e.code == "SR_FULL", e
            assert e.retryable, e
            return last, str(e)
    raise AssertionError("never refused")


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
    finally:
        if h.process and h.process.poll() is None:
            h.kill()
        subprocess.run(["umount", "-l", state], check=True)
    shutil.rmtree(directory)


main()
