"""One real Xen host under QEMU: booted, given commands, powered off."""
import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

# Each found the hard way: with SMAP dom0 dies early, with RDTSCP PVH guests loop, with
# MONITOR Xen can die in mwait, without AVX there is less state to emulate. Without ERMS and
# FSRM nothing is copied by "rep movsb", which real processors do in whole lines and the
# emulation byte by byte.
CPU = "max,-smap,-rdtscp,-monitor,-avx,-avx2,-erms,-fsrm"
# Without eager-fpu the registers of processes get mixed up under emulation.
XEN_WORDS = "spec-ctrl=no,eager-fpu cpuidle=0 xpti=off pv-l1tf=off loglvl=warning guest_loglvl=warning"
BOOT_LIMIT = 120
AGENT_PORT = 7
CLOCK_MS = 5


class Failed(Exception):
    """A host or a command did not do what it should; the message is for people."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Wire:
    """What joins the second network cards of two hosts: two datagram sockets."""

    def __init__(self, folder):
        self.ends = [os.path.join(folder, "wire-a"), os.path.join(folder, "wire-b")]

    def options(self, end):
        mine, other = self.ends[end], self.ends[1 - end]
        return [
            "-netdev", f"dgram,id=wire,local.type=unix,local.path={mine},"
            f"remote.type=unix,remote.path={other}",
            "-device", f"virtio-net-pci,netdev=wire,romfile=,mac=52:54:00:77:01:0{end + 1}",
        ]


class Machine:
    """
    NAME and FOLDER (logs, shared files) of a host; FILES from images.py; on a WIRE it is
    END 0 or 1 with address 10.77.0.(END + 1). PORTS are forwarded from this machine:
    {port there: port here} in .ports once it runs. XENSTORED: the program, of Debian's two.
    """

    def __init__(self, name, folder, files, *, memory=1280, dom0=640, wire=None, end=0,
                 ports=(), limit=900, xenstored="xenstored"):
        self.name = name
        self.files = files
        self.memory, self.dom0 = memory, dom0
        self.wire, self.end = wire, end
        self.limit = limit
        self.xenstored = xenstored
        self.address = f"10.77.0.{end + 1}" if wire else ""
        self.share = os.path.join(folder, f"share-{name}")
        self.log = os.path.join(folder, f"{name}.log")
        os.makedirs(self.share, exist_ok=True)
        self.ports = dict.fromkeys((AGENT_PORT, *ports))
        self.process = None
        self.tail = collections.deque(maxlen=200)
        self.ready = threading.Event()

    def start(self):
        self.ports = {there: free_port() for there in self.ports}
        forwards = "".join(
            f",hostfwd=tcp:127.0.0.1:{here}-10.0.2.15:{there}"
            for there, here in self.ports.items()
        )
        words = ("console=hvc0 earlyprintk=xen mitigations=off clocksource=xen quiet "
                 f"lab.name={self.name} lab.xenstored={self.xenstored}")
        if self.address:
            words += f" lab.ip={self.address}"
        command = [
            # Ends with us, and after its time whatever happens.
            "setpriv", "--pdeathsig", "TERM", "timeout", "-k", "5", str(self.limit),
            "qemu-system-x86_64", "-name", self.name, "-accel", "tcg,thread=multi,tb-size=512",
            "-cpu", CPU, "-smp", "1", "-m", str(self.memory), "-machine", "pc", "-nodefaults",
            "-display", "none", "-no-reboot", "-monitor", "none", "-serial", "stdio",
            "-rtc", "base=utc,clock=host",
            "-kernel", self.files["xen"],
            "-initrd", f"{self.files['kernel']} {words},{self.files['initramfs']}",
            "-append", f"dom0_mem={self.dom0}M,max:{self.dom0}M dom0_max_vcpus=1 "
            f"console=com1 com1=115200,8n1 {XEN_WORDS}",
            "-fsdev", f"local,id=lab,path={self.share},security_model=none",
            "-device", "virtio-9p-pci,fsdev=lab,mount_tag=lab",
            "-netdev", f"user,id=out{forwards}",
            "-device", "virtio-net-pci,netdev=out,romfile=,mac=52:54:00:77:00:01",
        ]
        if self.wire:
            command += self.wire.options(self.end)
            if os.path.exists(self.wire.ends[self.end]):
                os.unlink(self.wire.ends[self.end])
        self.ready.clear()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        threading.Thread(target=self._read_console, args=(self.process,), daemon=True).start()

    def _read_console(self, process):
        start = time.monotonic()
        with open(self.log, "a") as log:
            for raw in iter(process.stdout.readline, b""):
                line = raw.decode("latin1").rstrip("\r\n")
                log.write(f"{time.monotonic() - start:8.2f} {line}\n")
                log.flush()
                self.tail.append(line)
                if re.match(r"LAB [0-9.]+ READY", line):
                    self.ready.set()
        process.wait()
        self.ready.set()

    def wait_ready(self, limit=BOOT_LIMIT):
        self.ready.wait(limit)
        if not self.ready.is_set() or self.process.poll() is not None:
            raise Failed(f"{self.name} did not boot within {limit} s; its console ends:\n"
                         + "\n".join(list(self.tail)[-15:]))
        self.set_clock()

    def set_clock(self):
        """
        To this machine's clock, as a time daemon would, within CLOCK_MS where the machine is
        quiet enough: what a guest sees as a gap when it moves between two hosts includes how
        far their clocks are apart. Returns how far it is off, in ms.
        """
        with self._connect() as s, s.makefile("rw") as agent:
            for _ in range(3):
                off = self._clock_off(agent)
                if abs(off) <= CLOCK_MS:
                    break
                self._clock_turn(agent, round(-off * 1000))
        return off

    @staticmethod
    def _clock_turn(agent, us):
        agent.write(f"clock {us}\n")
        agent.flush()
        return int(agent.readline()) / 1000

    def _clock_off(self, agent):
        """By the quickest of some answers."""
        best = None
        for _ in range(10):
            before = time.time() * 1000
            there = self._clock_turn(agent, 0)
            after = time.time() * 1000
            if best is None or after - before < best[0]:
                best = (after - before, there - (before + after) / 2)
        return best[1]

    # Commands

    def _connect(self, patience=30):
        """QEMU accepts whether or not dom0 listens yet; an answer tells."""
        end = time.monotonic() + patience
        while True:
            try:
                s = socket.create_connection(("127.0.0.1", self.ports[AGENT_PORT]), 10)
                s.settimeout(60)
                return s
            except OSError:
                if not self.alive():
                    raise Failed(f"{self.name} is off") from None
                if time.monotonic() > end:
                    raise Failed(f"{self.name} takes no connection") from None
                time.sleep(0.2)

    def run(self, script, limit=60):
        """(exit status, output) of a shell script in dom0; 124 when it took too long."""
        body = script.encode()
        end = time.monotonic() + limit + 30
        while True:
            try:
                return self._run_once(body, limit, end)
            except (ConnectionResetError, EOFError):
                if not self.alive():
                    raise Failed(f"{self.name} is off") from None
                if time.monotonic() > end:
                    raise Failed(f"{self.name} takes no commands: {script[:80]!r}") from None
            time.sleep(0.2)

    def _run_once(self, body, limit, end):
        with self._connect() as s:
            s.sendall(b"run %d %d\n" % (limit, len(body)) + body)
            output = b""
            while True:
                s.settimeout(max(0.1, end - time.monotonic()))
                try:
                    piece = s.recv(65536)
                except socket.timeout:
                    raise Failed(
                        f"{self.name} did not answer within {limit} s: {body[:80]!r}") from None
                output += piece
                done = re.search(rb"@status=(\d+)\n$", output)
                if done:
                    text = output[: done.start()].decode("utf-8", "replace")
                    return int(done.group(1)), text
                if not piece:
                    if output:
                        raise Failed(f"{self.name} went away during {body[:80]!r}")
                    raise EOFError

    def sh(self, script, limit=60):
        """The output of a script that must succeed."""
        status, output = self.run(script, limit)
        if status != 0:
            raise Failed(f"on {self.name}, status {status} of: {script.strip()[:300]}\n{output[-2000:]}")
        return output

    def wait(self, script, limit, what=None):
        """Until the script succeeds; its output then."""
        end = time.monotonic() + limit
        while True:
            status, output = self.run(script, 60)
            if status == 0:
                return output
            if time.monotonic() > end:
                raise Failed(f"on {self.name}, not within {limit} s: {what or script}\n{output[-2000:]}")
            time.sleep(0.5)

    def start_job(self, name, script):
        """In the background of dom0; its output in /tmp/NAME.out, its status in /tmp/NAME.rc."""
        self.sh(f"cat >/tmp/{name}.sh <<'END-OF-JOB'\n{script}\nEND-OF-JOB\n"
                f"rm -f /tmp/{name}.rc\n"
                f"(sh /tmp/{name}.sh; echo $? >/tmp/{name}.rc) </dev/null >/tmp/{name}.out 2>&1 &")

    def end_job(self, name, limit):
        """(status, output) of a background job."""
        self.wait(f"test -s /tmp/{name}.rc", limit, f"the job {name} ends")
        output = self.sh(f"cat /tmp/{name}.rc /tmp/{name}.out")
        status, _, text = output.partition("\n")
        return int(status), text

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def cpu_s(self):
        """Seconds of this machine's processors that it took so far; it is at work."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            qemu = f.read().split()[0]
        with open(f"/proc/{qemu}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def power_off(self):
        """As if the plug were drawn."""
        if self.process is None:
            return
        if self.process.poll() is None:
            # The group: timeout, and QEMU under it.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def collect_logs(self):
        """dom0's own logs, into its share: what a failure is explained with."""
        if not self.alive() or not self.ready.is_set():
            return
        try:
            self.run("mkdir -p /mnt/lab/logs; cp -r /var/log/. /mnt/lab/logs/ 2>/dev/null;"
                     "xl dmesg >/mnt/lab/logs/xl-dmesg; dmesg >/mnt/lab/logs/dmesg;"
                     "xl list -v >/mnt/lab/logs/xl-list 2>&1;"
                     "timeout 10 xenstore-ls -f >/mnt/lab/logs/xenstore", 60)
        except (Failed, OSError):
            pass

    def remove(self):
        shutil.rmtree(self.share, ignore_errors=True)
