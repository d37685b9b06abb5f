"""Three real daemons, a reeve-fenced beside each. A frozen host's protected VM is ended by its
reeve-fenced when the lease runs out, and started elsewhere only after that; what is not
protected is left alone. A reeve-fenced that is killed takes its host with it; a change of
master meanwhile changes nothing.

usage: fencing.py
"""
import os
import shutil
import signal
import subprocess
import tempfile
import time

import failover
import host
import rpc

LEASE_MS = 5000
# pool/lease.h: what a master waits beyond the lease.
WATCHDOG_S, MARGIN_S = 10, 3


class Member(failover.Member):
    """One host: reeved, and its reeve-fenced."""

    fenced = None

    def fence(self):
        with open(f"{self.directory}/fenced.log", "ab") as log:
            self.fenced = subprocess.Popen(
                [f"{host.BUILD}/fence/reeve-fenced", f"--socket={self.directory}/run/fenced.sock",
                 f"--simulated={self.directory}/state/simulated-machine"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def fenced_log(self):
        with open(f"{self.directory}/fenced.log", errors="replace") as log:
            return log.read()

    def end(self):
        for process in (self.process, self.fenced):
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


def form(base):
    members = [Member(base, f"host{i}") for i in (1, 2, 3)]
    for m in members:
        m.start().close()
    # Those who wait count on it a while later.
    members[0].change("pool.set_fields", self=members[0].ask("pool.get_all")[0], fields={"lease_ms": LEASE_MS})
    for m in members[1:]:
        m.join(members[0], members[0].change("pool.issue_join_token"))
    failover.until("three vote", lambda: failover.voters(members[0]) == 3)
    return members


def vm_record(members, vm):
    for m in members:
        record = m.try_ask("VM.get_record", self=vm)
        if record:
            return record
    return None


def run_vm(member, name, where):
    vm = member.change("VM.create", record={
        "name_label": name, "memory_static_max": 256 << 20, "PV_kernel": "/boot/vmlinuz"})
    failover.until(f"{name} runs", lambda: start(member, vm, where))
    return vm


def start(member, vm, where):
    try:
        member.change("VM.start", self=vm, on=where)
        return True
    except rpc.Refused as e:
        assert e.retryable, e
        return False


def protect(member, vm):
    member.change("VM.set_fields", self=vm, fields={"ha_restart_priority": "restart"})
    failover.until("it is armed", lambda: vm_record([member], vm)["ha_armed"])


def messages(member, name):
    return [m["body"] for m in member.ask("message.get_all_records").values() if m["name"] == name]


def restarted(asked, vm, dead):
    r = vm_record(asked, vm)
    return r and r["power_state"] == "Running" and r["resident_on"] != dead and r


def starts_of(member, vm):
    return sum(t["method"] == "VM.start" and t["subject"] == vm and t["status"] == "success"
               for t in member.ask("task.get_all_records").values())


def test_refused_without_it(members):
    vm = members[0].change("VM.create", record={
        "name_label": "none", "memory_static_max": 256 << 20, "PV_kernel": "/boot/vmlinuz"})
    try:
        members[0].change("VM.set_fields", self=vm, fields={"ha_restart_priority": "restart"})
        raise AssertionError("protected without reeve-fenced")
    except rpc.Refused as e:
        assert e.code == "OPERATION_NOT_ALLOWED", e
        assert "systemctl enable --now reeve-fenced" in str(e), e
        print(e)


def test_frozen(members):
    first, frozen = members[0], members[2]
    dead = first.uuid_of(frozen.name)
    guarded, plain = run_vm(first, "guarded", dead), run_vm(first, "plain", dead)
    protect(first, guarded)
    before = vm_record([first], plain)
    lease = first.ask("host.get_record", self=dead)["lease_until"]
    assert lease, "lease_until is shown"

    frozen.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    frozen.process.wait(60)  # its reeve-fenced ends the simulated host's processors
    ended = time.monotonic()
    r = vm_record([first], guarded)
    assert r["resident_on"] == dead, f"started elsewhere before it was fenced: {r}"
    failover.until("its domain is destroyed", lambda: "act=destroy" in frozen.fenced_log())
    failover.until("it runs elsewhere", lambda: restarted([first], guarded, dead))
    again = time.monotonic()
    print(f"fenced after {ended - stopped:.1f} s, started elsewhere after {again - stopped:.1f} s")
    # The last renewal came LEASE_MS / 5 before, at most, if the machine did not dawdle.
    assert again - stopped >= WATCHDOG_S + MARGIN_S, "the watchdog's time was not waited"
    r = vm_record([first], plain)
    assert r["resident_on"] == dead and r["power_state"] == "Running", r
    fenced, told = messages(first, "HOST_FENCED"), messages(first, "VM_RESTARTED")
    assert len(fenced) == 1 and "guarded" in fenced[0] and "plain" not in fenced[0], fenced
    failover.until("it is told", lambda: len(messages(first, "VM_RESTARTED")) == 1)
    print(fenced[0], told)

    # The host's reeved comes back: what was not protected ran on, the other is not there.
    frozen.start().close()
    failover.until("it is armed again", lambda: frozen.ask("host.get_record", self=dead)["fencing"] == "armed")
    failover.until("it is settled", lambda: not vm_record([frozen], plain)["current_operations"])
    r = vm_record([frozen], plain)
    assert r["domid"] == before["domid"] and r["power_state"] == "Running", r
    assert not frozen.ask("host.ghost_list", self=dead), "the fenced one is a ghost"
    assert starts_of(first, guarded) == 2, "started exactly once more"


def test_killed_fenced(members):
    """Its watchdog restarts the host; meanwhile another one becomes the master."""
    first, victim, third = members
    dead = first.uuid_of(victim.name)
    guarded = run_vm(first, "watched", dead)
    protect(first, guarded)
    victim.fenced.kill()
    victim.fenced.wait()
    victim.process.wait(60)
    failover.until("the watchdog has told", lambda: "restarts" in victim.fenced_log())
    first.change("pool.designate_new_master", host=first.uuid_of(third.name))
    failover.until("it runs elsewhere", lambda: restarted([first, third], guarded, dead))
    failover.until("it is told", lambda: any("watched" in m for m in messages(third, "VM_RESTARTED")))
    assert starts_of(third, guarded) == 2, "started exactly once more"


def test_started_again(members):
    """A reeve-fenced that is killed and started again takes the watchdog over: the VM runs on."""
    first = members[0]
    here = first.uuid_of(first.name)
    guarded = run_vm(first, "kept", here)
    protect(first, guarded)
    domid = vm_record([first], guarded)["domid"]
    first.fenced.kill()
    first.fenced.wait()
    first.fence()
    time.sleep(WATCHDOG_S + 2)
    assert first.fenced.poll() is None, first.fenced_log()
    assert first.process.poll() is None, f"its host was restarted: {first.fenced_log()}"
    assert "restarts" not in first.fenced_log(), first.fenced_log()
    failover.until("it is armed again", lambda: first.ask("host.get_record", self=here)["fencing"] == "armed")
    r = vm_record([first], guarded)
    assert r["domid"] == domid and r["ha_armed"], r


def test_ends_only_when_idle(members):
    """A guest that is protected keeps reeve-fenced from ending; an end of protection lets it."""
    first = members[0]
    vms = first.ask("VM.get_all_records")
    here = [uuid for uuid, r in vms.items() if r["ha_restart_priority"]]
    for uuid in here:
        first.change("VM.set_fields", self=uuid, fields={"ha_restart_priority": ""})
    for uuid in here:
        failover.until("it is not armed", lambda: not vm_record([first], uuid)["ha_armed"])

    def ended():
        first.fenced.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        return first.fenced.poll() is not None
    failover.until("reeve-fenced ends", ended)
    assert first.fenced.returncode == 0, first.fenced_log()


def main():
    base = tempfile.mkdtemp(prefix="reeve-fencing-")
    members = []
    try:
        members = form(base)
        pool = members[0].ask("pool.get_all")[0]
        test_refused_without_it(members)
        for m in members:
            m.fence()
        for m in members:
            uuid = members[0].uuid_of(m.name)
            failover.until("it is armed", lambda: members[0].ask(
                "host.get_record", self=uuid)["fencing"] == "armed")
        failover.until("leases are short", lambda: members[0].ask(
            "pool.get_record", self=pool)["lease_longest_ms"] == LEASE_MS)
        test_frozen(members)
        test_killed_fenced(members)
        test_started_again(members)
        test_ends_only_when_idle(members)
    finally:
        for m in members:
            m.end()
        shutil.rmtree(base)
    print("fencing: all right")


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"{time.monotonic() - begun:.0f} s")
