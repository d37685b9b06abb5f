"""The pool's CPU level, on real daemons with unequal simulated CPUs: who may join when, what a VM
is shown, where it may go.

usage: cpu_level.py [TEST]...
"""
import sys
import time

import rpc
from membership import Test, by_name, records, vm
from pool import refused, until


def level(client):
    return list(records(client, "pool").values())[0]["cpu_policy"]


def policy(client, host):
    return client.call("host.get_record", self=host, min_seq=rpc.Client.seen)["cpu_policy"]


def where(client, guest):
    record = client.call("VM.get_record", self=guest, min_seq=rpc.Client.seen)
    return record["power_state"], record["resident_on"]


def change(client, method, **params):
    """A host that has just started is not ready at once, and says so."""
    end = time.monotonic() + 60
    while True:
        try:
            return client.change(method, **params)
        except rpc.Refused as e:
            if e.code != "TRY_AGAIN" or time.monotonic() > end:
                raise
            time.sleep(0.05)


def join(client, first, member):
    member.join(first, client.change("pool.issue_join_token"))


def refused_join(code, client, first, member):
    other = member.client()
    words = refused(code, other, "pool.join", master_address=first.address,
                    token=client.change("pool.issue_join_token"))
    other.close()
    print(words)
    return words


def test_level():
    with Test(3) as t:
        first, second, third = t.members
        second.settings["hypervisor.sim-cpu-lacks"] = "avx2 bmi2"
        third.settings["hypervisor.sim-cpu-lacks"] = "avx2"
        client = first.start()
        for member in (second, third):
            member.start().close()
        own = level(client)
        guest = vm(client, "guest")
        assert own and own == policy(client, by_name(client, "host")["host1"])

        # A host with less waits until no VM could miss it.
        change(client, "VM.start", self=guest)
        words = refused_join("VM_INCOMPATIBLE_WITH_THIS_HOST", client, first, second)
        for part in ("avx2", "bmi2", "guest", "shut down"):
            assert part in words, part
        assert level(client) == own
        client.change("VM.hard_shutdown", self=guest)
        join(client, first, second)
        low = level(client)
        hosts = by_name(client, "host")
        assert low != own
        until("host2 tells its CPUs", lambda: policy(client, hosts["host2"]) == low)
        until("host2 is live", lambda: records(client, "host")[hosts["host2"]]["live"])
        until("host2 holds a lease", lambda: records(client, "host")[hosts["host2"]]["lease_until"])

        # What is started on the better host may go to the lesser one, and back.
        change(client, "VM.start", self=guest, on=hosts["host1"])
        for target in ("host2", "host1"):
            change(client, "VM.migrate", self=guest, host=hosts[target], live=True)
            assert where(client, guest) == ("Running", hosts[target])

        # One that has the level joins while it runs.
        join(client, first, third)
        hosts = by_name(client, "host")
        assert level(client) == low
        until("host3 is live", lambda: records(client, "host")[hosts["host3"]]["live"])

        # A member that lost a feature of the level is left out, with the reason.
        client.change("VM.hard_shutdown", self=guest)
        blocker = vm(client, "blocker")
        change(client, "VM.start", self=blocker, on=hosts["host1"])
        third.stop()
        third.settings["hypervisor.sim-cpu-lacks"] = "avx2 bmi2 aes"
        third.start().close()
        until("host3 tells its CPUs", lambda: policy(client, hosts["host3"]) not in (own, low))
        until("host3 is live", lambda: records(client, "host")[hosts["host3"]]["live"])
        words = refused("VM_INCOMPATIBLE_WITH_THIS_HOST", client, "VM.start", self=guest,
                        on=hosts["host3"])
        print(words)
        assert "CPUs lack" in words
        assert level(client) == low
        # It is lowered once nothing runs, and VMs start there then.
        client.change("VM.hard_shutdown", self=blocker)
        until("the level is lowered", lambda: level(client) == policy(client, hosts["host3"]))
        change(client, "VM.start", self=guest, on=hosts["host3"])
        client.change("VM.hard_shutdown", self=guest)

        # And raised when those who lack it have gone.
        client.change("pool.eject", host=hosts["host3"])
        until("the level is raised", lambda: level(client) == low)
        client.close()


def test_xen_version():
    with Test(2) as t:
        first, second = t.members
        second.settings["hypervisor.sim-version"] = "4.16"
        client = first.start()
        second.start().close()
        words = refused_join("FEATURE_UNSUPPORTED", client, first, second)
        assert "4.16" in words and "update Xen" in words
        second.stop()
        second.settings["hypervisor.sim-version"] = "4.18"
        second.start().close()
        join(client, first, second)
        hosts = by_name(client, "host")
        until("host2 is live", lambda: records(client, "host")[hosts["host2"]]["live"])
        guest = vm(client, "guest")
        change(client, "VM.start", self=guest, on=hosts["host2"])
        words = refused("FEATURE_UNSUPPORTED", client, "VM.migrate", self=guest,
                        host=hosts["host1"], live=True)
        print(words)
        assert where(client, guest) == ("Running", hosts["host2"])
        client.close()


def main():
    tests = {name[5:]: f for name, f in globals().items() if name.startswith("test_")}
    for name in sys.argv[1:] or tests:
        begin = time.monotonic()
        tests[name]()
        print(f"{name}: passed in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
