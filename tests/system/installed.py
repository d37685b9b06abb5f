#!/usr/bin/python3
"""What `cmake --install` puts where; a configuration that is there already is left alone."""
import os
import subprocess
import sys
import tempfile

BUILD = os.environ["REEVE_BUILD"]


def install(root):
    done = subprocess.run(
        ["cmake", "--install", BUILD, "--prefix", "/usr"],
        env=dict(os.environ, DESTDIR=root), capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr


def find(root, name):
    found = [os.path.join(where, name) for where, _, files in os.walk(root)
             if name in files and "/share/" not in where]
    assert len(found) == 1, (name, found)
    return found[0]


def main():
    with tempfile.TemporaryDirectory(prefix="reeve-installed-") as root:
        install(root)
        for name in ("reeve", "reeved", "reeve-fenced", "reeve-xen-helper", "reeve-xen-block", "reeve-xen-vif"):
            assert os.access(find(root, name), os.X_OK) or os.path.islink(find(root, name)), name
        helper = os.path.dirname(find(root, "reeve-xen-helper"))
        assert any(name.startswith("reeve-xen-4.") for name in os.listdir(helper)), os.listdir(helper)
        assert any(name.startswith("reeve-fence-4.") for name in os.listdir(helper)), os.listdir(helper)
        with open(find(root, "reeve-fenced.service")) as f:
            fenced = f.read().splitlines()
        for line in ("Restart=always", "RefuseManualStop=yes", "SendSIGKILL=no"):
            assert line in fenced, (line, fenced)
        assert os.path.isfile(f"{root}/usr/share/doc/reeve/docs/fencing.md")
        with open(find(root, "reeved.service")) as f:
            unit = f.read()
        for line in ("Restart=on-failure", "KillMode=process", "LimitNOFILE=65536"):
            assert line in unit.splitlines(), (line, unit)
        conf = find(root, "reeved.conf")
        with open(conf) as f:
            lines = f.read().splitlines()
        assert "[host]" in lines and not [l for l in lines if l and l[0] not in "#["], lines
        said = subprocess.run([find(root, "reeved"), "--config", conf, "--set", "hypervisor.driver=none"], capture_output=True, text=True, timeout=60)
        assert said.returncode != 0 and "driver" in said.stderr + said.stdout, said
        with open(conf, "a") as f:
            f.write("# mine\n")
        install(root)
        with open(conf) as f:
            assert f.read().endswith("# mine\n")
    print("ok")


if __name__ == "__main__":
    sys.exit(main())
