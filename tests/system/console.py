"""The consoles of VMs on real daemons: from any host, by several watchers, over a reboot and a
migration, typed once though sent twice, and through the `reeve` command.

usage: console.py
"""
import shutil
import subprocess
import tempfile
import uuid

import host
import pool
import rpc


def read_until(client, vm, wanted, position="", patience=30):
    """All that the console shows from `position` on, until `wanted` is in it."""
    shown = b""

    def more():
        nonlocal shown, position
        try:
            answer = client.call("VM.console_read", self=vm, position=position, timeout_ms=2000)
        except rpc.Refused as e:
            assert e.retryable or e.code == "VM_BAD_POWER_STATE", e
            return False
        shown += answer["bytes"]
        position = answer["position"]
        return wanted in shown

    pool.until(f"the console shows {wanted}", more, patience)
    return shown, position


def start_vm(client, name):
    vm = client.change("VM.create", record={
        "name_label": name, "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz",
        "domain_type": "pvh", "platform": {"sim.boot": "10ms"}})
    print(pool.refused("VM_BAD_POWER_STATE", client, "VM.console_read", self=vm))
    client.change("VM.start", self=vm)
    return vm


def test_watchers(members, vm):
    """Each host shows the same; a watcher who comes later sees what was before."""
    clients = [m.client() for m in members]
    for client in clients:
        pool.until("it follows", lambda c=client: vm in c.call("VM.get_all"))
        read_until(client, vm, b"simulated guest")
    clients[0].change("VM.console_write", self=vm, text="uptime\r")
    seen = [read_until(c, vm, b" MiB")[0] for c in clients]
    assert seen[0] == seen[1], seen
    request = str(uuid.uuid4())
    shown, position = read_until(clients[0], vm, b" MiB")
    for _ in range(3):
        clients[1].call("VM.console_write", self=vm, text="twice\r", request=request)
    clients[1].change("VM.console_write", self=vm, text="end\r")
    shown, _ = read_until(clients[0], vm, b"end", position)
    assert shown.count(b"twice\r") <= 1 and b"twice" in shown, shown
    print("typed once, shown at every host")
    for client in clients:
        client.close()


def test_goes_on(members, client, vm):
    """A reboot, then a migration, under a watcher who only knows his last position."""
    _, position = read_until(client, vm, b"simulated guest")
    client.change("VM.hard_reboot", self=vm)
    _, position = read_until(client, vm, b"simulated guest", position)
    hosts = client.call("host.get_all")
    here = client.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)["resident_on"]
    there = next(h for h in hosts if h != here)
    client.change("VM.migrate", self=vm, host=there)
    client.change("VM.console_write", self=vm, text="uptime\r", min_seq=rpc.Client.seen)
    read_until(client, vm, b"uptime", position)
    print("a reboot and a migration are seen through")


def test_limits(client, vm):
    pool.refused("MESSAGE_PARAMETER_INVALID", client, "VM.console_read", self=vm, timeout_ms=60001)
    for bad in ("x", "zz:-1", "ffffffffffffffff:99999999999", ":", "1:1" * 50):
        assert client.call("VM.console_read", self=vm, position=bad)["bytes"], bad


def test_command(reeve, member, vm):
    done = subprocess.run([reeve, "--url", f"ipc://{member.socket}", "console", f"vm={vm}"],
                          input=b"uptime\r", capture_output=True, timeout=60)
    assert done.returncode == 0, done
    assert b"uptime" in done.stdout and b" MiB" in done.stdout, done
    done = subprocess.run([reeve, "--url", f"ipc://{member.socket}", "console", "vm=nobody"],
                          input=b"", capture_output=True, timeout=60)
    assert done.returncode == 1 and b"nobody" in done.stderr, done


def main():
    base = tempfile.mkdtemp(prefix="reeve-console-")
    members = [pool.Member(base, f"host{i + 1}") for i in range(2)]
    try:
        client = pool.form(members)
        vm = start_vm(client, "web1")
        test_watchers(members, vm)
        test_limits(client, vm)
        test_goes_on(members, client, vm)
        for member in members:
            test_command(f"{host.BUILD}/cli/reeve", member, vm)
        # Readers who wait while the daemon ends.
        waiting = members[1].client()
        _, position = read_until(waiting, vm, b"# ")
        waiting.send("VM.console_read", self=vm, position=position, timeout_ms=60000)
        client.close()
        for member in reversed(members):
            member.stop()
    finally:
        for member in members:
            if member.process and member.process.poll() is None:
                member.kill()
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
