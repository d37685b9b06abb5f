"""Fencing on real Xen (docs/fencing.md): a protected guest runs on one host at most, whatever its
host does, and again elsewhere, once; guests that are not protected are left alone."""
import time

from lab import Failed, Lab
from life_job import counting, listed
from pool_job import resident
from reeve import RPC_PORT, Guest, Reeve, form_pool, programs, until

GUARDED, PLAIN = "guarded", "plain"
# pool/lease.h: what a master waits beyond the lease.
WATCHDOG_S, MARGIN_S = 10, 3
FENCED = "mkdir -p /run/reeve; setsid /usr/sbin/reeve-fenced </dev/null >>/var/log/fenced.log 2>&1 &"
# What Xen says on the host's console.
BITTEN = "watchdog rebooting machine"


def host_record(asked, name):
    return next(h for h in asked.records("host-list") if h["name_label"] == name)


def starts(asked):
    """How often the guarded VM was started, by the pool's tasks."""
    uuid = asked.vm(GUARDED)["uuid"]
    return sum(t["method"] == "VM.start" and t["subject"] == uuid and t["status"] == "success"
               for t in asked.records("task-list"))


def strike(lab, hosts, script, what):
    """The host of the guarded VM is struck; when."""
    lab.say(f"--- {what}")
    until(f"{GUARDED} is armed", lambda: hosts[0].vm(GUARDED)["ha_armed"], 120)
    struck = time.time()
    hosts[1].machine.sh(script)
    return struck


def ended(lab, victim, struck):
    """VICTIM's reeve-fenced has ended the guarded guest; its last sign of life."""
    machine = victim.machine
    until(f"{GUARDED} is ended on {machine.name}", lambda: listed(machine, GUARDED) is None, 120, step=0.5)
    lab.say(f"reeve-fenced ended {GUARDED} within {time.time() - struck:.0f} s")
    return Guest(GUARDED).last(machine)["real"]


def elsewhere(lab, other, struck, before):
    """It is started on OTHER, once; its first sign of life there."""
    def there():
        vm = other.vm(GUARDED)
        return vm["power_state"] == "Running" and resident(other, GUARDED) == other.machine.name

    until(f"{GUARDED} runs on {other.machine.name}", there, 240)
    took = time.time() - struck
    first = until("it counts there", lambda: next(
        (t["real"] for t in Guest(GUARDED).ticks(other.machine) if t["real"] > struck), None), 300, step=0.3)
    if starts(other) != before + 1:
        raise Failed(f"it was started {starts(other) - before} times")
    if took < WATCHDOG_S + MARGIN_S:
        raise Failed(f"it was started elsewhere after {took:.0f} s: the watchdog's time was not waited")
    lab.say(f"{GUARDED} runs on {other.machine.name} {took:.0f} s after its host was struck")
    return first


def one_at_a_time(last, first):
    if first <= last:
        raise Failed(f"{GUARDED} ran on two hosts for {last - first:.1f} s")


def back(other, victim, domid):
    """The struck host is well again: the plain guest ran on, of the other nothing is left."""
    machine = victim.machine
    until(f"{machine.name} is back", lambda: host_record(other, machine.name)["fencing"] == "armed"
          and host_record(other, machine.name)["live"], 180)
    vm = other.vm(PLAIN)
    if vm["domid"] != domid or vm["power_state"] != "Running" or listed(machine, GUARDED) is not None:
        raise Failed(f"after its return: {PLAIN} is {vm['power_state']}\n{machine.sh('xl list')}")
    ghosts = other.run("host-ghost-list", f"host={machine.name}", "--json")[1].strip()
    if ghosts not in ("", "[]"):
        raise Failed(f"{machine.name} has ghosts: {ghosts}")


def survived(lab, hosts, blow, cure, what):
    """A blow that does not end the host: its reeve-fenced ends the guest."""
    other, victim = hosts
    machine, domid = victim.machine, other.vm(PLAIN)["domid"]
    before, struck = starts(other), strike(lab, hosts, blow, what)
    try:
        last = ended(lab, victim, struck)
        plain = Guest(PLAIN).last(machine)["n"]
        one_at_a_time(last, elsewhere(lab, other, struck, before))
        Guest(PLAIN).wait_count(machine, plain)
    finally:
        machine.sh(cure)
    back(other, victim, domid)


def told(lab, other):
    words = [m["body"] for m in other.records("message-list") if m["name"] == "HOST_FENCED"]
    if len(words) != 1 or GUARDED not in words[0] or PLAIN in words[0]:
        raise Failed(f"what is told of it: {words}")
    lab.say(f"told: {words[0]}")


def bitten(lab, hosts):
    """reeve-fenced is killed: nobody keeps Xen's watchdog quiet."""
    other, machine = hosts[0], hosts[1].machine
    before = starts(other)
    struck = strike(lab, hosts, "kill -9 $(pidof reeve-fenced)", f"reeve-fenced of {machine.name} is killed")
    until("the watchdog restarts the host", lambda: not machine.alive(), 120, step=0.2)
    off = time.time()
    lab.say(f"Xen restarted {machine.name} after {off - struck:.0f} s")
    with open(machine.log, errors="replace") as log:
        if BITTEN not in log.read():
            raise Failed(f"{machine.name} ended otherwise: {list(machine.tail)[-5:]}")
    one_at_a_time(off, elsewhere(lab, other, struck, before))


def return_guarded(hosts):
    """Where the next blow will be."""
    at = Guest(GUARDED).last(hosts[1].machine)["n"]
    hosts[0].run("vm-shutdown", f"vm={GUARDED}", "force=true")
    hosts[0].run("vm-start", f"vm={GUARDED}", f"on={hosts[1].machine.name}")
    Guest(GUARDED).wait_anew(hosts[1].machine, at)


def run(arguments):
    """Two hosts; protected guests of one that is frozen, cut off, restarted by its watchdog."""
    with Lab("fencing", programs(), arguments.keep_logs) as lab:
        machines = lab.boot(("host1", "host2"), memory=1152, dom0=640, limit=1800, ports=(RPC_PORT,))
        hosts = [Reeve(machine) for machine in machines]
        for machine in machines:
            machine.sh(FENCED)
        form_pool(lab, hosts)
        for machine in machines:
            until(f"{machine.name} is armed", lambda name=machine.name:
                  host_record(hosts[0], name)["fencing"] == "armed", 120)
        counting(hosts[1], PLAIN)
        counting(hosts[1], GUARDED)
        hosts[0].run("vm-param-set", f"vm={GUARDED}", "ha-restart-priority=restart")
        survived(lab, hosts, "kill -STOP $(pidof reeved)", "kill -CONT $(pidof reeved)",
                 "reeved of host2 is frozen")
        told(lab, hosts[0])
        return_guarded(hosts)
        survived(lab, hosts, "ip link set eth1 down", "ip link set eth1 up", "host2 is cut off")
        return_guarded(hosts)
        bitten(lab, hosts)
        lab.say("the protected guest was ended in time, and started elsewhere once, each time")
