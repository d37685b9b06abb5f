"""Certificates change under load: hosts' by command, killed anywhere in between, the pool's CA
with a host that is away. No call fails, no link goes, VMs migrate meanwhile. A host that was
ejected while the CA changed hears of it; one whose new CA was lost with the quorum comes back.

usage: rotation.py [load] [expiry] [ejected] [lost]
"""
import hashlib
import os
import random
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import failover
import rpc
from failover import Member, Writer, check_acknowledged, master_of, status, until
from host import patiently


def fingerprint(pem):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() if pem else ""


def key_of(pem, which):
    """A key identifier: the subject's, or the authority's, which signed it."""
    text = subprocess.run(["openssl", "x509", "-noout", "-ext", which + "KeyIdentifier"], input=pem,
                          capture_output=True, text=True, check=True).stdout
    return text.split("\n")[1].strip()


def on_record(member):
    records = member.ask("host.get_all_records", fields=["name_label", "certificate", "certificate_next"],
                         consistent=True)
    return {r["name_label"]: (fingerprint(r["certificate"]), fingerprint(r["certificate_next"]))
            for r in records.values()}


def on_disk(member):
    with open(f"{member.directory}/state/member/cert.pem") as f:
        return fingerprint(f.read())


def shown(member):
    """What a new connection to its port gets."""
    host, port = member.address[4:].rsplit(":", 1)
    out = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-alpn", "reeve/join", "-tls1_3"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30).stdout
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return fingerprint(out[out.index(begin):out.index(end) + len(end)] + "\n")


def links_lost(members):
    """How often any of them has lost a link."""
    lost = 0
    for m in members:
        with open(m.log) as log:
            lost += sum("at=members.down" in line for line in log)
    return lost


class Mover(threading.Thread):
    """Migrates a VM round the hosts, asked of a host that is neither."""

    def __init__(self, members, vm):
        super().__init__(daemon=True)
        self.members, self.vm, self.moves, self.ending, self.errors = members, vm, 0, False, []

    def run(self):
        turn = 0
        while not self.ending:
            turn += 1
            to = self.members[turn % len(self.members)]
            asked = self.members[(turn + 1) % len(self.members)]
            try:
                asked.change("VM.migrate", self=self.vm, host=to.uuid, max_downtime_ms=60000,
                             min_seq=rpc.Client.seen)
                self.moves += 1
            except rpc.Refused as e:
                if e.code not in ("OTHER_OPERATION_IN_PROGRESS", "MESSAGE_PARAMETER_INVALID"):
                    self.errors.append(str(e))
                time.sleep(0.05)

    def end(self):
        self.ending = True
        self.join(120)
        assert not self.is_alive(), "a migration hangs"


def test_refresh(members, vm):
    """Each host in turn, again and again, while all write and a VM moves."""
    writers = [Writer(m, f"refresh{i}") for i, m in enumerate(members)]
    mover = Mover(members, vm)
    before, lost = on_record(members[0]), links_lost(members)
    for t in writers + [mover]:
        t.start()
    until("they are at work", lambda: mover.moves > 0 and all(len(w.acknowledged) > 5 for w in writers))
    for i in range(6):
        m, asked = members[i % 3], members[(i + 1) % 3]
        was = on_disk(m)
        asked.change("host.refresh_server_certificate", self=m.uuid)
        record = on_record(asked)
        assert record[m.name][0] == on_disk(m) == shown(m) != was and not record[m.name][1], (record, was)
    moved = mover.moves
    until("VMs move over new connections", lambda: mover.moves > moved + 3)
    mover.end()
    count = sum(w.end() for w in writers)
    failures = sum((w.failures for w in writers), [])
    assert not mover.errors and not failures, (mover.errors[:3], failures[:3])
    assert links_lost(members) == lost, "a link went"
    after = on_record(members[0])
    assert all(after[n] != before[n] for n in before), (before, after)
    print(f"6 certificates replaced under {count} writes and {mover.moves} migrations; no link went")
    check_acknowledged(members, writers)
    failover.clear(members[0])


def ask_refresh(member):
    try:
        member.change("host.refresh_server_certificate", self=member.uuid)
    except (OSError, rpc.Refused):
        pass


def test_killed(members):
    """Killed -9 at any point: it comes back, is linked, and what it shows is on record."""
    prng = random.Random(7)
    caught = 0
    for i in range(12):
        m = members[i % 3]
        others = [x for x in members if x is not m]
        was = on_disk(m)
        thread = threading.Thread(target=ask_refresh, args=(m,), daemon=True)
        thread.start()
        time.sleep(prng.random() * 0.12)
        m.kill()
        thread.join(60)
        names = os.listdir(f"{m.directory}/state/member")
        caught += any("next" in n for n in names)
        m.start().close()
        until("it is linked", lambda: all(
            (lambda s: s and all(x["link"] in ("up", "self") for x in s["members"]))(status(o)) for o in others))
        until("it is at rest", lambda: on_record(others[0])[m.name] == (on_disk(m), ""))
        assert shown(m) == on_disk(m)
        print(f"{m.name}: killed, {'has another certificate' if on_disk(m) != was else 'has the former one'}; "
              f"left were {sorted(n for n in names if 'next' in n)}")
    print(f"{caught} of 12 times it was caught between two steps")


def pool_record(member):
    return next(iter(member.ask("pool.get_all_records", consistent=True).values()))


def test_ca(members, vm, base):
    """The CA changes while one host is away, under load. It is named; the former CA stays until it
    is back; then it goes, and the former CA's certificates with it."""
    away = [m for m in members if m is not master_of(members)][0]
    rest = [m for m in members if m is not away]
    before = pool_record(rest[0])["ca_certificate"]
    away.kill()
    until("it is missed", lambda: not rest[0].ask("host.get_record", self=away.uuid)["live"])
    writers = [Writer(m, f"ca{i}") for i, m in enumerate(rest)]
    failover.clear(rest[0])
    for w in writers:
        w.start()
    words = rest[0].change("pool.rotate_ca")
    assert away.name in words, words
    print(words)
    next_key = key_of(pool_record(rest[0])["ca_next_certificate"], "subject")
    until("the others have certificates of the next CA", lambda: all(
        key_of(r["certificate"], "authority") == next_key and not r["certificate_next"]
        for r in rest[0].ask("host.get_all_records").values() if r["name_label"] != away.name))
    count = sum(w.end() for w in writers)
    assert not sum((w.failures for w in writers), [])
    check_acknowledged(rest, writers)
    failover.clear(rest[0])
    writers = [Writer(m, f"later{i}") for i, m in enumerate(rest)]
    words = rest[1].change("pool.rotate_ca")
    assert away.name in words and "waited for" in words, words
    assert status(rest[0])["advice"] == words, status(rest[0])["advice"]
    time.sleep(3)
    assert pool_record(rest[0])["ca_certificate"] == before, "the former CA went too early"
    # A host that joins now is certified by the present CA, and takes one of the next.
    late = Member(base, "late")
    late.start().close()
    leader = master_of(rest)
    late.join(leader, leader.change("pool.issue_join_token"))
    late.uuid = until("its record", lambda: leader.uuid_of("late"))
    for w in writers:
        w.start()
    away.start().close()
    until("the next CA is the only one", lambda: (lambda p: p["ca_certificate"] != before and not
          p["ca_next_certificate"] and not p["ca_cross_certificate"])(pool_record(rest[0])))
    everyone = members + [late]
    ca = pool_record(rest[0])["ca_certificate"]
    for m in everyone:
        until(f"{m.name} trusts it alone", lambda: open(f"{m.directory}/state/member/ca.pem").read() == ca)
        assert not os.path.exists(f"{m.directory}/state/member/cross.pem")
    until("all are linked", lambda: all(
        x["link"] in ("up", "self") for m in everyone for x in (status(m) or {"members": [{"link": "?"}]})["members"]))
    count += sum(w.end() for w in writers)
    failures = sum((w.failures for w in writers), [])
    assert not failures, failures[:3]
    check_acknowledged(everyone, writers)
    failover.clear(rest[0])
    for m in everyone:  # what is on the disk is enough to start from
        m.kill()
    for m in everyone:
        m.start(wait=False)
    for m in everyone:
        m.client().close()
    until("all agree", lambda: master_of(everyone))
    print(f"another CA, with a host away and one that joined, under {count} writes")
    return late


def test_ca_killed(members):
    """The CA changes once more while hosts are killed at random."""
    prng = random.Random(11)
    leader = until("a master", lambda: master_of(members))
    before = pool_record(leader)["ca_certificate"]
    leader.change("pool.rotate_ca")
    for _ in range(4):
        time.sleep(prng.random() * 0.4)
        m = members[prng.randrange(len(members))]
        m.kill()
        m.start().close()
    leader = until("a master", lambda: master_of(members))
    until("it is done", lambda: (lambda p: p["ca_certificate"] != before and not p["ca_next_certificate"])(
        pool_record(until("a master", lambda: master_of(members)))))
    until("all are linked", lambda: all(
        x["link"] in ("up", "self") for m in members for x in (status(m) or {"members": [{"link": "?"}]})["members"]))
    print("and once more, hosts being killed")


def test_expiry(base):
    """A clock that is 800 days ahead: the host's certificate would soon run out. A message says
    so, and the host takes another one by itself. (The CA, of ten years, is not told of.)"""
    m = Member(base, "old")
    m.settings["test.clock-file"] = f"{m.directory}/clock"
    with open(f"{m.directory}/clock", "w") as f:
        f.write(str(800 * 86400 * 1000))
    m.start().close()
    was = on_disk(m)
    found = until("it is told", lambda: [
        r for r in m.ask("message.get_all_records").values() if r["name"] == "CERTIFICATE_EXPIRES"])
    assert len(found) == 1 and "host old expires in 2" in found[0]["body"], found
    print(found[0]["body"])
    until("it has another one", lambda: on_disk(m) != was and on_record(m)["old"] == (on_disk(m), ""), 180)
    m.stop()


def pool_of_three(base):
    """Another pool: sequence numbers begin anew."""
    rpc.Client.seen = 0
    members = [Member(base, f"{os.path.basename(base)}{i + 1}") for i in range(3)]
    failover.form(members)
    return members


def another(members):
    """One that is not the master, the others."""
    leader = until("a master", lambda: master_of(members))
    one = [m for m in members if m is not leader][-1]
    return one, [m for m in members if m is not one]


def rotated(members, before):
    """Whether the pool has another CA than that, and no change is under way."""
    p = pool_record(members[0])
    return p["ca_certificate"] != before and not p["ca_next_certificate"] and p["ca_certificate"]


def test_ejected(base):
    """A host is away while the CA changes, and is ejected, so that the change ends without it; then
    the CA changes once more. It trusts neither of the new ones when it comes back, and hears all
    the same that it was ejected."""
    members = pool_of_three(f"{base}/ejected")
    with failover.ended(members):
        away, rest = another(members)
        away.kill()
        until("it is missed", lambda: not rest[0].ask("host.get_record", self=away.uuid)["live"])
        ca = pool_record(rest[0])["ca_certificate"]
        assert away.name in rest[0].change("pool.rotate_ca")
        patiently(rest[0], "pool.eject", host=away.uuid)
        ca = until("the CA has changed", lambda: rotated(rest, ca))
        rest[0].change("pool.rotate_ca")
        ca = until("it has changed again", lambda: rotated(rest, ca))
        with open(f"{away.directory}/state/member/ca.pem") as f:
            assert key_of(f.read(), "subject") != key_of(ca, "subject")
        away.start(wait=False)
        until("it is alone", lambda: away.try_ask("host.get_all") == [away.uuid])
        (told,) = [m["body"] for m in away.ask("message.get_all_records").values() if m["name"] == "HOST_EJECTED"]
        print(told)
        assert "was ejected from the pool" in told, told
        rpc.Client.seen = 0
        away.join(rest[0], rest[0].change("pool.issue_join_token"))  # and may come back
        rpc.Client.seen = 0
        until("it is a member", lambda: len(rest[0].ask("host.get_all")) == 3)


def test_lost(base):
    """A CA is known to the master and another host, which have certificates of it. Both go, and the
    third, which never heard of it, is declared the pool. They are let in again when they are back."""
    members = pool_of_three(f"{base}/lost")
    with failover.ended(members):
        last, gone = another(members)
        before = pool_record(gone[0])["ca_certificate"]
        last.kill()
        until("it is missed", lambda: not gone[0].ask("host.get_record", self=last.uuid)["live"])
        gone[0].change("pool.rotate_ca")
        lost = key_of(pool_record(gone[0])["ca_next_certificate"], "subject")
        until("both have certificates of the next CA", lambda: all(
            key_of(r["certificate"], "authority") == lost and not r["certificate_next"]
            for r in gone[0].ask("host.get_all_records").values() if r["uuid"] != last.uuid))
        for m in gone:
            m.kill()
        last.start(wait=False)

        def declared():
            try:
                last.change("pool.emergency_transition_to_master", force=True)
                return True
            except (OSError, rpc.Refused):
                return False
        until("it is declared the pool", declared)
        rpc.Client.seen = 0
        until("it leads", lambda: (lambda s: s and s["master"] == last.uuid and s["quorum"])(status(last)))
        pool = until("its record", lambda: last.try_ask("pool.get_all_records", consistent=True))
        (pool,) = pool.values()
        assert pool["generation_number"] == 2 and pool["ca_certificate"] == before, pool
        assert not pool["ca_next_certificate"]
        for m in gone:
            m.start(wait=False)
        until("all are linked", lambda: all(
            x["link"] in ("up", "self") for m in members for x in (status(m) or {"members": [{"link": "?"}]})["members"]))
        until("they follow", lambda: master_of(members))
        until("they have certificates of the pool's CA", lambda: all(
            key_of(r["certificate"], "authority") == key_of(before, "subject") and not r["certificate_next"]
            for r in last.ask("host.get_all_records").values()))
        for m in members:
            until(f"{m.name} trusts it alone", lambda: open(f"{m.directory}/state/member/ca.pem").read() == before)
            until(f"{m.name} is at rest", lambda: not [
                n for n in os.listdir(f"{m.directory}/state/member") if "next" in n or "prior" in n or "cross" in n])
            assert on_disk(m) == on_record(last)[m.name][0] == shown(m)
        # And the CA may change after all.
        last.change("pool.rotate_ca")
        until("the CA has changed", lambda: rotated([last], before))


def test_load(base):
    members = [Member(base, f"host{i + 1}") for i in range(3)]
    everyone = list(members)
    with failover.ended(everyone):
        failover.form(members)
        vm = members[0].change("VM.create", record={
            "name_label": "mover", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
        patiently(members[0], "VM.start", self=vm, min_seq=rpc.Client.seen)
        test_refresh(members, vm)
        test_killed(members)
        everyone.append(test_ca(members, vm, base))
        test_ca_killed(everyone)


def main():
    base = tempfile.mkdtemp(prefix="reeve-rotation-")
    tests = {"load": test_load, "expiry": test_expiry, "ejected": test_ejected, "lost": test_lost}
    for name in sys.argv[1:] or tests:
        rpc.Client.seen = 0
        begun = time.monotonic()
        tests[name](base)
        print(f"{name}: passed in {time.monotonic() - begun:.1f} s")
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
