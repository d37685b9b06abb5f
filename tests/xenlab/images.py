"""The images the lab boots, in layers, each made anew only when what it is made of changed.

  xen, dom0-kernel, base.cpio   Debian's parts, cached beside the packages
  lab.cpio                      init of dom0, the test guest; made for each run, in a second
  reeve.cpio                    our binaries with the libraries they need
"""
import glob
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile

import cpio
from packages import Missing

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = "usr/lib/x86_64-linux-gnu"

DOM0_MODULES = """xen-evtchn xen-gntdev xen-gntalloc xenfs xen-privcmd xen-netback
    xen-blkback bridge loop virtio_net virtio_pci 9p 9pnet_virtio""".split()
GUEST_MODULES = ["xen-netfront", "xen-blkfront"]
XEN_PROGRAMS = """xl xenstored oxenstored xenconsoled xenconsole libxl-save-helper xen-init-dom0
    xenstore-control xentop xen-diag""".split()
# Of this machine: what hotplug scripts and jobs call.
PROGRAMS = """/usr/bin/dash /usr/bin/bash /usr/bin/date /usr/bin/flock /usr/bin/socat /usr/sbin/losetup
    /usr/bin/ip /usr/sbin/bridge /usr/bin/kmod /usr/bin/timeout""".split()


def _unpack_kernel(source, out):
    """The ELF kernel in a bzImage: decompressing under emulation would take long."""
    with open(source, "rb") as f:
        image = f.read()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload[:6] == b"\xfd7zXZ\0":
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload[:4] == b"\x02\x21\x4c\x18":
        # The kernel's build appends the size to an old-style lz4 frame.
        kernel = subprocess.run(
            ["lz4", "-d", "-c"], input=payload[:-4], stdout=subprocess.PIPE, check=True
        ).stdout
    else:
        raise Missing(f"{source} is compressed in a way the lab does not know")
    with open(out, "wb") as f:
        f.write(kernel)


def _modules(archive, root, release, names):
    """The modules and what they depend on, at the same paths, and an index of them."""
    folder = f"lib/modules/{release}"
    if not os.path.exists(f"{root}/{folder}/modules.dep"):
        subprocess.run(["depmod", "-b", root, release], check=True)
    paths = []
    for name in names:
        shown = subprocess.run(
            ["modprobe", "-d", root, "-S", release, "--show-depends", name],
            capture_output=True, text=True, check=False,
        ).stdout
        paths += re.findall(r"^insmod (\S+)", shown, re.M)
    paths = list(dict.fromkeys(paths))
    with tempfile.TemporaryDirectory() as few:
        for path in paths:
            to = os.path.join(few, os.path.relpath(path, root))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            shutil.copy(path, to)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copy(f"{root}/{folder}/{name}", f"{few}/{folder}/{name}")
        subprocess.run(["depmod", "-b", few, release], check=True)
        archive.tree(f"usr/{folder}", f"{few}/{folder}")
    return paths


def _libraries(files, search=()):
    """Every library these ELF files need, as the loader finds them."""
    environment = dict(os.environ, LD_LIBRARY_PATH=":".join(search))
    found = {}
    for path in files:
        with open(path, "rb") as f:
            if f.read(4) != b"\x7fELF":
                continue
        text = subprocess.run(
            ["ldd", path], capture_output=True, text=True, env=environment, check=False
        ).stdout
        for name in re.findall(r"(\S+) => not found", text):
            raise Missing(f"{path} needs {name}, which is not on this machine")
        for name, full in re.findall(r"^\t(\S+) => (/\S+) ", text, re.M):
            found[name] = full
        for loader in re.findall(r"^\t(/lib64/\S+) ", text, re.M):
            found[loader] = loader
    return found


def _add_elf(archive, path, source, scratch):
    """A program or library without its symbols: dom0 keeps every byte in memory."""
    stripped = os.path.join(scratch, "stripped")
    r = subprocess.run(
        ["strip", "-o", stripped, os.path.realpath(source)], capture_output=True, check=False
    )
    archive.file(path, stripped if r.returncode == 0 else source, 0o755)


def _add_libraries(archive, libraries, scratch):
    for name, full in libraries.items():
        path = f"usr{name}" if name.startswith("/") else f"{LIBRARIES}/{name}"
        if path not in archive.entries:
            _add_elf(archive, path, full, scratch)


def _skeleton(archive):
    for name in ("usr/bin", "usr/sbin", "usr/lib64", LIBRARIES, "dev", "proc", "sys", "tmp",
                 "run", "root", "mnt", "guest", "etc/xen", "var/lib/xen/dump",
                 "var/lib/xenstored", "var/log/xen/console"):
        archive.directory(name)
    for name in ("bin", "sbin", "lib", "lib64"):
        archive.link(name, f"usr/{name}")
    archive.link("var/run", "../run")
    archive.link("var/lock", "../run/lock")


def _base(packages, out, scratch):
    root = packages.root
    archive = cpio.Archive()
    _skeleton(archive)
    archive.file("usr/bin/busybox", "/bin/busybox", 0o755)
    applets = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    # Debian's busybox shell takes its own applets before programs: a host's sh is dash.
    archive.link("usr/bin/sh", "dash")
    own = {"sh", "ash"} | {os.path.basename(path) for path in PROGRAMS}
    for applet in applets.stdout.split():
        if applet not in own and applet not in ("busybox", "modprobe", "insmod"):
            archive.link(f"usr/bin/{applet}", "busybox")
    programs = {path: path for path in PROGRAMS}
    tools = f"usr/lib/xen-{packages.xen}/bin"
    programs.update({f"/{tools}/{name}": f"{root}/{tools}/{name}" for name in XEN_PROGRAMS})
    programs["/usr/bin/xenstore"] = f"{root}/usr/bin/xenstore"
    for path, source in programs.items():
        if not os.path.exists(source):
            raise Missing(f"there is no {source}: ./run xenlab installs what it needs")
        _add_elf(archive, path, source, scratch)
    for name in ("ls", "read", "write", "rm", "list", "watch", "exists", "chmod"):
        archive.link(f"usr/bin/xenstore-{name}", "xenstore")
    for name in ("modprobe", "insmod", "lsmod", "rmmod", "depmod"):
        archive.link(f"usr/sbin/{name}", "../bin/kmod")
    archive.link("usr/sbin/xl", f"/{tools}/xl")
    archive.link("usr/bin/xenconsole", f"/{tools}/xenconsole")
    archive.tree("etc/xen/scripts", f"{root}/etc/xen/scripts")
    archive.file("etc/xen/oxenstored.conf", f"{root}/etc/xen/oxenstored.conf")
    search = [f"{root}/{LIBRARIES}"]
    _add_libraries(archive, _libraries(programs.values(), search), scratch)
    # pthread_cancel in libxl opens it by name.
    _add_elf(archive, f"{LIBRARIES}/libgcc_s.so.1", "/lib/x86_64-linux-gnu/libgcc_s.so.1", scratch)
    _modules(archive, root, packages.kernel, DOM0_MODULES)
    archive.file("guest/vmlinuz", f"{root}/boot/vmlinuz-{packages.cloud}", 0o644)
    archive.write(out)


def debian(packages, log):
    """{"xen": …, "kernel": …, "base": …}: the files made of Debian's packages."""
    with open(__file__, "rb") as f:
        key = hashlib.sha256(f.read()).hexdigest()[:12]
    out = os.path.join(packages.folder, f"images-{key}")
    files = {name: os.path.join(out, name) for name in ("xen", "kernel", "base")}
    if not os.path.exists(files["base"]):
        log("making the images of Debian's parts, once")
        for old in glob.glob(os.path.join(packages.folder, "images-*")):
            shutil.rmtree(old)
        os.makedirs(out)
        boot = f"{packages.root}/boot"
        with open(files["xen"], "wb") as f:
            hypervisor = f"{boot}/xen-{packages.xen}-amd64.gz"
            subprocess.run(["gunzip", "-c", hypervisor], stdout=f, check=True)
        _unpack_kernel(f"{boot}/vmlinuz-{packages.kernel}", files["kernel"])
        with tempfile.TemporaryDirectory() as scratch:
            _base(packages, files["base"], scratch)
    return files


def _compile(name, scratch):
    """A small program of image/, static: it runs where no library is."""
    program = os.path.join(scratch, name)
    done = subprocess.run(
        ["gcc", "-std=gnu11", "-O2", "-Wall", "-static", "-s", "-o", program,
         f"{HERE}/image/{name}.c"], capture_output=True, text=True, check=False,
    )
    if done.returncode != 0:
        raise Missing(f"image/{name}.c does not compile:\n{done.stderr}")
    return program


def _guest(packages, scratch):
    """The test guest's first root file system: one program and its modules, in the order
    they must be loaded."""
    archive = cpio.Archive()
    archive.file("init", _compile("guest", scratch), 0o755)
    for name in ("poweroff", "reboot", "halt"):
        archive.link(f"sbin/{name}", "/init")
    for name in ("dev", "proc", "sys", "tmp"):
        archive.directory(name)
    modules = cpio.Archive()
    for number, path in enumerate(_modules(modules, packages.root, packages.cloud, GUEST_MODULES)):
        archive.file(f"modules/{number:02}-{os.path.basename(path)}", path, 0o644)
    out = os.path.join(scratch, "guest.cpio")
    archive.write(out)
    return out


def lab(packages, out):
    """What is the lab's own in dom0: init, the agent that serves commands, the test guest."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = cpio.Archive()
        archive.file("init", f"{HERE}/image/init", 0o755)
        archive.file("usr/bin/lab-agent", _compile("agent", scratch), 0o755)
        archive.file("etc/xen/lab.sh", f"{HERE}/image/lab.sh")
        archive.file("guest/initramfs", _guest(packages, scratch))
        archive.write(out)


def ours(out, paths):
    """
    Our binaries and the libraries they need: {path in dom0: file or directory here}. Libraries
    that the base holds too are harmless: they are the same ones.
    """
    archive = cpio.Archive()
    with tempfile.TemporaryDirectory() as scratch:
        elf = []
        for path, source in paths.items():
            if os.path.isdir(source):
                archive.tree(path, source)
                elf += [p for p in glob.glob(f"{source}/**", recursive=True) if os.path.isfile(p)]
            else:
                elf.append(source)
                _add_elf(archive, path, source, scratch)
        _add_libraries(archive, _libraries(elf), scratch)
    archive.write(out)


def join(out, parts):
    with open(out, "wb") as f:
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, f)
