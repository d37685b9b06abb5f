"""The target of a live migration loses power, in each phase: one owner, whatever happens."""
import os
import time

from bad_jobs import same_life
from lab import Failed, Lab
from life_job import counting, listed
from pool_job import resident
from reeve import RPC_PORT, Guest, Reeve, form_pool, programs, until

NAME = "moving"
# Connections to the port of hosts, 7473: a migration makes one of its own.
LINKS = "cat /proc/net/tcp /proc/net/tcp6 | grep -c ':1D31 '"
# What the source's dom0 sees first of each phase. Its eyes are quicker than ours, and the last
# phase is short.
SEEN = {
    "prepare": f"until [ $({LINKS}) -gt $links ]; do sleep 0.05; done",
    "stream": "until pidof reeve-xen-helper; do sleep 0.1; done; sleep 5",
    # The guest is suspended: from now on its last pages, then the hand-over.
    "final": "until xl list $domid | tail -n 1 | grep -q -- '--s--'; do sleep 0.05; done",
}


def lose(lab, hosts, phase):
    """Draws the target's plug when the migration is in PHASE."""
    source, target = hosts
    guest, machine = Guest(NAME), source.machine
    before, domid = guest.last(machine), listed(machine, NAME)
    sign = os.path.join(machine.share, phase)
    machine.start_job("look", f"domid={domid} links=$({LINKS})\n"
                      f"touch /mnt/lab/ready-{phase}\n{SEEN[phase]}\ntouch /mnt/lab/{phase}")
    until("the look-out stands", lambda: os.path.exists(os.path.join(machine.share, f"ready-{phase}")), 60)
    machine.start_job("move", f"reeve vm-migrate vm={NAME} host={target.machine.name} live=true accept=true")
    until(f"the migration is in {phase}", lambda: os.path.exists(sign), 400, step=0.01)
    target.machine.power_off()
    lost = time.monotonic()
    status, words = machine.end_job("move", 300)
    lab.say(f"{phase}: status {status} after {time.monotonic() - lost:.0f} s: {words.strip()}")
    until("it is decided", lambda: not source.vm(NAME)["current_operations"], 200)
    if resident(source, NAME) == target.machine.name:
        # It had been handed over: it died with its owner, and is never run from old memory.
        until("the source has let it go", lambda: listed(machine, NAME) is None, 120)
        return f"it was {target.machine.name}'s by then, and lost with it"
    if status == 0:
        raise Failed(f"{NAME} has moved, says Reeve, but it is not {target.machine.name}'s")
    if source.state(NAME) != "Running":
        raise Failed(f"{NAME} is {source.state(NAME)} after its target was lost in {phase}")
    same_life(guest, machine, before, f"its target was lost in {phase}")
    return f"it goes on at {machine.name}"


def replace(lab, hosts, name):
    """The lost host's disk was memory: it is declared dead, and a new one joins."""
    lost = hosts[1].machine
    hosts[0].run("host-declare-dead", f"host={lost.name}", "force=true")
    hosts[0].run("pool-eject", f"host={lost.name}")
    lost.name = name
    lost.start()
    lost.wait_ready()
    lab.say(f"{name} takes its place")
    hosts[1] = Reeve(lost)
    form_pool(lab, hosts)


def run(arguments):
    """Two hosts; the target is powered off in each phase of a migration."""
    unknown = [phase for phase in arguments.phases if phase not in SEEN]
    if unknown:
        raise Failed(f"no such phase: {' '.join(unknown)}; there are: {' '.join(SEEN)}")
    with Lab("target-lost", programs(), arguments.keep_logs) as lab:
        machines = lab.boot(("host1", "host2"), memory=1280, dom0=512, ports=(RPC_PORT,), limit=1800)
        hosts = [Reeve(machine) for machine in machines]
        form_pool(lab, hosts)
        for number, phase in enumerate(arguments.phases):
            if number:
                replace(lab, hosts, f"host{number + 2}")
            if hosts[0].vm(NAME) is None:
                counting(hosts[0], NAME, "pvh", 96, "work=4 dirty=2")
            elif hosts[0].state(NAME) != "Running":
                hosts[0].run("vm-start", f"vm={NAME}", f"on={hosts[0].machine.name}")
                Guest(NAME).wait_count(hosts[0].machine)
            lab.say(f"target lost in {phase}: " + lose(lab, hosts, phase))
