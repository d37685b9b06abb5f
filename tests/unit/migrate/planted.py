"""Plants bugs into a copy of migrate/ one by one and sees that the tests catch each.

usage: planted.py SOURCE_ROOT BUILD_DIR [NAME...]

BUILD_DIR is a configured and built tree (its libraries are linked). Not run by ctest: it
compiles migrate/ once per bug.
"""
import os
import subprocess
import sys
import tempfile

# name: (file, what stands there, what is planted, tests that must fail)
BUGS = {
    "resumes after FINAL without ABORT": (
        "source_settle.c",
        "		if (o->op.error.code && op_resume(&o->op, o->op.token))\n"
        "			enter_abort(s);",
        "		if (o->op.error.code && op_resume(&o->op, o->op.token))\n"
        "			enter_find(s);"),
    "resumes after a restart without ABORT": (
        "source.c",
        "	if (o->rerun) {\n		source_judge(s);",
        "	if (o->rerun) {\n		op_move(&o->op, SOURCE_FIND);\n"
        "		hyper_info(o->host->hyper, vm_op_call(o, 5000),\n"
        "			&s->journal.domain);"),
    "unpauses before COMMIT": (
        "target.c",
        "	if (vm_point(&s->vm, \"target.whole\"))\n		return;",
        "	hyper_unpause(s->vm.host->hyper, vm_op_call(&s->vm, 5000), &s->id);\n"
        "	return;"),
    "COMMIT does not look at the phase": (
        "journal.c",
        "	expect(t, j, VM_MIGRATION_PHASE_FINAL, j->generation);\n"
        "	txn_expect_ref(t, j->vm, VM_RESIDENT_ON, j->source);",
        "	txn_expect_ref(t, j->vm, VM_RESIDENT_ON, j->source);"),
    "destroys the source's domain at COMMIT": (
        "source_settle.c",
        "	case JOURNAL_COMMITTED:\n		if (op->state != SOURCE_WAIT) {",
        "	case JOURNAL_COMMITTED:\n		enter_teardown(s);\n		return;\n"
        "		if (op->state != SOURCE_WAIT) {"),
    "keeps its disks": (
        "source_stream.c",
        "	vm_devices_down(&s->disks, s->journal.generation, true, disks_dropped, s, 0);",
        "	disks_dropped(s, 0, 0);"),
    "goes on without its disks": (
        "source_settle.c",
        "	if (s->disks_down || o->rerun)",
        "	if (0)"),
    "takes a RETURN without its new generation": (
        "source_settle.c",
        "	if (generation == s->journal.domain.generation) {",
        "	if (generation) {"),
    "gives back what may have run": (
        "target_own.c",
        "	if (rc == 0) {\n		enter_end(s);\n	} else if (",
        "	if (rc) {\n		op_fail(&o->op, rc, \"x\");\n"
        "		enter_returning(s);\n	} else if (rc == 0) {\n		enter_end(s);\n"
        "	} else if ("),
    "returns before its domain is gone": (
        "target_own.c",
        "		if (s->owner) {\n			own_rest(s, TARGET_UNDO);",
        "		if (0) {\n			own_rest(s, TARGET_UNDO);"),
    "destroys a suspended source that is still needed": (
        "settle.c",
        "		if (uuid_eq(&j.domain.handle, &d->id.handle))\n"
        "			return SETTLE_NOTHING;",
        "		if (0)\n			return SETTLE_NOTHING;"),
    "loses the end of the stream": (
        "source_stream.c", "	wire_flush(s->wire);\n", ""),
    "keeps the reservation": (
        "target_own.c", "	vm_memory_release(&s->reservation);\n", ""),
    "does not settle as the target": (
        "settle.c",
        "	if (uuid_eq(&j.target, self) && j.phase == VM_MIGRATION_PHASE_COMMITTED)",
        "	if (0)"),
    "hears no silence": (
        "wire.c", "	if (w->watched && !w->blocked &&", "	if (0 && !w->blocked &&"),
}
FLAGS = ("-O1 -g -std=gnu11 -D_GNU_SOURCE -DREEVE_VERSION=\"0\" -fno-strict-aliasing "
         "-fsanitize=address,undefined -fno-sanitize-recover=undefined").split()
LIBS = ("vm/libreeve_vm.a sched/libreeve_sched.a memctl/libreeve_memctl.a "
        "pool/libreeve_pool.a pool/db/libreeve_db.a storage/libreeve_storage.a "
        "net/libreeve_net.a xen/libreeve_xen.a reactor/libreeve_reactor.a "
        "base/libreeve_base.a").split()
SYSTEM = "-lcmocka -lmsgpackc -lraft -lmnl -lev -lssl -lcrypto -lxxhash -lpthread".split()
TESTS = ("journal_test", "move_test", "table_test")


def run(args, **more):
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, **more)


def compile_one(root, source, out):
    done = run(["gcc", *FLAGS, f"-I{root}", "-c", source, "-o", out])
    if done.returncode:
        sys.exit(done.stdout)
    return out


def sound(root, where):
    """Objects of migrate/ as it is, and of the tests."""
    objects = {}
    for name in sorted(os.listdir(os.path.join(root, "migrate"))):
        if name.endswith(".c"):
            objects[name] = compile_one(root, os.path.join(root, "migrate", name),
                                        os.path.join(where, name + ".o"))
    for test in TESTS:
        compile_one(root, f"{root}/tests/unit/migrate/{test}.c",
                    os.path.join(where, test + ".o"))
    return objects


def caught(root, build, where, objects, name):
    if name is None:
        return try_tests(build, where, objects)
    path, old, new = BUGS[name]
    text = open(os.path.join(root, "migrate", path), encoding="utf-8").read()
    if text.count(old) != 1:
        sys.exit(f"{name}: {path} does not hold the place any more: mend planted.py")
    planted = os.path.join(where, "planted.c")
    open(planted, "w", encoding="utf-8").write(text.replace(old, new))
    mixed = dict(objects)
    mixed[path] = compile_one(root, planted, planted + ".o")
    return try_tests(build, where, mixed)


def try_tests(build, where, mixed):
    for test in TESTS:
        binary = os.path.join(where, test)
        done = run(["gcc", *FLAGS, binary + ".o", *mixed.values(), "-o", binary,
                    "-Wl,--start-group", *[os.path.join(build, l) for l in LIBS],
                    "-Wl,--end-group", *SYSTEM])
        if done.returncode:
            sys.exit(done.stdout)
        try:
            done = run([binary], timeout=400, env={"ASAN_OPTIONS": "detect_leaks=0"})
        except subprocess.TimeoutExpired:
            return test + ": does not end"
        if done.returncode:
            words = [l for l in done.stdout.split("\n") if "ERROR" in l or "ssert" in l]
            return test + ": " + (words[0].strip() if words else done.stdout[-200:])
    return None


def main(root, build, names):
    missed = 0
    with tempfile.TemporaryDirectory() as where:
        objects = sound(root, where)
        how = caught(root, build, where, objects, None)
        if how:
            sys.exit(f"the tests fail without any bug (is BUILD_DIR up to date?): {how}")
        for name in names or BUGS:
            how = caught(root, build, where, objects, name)
            print(f"{'caught' if how else 'MISSED':8}{name}: {how or ''}", flush=True)
            missed += how is None
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
