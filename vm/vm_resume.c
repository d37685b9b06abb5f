/*
 *	OPEN ─► BUILD ─► RECORD ─► CLOSE ─► END ─► ENDED   the image goes afterwards
 *	  │       │        Running              ▲
 *	  │       ├─► DISCARD (it may have run) ┤
 *	  ▼       ▼                             │
 *	CLOSE (the image stays, the VM stays Suspended)
 *
 * The image is deleted only after the database says that the guest runs, and never used
 * again once it may have run: its disks have moved on. Nobody waits for that: it is
 * marked, and vm_discard deletes it.
 */
#include "vm/vm_build.h"
#include "vm/vm_discard.h"
#include "vm/vm_image.h"
#include "vm/vm_protect.h"

enum { OPEN, BUILD, RECORD, DISCARD, CLOSE, END, ENDED };

static const struct op_state states[] = {
	[OPEN] = {"open", OP_TO(BUILD) | OP_TO(CLOSE) | OP_TO(END)},
	[BUILD] = {"build", OP_TO(RECORD) | OP_TO(CLOSE) | OP_TO(DISCARD)},
	[RECORD] = {"record", OP_TO(CLOSE) | OP_TO(END)},
	[DISCARD] = {"discard", OP_TO(END)},
	[CLOSE] = {"close", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.resume", states, 7, OPEN};

struct resume {
	struct vm_op vm; /* first */
	struct vm_build build;
	struct vm_image image;
	struct hyper_source source;
	bool opened, building, recorded, discarded;
};

static struct resume *resume_of(struct op *op)
{
	return CONTAINER_OF(op, struct resume, vm.op);
}

static void resume_step(struct op *op);

/* --- entries --- */

static void txn_running(void *arg, const struct db *db, struct txn *t)
{
	struct resume *s = arg;

	(void)db;
	txn_expect_ref(t, s->vm.vm, VM_INTENT_TASK, s->vm.task);
	txn_set_enum(t, s->vm.vm, VM_POWER_STATE,
		s->vm.args.start_paused ? VM_POWER_STATE_PAUSED : VM_POWER_STATE_RUNNING);
}

static bool running_holds(void *arg, const struct db *db)
{
	struct resume *s = arg;
	const struct row *vm = db_row(db, CLASS_VM, s->vm.vm);

	return vm && db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_SUSPENDED;
}

static void txn_drop_image(struct resume *s, const struct db *db, struct txn *t)
{
	txn_set_ref(t, s->vm.vm, VM_SUSPEND_VDI, UUID_NONE);
	vm_txn_image_done(db, t, s->image.vdi, s->discarded);
}

static void finish_resumed(struct vm_op *o, const struct db *db, struct txn *t)
{
	txn_drop_image(resume_of(&o->op), db, t);
}

static void finish_undone(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct resume *s = resume_of(&o->op);

	vm_txn_no_domain(
		db, t, o->vm, o->host->uuid, VM_POWER_STATE_SUSPENDED, &s->build.devices);
	if (s->build.generation)
		txn_set_int(t, o->vm, VM_OWNER_GENERATION, (int64_t)s->build.generation);
}

static void finish_lost(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct resume *s = resume_of(&o->op);
	const struct row *vm = db_row(db, CLASS_VM, o->vm);

	vm_txn_no_domain(
		db, t, o->vm, o->host->uuid, VM_POWER_STATE_HALTED, &s->build.devices);
	if (vm)
		vm_restart_due_txn(vm, vm_uuid(o->mgr), t);
	txn_drop_image(s, db, t);
	vm_txn_message(t, o->mgr, "VM_CRASHED", 2, o->vm,
		"its domain vanished while it was resumed; it may have run for a moment, "
		"so its suspended memory no longer fits its disks and was dropped");
}

/* The domain could not be removed: the VM belongs to it, and to its image. */
static void finish_left(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct resume *s = resume_of(&o->op);

	vm_txn_domain(db, t, o->vm, &s->build.id, o->host->uuid);
	txn_set_enum(t, o->vm, VM_POWER_STATE, VM_POWER_STATE_SUSPENDED);
}

/* --- steps --- */

static void resume_answered(void *arg, uint64_t token, int rc)
{
	struct resume *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		resume_step(&s->vm.op);
}

static void resume_built(struct vm_build *b)
{
	struct resume *s = CONTAINER_OF(b, struct resume, build);

	s->building = false;
	if (op_resume(&s->vm.op, s->vm.op.token))
		resume_step(&s->vm.op);
}

static void enter_build(struct resume *s)
{
	op_move(&s->vm.op, BUILD);
	s->build = (struct vm_build){
		.owner = &s->vm,
		.host = s->vm.host,
		.generation = (uint64_t)db_int(s->vm.row, VM_OWNER_GENERATION) + 1,
		.source = &s->source,
		.actual_kib = s->image.actual_kib,
		.start_paused = s->vm.args.start_paused,
	};
	s->source = vm_image_source(&s->image, &s->build.req);
	s->building = true;
	op_await(&s->vm.op, 0);
	vm_build_start(&s->build, resume_built);
}

static void enter_close(struct resume *s)
{
	op_move(&s->vm.op, CLOSE);
	vm_image_close(&s->image, resume_answered, s, op_await(&s->vm.op, 0));
}

static void enter_discard(struct resume *s)
{
	op_move(&s->vm.op, DISCARD);
	vm_image_discard(&s->image, resume_answered, s, op_await(&s->vm.op, 0));
}

static void in_open(struct resume *s)
{
	struct vm_op *o = &s->vm;

	if (o->op.error.code) {
		o->finish = finish_undone;
		enter_close(s);
		return;
	}
	if (!s->opened) {
		s->opened = true;
		vm_op_progress(o, 0.05, "opening the suspend image");
		vm_image_open(&s->image, resume_answered, s, op_await(&o->op, 0));
		return;
	}
	if (s->image.rc)
		op_fail(&o->op, s->image.rc, "VM %s: %s", o->name, s->image.error.detail);
	else if (s->image.direct &&
		 (!hyper_takes_files(o->host->hyper) || !s->image.path[0]))
		op_fail(&o->op, RV_EUNSUPPORTED,
			"VM %s: its suspend image was written by another hypervisor's "
			"driver than this host has, or lies where this host has no file "
			"of it; resume it on the host that suspended it",
			o->name);
	else if (o->op.cancelled)
		vm_op_cancelled(o);
	if (o->op.error.code) {
		o->finish = finish_undone;
		enter_close(s);
	} else {
		enter_build(s);
	}
}

static void in_build(struct resume *s)
{
	struct vm_op *o = &s->vm;

	if (!s->build.op.error.code) {
		op_move(&o->op, RECORD);
		vm_op_record(o, txn_running, running_holds, true);
		return;
	}
	/* The hypervisor knows only that the stream ended: say why. */
	if (s->image.rc && !s->build.may_have_run)
		op_fail(&o->op, s->image.rc, "VM %s: its suspend image can't be read: %s",
			o->name, s->image.error.detail);
	else
		op_fail_with(&o->op, &s->build.op.error);
	if (s->build.may_have_run) {
		o->finish = finish_lost;
		enter_discard(s);
		return;
	}
	o->finish = s->build.domain_left ? finish_left : finish_undone;
	enter_close(s);
}

static void in_discard(struct resume *s)
{
	struct vm_op *o = &s->vm;

	s->discarded = s->image.rc == 0;
	if (!s->discarded)
		vm_note(o->mgr, "SUSPEND_IMAGE_LEFT", 4, o->vm,
			"VM %s: its suspend image, which is stale now, could not be "
			"deleted: %s. It is tried again by itself",
			o->name, s->image.error.detail);
	vm_op_end(o, END);
}

static void resume_step(struct op *op)
{
	struct resume *s = resume_of(op);

	if (op->awaiting) {
		if (op->cancelled && s->building)
			op_cancel(&s->build.op);
		return;
	}
	switch (op->state) {
	case OPEN:
		in_open(s);
		return;
	case BUILD:
		in_build(s);
		return;
	case RECORD:
		if (vm_point(&s->vm, "resume.recorded"))
			return;
		if (s->vm.entry.rc) {
			/* Another master's by now, and its reconciler's. */
			op_fail_with(op, &s->vm.entry.error);
			vm_op_end(&s->vm, END);
			return;
		}
		s->recorded = true;
		enter_close(s);
		return;
	case DISCARD:
		in_discard(s);
		return;
	case CLOSE:
		if (s->recorded)
			s->vm.finish = finish_resumed;
		vm_op_end(&s->vm, END);
		return;
	case END:
		if (s->recorded)
			vm_discard_look(s->vm.host);
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

/* --- the verb --- */

static int resume_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	int rc;

	if (!db_follow(db, o->row, VM_SUSPEND_VDI))
		return rv_error_set(e, RV_ENOENT,
			"VM %s is Suspended but has no suspend image: use "
			"vm-shutdown --force and start it anew",
			o->name);
	rc = vm_place(o->mgr, o->row, &o->args.on, NULL, 0, &o->host, e);
	if (!rc)
		vm_placed(o, o->row);
	return rc;
}

static void resume_begin(struct vm_op *o)
{
	struct resume *s = resume_of(&o->op);
	const struct row *vdi = db_follow(pool_db(o->mgr->pool), o->row, VM_SUSPEND_VDI);
	uint64_t generation = (uint64_t)db_int(o->row, VM_OWNER_GENERATION) + 1;
	struct rv_error e;

	op_start(&o->op, o->mgr->loop, &table, resume_step, vm_op_done, o->subject);
	if (vm_image_init(&s->image, o->mgr->loop, o->host->storage, db_ref(vdi, VDI_SR),
		    row_uuid(vdi), o->vm, generation, &e))
		op_fail_with(&o->op, &e);
	s->image.void_generation = (uint64_t)db_int(o->row, VM_CLAIMS_VOID);
}

static bool resume_cancellable(const struct vm_op *o)
{
	const struct resume *s = (const struct resume *)o;

	return o->op.state <= BUILD && vm_build_cancellable(&s->build);
}

static void resume_stop(struct vm_op *o)
{
	struct resume *s = resume_of(&o->op);

	if (s->build.owner)
		vm_build_stop(&s->build);
	vm_image_stop(&s->image);
}

static void resume_fini(struct vm_op *o)
{
	struct resume *s = resume_of(&o->op);

	vm_build_fini(&s->build);
	vm_image_fini(&s->image);
}

const struct vm_verb vm_verb_resume = {
	.intent = VM_INTENT_RESUME,
	.size = sizeof(struct resume),
	.admit = resume_admit,
	.begin = resume_begin,
	.cancellable = resume_cancellable,
	.stop = resume_stop,
	.fini = resume_fini,
};
