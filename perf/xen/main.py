#!/usr/bin/python3
"""The same guest through Reeve and through xl in turn, on real Xen in the lab.

usage: perf_xen [--quick] [--only host|pool] [--times PAIRS] [--json FILE]

create: the command until the guest runs; balloon: until it gave 16 MiB; save, restore, and a
restore at once after a save; live migration to another host, and the longest gap in the
guest's own count. Pairs, the order changing; medians, and the quartiles as spread. What Reeve
adds should be at most 5 % and 50 ms. Emulated hosts are slow and noisy: only the difference in
one run means something. Ended by Ctrl-C it tells what it has.

Between two other steps there is time for what the first leaves to be done, Reeve's next
helpers and xl's daemon among it.

Like beside like: a resume ends with its image deleted, so xl's restore ends with its file
deleted. Reeve's migrations are encrypted and both ends prove who they are, so xl's go
through socat with TLS 1.3 and a certificate on both sides, not through a bare connection.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = "@CMAKE_SOURCE_DIR@"
os.environ.setdefault("REEVE_LAB_BUILD", "@CMAKE_BINARY_DIR@")
sys.dont_write_bytecode = True
sys.path.insert(0, f"{ROOT}/tests/xenlab")

from lab import Failed, Lab  # noqa: E402
from life_job import one_host  # noqa: E402
from packages import Missing  # noqa: E402
from reeve import RPC_PORT, Guest, Reeve, form_pool, guest_words, programs, until  # noqa: E402

MIB, SMALL_MIB = 96, 80
ARGS = "console=hvc0 mitigations=off quiet"
STEPS = ("create", "balloon", "save", "restore", "restore_at_once")
PEER = "xen-perf"
# Which cipher is best under emulation says nothing: xl's connection gets the one that Reeve takes.
SSL_CONF = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
Ciphersuites = TLS_AES_128_GCM_SHA256
"""
SOCAT = "OPENSSL_CONF=/etc/perf-ssl.cnf socat -b 1048576"
TLS = f"cert=/etc/perf.pem,cafile=/etc/perf.pem,verify=1,commonname={PEER},openssl-min-proto-version=TLS1.3"

CONFIG = f"""
name="x"
type="pvh"
kernel="/guest/vmlinuz"
ramdisk="/guest/initramfs"
extra="{ARGS}"
memory={MIB}
maxmem={MIB}
vcpus=1
tsc_mode="native"
"""

# In bash, whose clock needs no process. Prints "STEP µs".
HEAD = """
timed() { local step=$1 from=${EPOCHREALTIME/./}; shift
	"$@" >/tmp/said 2>&1 || { echo "$*:"; cat /tmp/said; exit 1; }
	echo "$step $((${EPOCHREALTIME/./} - from))"; }
restored() { xl restore "$1" && rm -f "$1"; }
# ballooned DOMID COMMAND...: from the command until the guest gave its memory.
ballooned() { local domid=$1 from pid; shift
	xen_wait $domid TARGET >/tmp/at & pid=$!
	sleep 0.5 # it looks by now
	from=${EPOCHREALTIME/./}
	"$@" >/tmp/said 2>&1 || { echo "$*:"; cat /tmp/said; exit 1; }
	wait $pid || { echo "$*: the guest did not give its memory"; exit 1; }
	echo "balloon $(($(cat /tmp/at) - from))"; }
"""
CREATE = {
    "xl": "timed create xl create /tmp/x.cfg\n",
    "reeve": "timed create reeve vm-start vm=r\n",
}
END = {"xl": "xl destroy x\n", "reeve": "reeve vm-shutdown vm=r force=true\n"}
# Both guests run all the while; one is worked with, then the other.
BALLOON = {
    "xl": """
ballooned $(xl domid x) xl mem-set x SMALL
xl mem-set x FULL; sleep 2
""",
    "reeve": """
domid=$(reeve vm-param-get vm=r param-name=domid)
ballooned $domid reeve vm-memory-dynamic-range-set vm=r min=SMALLMiB max=SMALLMiB
reeve vm-memory-dynamic-range-set vm=r min=FULLMiB max=FULLMiB; sleep 2
""",
}
# One takes two or three times as long as the next, on either side.
BALLOONS_PER_PAIR = 3
SAVE = {
    "xl": """
timed save xl save x /srv/vms/x.save; sleep 2
timed restore restored /srv/vms/x.save; sleep 2
timed before xl save x /srv/vms/x.save
timed restore_at_once restored /srv/vms/x.save; sleep 2
""",
    "reeve": """
timed save reeve vm-suspend vm=r; sleep 2
timed restore reeve vm-resume vm=r; sleep 2
timed before reeve vm-suspend vm=r
timed restore_at_once reeve vm-resume vm=r; sleep 2
""",
}


def script(text):
    # What xl and Reeve hold a guest to differs by some pages beyond its own memory.
    text = HEAD + text
    text = text.replace("TARGET", str(SMALL_MIB * 1024 + 1024))
    text = text.replace("SMALL", str(SMALL_MIB)).replace("FULL", str(MIB))
    return "cat >/tmp/turn.sh <<'END-OF-TURN'\n" + text + "END-OF-TURN\nbash /tmp/turn.sh"


def measured(machine, text):
    """{step: ms} of one turn."""
    found = {}
    for line in machine.sh(script(text), 400).splitlines():
        words = line.split()
        if len(words) == 2 and words[0] in (*STEPS, "migrate"):
            found[words[0]] = int(words[1]) / 1000
    return found


def in_turn(number):
    return (("xl", "reeve"), ("reeve", "xl"))[number % 2]


def with_programs(scratch):
    """With what waits for a balloon, and a certificate for xl's migrations."""
    program = os.path.join(scratch, "xen_wait")
    subprocess.run(["gcc", "-O2", "-o", program, f"{ROOT}/perf/xen/xen_wait.c", "-lxenctrl"], check=True)
    key, cert = (os.path.join(scratch, name) for name in ("key", "cert"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "30", "-subj", f"/CN={PEER}", "-keyout", key, "-out", cert],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(key, "a") as out, open(cert) as text:
        out.write(text.read())
    conf = os.path.join(scratch, "conf")
    with open(conf, "w") as out:
        out.write(SSL_CONF)
    return {**programs(), "usr/bin/xen_wait": program, "etc/perf.pem": key, "etc/perf-ssl.cnf": conf}


def both_guests(host):
    """The configuration for xl, and the VM."""
    host.machine.sh(f"cat >/tmp/x.cfg <<'X'\n{CONFIG}X")
    host.run(*guest_words("r", "pvh", MIB))


def both_run(host):
    host.machine.sh(CREATE["xl"].removeprefix("timed create "))
    host.run("vm-start", "vm=r", f"on={host.machine.name}")
    for name in ("x", "r"):
        Guest(name).wait_count(host.machine)
    # The first time that a guest gives memory its balloon is tried out, more slowly.
    host.machine.sh(f"xl mem-set x {SMALL_MIB}; sleep 3; xl mem-set x {MIB}")
    host.run("vm-memory-dynamic-range-set", "vm=r", f"min={SMALL_MIB}MiB", f"max={SMALL_MIB}MiB")
    until("its balloon was tried out", lambda: host.vm("r")["memory_state"] in ("ok", "slow"), 120)
    host.run("vm-memory-dynamic-range-set", "vm=r", f"min={MIB}MiB", f"max={MIB}MiB")


def take_turns(lab, host, what, scripts, pairs, samples):
    for number in range(pairs):
        lab.say(f"{what}, pair {number + 1} of {pairs}")
        for who in in_turn(number):
            for step, ms in measured(host.machine, scripts[who]).items():
                samples[step][who].append(ms)


def on_one_host(pairs, samples):
    with tempfile.TemporaryDirectory() as scratch, Lab("perf", with_programs(scratch)) as lab:
        host = one_host(lab, limit=7200)
        both_guests(host)
        create = {who: CREATE[who] + END[who] + "sleep 2\n" for who in CREATE}
        lab.say("create, to warm up")
        for text in create.values():
            measured(host.machine, text)
        take_turns(lab, host, "create", create, pairs, samples)
        both_run(host)
        take_turns(lab, host, "balloon", BALLOON, pairs * BALLOONS_PER_PAIR, samples)
        take_turns(lab, host, "save and restore", SAVE, pairs, samples)


def migrate(hosts, who, here, there):
    """ms that the command took, and the longest gap in the guest's count."""
    since = time.time()
    if who == "xl":
        there.machine.start_job(
            "receive", f"{SOCAT} OPENSSL-LISTEN:8002,reuseaddr,{TLS} EXEC:'xl migrate-receive'")
        there.machine.wait("grep -q ':1F42 ' /proc/net/tcp /proc/net/tcp6", 30)
        peer = f"OPENSSL:{there.machine.address}:8002,{TLS}"
        text = f"timed migrate xl migrate -s '' x '{SOCAT} - {peer}'\n"
    else:
        until("it may migrate", lambda: not hosts[0].vm("r")["current_operations"])
        # The hand-over alone takes longer than the default limit on emulated processors.
        text = f"timed migrate reeve vm-migrate vm=r host={there.machine.name} live=true accept=true\n"
    took = measured(here.machine, text)["migrate"]
    guest = Guest("x" if who == "xl" else "r")
    until(f"{guest.name} counts on {there.machine.name}",
          lambda: (guest.last(there.machine) or {"real": 0})["real"] > since + took / 1000, 120)
    return took, guest.downtime_ms(since, here.machine, there.machine)


def on_two_hosts(pairs, samples):
    with tempfile.TemporaryDirectory() as scratch, Lab("perf", with_programs(scratch)) as lab:
        machines = lab.boot(("host1", "host2"), memory=1280, dom0=512, ports=(RPC_PORT,), limit=7200)
        hosts = [Reeve(machine) for machine in machines]
        form_pool(lab, hosts)
        both_guests(hosts[0])
        both_run(hosts[0])
        here, there = hosts
        for number in range(pairs):
            lab.say(f"migration, pair {number + 1} of {pairs}")
            for who in in_turn(number):
                took, gap = migrate(hosts, who, here, there)
                lab.say(f"{who}: {took / 1000:.1f} s, longest gap {gap} ms")
                samples["migrate"][who].append(took)
                samples["migrate_gap"][who].append(gap)
            here, there = there, here


def spreads(step, both):
    """Medians and quartiles of both sides."""
    found = []
    for who, values in both.items():
        quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        found.append({
            "name": f"{step}_{who}_ms", "value": round(statistics.median(values), 1), "unit": "ms",
            "peer": None, "peer_value": None, "ratio": None, "bar": "",
            "spread": [round(quartiles[0], 1), round(quartiles[2], 1)], "pairs": len(values), "pass": True,
        })
    return found


def results(samples):
    found = []
    for step, both in samples.items():
        pairs = min(len(values) for values in both.values())
        if not pairs:
            continue
        both = {who: values[:pairs] for who, values in both.items()}
        found += spreads(step, both)
        if step == "migrate_gap":
            continue
        ours, theirs = statistics.median(both["reeve"]), statistics.median(both["xl"])
        added = statistics.median(r - x for r, x in zip(both["reeve"], both["xl"]))
        allowed = theirs * 0.05 + 50
        percent = step == "migrate"
        found.append({
            "name": f"{step}_added_pct" if percent else f"{step}_added_ms",
            "value": round(added * 100 / theirs if percent else added, 1),
            "unit": "%" if percent else "ms", "peer": "xl", "peer_value": round(theirs, 1),
            "ratio": round(ours / theirs, 3),
            "bar": f"<= {allowed * 100 / theirs if percent else allowed:.1f}", "pass": added <= allowed,
        })
    return found


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "")
    return {"system": f"{os.uname().sysname} {os.uname().release}", "cpus": os.cpu_count(), "cpu": model,
            "hypervisor": "Xen under QEMU's emulation"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two pairs: only to see that it runs")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", choices=("host", "pool"), help="all but migration, or only it")
    parser.add_argument("--times", type=int, default=10, metavar="PAIRS")
    arguments = parser.parse_args()
    pairs = 2 if arguments.quick else arguments.times
    samples = {step: {"xl": [], "reeve": []} for step in (*STEPS, "migrate", "migrate_gap")}
    try:
        if arguments.only != "pool":
            on_one_host(pairs, samples)
        if arguments.only != "host":
            on_two_hosts(pairs, samples)
    except (Failed, Missing) as error:
        print(f"perf_xen: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("perf_xen: ended early; what whole pairs there are:", file=sys.stderr)
    found = results(samples)
    print(f"{'xen':28} {'value':>12} {'unit':4} {'xl':>12} {'ratio':>6}  bar")
    for r in found:
        peer = f"{r['peer_value']:12.1f} {r['ratio']:6.2f}" if r["peer"] else f"{'-':>12} {'-':>6}"
        bar = f"{r['bar']}  {'met' if r['pass'] else 'NOT MET'}" if r["bar"] else f"quartiles {r['spread']}"
        print(f"{r['name']:28} {r['value']:12.1f} {r['unit']:4} {peer}  {bar}")
    if arguments.json:
        with open(arguments.json, "w") as f:
            json.dump({"benchmark": "xen", "machine": machine(), "results": found}, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
