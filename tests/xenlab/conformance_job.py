"""The suite of all hypervisor drivers, on the one for real Xen, in one dom0."""
import os
import time

from lab import Failed, Lab
from reeve import build_dir, programs

COMMAND = (
    "real_suite --driver-dir /usr/lib/reeve --kernel /guest/vmlinuz --ramdisk /guest/initramfs "
    "--cmdline 'console=hvc0 mitigations=off quiet' --platform tsc_mode=native "
    # Of this a guest gives a third, and keeps enough for itself.
    "--memory 128 --limit 240 "
)


def run(arguments):
    """The drivers' suite on real Xen, for one type of guest."""
    suite = f"{build_dir()}/tests/conformance/xen/real_suite"
    if not os.path.exists(suite):
        raise Failed(f"there is no {suite}: build xenlab_programs")
    paths = {**programs(), "usr/bin/real_suite": suite}
    with Lab("conformance", paths, arguments.keep_logs, arguments.xenstored) as lab:
        machine = lab.boot(("host1",), memory=1408, dom0=768, limit=arguments.limit + 300)[0]
        machine.start_job("suite", f"{COMMAND} --type {arguments.type} {' '.join(arguments.cases)}")
        end, told = time.monotonic() + arguments.limit, 0
        while time.monotonic() < end:
            lines = machine.run("cat /tmp/suite.out; cat /tmp/suite.rc 2>/dev/null")[1].splitlines()
            done = machine.run("test -s /tmp/suite.rc")[0] == 0
            for line in lines[told : len(lines) - done]:
                lab.say(line)
            told = max(told, len(lines) - done)
            if done:
                status, _ = machine.end_job("suite", 10)
                if status != 0:
                    raise Failed(f"the suite ended with status {status}")
                return
            time.sleep(5)
        raise Failed(f"the suite did not end within {arguments.limit} s")
