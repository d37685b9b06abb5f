"""Three real daemons form a pool over TLS: joining, any host takes commands, placement over
hosts, half-working hosts, wrong tokens, a member killed and started again, a master restarted.

usage: pool.py
"""
import os
import shutil
import tempfile
import threading
import time

import host
import rpc
from host import free_port, until


def refused(code, client, method, **params):
    """The words of the refusal. What is busy is asked again: an operation's last steps go on
    for a moment after its task has ended."""
    end = time.monotonic() + 30
    while True:
        try:
            value = client.change(method, **params)
        except rpc.Refused as e:
            if e.code in ("OTHER_OPERATION_IN_PROGRESS", "TRY_AGAIN") and code != e.code and time.monotonic() < end:
                time.sleep(0.05)
                continue
            assert e.code == code, f"{method}: expected {code}, got {e}"
            return str(e)
        raise AssertionError(f"{method} was not refused but gave {value}")


def settled(client, method, /, **params):
    """As client.change, once the last operation's last steps are done: they go on for a moment
    after its task has ended."""
    def attempt():
        try:
            client.change(method, **params)
            return True
        except rpc.Refused as e:
            assert e.code == "OTHER_OPERATION_IN_PROGRESS", e
            return False
    until(method, attempt)


class Member(host.Host):
    def __init__(self, base, name, step="1ms"):
        self.name = name
        self.address = f"tcp:127.0.0.1:{free_port()}"
        super().__init__(f"{base}/{name}", {
            "host.name-label": name,
            "pool.listen": self.address,
            "hypervisor.sim-memory": "8GiB",
            "hypervisor.sim-step": step,
        })
        os.makedirs(self.directory)

    def join(self, master, token):
        client = self.client()
        client.change("pool.join", master_address=master.address, token=token)
        client.close()
        until(f"{self.name} is a member", lambda: self.hosts() > 1)

    def hosts(self):
        try:
            client = rpc.Client(self.socket)
            count = len(client.call("host.get_all"))
            client.close()
            return count
        except (OSError, rpc.Refused):
            return 0


def form(members):
    first = members[0]
    client = first.start()
    for member in members[1:]:
        member.start().close()
        token = client.change("pool.issue_join_token")
        member.join(first, token)
    until("all are live and hold their leases", lambda: len([
        h for h in client.call("host.get_all_records", fields=["live", "lease_until"]).values()
        if h["live"] and h["lease_until"]]) == len(members))
    return client


def test_tokens(members, client, base):
    stranger = Member(base, "stranger")
    other = stranger.start()
    token = client.change("pool.issue_join_token")
    wrong = ("0" * 64) + token[64:]
    print(refused("SESSION_AUTHENTICATION_FAILED", other, "pool.join",
                  master_address=members[0].address, token=wrong))
    alien = token[:65] + "0" * 64
    refused("TLS_FAILED", other, "pool.join", master_address=members[0].address, token=alien)
    refused("INVALID_VALUE", other, "pool.join", master_address=members[0].address, token="nonsense")
    short = client.change("pool.issue_join_token", ttl_ms=1000)
    time.sleep(1.2)
    print(refused("TIMEOUT", other, "pool.join", master_address=members[0].address, token=short))
    other.close()
    stranger.stop()


def test_strays(members, client, base):
    """A host with a domain that is no VM may not join, and says which one and what to do."""
    stray = Member(base, "stray")
    own = stray.start()
    vm = own.change("VM.create", record={
        "name_label": "left", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})

    def started():
        try:
            own.change("VM.start", self=vm)
            return True
        except rpc.Refused as e:
            assert e.code == "TRY_AGAIN", e
            return False
    until("the daemon is ready", started)
    own.close()
    stray.kill()
    for part in ("db", "member"):  # another pool; the host stays who it is
        shutil.rmtree(f"{stray.directory}/state/{part}")
    own = stray.start()
    (here,) = own.call("host.get_all")
    (ghost,) = until("the domain is seen", lambda: own.call("host.ghost_list", self=here))
    token = client.change("pool.issue_join_token")
    words = refused("OPERATION_NOT_ALLOWED", own, "pool.join", master_address=members[0].address, token=token)
    assert f"{ghost['name']} (domain {ghost['domid']})" in words and "host-ghost-destroy" in words, words
    print(words)
    own.change("host.ghost_destroy", self=here, domid=ghost["domid"])
    refused("SESSION_AUTHENTICATION_FAILED", own, "pool.join",
            master_address=members[0].address, token=("0" * 64) + token[64:])
    own.close()
    stray.stop()


def test_placement(members, client):
    vms = []
    for i in range(12):
        vm = client.change("VM.create", record={
            "name_label": f"vm{i}", "memory_static_max": 512 << 20, "PV_kernel": "/boot/vmlinuz"})
        # Whoever is asked: the master decides, the chosen host starts it.
        asked = members[i % len(members)].client()
        asked.change("VM.start", self=vm, min_seq=rpc.Client.seen)
        record = asked.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)
        assert record["power_state"] == "Running", record
        asked.close()
        vms.append(vm)
    where = {}
    for record in client.call("VM.get_all_records").values():
        where.setdefault(record["resident_on"], []).append(record["name_label"])
    counts = sorted(len(v) for v in where.values())
    print(f"greedy placed {counts}")
    assert len(counts) == 3 and counts[2] - counts[0] <= 2, where
    return vms


def test_policies(members, client):
    """conservative fills one host before it takes another."""
    pool = client.call("pool.get_all")[0]
    refused("INVALID_VALUE", client, "pool.set_fields", self=pool, fields={"scheduler": "random"})
    client.change("pool.set_fields", self=pool, fields={"scheduler": "conservative"})
    hosts = set()
    for i in range(4):
        vm = client.change("VM.create", record={
            "name_label": f"packed{i}", "memory_static_max": 256 << 20, "PV_kernel": "/boot/vmlinuz"})
        client.change("VM.start", self=vm)
        hosts.add(client.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)["resident_on"])
    assert len(hosts) == 1, hosts
    print("conservative used one host")
    client.change("pool.set_fields", self=pool, fields={"scheduler": "greedy"})


def test_any_host(members, vms):
    """Every operation through a host that has neither the VM nor the mastership."""
    clients = [m.client() for m in members]
    for i, vm in enumerate(vms[:6]):
        client = clients[i % len(clients)]
        for verb, state in [("pause", "Paused"), ("unpause", "Running"), ("clean_reboot", "Running"),
                            ("clean_shutdown", "Halted"), ("start", "Running")]:
            settled(client, f"VM.{verb}", self=vm, min_seq=rpc.Client.seen)
            assert client.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)["power_state"] == state
    refused("VM_BAD_POWER_STATE", clients[2], "VM.start", self=vms[0])
    for client in clients:
        client.close()


def test_named_host(members, client):
    hosts = {r["name_label"]: u for u, r in client.call("host.get_all_records").items()}
    vm = client.change("VM.create", record={
        "name_label": "pinned", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
    client.change("VM.start", self=vm, on=hosts["host3"])
    assert client.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)["resident_on"] == hosts["host3"]
    client.change("VM.hard_shutdown", self=vm)
    huge = client.change("VM.create", record={
        "name_label": "huge", "memory_static_max": 1 << 40, "PV_kernel": "/boot/vmlinuz"})
    words = refused("NO_HOSTS_AVAILABLE", client, "VM.start", self=huge)
    assert "and 2 more for that reason" in words, words
    print(words)


def test_guarded(members, client):
    """A host with saved domains takes no VM: the master places elsewhere, and names it where it is named."""
    hosts = {r["name_label"]: u for u, r in client.call("host.get_all_records").items()}
    saved = os.path.join(members[1].settings["test.dom0-root"], "var/lib/xen/save")
    os.makedirs(saved)
    with open(f"{saved}/web9", "w"):
        pass
    until("the guard is known", lambda: "web9" in client.call("host.get_record", self=hosts["host2"])["start_refusal"])
    vm = client.change("VM.create", record={
        "name_label": "guarded", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
    words = refused("NO_HOSTS_AVAILABLE", client, "VM.start", self=vm, on=hosts["host2"])
    assert "host2" in words and "web9" in words and "xl restore" in words, words
    print(words)
    for _ in range(4):
        settled(client, "VM.start", self=vm)
        assert client.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)["resident_on"] != hosts["host2"]
        settled(client, "VM.hard_shutdown", self=vm)
    os.unlink(f"{saved}/web9")
    until("the guard lets go", lambda: not client.call("host.get_record", self=hosts["host2"])["start_refusal"])
    settled(client, "VM.start", self=vm, on=hosts["host2"])
    settled(client, "VM.hard_shutdown", self=vm)


def test_half_working(members, client, base):
    """A shared SR plugged on two of three hosts: starts go there; on= names the missing PBD."""
    hosts = {r["name_label"]: u for u, r in client.call("host.get_all_records").items()}
    sr = client.change("SR.create", name_label="shared", type="file", shared=True,
                       device_config={"location": f"{base}/sr"})
    pbd = client.change("PBD.create", record={
        "host": hosts["host2"], "SR": sr, "device_config": {"location": f"{base}/sr"}})
    client.change("PBD.plug", self=pbd)
    disk = client.change("VDI.create", record={"name_label": "disk", "SR": sr, "virtual_size": 1 << 30})
    vm = client.change("VM.create", record={
        "name_label": "disked", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
    client.change("VBD.create", record={"VM": vm, "VDI": disk})
    words = refused("SR_NOT_ATTACHED", client, "VM.start", self=vm, on=hosts["host3"])
    assert "host3" in words and "shared" in words, words
    print(words)
    for _ in range(4):
        settled(client, "VM.start", self=vm, min_seq=rpc.Client.seen)
        assert client.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)["resident_on"] in (hosts["host1"], hosts["host2"])
        settled(client, "VM.clean_shutdown", self=vm, min_seq=rpc.Client.seen)


def test_migration(members, client):
    """There and back while it writes to its memory; asked of a host that is neither."""
    hosts = {r["name_label"]: u for u, r in client.call("host.get_all_records").items()}
    vm = client.change("VM.create", record={
        "name_label": "busy", "memory_static_max": 256 << 20, "PV_kernel": "/boot/vmlinuz",
        "platform": {"sim.dirty_pages_per_s": "500", "sim.used_ppm": "500000"}})
    client.change("VM.start", self=vm, on=hosts["host2"])
    other = members[0].client()
    for target in ("host3", "host2", "host1", "host2"):
        words = until(f"a move to {target}", lambda: moved(other, vm, hosts[target]))
        record = other.call("VM.get_record", self=vm, min_seq=rpc.Client.seen)
        assert record["resident_on"] == hosts[target] and record["power_state"] == "Running", record
        print(f"to {target}: {words}")
    refused("MESSAGE_PARAMETER_INVALID", other, "VM.migrate", self=vm, host=hosts["host2"])
    pv = client.change("VM.create", record={
        "name_label": "pv", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz", "domain_type": "pv"})
    client.change("VM.start", self=pv, on=hosts["host1"])
    print(refused("FEATURE_UNSUPPORTED", client, "VM.migrate", self=pv, host=hosts["host2"]))
    client.change("VM.migrate", self=pv, host=hosts["host2"], live=False)
    other.close()


def moved(client, vm, host):
    try:
        return client.change("VM.migrate", self=vm, host=host, min_seq=rpc.Client.seen)
    except rpc.Refused as e:
        assert e.code == "OTHER_OPERATION_IN_PROGRESS", e
        return None


def test_squeeze(members, client):
    """More VMs on a host than fit at their full size: those that run give memory back."""
    hosts = {r["name_label"]: u for u, r in client.call("host.get_all_records").items()}
    wide = []
    for i in range(7):
        vm = client.change("VM.create", record={
            "name_label": f"wide{i}", "memory_dynamic_min": 256 << 20, "memory_static_max": 1 << 30,
            "PV_kernel": "/boot/vmlinuz", "platform": {"sim.feature_balloon": "true"}})
        # Until its balloon is known to work, a guest counts with all it has.
        until("room was made", lambda: started(client, vm, hosts["host3"]), 60)
        wide.append(vm)
    sizes = {r["name_label"]: r["memory_actual"] >> 20 for u, r in client.call("VM.get_all_records").items()
             if u in wide}
    print(f"squeezed: {sizes}")
    measured = [size for size in sizes.values() if size]  # the newest may not be yet
    assert min(measured) < 1024 and min(measured) >= 256, sizes
    until("the host tells how their balloons do, also elsewhere", lambda: all(
        r["memory_state"] in ("ok", "slow") and r["memory_target"] for u, r in
        client.call("VM.get_all_records").items() if u in wide[:3]), 60)
    for vm in wide:
        client.change("VM.hard_shutdown", self=vm)
    until("nothing is told of what is halted", lambda: all(
        r["memory_state"] == "" and not r["memory_target"] for u, r in
        client.call("VM.get_all_records").items() if u in wide), 60)


def started(client, vm, host):
    try:
        client.change("VM.start", self=vm, on=host)
        return True
    except rpc.Refused as e:
        assert e.code in ("HOST_NOT_ENOUGH_FREE_MEMORY", "NO_HOSTS_AVAILABLE"), e
        return False


def test_restarts(members, client):
    before = {u: (r["power_state"], r["resident_on"]) for u, r in client.call("VM.get_all_records").items()}
    members[2].kill()
    until("the master misses it", lambda: not all(
        h["live"] for h in client.call("host.get_all_records", fields=["live"]).values()))
    members[2].start().close()
    until("it is back", lambda: all(
        h["live"] for h in client.call("host.get_all_records", fields=["live"]).values()))
    client.close()
    members[0].kill()
    members[0].start().close()
    client = members[0].client()
    until("the members are back", lambda: all(
        h["live"] for h in client.call("host.get_all_records", fields=["live"]).values()))
    for member in members:
        other = member.client()
        after = {u: (r["power_state"], r["resident_on"]) for u, r in other.call("VM.get_all_records").items()}
        assert after == before, (member.name, before, after)
        other.close()
    other = members[1].client()
    until("members can change things again", lambda: not other.call("pool.get_all") or changed(other))
    other.close()
    return client


def changed(client):
    try:
        client.change("pool.set_fields", self=client.call("pool.get_all")[0], fields={"name_description": "x"})
        return True
    except rpc.Refused as e:
        assert e.retryable, e
        return False


def test_stop_at_work(base):
    """A host ends while it carries out another host's call; the caller follows the task."""
    members = [Member(base, "asking"), Member(base, "asked", "2s")]
    outcome = []

    def start(vm, on):
        caller = members[0].client()
        while not outcome:
            try:
                outcome.append(caller.call("VM.start", self=vm, on=on))
            except rpc.Refused as e:
                if e.code == "TRY_AGAIN":  # the host has just come up
                    time.sleep(0.2)
                else:
                    outcome.append(e)
            except OSError as e:
                outcome.append(e)

    try:
        client = form(members)
        hosts = {r["name_label"]: u for u, r in client.call("host.get_all_records").items()}
        vm = client.change("VM.create", record={
            "name_label": "slow", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
        thread = threading.Thread(target=start, args=(vm, hosts["asked"]), daemon=True)
        thread.start()
        until("it is at work", lambda: any(
            t["method"] == "VM.start" for t in client.call("task.get_all_records").values()))
        members[1].stop()
        assert not outcome, outcome
        members[1].start().close()
        thread.join(60)
        assert not thread.is_alive(), "the caller was never told"
        print("the caller of a host that ended and came back got", outcome)
        client.close()
        for member in reversed(members):
            member.stop()
    finally:
        for member in members:
            if member.process and member.process.poll() is None:
                member.kill()


def main():
    base = tempfile.mkdtemp(prefix="reeve-pool-")
    members = [Member(base, f"host{i + 1}") for i in range(3)]
    members[1].settings["test.dom0-root"] = f"{base}/root"
    try:
        client = form(members)
        print("three hosts, one pool")
        test_tokens(members, client, base)
        test_strays(members, client, base)
        vms = test_placement(members, client)
        test_policies(members, client)
        test_any_host(members, vms)
        test_named_host(members, client)
        test_guarded(members, client)
        test_half_working(members, client, base)
        test_migration(members, client)
        test_squeeze(members, client)
        client = test_restarts(members, client)
        client.close()
        for member in reversed(members):
            member.stop()
        test_stop_at_work(base)
    finally:
        for member in members:
            if member.process and member.process.poll() is None:
                member.kill()
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
