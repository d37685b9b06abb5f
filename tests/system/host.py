"""One reeved as a process of a test: started, killed, started again."""
import os
import random
import signal
import socket
import subprocess
import time

import rpc

BUILD = os.environ["REEVE_BUILD"]


def until(what, look, patience=90):
    """What `look` gives, once it is true. Machines may be slow: what is waited for comes at once
    or never."""
    end = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {patience} s: {what}"
        time.sleep(0.05)


def patiently(client, method, /, **params):
    """A host that has just come up compares first what runs there; what is at work ends by itself.
    Whatever has `change` may ask."""
    def attempt():
        try:
            client.change(method, **params)
            return True
        except rpc.Refused as e:
            assert e.retryable, e
            return False
    until(method, attempt, 60)


def refused(code, client, method, **params):
    """The words of the refusal."""
    try:
        result = client.change(method, **params)
    except rpc.Refused as error:
        assert error.code == code, error
        return str(error)
    raise AssertionError(f"{method} was not refused but gave {result}")


def free_port():
    """Below those that the kernel gives to connections: nobody else takes it before the daemon."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Host:
    def __init__(self, directory, settings=None):
        self.directory = directory
        self.settings = {
            "host.name-label": "host1",
            "host.state-dir": f"{directory}/state",
            "host.run-dir": f"{directory}/run",
            "hypervisor.driver": "simulated",
            "hypervisor.sim-memory": "64GiB",
            "network.driver": "simulated",
            "log.level": "warn",
        }
        self.settings.update(settings or {})
        self.socket = f"{directory}/run/rpc.sock"
        self.log = f"{directory}/log"
        self.process = None

    def start(self, wait=True):
        command = [f"{BUILD}/daemon/reeved", "--config", "/dev/null"]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.client() if wait else None

    def client(self, patience=30):
        end = time.monotonic() + patience
        while True:
            try:
                client = rpc.Client(self.socket)
                client.call("pool.get_all")
                return client
            except (OSError, rpc.Refused):
                if self.process.poll() is not None:
                    raise RuntimeError(f"reeved ended with {self.process.returncode}; {self.tail()}")
                if time.monotonic() > end:
                    raise RuntimeError(f"reeved does not answer; {self.tail()}")
                time.sleep(0.02)

    def tail(self):
        with open(self.log, errors="replace") as log:
            return "its log ends:\n" + "".join(log.readlines()[-15:])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """An orderly end; its exit status must be 0 (sanitizers make it 1)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        if status != 0:
            raise RuntimeError(f"reeved ended with {status}; {self.tail()}")
