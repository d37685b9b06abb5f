"""A daemon of its own for a test: simulated hypervisor, state in a fresh directory."""
import os
import shutil
import signal
import subprocess
import tempfile
import time


class Host:
    def __init__(self, reeve, reeved, sets=()):
        self.reeve, self.reeved, self.sets = reeve, reeved, sets
        self.dir = tempfile.mkdtemp(prefix="reeve-cli-")
        self.url = f"ipc://{self.dir}/run/rpc.sock"
        self.process = None
        os.makedirs(f"{self.dir}/sr")

    def environment(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("REEVE_")}
        return {**env, "REEVE_URL": self.url, "HOME": self.dir, "TZ": "UTC"}

    def start(self):
        sets = {
            "host.name-label": "host1",
            "host.state-dir": f"{self.dir}/state",
            "host.run-dir": f"{self.dir}/run",
            "hypervisor.driver": "simulated",
            "hypervisor.sim-memory": "16GiB",
            "network.driver": "simulated",
            **dict(self.sets),
        }
        command = [self.reeved, "--config", "/dev/null"]
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        log = open(f"{self.dir}/log", "ab")
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        for _ in range(600):
            if self.process.poll() is not None:
                break
            if self.run("host-list", "--minimal").returncode == 0:
                return self
            time.sleep(0.05)
        raise SystemExit(f"reeved does not answer:\n{open(log.name).read()[-2000:]}")

    def run(self, *words, **kwargs):
        return subprocess.run(
            [self.reeve, *words], capture_output=True, text=True, timeout=100,
            stdin=subprocess.DEVNULL, env=self.environment(), **kwargs
        )

    def must(self, *words):
        result = self.run(*words)
        if result.returncode != 0:
            raise SystemExit(f"reeve {' '.join(words)}: {result.stderr}")
        return result.stdout.strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ends the daemon; its exit status (a sanitizer's complaint is one)."""
        status = 0
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                status = self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
        return status
