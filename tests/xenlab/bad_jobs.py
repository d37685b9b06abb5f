"""What goes wrong on real hosts, and what must come of it. Each case leaves the host as it was."""
import datetime
import re
import subprocess
import time

from lab import Failed, Lab
from life_job import clear, counting, free_kib, left_over, listed, one_host
from reeve import HELPERS, Guest, guest_words, programs, until

CASES = {}
# A guest that hears neither of Xen's requests, to suspend and to give memory.
DULL, DULL_ARGS = "dull", "initcall_blacklist=balloon_init,xen_setup_shutdown_event"


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def steady(host):
    """The guest of most cases on this host: it boots once, and must come through all of them."""
    name = f"steady-{host.machine.name}"
    if host.vm(name) is None:
        return counting(host, name)
    guest = Guest(name)
    if host.state(name) != "Running":
        host.run("vm-start", f"vm={name}", f"on={host.machine.name}")
    guest.wait_count(host.machine)
    return guest


def strike_helper(machine, after_s=0.0):
    """A background job that kills the next helper process a while after it started."""
    machine.start_job("strike", HELPERS + "n=0; until p=$(helpers); [ -n \"$p\" ]; do sleep 0.05; n=$((n+1));"
                      f"[ $n -lt 800 ] || exit 1; done; sleep {after_s}; kill -9 $p")


def struck(machine):
    status, output = machine.end_job("strike", 120)
    if status != 0:
        raise Failed(f"nothing was struck: {output}")


def same_life(guest, machine, before, what):
    """It counts on from where it was: neither restarted nor harmed."""
    guest.wait_count(machine, before["n"])
    after = guest.check(machine)[-1]
    if after["up"] < before["up"]:
        raise Failed(f"{guest.name} began anew: {what}")


@case
def helper_killed_building(lab, host):
    """A start whose helper dies leaves no half-made domain, and can be repeated."""
    free, was = free_kib(host.machine), left_over(host.machine)
    host.run(*guest_words("half"))
    for after_s in (0.0, 0.4, 1.0):
        strike_helper(host.machine, after_s)
        status, _, words = host.run("vm-start", "vm=half", f"on={host.machine.name}", check=False)
        struck(host.machine)
        if status == 0:
            # It was struck after its work was done.
            host.run("vm-shutdown", "vm=half", "force=true")
        else:
            lab.say(f"killed {after_s} s into the build: {words.strip()}")
        until("the half-made domain is gone", lambda: left_over(host.machine) == was, 60)
    until("Xen has its memory back", lambda: free - free_kib(host.machine) <= 2048, 30)
    host.run("vm-start", "vm=half", f"on={host.machine.name}")
    clear(host, "half", left=was)


@case
def helper_killed_saving(lab, host):
    """A suspend whose helper dies leaves the guest running as it was."""
    guest = steady(host)
    for after_s in (0.1, 1.0):
        before = guest.last(host.machine)
        strike_helper(host.machine, after_s)
        status, _, words = host.run("vm-suspend", f"vm={guest.name}", check=False)
        struck(host.machine)
        if status == 0:
            host.run("vm-resume", f"vm={guest.name}")
        else:
            lab.say(f"killed {after_s} s into the save: {words.strip()}")
        until("it is running", lambda: host.state(guest.name) == "Running", 90)
        same_life(guest, host.machine, before, "its save was struck")


def dull(host, mib=96, *more):
    """A guest that hears nothing, and runs."""
    return counting(host, DULL, "pvh", mib, DULL_ARGS, *more)


@case
def no_balloon(lab, host):
    """Memory is not asked of a guest without a balloon driver, and none is waited for."""
    was = left_over(host.machine)
    wide = (free_kib(host.machine) >> 10) - 100
    guest = dull(host, wide, f"memory-dynamic-min={wide - 150}MiB")
    before = guest.last(host.machine)
    host.run(*guest_words("next", "pvh", 160))
    words = host.refused("vm-start", "vm=next", f"on={host.machine.name}")
    lab.say(f"told: {words}; the guest counts as {host.vm(DULL)['memory_state'] or 'unproven'}")
    same_life(guest, host.machine, before, "its memory was asked for")
    clear(host, DULL, "next", left=was)


@case
def ignores_suspend(lab, host):
    """A guest that does not answer is told of, and goes on running."""
    was = left_over(host.machine)
    guest = dull(host)
    before = guest.last(host.machine)
    words = host.refused("vm-suspend", f"vm={DULL}")
    lab.say(f"told: {words}")
    same_life(guest, host.machine, before, "it was asked to suspend")
    if host.state(DULL) != "Running":
        raise Failed(f"{DULL} is {host.state(DULL)}")
    clear(host, DULL, left=was)


@case
def disk_full(lab, host):
    """A suspend for which the disk has no room is told of; the guest goes on."""
    host.machine.sh("mkdir -p /srv/small && mount -t tmpfs -o size=12m tmpfs /srv/small")
    small = "device-config:location=/srv/small"
    host.run("sr-create", "name-label=small", "type=file", small, f"host={host.machine.name}")
    sr = host.value("sr-list", "name-label=small", "params=uuid")
    guest = steady(host)
    host.run("vm-param-set", f"vm={guest.name}", f"suspend-SR={sr}")
    before = guest.last(host.machine)
    words = host.refused("vm-suspend", f"vm={guest.name}")
    lab.say(f"told: {words}")
    until("it is running", lambda: host.state(guest.name) == "Running", 90)
    same_life(guest, host.machine, before, "its save found no room")
    used = int(host.machine.sh("du -sk /srv/small").split()[0])
    if used > 256:
        raise Failed(f"{used} KiB of the image are left on the full disk")
    host.run("vm-param-set", f"vm={guest.name}", "suspend-SR=")
    pbd = host.value("pbd-list", f"sr={sr}", "params=uuid")
    host.run("pbd-unplug", f"uuid={pbd}")
    host.run("sr-forget", "sr=small", check=False)
    host.machine.sh("umount /srv/small")


# In bash, which is the same program there and here.
LOOP = ("t=${EPOCHREALTIME/./}; for ((i = 0; i < 20000; i++)); do :; done;"
        "echo $((${EPOCHREALTIME/./} - t))")


def slowdown(machine):
    """How many times slower than this machine the host computes, by the same program."""
    there = int(machine.sh(f"LC_ALL=C bash -c '{LOOP}'"))
    here = subprocess.run(["bash", "-c", LOOP], capture_output=True, text=True, check=True)
    return max(1.0, there / int(here.stdout))


# What is well below a second on a processor of today, three times over, beside other work.
BACK_S = 60


def back_s(host):
    """
    Starts reeved; seconds from then until it is up, by the host's own clock. Its log says when:
    programs that look ever again take half of an emulated processor from it.
    """
    ups = "grep -c at=daemon.up /var/log/reeved.log"
    host.start(wait=False, before=f"n=$({ups}); date +%s.%N",
               after=f"sleep 2; until [ $({ups}) -gt $n ]; do sleep 1; done; "
                     "grep at=daemon.up /var/log/reeved.log | tail -n 1")
    begun, line = host.started.strip().split("\n")
    up = datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00"))
    return up.timestamp() - float(begun)


@case
def reeved_killed(lab, host):
    """reeved ended or killed: guests don't notice, and after its return all is right at once."""
    guest = steady(host)
    domid, since = listed(host.machine, guest.name), time.time()
    times = slowdown(host.machine)
    for end in (host.kill, host.stop, host.kill):
        end()
        took = back_s(host)
        if host.state(guest.name) != "Running":
            raise Failed(f"{guest.name} is {host.state(guest.name)} after reeved came back")
        lab.say(f"back after {took:.1f} s on a processor that is {times:.0f} times slower than here")
        if took > BACK_S:
            raise Failed(f"not within {BACK_S} s")
    if listed(host.machine, guest.name) != domid:
        raise Failed(f"{guest.name} is another domain now")
    gap = guest.downtime_ms(since, host.machine)
    lab.say(f"the longest gap in the guest's count meanwhile: {gap} ms")
    if gap > STILL_MS:
        raise Failed(f"the guest stood still for {gap} ms")


@case
def reeved_killed_in_start(lab, host):
    """reeved killed in the middle of a start: finished or undone, and told which."""
    was = left_over(host.machine)
    host.run(*guest_words("begun"))
    host.machine.start_job("begin", f"timeout 200 reeve vm-start vm=begun on={host.machine.name}")
    host.machine.sh(HELPERS + "n=0; until [ -n \"$(helpers)\" ]; do sleep 0.05; n=$((n+1)); [ $n -lt 800 ]; done;"
                    "kill -9 $(pidof reeved)")
    host.start()
    host.machine.end_job("begin", 210)
    until("the start is decided", lambda: not host.vm("begun")["current_operations"]
          and host.state("begun") in ("Halted", "Running"), 120)
    if (listed(host.machine, "begun") is not None) != (host.state("begun") == "Running"):
        raise Failed(f"begun is {host.state('begun')}, and xl says:\n{host.machine.sh('xl list')}")
    lab.say(f"begun is {host.state('begun')}")
    clear(host, "begun", left=was)


# A guest shares an emulated processor with dom0's programs: each of them may hold it a little.
STILL_MS = 3000


@case
def xenstored_stopped(lab, host):
    """A hung xenstored stops management, not the guests and not reeved's answers."""
    guest = steady(host)
    since, slowest = time.time(), 0.0
    host.machine.sh(f"kill -STOP $(pidof {host.machine.xenstored})")
    try:
        before = guest.last(host.machine)
        for _ in range(4):
            begun = time.monotonic()
            if host.state(guest.name) != "Running":
                raise Failed(f"{guest.name} is {host.state(guest.name)}")
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(1)
        guest.wait_count(host.machine, before["n"])
        until("a message says so", lambda: any(
            re.search("xenstore", m["body"]) for m in host.records("message-list")), 60)
        lab.say("told: " + host.refused("vm-suspend", f"vm={guest.name}"))
    finally:
        host.machine.sh(f"kill -CONT $(pidof {host.machine.xenstored})")
    lab.say(f"the slowest answer meanwhile took {slowest * 1000:.0f} ms")
    until("management goes on", lambda: host.run("vm-pause", f"vm={guest.name}", check=False)[0] == 0, 60)
    gap = guest.downtime_ms(since, host.machine)
    host.run("vm-unpause", f"vm={guest.name}")
    if gap > STILL_MS:
        raise Failed(f"the guest stood still for {gap} ms")


@case
def destroyed_by_xl(lab, host):
    """A domain destroyed behind our back is a halted VM at once, also while reeved is away."""
    guest = steady(host)
    host.run("vm-param-set", f"vm={guest.name}", "actions-after-crash=destroy")
    destroy = f"xl destroy {listed(host.machine, guest.name)}"
    host.machine.sh(destroy)
    begun = time.monotonic()
    until("its end is known", lambda: host.state(guest.name) == "Halted", 60)
    lab.say(f"known after {time.monotonic() - begun:.1f} s")
    host.run("vm-start", f"vm={guest.name}", f"on={host.machine.name}")
    host.kill()
    host.machine.sh(f"xl destroy {listed(host.machine, guest.name)}")
    took = back_s(host)
    begun = time.monotonic()
    until("its end is known", lambda: host.state(guest.name) == "Halted", 60)
    lab.say(f"reeved was back after {took:.1f} s, and knew it {time.monotonic() - begun:.1f} s later")
    host.run("vm-param-set", f"vm={guest.name}", "actions-after-crash=restart")
    at = guest.last(host.machine)["n"]
    host.run("vm-start", f"vm={guest.name}", f"on={host.machine.name}")
    guest.wait_anew(host.machine, at)


def run_cases(lab, host, names, go_on=False):
    """The cases one after the other; the names of those that failed."""
    failed = []
    for name in names:
        lab.say(f"--- {name}: {CASES[name].__doc__}")
        begun = time.monotonic()
        try:
            CASES[name](lab, host)
            lab.say(f"--- {name}: passed, {time.monotonic() - begun:.0f} s")
        except Failed as error:
            failed.append(name)
            lab.say(f"--- {name}: FAILED: {error}")
            if not go_on:
                break
            host.machine.run(f"kill -CONT $(pidof {host.machine.xenstored})")
            clear(host, *(vm["name_label"] for vm in host.records("vm-list")))
    return failed


def run(arguments):
    """Bad cases on one host, one after another."""
    names = arguments.cases or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise Failed(f"no such case: {' '.join(unknown)}; there are: {' '.join(CASES)}")
    with Lab("bad", programs(), arguments.keep_logs, arguments.xenstored) as lab:
        host = one_host(lab)
        failed = run_cases(lab, host, names, arguments.go_on)
        if failed:
            raise Failed(f"failed: {' '.join(failed)}")
        clear(host, *(vm["name_label"] for vm in host.records("vm-list")))
        lab.say("all passed, and nothing is left")
