"""kill -9 at random moments of a busy daemon: nothing acknowledged is lost, nothing half-done.

usage: crash.py [ROUNDS [SEED]]
"""
import random
import shutil
import sys
import tempfile
import threading
import time
import uuid

import host
import rpc

STATES = {"start": "Running", "clean_shutdown": "Halted", "hard_shutdown": "Halted",
          "pause": "Paused", "unpause": "Running", "suspend": "Suspended", "resume": "Running"}
NEXT = {"Halted": ["start"], "Running": ["clean_shutdown", "hard_shutdown", "pause", "suspend"],
        "Paused": ["unpause"], "Suspended": ["resume"]}


class Worker(threading.Thread):
    """A client of one VM: remembers what was acknowledged, and what was only asked for."""

    def __init__(self, path, vm, seed):
        super().__init__()
        self.path, self.vm, self.random = path, vm, random.Random(seed)
        self.verb = None
        self.state, self.note = None, None
        self.asked_state, self.asked_note, self.asked = None, None, None
        self.acknowledged = 0

    def run(self):
        try:
            client = rpc.Client(self.path)
            record = client.call("VM.get_record", self=self.vm, fields=["power_state", "name_description"])
            self.state, self.note = record["power_state"], record["name_description"]
            while True:
                self.step(client)
        except (OSError, rpc.Refused):
            pass  # killed under us, as intended

    def step(self, client):
        self.asked_note = str(self.random.random())
        client.change("VM.set_fields", self=self.vm, fields={"name_description": self.asked_note})
        self.note, self.asked_note = self.asked_note, None
        self.verb = self.random.choice(NEXT[self.state])
        self.asked, self.asked_state = str(uuid.uuid4()), STATES[self.verb]
        client.call(f"VM.{self.verb}", self=self.vm, request=self.asked)
        self.state, self.asked_state = self.asked_state, None
        self.acknowledged += 2


def settle(client):
    """Waits until nothing is at work any more."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        tasks = client.call("task.get_all_records", fields=["status", "method"])
        vms = client.call("VM.get_all_records", fields=["intent", "current_operations"])
        if all(t["status"] not in ("pending", "cancelling") for t in tasks.values()) and all(
            not v["intent"] and not v["current_operations"] for v in vms.values()
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"still at work a minute after the restart: {tasks} {vms}")


def check(client, worker, leaving):
    record = client.call("VM.get_record", self=worker.vm)
    notes = {worker.note, worker.asked_note} - {None}
    assert record["name_description"] in notes, f"lost: {record['name_description']} not in {notes}"
    # An operation that was asked for and not answered may have been finished or undone; one
    # that reboots into a crash leaves the VM halted, never in two places.
    states = {worker.state, worker.asked_state} - {None}
    if worker.vm in leaving:
        states.add("Halted")
    assert record["power_state"] in states, (
        f"{record['name_label']}: {record['power_state']} not in {states}; "
        f"messages: {[m['body'] for m in client.call('message.get_all_records').values()]}; "
        f"task: {worker.asked and client.call('task.get_all_records').get(worker.asked)}")
    running = record["power_state"] in ("Running", "Paused")
    assert bool(record["resident_on"]) == running, record
    assert (record["domid"] >= 0) == running, record


def one_round(h, vms, seed, leaving):
    workers = [Worker(h.socket, vm, f"{seed}/{vm}") for vm in vms]
    for worker in workers:
        worker.start()
    time.sleep(random.Random(seed).uniform(0.05, 0.8))
    h.kill()
    for worker in workers:
        worker.join()
        # A guest that was asked to shut down can't be told that nobody waits any more: it may
        # still do so, now or rounds later.
        if worker.asked_state and worker.verb == "clean_shutdown":
            leaving.add(worker.vm)
    client = h.start()
    settle(client)
    for worker in workers:
        check(client, worker, leaving)
    client.close()
    return sum(worker.acknowledged for worker in workers)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print(f"seed {seed}; replay: crash.py {rounds} {seed}")
    directory = tempfile.mkdtemp(prefix="reeve-crash-")
    h = host.Host(directory, {"hypervisor.sim-step": "2ms"})
    try:
        client = h.start()
        sr = client.change("SR.create", name_label="sr", type="file", device_config={"location": f"{directory}/sr"})
        network = client.change("network.create", record={"name_label": "lan"})
        vms = []
        for i in range(8):
            vm = client.change("VM.create", record={
                "name_label": f"vm{i}", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
            disk = client.change("VDI.create", record={"name_label": f"disk{i}", "SR": sr, "virtual_size": 1 << 30})
            client.change("VBD.create", record={"VM": vm, "VDI": disk})
            client.change("VIF.create", record={"VM": vm, "network": network})
            vms.append(vm)
        client.close()
        leaving = set()
        acknowledged = sum(one_round(h, vms, f"{seed}/{i}", leaving) for i in range(rounds))
        h.stop()
        assert acknowledged > rounds, "hardly anything was acknowledged: the test tests nothing"
        print(f"{rounds} kills, {acknowledged} acknowledged changes, nothing lost")
    finally:
        if h.process and h.process.poll() is None:
            h.kill()
    shutil.rmtree(directory)


main()
