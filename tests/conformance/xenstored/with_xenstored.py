"""Runs a program against Debian's own C xenstored, on a machine without Xen.

usage: with_xenstored.py SHIM.so PROGRAM [ARGUMENT...]

xenstored comes from the packages that the lab caches (tests/xenlab/packages.py). The
program finds its socket in XENSTORED_PATH and its process id in XENSTORED_PID. The
answer is the program's; 77 (skipped) when the packages can't be had.
"""
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "xenlab"))
import packages  # noqa: E402


def log(text):
    print(f"with_xenstored: {text}", file=sys.stderr)


def find():
    try:
        got = packages.get(log)
    except packages.Missing as e:
        log(e)
        sys.exit(77)
    return os.path.join(got.root, "usr", "lib", f"xen-{got.xen}", "bin", "xenstored")


def start(shim, folder):
    """xenstored in the foreground, its database in memory; waits for its socket."""
    env = dict(os.environ, LD_PRELOAD=shim, XENSTORED_RUNDIR=folder, XENSTORED_ROOTDIR=folder)
    words = [find(), "-N", "-I", "--pid-file", os.path.join(folder, "pid")]
    out = open(os.path.join(folder, "out"), "wb")
    process = subprocess.Popen(words, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    socket = os.path.join(folder, "socket")
    for _ in range(600):
        if os.path.exists(socket):
            return process, socket
        if process.poll() is not None:
            break
        time.sleep(0.05)
    with open(out.name, "rb") as f:
        log(f"xenstored did not start: {f.read().decode(errors='replace')}")
    process.kill()
    sys.exit(1)


def main(shim, *program):
    with tempfile.TemporaryDirectory(prefix="reeve-xenstored-") as folder:
        process, socket = start(os.path.abspath(shim), folder)
        try:
            env = dict(os.environ, XENSTORED_PATH=socket, XENSTORED_PID=str(process.pid))
            return subprocess.run(program, env=env, check=False).returncode
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
