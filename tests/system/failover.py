"""Three real daemons vote. The master is killed and frozen under a stream of acknowledged
writes, and handed over on purpose: another leads, what was acknowledged is there, VMs stay,
commands given to any surviving host work; the old master comes back and follows.

usage: failover.py
"""
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid

import host
import rpc
from host import free_port, patiently, until


class Member(host.Host):
    def __init__(self, base, name):
        self.name = name
        self.address = f"tcp:127.0.0.1:{free_port()}"
        super().__init__(f"{base}/{name}", {
            "host.name-label": name,
            "pool.listen": self.address,
            "hypervisor.sim-memory": "8GiB",
            "hypervisor.sim-step": "1ms",
            "log.level": "info",
        })
        os.makedirs(self.directory)

    def ask(self, method, /, **params):
        client = rpc.Client(self.socket)
        try:
            return client.call(method, **params)
        finally:
            client.close()

    def change(self, method, /, **params):
        return self.ask(method, request=str(uuid.uuid4()), **params)

    def try_ask(self, method, /, **params):
        try:
            return self.ask(method, **params)
        except (OSError, rpc.Refused):
            return None

    def join(self, master, token):
        self.change("pool.join", master_address=master.address, token=token)
        until(f"{self.name} is a member", lambda: len(self.try_ask("host.get_all") or []) > 1)

    def uuid_of(self, name):
        return self.ask("host.get_by_name_label", label=name)[0]


class Writer(threading.Thread):
    """Writes numbers into the pool's record through one host, each with its own request, and
    repeats a request that was not answered or may pass."""

    def __init__(self, member, name):
        super().__init__(daemon=True)
        self.member, self.name = member, name
        self.acknowledged, self.failures, self.slowest = [], [], 0.0
        self.ending = False

    def run(self):
        pool = self.member.ask("pool.get_all")[0]
        number = 0
        while not self.ending:
            number += 1
            request = str(uuid.uuid4())
            begun = time.monotonic()
            while not self.ending:
                try:
                    self.member.ask("pool.add_to", self=pool, field="other_config",
                                    key=f"{self.name}.{number}", value=str(number), request=request)
                    self.acknowledged.append(number)
                    break
                except rpc.Refused as e:
                    self.failures.append(str(e))
                    assert e.retryable, e
                    time.sleep(0.02)
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def end(self):
        self.ending = True
        self.join(120)
        assert not self.is_alive(), "a writer hangs"
        return len(self.acknowledged)


def status(member):
    return member.try_ask("pool.status")


def voters(member):
    s = status(member)
    return s and sum(m["role"] == "voter" for m in s["members"])


def master_of(members):
    """The member that all given ones call the master, once they agree."""
    names = set()
    for m in members:
        s = status(m)
        if not s or not s["master"] or not s["quorum"]:
            return None
        names.add(s["master"])
    if len(names) != 1:
        return None
    leader = names.pop()
    for m in members:
        if m.uuid == leader:
            return m
    return None


def form(members):
    first = members[0]
    first.start().close()
    for m in members[1:]:
        m.start().close()
        m.join(first, first.change("pool.issue_join_token"))
    for m in members:
        m.uuid = until("its record", lambda: first.uuid_of(m.name))
    begun = time.monotonic()
    until("three voters", lambda: voters(first) == 3)
    print(f"three voters after {time.monotonic() - begun:.1f} s")
    until("it is on record", lambda: [r["raft_role"] for r in first.ask(
        "host.get_all_records", fields=["raft_role"]).values()] == ["voter"] * 3)
    until("all agree", lambda: master_of(members) is not None)


def start_vms(members):
    vms = {}
    for i in range(6):
        vm = members[i % 3].change("VM.create", record={
            "name_label": f"vm{i}", "memory_static_max": 256 << 20, "PV_kernel": "/boot/vmlinuz"})
        patiently(members[i % 3], "VM.start", self=vm, on=members[i % 3].uuid, min_seq=rpc.Client.seen)
        vms[vm] = members[i % 3].uuid
    return vms


def check_vms(member, vms):
    records = member.ask("VM.get_all_records", min_seq=rpc.Client.seen)
    for vm, where in vms.items():
        assert records[vm]["power_state"] == "Running" and records[vm]["resident_on"] == where, records[vm]


def check_acknowledged(members, writers):
    for m in members:
        pool = m.ask("pool.get_all_records", consistent=True)
        config = next(iter(pool.values()))["other_config"]
        for w in writers:
            lost = [n for n in w.acknowledged if config.get(f"{w.name}.{n}") != str(n)]
            assert not lost, f"{m.name} lost {lost[:5]} of {w.name}, {len(lost)} in all"


def at_rest(member, method, vm):
    """Once the last operation's last steps are done."""
    def attempt():
        try:
            member.change(method, self=vm, min_seq=rpc.Client.seen)
            return True
        except rpc.Refused as e:
            assert e.code == "OTHER_OPERATION_IN_PROGRESS", e
            return False
    until(method, attempt)


def clear(member):
    pool = member.ask("pool.get_all")[0]
    member.change("pool.set_fields", self=pool, fields={"other_config": {}})


def strike(members, how, name):
    """The master goes while clients write through the two others."""
    master = until("a master", lambda: master_of(members))
    others = [m for m in members if m is not master]
    writers = [Writer(m, f"{name}{i}") for i, m in enumerate(others)]
    for w in writers:
        w.start()
    until("they write", lambda: all(len(w.acknowledged) > 20 for w in writers))
    how(master)
    begun = time.monotonic()
    new = until("another master", lambda: master_of(others))
    agreed = time.monotonic() - begun
    before = [len(w.acknowledged) for w in writers]
    until("writes go on", lambda: all(len(w.acknowledged) > b + 20 for w, b in zip(writers, before)))
    # Commands on any survivor; placement is the new master's.
    for i, m in enumerate(others):
        vm = m.change("VM.create", record={
            "name_label": f"{name}-new{i}", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
        m.change("VM.start", self=vm, min_seq=rpc.Client.seen)
        record = m.ask("VM.get_record", self=vm, min_seq=rpc.Client.seen)
        assert record["power_state"] == "Running" and record["resident_on"] != master.uuid, record
        at_rest(m, "VM.hard_shutdown", vm)
        at_rest(m, "VM.destroy", vm)
    counts = [w.end() for w in writers]
    print(f"{name}: {new.name} leads, seen after {agreed:.2f} s; {sum(counts)} writes acknowledged, "
          f"the slowest took {max(w.slowest for w in writers):.2f} s, "
          f"{sum(len(w.failures) for w in writers)} were to be repeated")
    for f in sorted(set(sum((w.failures for w in writers), [])))[:3]:
        print("   ", f)
    check_acknowledged(others, writers)
    return master, others, writers


def test_kill(members, vms):
    master, others, writers = strike(members, lambda m: m.kill(), "kill")
    s = status(others[0])
    lost = [m for m in s["members"] if m["host"] == master.uuid][0]
    assert lost["link"] != "up" and lost["role"] == "voter", lost
    master.start().close()
    until("it follows", lambda: master_of(members) in others)
    check_acknowledged([master], writers)
    check_vms(master, vms)
    clear(others[0])


def test_freeze(members, vms):
    master, others, writers = strike(
        members, lambda m: m.process.send_signal(signal.SIGSTOP), "freeze")
    master.process.send_signal(signal.SIGCONT)
    until("it follows", lambda: master_of(members) in others)
    check_acknowledged([master], writers)
    check_vms(master, vms)
    clear(others[0])


def test_designate(members, vms):
    """Under load no command fails."""
    writers = [Writer(m, f"hand{i}") for i, m in enumerate(members)]
    for w in writers:
        w.start()
    until("they write", lambda: all(len(w.acknowledged) > 10 for w in writers))
    for i in range(6):
        asked, wanted = members[i % 3], members[(i + 1) % 3]
        asked.change("pool.designate_new_master", host=wanted.uuid)
        leads = asked.ask("pool.status")["master"]
        # A loaded machine may have had an election since.
        print(f"designated {wanted.name}{'' if leads == wanted.uuid else ', which lost it again'}")
        vm = asked.change("VM.create", record={
            "name_label": f"hand{i}", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
        asked.change("VM.start", self=vm, min_seq=rpc.Client.seen)
        at_rest(asked, "VM.hard_shutdown", vm)
    total = sum(w.end() for w in writers)
    failures = sum((w.failures for w in writers), [])
    assert not failures, failures[:5]
    print(f"handed over six times under {total} writes; the slowest took "
          f"{max(w.slowest for w in writers):.2f} s")
    check_acknowledged(members, writers)
    check_vms(members[0], vms)
    clear(members[0])


def is_stale(member):
    client = rpc.Client(member.socket)
    client.send("pool.get_all")
    result = client.receive_whole()
    client.close()
    return result.get("stale") and result["age_ms"] > 1000


def refusal(member, method, params):
    client = rpc.Client(member.socket, timeout=180)
    try:
        client.call(method, **params)
        return f"{method} was answered"
    except rpc.Refused as e:
        return str(e)
    finally:
        client.close()


def test_says_why(last, gone):
    """Whatever waits for a master ends, and says how many voters answer and what to do."""
    pool, vms = last.ask("pool.get_all")[0], last.ask("VM.get_all_records")
    halted = [u for u, r in vms.items() if r["power_state"] == "Halted" and not r["is_a_template"]]
    there = [u for u, r in vms.items() if r["resident_on"] == last.uuid]
    calls = [
        ("pool.set_fields", {"self": pool, "fields": {"name_description": "x"}}),
        ("VM.create", {"record": {"name_label": "never", "memory_static_max": 64 << 20}}),
        ("VM.set_fields", {"self": list(vms)[0], "fields": {"name_description": "x"}}),
        ("pool.designate_new_master", {"host": last.uuid}),
        ("pool.issue_join_token", {}),
        ("network.create", {"record": {"name_label": "never"}}),
    ] + [("VM.start", {"self": vm}) for vm in halted[:1]] + [("VM.hard_shutdown", {"self": vm}) for vm in 2 * there[:1]]
    calls = [(m, {**p, "request": str(uuid.uuid4())}) for m, p in calls]
    calls += [("pool.get_all", {"consistent": True}),
              ("pool.get_all", {"min_seq": status(last)["seq"] + 100})]
    # The command line's own patience ends first; it asks why.
    impatient = subprocess.Popen(
        [f"{host.BUILD}/cli/reeve", f"--url=ipc://{last.socket}", "--timeout=5s", "pool-param-set",
         "name-description=x"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # And long before that says what it waits for.
    patient = subprocess.Popen(
        [f"{host.BUILD}/cli/reeve", f"--url=ipc://{last.socket}", "network-create", "name-label=never"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as threads:
        said = list(threads.map(lambda c: refusal(last, *c), calls))
    said.append(impatient.communicate(timeout=60)[1])
    assert impatient.returncode == 3, impatient.returncode
    lines = patient.communicate(timeout=120)[1].splitlines()
    assert len(lines) == 2 and lines[0].startswith("reeve: waiting: the pool has no master: 1 of its 3 voters"), lines
    assert patient.returncode == 1 and not lines[1].startswith("reeve"), (patient.returncode, lines)
    for (method, _), words in zip(calls + [("reeve", None)], said):
        assert "1 of its 3 voters answer" in words and "pool-status" in words, (method, words)
        assert all(m.name in words for m in gone), (method, words)
    assert any(f"host {last.name} has not yet seen change" in words for words in said), said
    assert "the host answers" in said[-1] and "whether the host is up" not in said[-1], said[-1]
    # Of two at once one is at work, which can't end either.
    assert not there or any("OTHER_OPERATION" in words for words in said), said
    print(*said, sep="\n")


def typed(member, *words):
    return subprocess.run([f"{host.BUILD}/cli/reeve", f"--url=ipc://{member.socket}", *words],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)


def test_shows_age(last):
    """What is shown is as it was, with one line beside it that tells how old it may be."""
    for words in (["host-list", "params=name-label,live"], ["host-list", "--json"], ["host-list", "--minimal"],
                  ["host-param-get", f"host={last.name}", "param-name=live"],
                  ["host-param-list", f"host={last.name}"]):
        done = typed(last, *words)
        assert done.returncode == 0 and done.stdout, (words, done)
        assert re.fullmatch(rf"reeve: host {last.name} has heard of no master for \d+ (s|min): .*pool-status.*\n",
                            done.stderr), (words, done.stderr)
        if "--json" in words:
            assert len(json.loads(done.stdout)) == 3, done.stdout
        if "--minimal" in words:
            assert len(done.stdout.split(",")) == 3, done.stdout
    # That tells it by itself.
    done = typed(last, "pool-status")
    assert done.returncode == 0 and done.stderr == "", done


def test_no_quorum(members):
    """One host alone answers reads, says that they are old, and says why; changes wait."""
    last, gone = members[0], members[1:]
    for m in members:  # the master's view, and beside it one's own
        s = until("an answer", lambda: (lambda s: s and s["quorum"] and s)(status(m)))
        own = s["asked"]
        assert own["host"] == m.uuid and own["role"] == "voter" and own["term"] == s["term"], s
        assert own["state"] == ("leader" if s["master"] == m.uuid else "follower"), s
        assert sorted(own["hears"]) == sorted(x.name for x in members if x is not m), s
    for m in gone:
        m.kill()
    s = until("it knows", lambda: (lambda s: s and not s["quorum"] and s)(status(last)))
    print(f"alone: {s['trouble']}")
    own = until("it hears nobody", lambda: (lambda s: s and not s["asked"]["hears"] and s["asked"])(status(last)))
    assert own["host"] == last.uuid and own["master"] == "" and own["trouble"], own
    until("reads say that they are old", lambda: is_stale(last))
    test_shows_age(last)
    test_says_why(last, gone)
    writer = Writer(last, "alone")
    writer.start()
    time.sleep(1)
    assert not writer.acknowledged
    gone[0].start().close()
    until("it went on", lambda: len(writer.acknowledged) > 5)
    writer.end()
    gone[1].start().close()
    until("all agree", lambda: master_of(members))


@contextlib.contextmanager
def ended(members):
    """Daemons that end in order with the block; where it fails, with their last words. Those that
    it adds to the list meanwhile, too."""
    try:
        yield
        for m in reversed(members):
            m.stop()
    except BaseException:
        for m in members:
            if m.process:
                print(m.name, m.tail())
        raise
    finally:
        for m in members:
            if m.process and m.process.poll() is None:
                m.process.send_signal(signal.SIGCONT)
                m.kill()


def main():
    base = tempfile.mkdtemp(prefix="reeve-failover-")
    members = [Member(base, f"host{i + 1}") for i in range(3)]
    with ended(members):
        form(members)
        vms = start_vms(members)
        test_designate(members, vms)
        test_kill(members, vms)
        test_freeze(members, vms)
        test_no_quorum(members)
        check_vms(members[0], vms)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
