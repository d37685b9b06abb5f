#!/usr/bin/python3
"""The pool's database in a file and back, by the command line, on real daemons: the pool goes on
after the dump, the restore is asked of a host that is not the master, both hosts have the result.

usage: dump.py
"""
import os
import shutil
import subprocess
import tempfile

import rpc
from pool import Member, form, until

BUILD = os.environ["REEVE_BUILD"]


def reeve(member, *words, code=0):
    done = subprocess.run([f"{BUILD}/cli/reeve", "--url", f"ipc://{member.socket}", *words],
                          capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    print("$", *words, "->", done.returncode, done.stdout, done.stderr, sep=" ")
    assert done.returncode == code, (words, done)
    return done.stdout + done.stderr


def by_name(client, cls):
    found = client.call(f"{cls}.get_all_records", min_seq=rpc.Client.seen)
    return {r["name_label"]: u for u, r in found.items()}


def vm(client, name):
    return client.change("VM.create", record={
        "name_label": name, "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})


def pool_of(client):
    return list(client.call("pool.get_all_records", min_seq=rpc.Client.seen).values())[0]


def main():
    base = tempfile.mkdtemp(prefix="reeve-dump-")
    members = [Member(base, f"host{i + 1}") for i in range(2)]
    dump, bad = f"{base}/pool.dump", f"{base}/bad.dump"
    try:
        first, second = members
        client = form(members)
        kept = vm(client, "kept")
        vm(client, "lost")
        before = pool_of(client)
        reeve(second, "pool-database-dump", f"filename={dump}")
        assert os.stat(dump).st_mode & 0o777 == 0o600
        with open(dump, "rb") as f:
            head = f.read(400)
        assert head.startswith(b"REEVE-DUMP 1\n") and before["uuid"].encode() in head
        reeve(second, "pool-database-dump", f"filename={dump}", code=1)  # never over a file

        # The pool goes on.
        client.change("VM.destroy", self=by_name(client, "VM")["lost"])
        vm(client, "later")
        client.change("VM.set_fields", self=kept, fields={"name_label": "renamed"})

        # One damaged byte anywhere; a file cut short; no dump at all.
        with open(dump, "rb") as f:
            whole = f.read()
        for at in (5, 60, len(head) + 200, len(whole) - 3):
            with open(bad, "wb") as f:
                f.write(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:])
            assert "DATA_CORRUPT" in reeve(
                second, "pool-database-restore", f"filename={bad}", "force=true", code=1)
        for part in (whole[:-10], b"hello"):
            with open(bad, "wb") as f:
                f.write(part)
            reeve(second, "pool-database-restore", f"filename={bad}", "force=true", code=1)

        # Nobody can be asked; it is told what would be lost. Nor while a VM runs.
        words = reeve(second, "pool-database-restore", f"filename={dump}", code=2)
        assert "later" in words and "force=true" in words
        client.change("VM.start", self=kept)
        words = reeve(second, "pool-database-restore", f"filename={dump}", "force=true", code=1)
        assert "renamed" in words and "OPERATION_NOT_ALLOWED" in words
        client.change("VM.hard_shutdown", self=kept)
        until("its last steps are done", lambda: not client.call(
            "VM.get_record", self=kept)["current_operations"])
        assert set(by_name(client, "VM")) >= {"renamed", "later"}

        reeve(second, "pool-database-restore", f"filename={dump}", "force=true")
        after = pool_of(client)
        assert after["generation_number"] == before["generation_number"] + 1, (before, after)
        assert after["generation_id"] != before["generation_id"]
        for m in members:
            other = m.client()
            until(f"{m.name} has it", lambda: pool_of(other)["generation_id"] ==
                  after["generation_id"])
            names = by_name(other, "VM")
            assert names["kept"] == kept and "lost" in names, names
            assert "later" not in names and "renamed" not in names, names
            other.close()
        # It is a pool that works.
        client.change("VM.start", self=kept)
        client.change("VM.start", self=by_name(client, "VM")["lost"])
        for name in ("kept", "lost"):
            client.change("VM.hard_shutdown", self=by_name(client, "VM")[name])
        client.close()
    except BaseException:
        for m in members:
            print(m.name, m.tail())
        raise
    finally:
        for m in members:
            if m.process and m.process.poll() is None:
                m.stop()
    shutil.rmtree(base)


main()
