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
        client.close()
        h.stop()
        print("went on by itself once there was space; nothing lost")
    finally:
        if h.process and h.process.poll() is None:
            h.kill()
        subprocess.run(["umount", "-l", state], check=True)
    shutil.rmtree(directory)


main()
