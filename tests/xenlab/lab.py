"""What every job uses: images, hosts, progress, the lock, the clearing away."""
import fcntl
import os
import shutil
import sys
import tempfile
import threading
import time

import images
import packages
from machine import Failed, Machine, Wire

LOCK = "/tmp/xenlab.lock"
QUIET_S = 50
TOOLS = ("qemu-system-x86_64", "apt-cache", "lz4", "depmod", "busybox", "gcc")


def need_tools():
    for tool in TOOLS:
        if not shutil.which(tool):
            raise packages.Missing(f"there is no {tool}: ./run xenlab installs what the lab needs")


def take_lock(say):
    """At most one lab at a time: two emulated hosts are all a machine can bear. A descriptor."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another lab on this machine to end")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


class Lab:
    """One run of the lab: `with Lab(...) as lab`. FOLDER is kept when the run fails."""

    def __init__(self, name, with_paths=None, keep_logs=False, xenstored="xenstored"):
        self.name = name
        self.with_paths = with_paths or {}
        self.keep_logs = keep_logs
        self.xenstored = xenstored
        self.machines = []
        self.start = time.monotonic()
        self.spoke = self.start
        self.doing = "starting"
        self.done = threading.Event()
        self.lock = None
        self.folder = None

    def say(self, text):
        self.spoke = time.monotonic()
        self.doing = text
        print(f"lab: {self.spoke - self.start:5.0f} s  {text}", flush=True)

    def _tick(self):
        while not self.done.wait(1):
            if time.monotonic() - self.spoke > QUIET_S:
                self.spoke = time.monotonic()
                print(f"lab: {self.spoke - self.start:5.0f} s  still: {self.doing}", flush=True)

    def __enter__(self):
        need_tools()
        threading.Thread(target=self._tick, daemon=True).start()
        self.lock = take_lock(self.say)
        self.folder = tempfile.mkdtemp(prefix=f"reeve-xenlab-{self.name}-")
        try:
            self._make_images()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _make_images(self):
        found = packages.get(self.say)
        files = images.debian(found, self.say)
        parts = [files["base"], os.path.join(self.folder, "lab.cpio")]
        images.lab(found, parts[1])
        if self.with_paths:
            parts.append(os.path.join(self.folder, "reeve.cpio"))
            images.ours(parts[2], self.with_paths)
        files["initramfs"] = os.path.join(self.folder, "dom0.cpio")
        images.join(files["initramfs"], parts)
        for part in parts[1:]:
            os.unlink(part)
        self.files = files
        self.versions = f"Xen {found.xen}, Linux {found.kernel}"

    def boot(self, names=("host1",), **options):
        """The hosts, booted; two are joined by a wire."""
        wire = Wire(self.folder) if len(names) > 1 else None
        self.say(f"booting {', '.join(names)} ({self.versions}, {self.xenstored})")
        for end, name in enumerate(names):
            machine = Machine(name, self.folder, self.files, wire=wire, end=end,
                              xenstored=self.xenstored, **options)
            self.machines.append(machine)
            machine.start()
        for machine in self.machines:
            machine.wait_ready()
        self.say("ready: " + ", ".join(names))
        return self.machines

    def __exit__(self, kind, error, trace):
        failed = kind is not None
        if (failed or self.keep_logs) and kind not in (KeyboardInterrupt, SystemExit):
            for machine in self.machines:
                machine.collect_logs()
        for machine in self.machines:
            machine.power_off()
        if self.folder and os.path.isdir(self.folder):
            initramfs = os.path.join(self.folder, "dom0.cpio")
            if os.path.exists(initramfs):
                os.unlink(initramfs)
            if failed or self.keep_logs:
                print(f"lab: logs are in {self.folder}", flush=True)
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
        self.done.set()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None
        return False


__all__ = ["Failed", "Lab", "need_tools", "take_lock"]
