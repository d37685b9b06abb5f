"""What needs a terminal, signals, a crash or a shell: the progress bar, Ctrl-C, a daemon
that is killed while a task is awaited, profiles, event-watch, completion in bash.

usage: live.py REEVE REEVED
"""
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time

from host import Host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def check(ok, what, *seen):
    if not ok:
        raise AssertionError(f"{what}: {seen}")


def until(condition, what):
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came: {what}")


def begin(host, *words, err=subprocess.PIPE, stdin=subprocess.DEVNULL):
    return subprocess.Popen(
        [host.reeve, *words], env=host.environment(), stdin=stdin,
        stdout=subprocess.PIPE, stderr=err, text=True,
    )


def pending(host, method):
    """The UUID of a task at work."""
    return until(
        lambda: host.must("task-list", f"name-label={method}", "status=pending", "--minimal"),
        f"{method} at work",
    )


def state(host, vm):
    return host.must("vm-param-get", f"vm={vm}", "param-name=power-state")


def start_vms(host):
    host.must("sr-create", "name-label=local", "type=file", f"device-config:location={host.dir}/sr")
    for vm, platform in (("slow", "sim.shutdown=2s"), ("deaf", "sim.ignores_shutdown=true")):
        host.must(
            "vm-create", f"name-label={vm}", "memory-static-max=256MiB", "PV-kernel=/boot/k",
            f"platform:{platform}",
        )
        host.must("vm-start", f"vm={vm}")
    # The guest has to be up before it can ignore anything.
    time.sleep(1)


def bar(host):
    master, slave = pty.openpty()
    process = begin(host, "vm-shutdown", "vm=slow", err=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(master)
    check(process.wait(60) == 0, "shut down", seen)
    check(re.search(rb"\rvm-shutdown slow \[[#-]+\] +\d+% \d:\d\d ", seen), "bar", seen)
    check(seen.endswith(b"\r\x1b[K"), "the bar is taken away", seen)
    host.must("vm-start", "vm=slow")
    quiet = host.run("vm-shutdown", "vm=slow")
    check((quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", ""), "no bar", quiet)


def cancel(host):
    process = begin(host, "vm-shutdown", "vm=deaf")
    pending(host, "VM.clean_shutdown")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    check(process.returncode == 130, "cancelled", process.returncode, err)
    check(
        err.startswith("reeve: cancelling; Ctrl-C again leaves it alone\nTASK_CANCELLED: VM deaf: "),
        "words", err,
    )
    check(out == "" and state(host, "deaf") == "Running", "undone", out)


def cancel_saving(host):
    """While the image is written: with parts of it on their way to the disk."""
    host.must("vm-create", "name-label=large", "memory-static-max=2GiB", "PV-kernel=/boot/k")
    host.must("vm-start", "vm=large")
    for i in range(12):
        process = begin(host, "vm-suspend", "vm=large")
        pending(host, "VM.suspend")
        time.sleep(0.2 + 0.07 * i)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if process.returncode == 0:  # it was faster
            host.must("vm-resume", "vm=large")
            continue
        check(process.returncode == 130, "cancelled", process.returncode, err)
        check(err.endswith("TASK_CANCELLED: VM large: vm-suspend was cancelled\n"), "words", err)
        check(state(host, "large") == "Running", "runs on")
    host.must("vm-shutdown", "vm=large", "--force")
    host.must("vm-uninstall", "vm=large", "force=true")


def ask(host):
    """sr-destroy at a terminal: it says what is lost, and takes yes for an answer."""
    for answer, status, left in ("no", 2, True), ("yes", 0, False):
        directory = tempfile.mkdtemp()
        name = "asked-" + answer
        host.must("sr-create", f"name-label={name}", "type=file", f"device-config:location={directory}")
        master, slave = pty.openpty()
        process = begin(host, "sr-destroy", f"sr={name}", err=slave, stdin=slave)
        os.close(slave)
        seen = b""
        while b"'yes'" not in seen:
            seen += os.read(master, 4096)
        check(b"The SR and all disks on it will be destroyed" in seen, "question", seen)
        os.write(master, answer.encode() + b"\n")
        process.communicate(timeout=60)
        os.close(master)
        check(process.returncode == status, "status", process.returncode)
        names = host.run("sr-list", "params=name-label", "--minimal").stdout
        check((name in names) == left, "left", names)


def leave(host):
    process = begin(host, "vm-shutdown", "vm=deaf")
    task = pending(host, "VM.clean_shutdown")
    host.process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    host.process.send_signal(signal.SIGCONT)
    check(process.returncode == 130, "left", process.returncode, err)
    check(err.endswith(f"\nreeve: left alone; what became of it: reeve task-wait task={task}\n"), "words", err)
    host.run("task-cancel", f"task={task}")
    result = host.run("task-wait", f"task={task}")
    check(result.returncode == 1 and result.stderr.startswith("TASK_CANCELLED: "), "found again", result)


def restart(host):
    process = begin(host, "vm-shutdown", "vm=deaf")
    task = pending(host, "VM.clean_shutdown")
    host.kill()
    time.sleep(0.5)
    host.start()
    _, err = process.communicate(timeout=90)
    status = host.must("task-list", f"uuid={task}", "params=status", "--minimal")
    check(process.returncode == (0 if status == "success" else 1), "told the truth", status, err)
    check("CONNECTION" not in err and "TIMEOUT" not in err, "went on waiting", err)


def gone(host):
    host.must("vm-start", "vm=slow")
    process = begin(host, "vm-shutdown", "vm=slow", "--timeout=2s")
    task = pending(host, "VM.clean_shutdown")
    host.kill()
    _, err = process.communicate(timeout=60)
    check(process.returncode == 3, "unreachable", process.returncode, err)
    check(err.endswith(f"reeve: what became of it: reeve task-wait task={task}\n"), "words", err)
    host.start()
    host.run("task-wait", f"task={task}")


def profiles(host):
    os.makedirs(f"{host.dir}/.config/reeve", exist_ok=True)
    with open(f"{host.dir}/.config/reeve/config", "w") as f:
        f.write(f"[default]\nurl = {host.url}\n[other]\nurl = ipc:///nowhere\n[bad]\nurll = x\n"
                f"[twice]\nurl = ipc:///nowhere\nurl = {host.url}\n")
    env = host.environment()
    del env["REEVE_URL"]

    def run(*words):
        return subprocess.run([host.reeve, *words], env=env, capture_output=True, text=True)

    check(run("host-list", "params=name-label", "--minimal").stdout == "host1\n", "default")
    check(run("host-list", "--profile=other").returncode == 3, "named")
    check("unknown key 'urll'" in run("host-list", "--profile=bad").stderr, "bad key")
    twice = run("host-list", "--profile=twice")
    check(twice.returncode == 2 and "config:9: [twice] has 'url' twice" in twice.stderr, "twice", twice)
    check("has no profile [none]" in run("host-list", "--profile=none").stderr, "no such")


def watch(host):
    process = begin(host, "event-watch", "network")
    name = None
    for i in range(200):  # until it listens
        name = f"net{i}"
        uuid = host.must("network-create", f"name-label={name}")
        if i == 0:
            os.set_blocking(process.stdout.fileno(), False)
        line = process.stdout.readline()
        if line:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    check(re.fullmatch(rf"\d\d:\d\d:\d\d add network {UUID} net\d+\n", line), "event", line, uuid)
    check(process.returncode == -signal.SIGINT, "ends", process.returncode)


def complete(host):
    script = f"""
        source {ROOT}/cli/reeve-completion.bash
        COMP_LINE=$1 COMP_POINT=${{#1}} COMP_WORDS=({host.reeve})
        _reeve
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """

    def tab(line):
        result = subprocess.run(
            ["bash", "-c", script, "bash", line], env=host.environment(),
            capture_output=True, text=True,
        )
        return result.stdout.split("\n")[:-1]

    host.must("vm-create", "name-label=web server", "PV-kernel=/k")
    check(tab("reeve vm-susp") == ["vm-suspend"], "command", tab("reeve vm-susp"))
    check(tab("reeve vm-start ") == ["vm=", "on=", "start-paused="], "keys", tab("reeve vm-start "))
    check(tab("reeve vm-start vm=x o") == ["on="], "key", tab("reeve vm-start vm=x o"))
    check(tab("reeve vm-start vm=") == ["deaf", "slow", "web\\ server"], "names", tab("reeve vm-start vm="))
    check(tab("reeve vm-start vm=sl") == ["slow"], "name", tab("reeve vm-start vm=sl"))
    check(tab("reeve vm-start vm=web\\ s") == ["web\\ server"], "blank", tab("reeve vm-start vm=web\\ s"))
    check(tab("reeve vm-start start-paused=t") == ["true"], "bool", tab("reeve vm-start start-paused=t"))
    check(tab("reeve vm-list power-state=S") == ["Suspended"], "enum", tab("reeve vm-list power-state=S"))
    check(tab("reeve vm-list params=name-label,power-st") == ["name-label,power-state"], "fields",
          tab("reeve vm-list params=name-label,power-st"))
    check(tab("reeve vm-param-get param-name=resid") == ["resident-on"], "field",
          tab("reeve vm-param-get param-name=resid"))
    check(tab("reeve vm-create platf") == ["platform:"], "map", tab("reeve vm-create platf"))
    check(tab("reeve help vm-met") == ["vm-metrics", "vm-metrics-list", "vm-metrics-param-list",
                                       "vm-metrics-param-get"], "help", tab("reeve help vm-met"))
    check(tab("reeve --mini") == ["--minimal"], "option", tab("reeve --mini"))
    check(tab("reeve nonsense ") == [""] or tab("reeve nonsense ") == [], "nothing", tab("reeve nonsense "))


def console(host):
    """With nothing to type it looks on until the VM ends, however quiet that is."""
    host.must("vm-create", "name-label=talk", "memory-static-max=64MiB", "PV-kernel=/boot/k", "platform:sim.boot=10ms")
    host.must("vm-start", "vm=talk")
    process = begin(host, "console", "vm=talk")
    seen = ""
    while "simulated guest" not in seen:
        line = process.stdout.readline()
        check(line, "the console ended", seen, process.poll())
        seen += line
    time.sleep(5)
    check(process.poll() is None, "it goes on while nobody types")
    host.must("vm-shutdown", "vm=talk", "--force")
    check(process.wait(60) == 0, "it ends with the VM", process.stderr.read())
    host.must("vm-uninstall", "vm=talk", "force=true")


def messages(host):
    for name in ("zz", "mm", "aa"):
        host.must("message-create", f"name={name}", "body=x")
    shown = host.must("message-list", "params=name", "--minimal").split(",")
    check(shown[-3:] == ["zz", "mm", "aa"], "messages by time", shown)


def letters(host):
    """Names take their places in tables whatever the locale is."""
    for name in ("größe", "機械"):
        host.must("vm-create", f"name-label={name}", "PV-kernel=/k")
    plain = {k: v for k, v in host.environment().items() if not k.startswith("LC_") and k != "LANG"}
    for locale in {}, {"LC_ALL": "C"}, {"LANG": "C.UTF-8"}, {"LC_ALL": "no_such"}:
        shown = subprocess.run([host.reeve, "vm-list", "params=name-label,power-state"], env=plain | locale,
                               capture_output=True, encoding="utf-8").stdout.splitlines()
        check("größe       Halted" in shown and "機械        Halted" in shown, "aligned", locale, shown)
    for name in ("größe", "機械"):
        host.must("vm-uninstall", f"vm={name}", "force=true")


def missing(host):
    done = host.run("host-check", "host=host1")
    check(done.returncode == 1 and "reeved simulates one" in done.stdout, "host-check", done)


def main(reeve, reeved):
    host = Host(reeve, reeved).start()
    try:
        start_vms(host)
        for test in (messages, letters, missing, console, bar, ask, cancel, cancel_saving, leave, restart, gone, profiles, watch, complete):
            print(test.__name__, flush=True)
            test(host)
    finally:
        status = host.end()
    return 1 if status else 0


sys.exit(main(*sys.argv[1:3]))
