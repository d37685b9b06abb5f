/*
 *	IMAGE ─► SAVE ─► FLUSH ─► COMMIT ─► TEARDOWN ─► END ─► ENDED
 *	  │       │  ╲     │        │                    ▲
 *	  │       │   ▼    ▼        ▼                    │
 *	  │       │  SETTLING ─► RESUME (the guest goes on) ─► DISCARD (the image)
 *	  ╰───────╰──────────────────────────────────────────────╯
 *
 * The VDI's record is part of the intent, so that a crash leaves no disk unknown. COMMIT
 * makes the VM Suspended: before it the guest goes on whatever happens, after it only the
 * image counts.
 */
#include "vm/vm_cpu.h"
#include "vm/vm_image.h"
#include "vm/vm_protect.h"
#include "vm/vm_teardown.h"

enum { IMAGE, SAVE, SETTLING, FLUSH, COMMIT, TEARDOWN, RESUME, DISCARD, END, ENDED };

enum {
	SUSPEND_STALL_MS = 60 * 1000, /* without a byte from the guest */
	SUSPEND_LOOK_MS = 250,	      /* how often its progress is told */
	SUSPEND_RETRY_MS = 500,
	SUSPEND_RETRIES = 10,
};

static const struct op_state states[] = {
	[IMAGE] = {"image", OP_TO(SAVE) | OP_TO(DISCARD)},
	[SAVE] = {"save",
		OP_TO(FLUSH) | OP_TO(SETTLING) | OP_TO(RESUME) | OP_TO(DISCARD)},
	[SETTLING] = {"settling", OP_TO(RESUME) | OP_TO(DISCARD)},
	[FLUSH] = {"flush", OP_TO(COMMIT) | OP_TO(RESUME)},
	[COMMIT] = {"commit", OP_TO(TEARDOWN) | OP_TO(RESUME)},
	[TEARDOWN] = {"teardown", OP_TO(END)},
	[RESUME] = {"resume", OP_TO(RESUME) | OP_TO(DISCARD)},
	[DISCARD] = {"discard", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.suspend", states, 10, IMAGE};

struct suspend {
	struct vm_op vm; /* first */
	struct vm_image image;
	struct vm_devices devices;
	struct vm_teardown teardown;
	struct hyper_domain_id id;
	struct uuid sr, vdi;
	uint64_t size, seen; /* bytes of the stream at the last look ... */
	int64_t seen_us;     /* ... that found more than the one before */
	bool asked, waiting, discarded;
	bool stands; /* the guest: the rest is up to the SR */
	int tries;
};

static struct suspend *suspend_of(struct op *op)
{
	return CONTAINER_OF(op, struct suspend, vm.op);
}

static void suspend_step(struct op *op);

/* --- the intent and the ending --- */

static bool sr_usable(struct vm_op *o, const struct db *db, struct uuid sr)
{
	const struct row *row = db_row(db, CLASS_SR, sr);
	const struct storage_type *type;

	if (!row || !storage_sr_attached(o->host->storage, &sr))
		return false;
	type = storage_type_find(o->host->storage, db_string(row, SR_TYPE));
	return type && (type->features & STORAGE_CAN_READ_WRITE) &&
	       (type->formats & STORAGE_FORMAT_RAW);
}

/* VM's, host's, pool's choice, else where its first disk is, else the pool's default. */
static bool choose_sr(struct vm_op *o, const struct db *db, struct uuid *sr)
{
	const struct row *host = db_row(db, CLASS_HOST, o->host->uuid);
	const struct row *pool = db_pool(db);
	struct uuid wish[5] = {db_ref(o->row, VM_SUSPEND_SR)};

	if (host)
		wish[1] = db_ref(host, HOST_SUSPEND_IMAGE_SR);
	if (pool) {
		wish[2] = db_ref(pool, POOL_SUSPEND_IMAGE_SR);
		wish[4] = db_ref(pool, POOL_DEFAULT_SR);
	}
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, o->vm, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);

		if (vdi && db_enum(r, VBD_TYPE) == VBD_TYPE_DISK) {
			wish[3] = db_ref(vdi, VDI_SR);
			break;
		}
	}
	for (size_t i = 0; i < 5; i++)
		if (!uuid_is_none(&wish[i]) && sr_usable(o, db, wish[i])) {
			*sr = wish[i];
			return true;
		}
	return false;
}

static int suspend_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	struct suspend *s = suspend_of(&o->op);

	if (!o->host || !choose_sr(o, db, &s->sr))
		return rv_error_set(e, RV_ENOTATTACHED,
			"VM %s: no SR attached to its host can hold its memory; set "
			"suspend_SR of the VM or suspend_image_SR of the pool",
			o->name);
	s->vdi = vm_uuid(o->mgr);
	s->size = vm_image_size((uint64_t)db_int(o->row, VM_MEMORY_STATIC_MAX) >> 10);
	return 0;
}

static void suspend_intend(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct suspend *s = suspend_of(&o->op);
	char name[VM_NAME_SIZE + 32];

	(void)db;
	snprintf(name, sizeof name, "Suspended memory of %s", o->name);
	txn_create(t, CLASS_VDI, s->vdi);
	txn_set_string(t, s->vdi, VDI_NAME_LABEL, name);
	txn_set_ref(t, s->vdi, VDI_SR, s->sr);
	txn_set_int(t, s->vdi, VDI_VIRTUAL_SIZE, (int64_t)s->size);
	txn_set_enum(t, s->vdi, VDI_TYPE, VDI_TYPE_SUSPEND);
	txn_set_ref(t, o->vm, VM_SUSPEND_VDI, s->vdi);
}

static void finish_suspended(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct suspend *s = suspend_of(&o->op);

	if (!s->teardown.domain_left)
		vm_txn_no_domain(db, t, o->vm, o->host->uuid, VM_POWER_STATE_SUSPENDED,
			&s->devices);
}

static void finish_undone(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct suspend *s = suspend_of(&o->op);

	txn_set_ref(t, o->vm, VM_SUSPEND_VDI, UUID_NONE);
	vm_txn_image_done(db, t, s->vdi, s->discarded);
}

static void txn_commit(void *arg, const struct db *db, struct txn *t)
{
	struct suspend *s = arg;
	const struct row *vm = db_row(db, CLASS_VM, s->vm.vm);

	txn_expect_ref(t, s->vm.vm, VM_INTENT_TASK, s->vm.task);
	txn_expect_enum(t, s->vm.vm, VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	if (vm)
		vm_restart_drop_txn(vm, t);
	vm_cpu_txn_saved(db, t, s->vm.vm, s->vm.host->uuid);
	txn_set_enum(t, s->vm.vm, VM_POWER_STATE, VM_POWER_STATE_SUSPENDED);
}

static bool commit_holds(void *arg, const struct db *db)
{
	struct suspend *s = arg;
	const struct row *vm = db_row(db, CLASS_VM, s->vm.vm);

	return vm && db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_SUSPENDED;
}

/* --- steps --- */

static void suspend_answered(void *arg, uint64_t token, int rc)
{
	struct suspend *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		suspend_step(&s->vm.op);
}

/* The image can't take more: the save ends, the guest goes on. */
static void suspend_broken(void *arg)
{
	struct suspend *s = arg;

	if (s->vm.op.state != SAVE)
		return;
	op_fail(&s->vm.op, s->image.rc, "VM %s: %s", s->vm.name, s->image.error.detail);
	op_settle(&s->vm.op, SETTLING, 0);
	hyper_cancel(&s->vm.hyper);
}

static void enter_discard(struct suspend *s)
{
	op_move(&s->vm.op, DISCARD);
	vm_image_discard(&s->image, suspend_answered, s, op_await(&s->vm.op, 0));
}

static void suspend_stands(void *arg)
{
	struct suspend *s = arg;

	s->stands = true;
}

static void enter_save(struct suspend *s)
{
	struct vm_op *o = &s->vm;
	struct hyper_save_spec spec = {0};
	struct hyper_req *req;

	vm_op_progress(o, 0.05, "saving memory");
	vm_memory_mode(o->host->memory, &s->id, MEMCTL_FROZEN);
	op_move(&o->op, SAVE);
	s->seen_us = loop_now_us(o->op.loop);
	req = vm_op_call(o, SUSPEND_LOOK_MS);
	spec.sink = vm_image_sink(
		&s->image, req, hyper_takes_files(o->host->hyper), suspend_broken, s);
	spec.suspended = suspend_stands;
	spec.arg = s;
	hyper_save(o->host->hyper, req, &s->id, &spec);
}

static void enter_resume(struct suspend *s)
{
	struct rv_error e;

	op_move(&s->vm.op, RESUME);
	if (vm_may_resume(&s->vm, &e)) {
		s->waiting = true;
		op_await(&s->vm.op, VM_RESUME_LOOK_MS);
		return;
	}
	hyper_resume(s->vm.host->hyper, vm_op_call(&s->vm, s->vm.mgr->config.answer_ms),
		&s->id);
}

static void suspend_torn_down(struct vm_teardown *t)
{
	struct suspend *s = CONTAINER_OF(t, struct suspend, teardown);

	if (op_resume(&s->vm.op, s->vm.op.token))
		suspend_step(&s->vm.op);
}

static void in_image(struct suspend *s)
{
	struct vm_op *o = &s->vm;

	if (o->op.error.code) {
		enter_discard(s);
		return;
	}
	if (!s->asked) {
		s->asked = true;
		vm_image_create(
			&s->image, s->size, suspend_answered, s, op_await(&o->op, 0));
		return;
	}
	if (vm_point(o, "suspend.image"))
		return;
	if (s->image.rc)
		op_fail(&o->op, s->image.rc, "VM %s: %s", o->name, s->image.error.detail);
	else if (o->op.cancelled)
		vm_op_cancelled(o);
	if (o->op.error.code)
		enter_discard(s);
	else
		enter_save(s);
}

/* SAVE and SETTLING: the hypervisor's answer is there. */
static void in_save(struct suspend *s)
{
	struct vm_op *o = &s->vm;
	const struct hyper_req *req = &o->hyper;

	if (vm_point(o, "suspend.saved"))
		return;
	if (req->rc == 0 && !o->op.error.code && o->op.cancelled)
		vm_op_cancelled(o);
	if (req->rc == 0 && !o->op.error.code) {
		vm_op_progress(o, 0.9, "writing the rest");
		op_move(&o->op, FLUSH);
		vm_image_finish(&s->image, req->domain.actual_kib, suspend_answered, s,
			op_await(&o->op, 0));
		return;
	}
	if (req->rc && !o->op.error.code) {
		if (o->op.cancelled)
			vm_op_cancelled(o);
		else
			op_fail(&o->op, req->rc, "VM %s: %s", o->name, req->error.detail);
	}
	/* A guest that never stopped: resuming it does nothing (hyper.h). */
	if (req->rc == RV_ENOENT || req->rc == RV_ESTATE || req->rc == RV_ESTALE)
		enter_discard(s);
	else
		enter_resume(s);
}

static void in_flush(struct suspend *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "suspend.flushed"))
		return;
	if (s->image.rc)
		op_fail(&o->op, s->image.rc, "VM %s: %s", o->name, s->image.error.detail);
	else if (o->op.cancelled)
		vm_op_cancelled(o);
	if (o->op.error.code) {
		enter_resume(s);
		return;
	}
	op_move(&o->op, COMMIT);
	vm_op_record(o, txn_commit, commit_holds, false);
}

static void in_commit(struct suspend *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	if (vm_point(o, "suspend.committed"))
		return;
	if (o->entry.rc) {
		op_fail(&o->op, o->entry.rc,
			"VM %s: its suspension could not be "
			"recorded: %s",
			o->name, o->entry.error.detail);
		enter_resume(s);
		return;
	}
	op_move(&o->op, TEARDOWN);
	op_await(&o->op, 0);
	if (vm_devices_load(&s->devices, pool_db(o->mgr->pool), o->row, UUID_NONE, &e))
		op_fail_with(&o->op, &e);
	s->teardown = (struct vm_teardown){
		.owner = o,
		.host = o->host,
		.id = s->id,
		.has_domain = true,
		.devices = &s->devices,
		.generation = s->id.generation,
		.all_devices = true,
		.memory_domid = s->id.domid,
	};
	vm_teardown_start(&s->teardown, suspend_torn_down);
}

static void in_teardown(struct suspend *s)
{
	struct vm_op *o = &s->vm;

	if (s->teardown.op.error.code)
		vm_note(o->mgr, "VM_SUSPEND_UNCLEAN", 2, o->vm, "%s",
			s->teardown.op.error.detail);
	o->finish = finish_suspended;
	vm_op_end(o, END);
}

static void in_resume(struct suspend *s)
{
	struct vm_op *o = &s->vm;
	int rc = o->hyper.rc;

	if (rc && rc != RV_ENOENT && rc != RV_ESTALE && rc != RV_ESTATE &&
		++s->tries < SUSPEND_RETRIES) {
		op_move(&o->op, RESUME);
		s->waiting = true;
		op_await(&o->op, SUSPEND_RETRY_MS);
		return;
	}
	if (rc)
		vm_note(o->mgr, "VM_SUSPEND_UNCLEAN", 1, o->vm,
			"VM %s could not be suspended, and its guest does not go on: %s. "
			"It is tried again by itself; vm-reboot --force starts it anew",
			o->name, o->hyper.error.detail);
	else
		vm_memory_mode(o->host->memory, &s->id, MEMCTL_RUNNING);
	enter_discard(s);
}

/* Asked to end early: the save is called back, then the guest goes on. */
static void suspend_interrupt(struct suspend *s)
{
	if (s->vm.op.state != SAVE)
		return;
	vm_op_cancelled(&s->vm);
	op_settle(&s->vm.op, SETTLING, 0);
	hyper_cancel(&s->vm.hyper);
}

static void suspend_step(struct op *op)
{
	struct suspend *s = suspend_of(op);

	if (op->awaiting) {
		if (op->cancelled)
			suspend_interrupt(s);
		return;
	}
	switch (op->state) {
	case IMAGE:
		in_image(s);
		return;
	case SAVE:
	case SETTLING:
		in_save(s);
		return;
	case FLUSH:
		in_flush(s);
		return;
	case COMMIT:
		in_commit(s);
		return;
	case TEARDOWN:
		in_teardown(s);
		return;
	case RESUME:
		in_resume(s);
		return;
	case DISCARD:
		s->discarded = s->image.rc == 0;
		s->vm.finish = finish_undone;
		vm_op_end(&s->vm, END);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

static void suspend_deadline(struct op *op)
{
	struct suspend *s = suspend_of(op);

	if (op->state == RESUME && s->waiting) {
		s->waiting = false;
		enter_resume(s);
		return;
	}
	if (op->state == RESUME) {
		/* Answered once it surely happened or will not (hyper.h); then again. */
		s->vm.hyper.token = op_await(op, 0);
		hyper_cancel(&s->vm.hyper);
		return;
	}
	if (s->image.length > s->seen) {
		s->seen = s->image.length;
		s->seen_us = loop_now_us(op->loop);
		vm_op_progress(
			&s->vm, 0.05 + 0.85 * (double)s->seen / (double)s->size, NULL);
	}
	if (op->state == SAVE &&
		loop_now_us(op->loop) - s->seen_us < SUSPEND_STALL_MS * INT64_C(1000)) {
		s->vm.hyper.token = op_await(op, SUSPEND_LOOK_MS);
		return;
	}
	if (s->stands)
		op_fail(op, RV_ETIMEDOUT,
			"VM %s: nothing of its memory could be written for %d s; look at "
			"the SR, or suspend it to another (suspend-SR)",
			s->vm.name, SUSPEND_STALL_MS / 1000);
	else
		op_fail(op, RV_ETIMEDOUT,
			"VM %s: its guest did not suspend within %d s; it may lack the "
			"drivers for it. Shut it down instead (vm-shutdown)",
			s->vm.name, SUSPEND_STALL_MS / 1000);
	op_settle(op, SETTLING, 0);
	hyper_cancel(&s->vm.hyper);
}

/* --- the verb --- */

static void suspend_begin(struct vm_op *o)
{
	struct suspend *s = suspend_of(&o->op);
	struct rv_error e;

	vm_recorded(o->row, &s->id);
	vm_devices_init(&s->devices, o->mgr->loop, o->host->storage, o->host->net);
	o->op.on_deadline = suspend_deadline;
	op_start(&o->op, o->mgr->loop, &table, suspend_step, vm_op_done, o->subject);
	if (vm_image_init(&s->image, o->mgr->loop, o->host->storage, s->sr, s->vdi, o->vm,
		    s->id.generation, &e))
		op_fail_with(&o->op, &e);
}

static bool suspend_cancellable(const struct vm_op *o)
{
	return o->op.state < COMMIT;
}

/* Its own suspension is no ending; any other shows in the save's answer, and is looked at
 * when this has ended. */
static void suspend_guest_ended(struct vm_op *o, const struct hyper_event *event)
{
	if (event->kind == HYPER_EV_SHUTDOWN &&
		event->domain.reason == HYPER_REASON_SUSPEND)
		return;
	if (o->op.state >= TEARDOWN && o->op.state != RESUME && o->op.state != DISCARD)
		return;
	o->guest_event = *event;
	o->guest_event_due = true;
}

static void suspend_stop(struct vm_op *o)
{
	struct suspend *s = suspend_of(&o->op);

	vm_image_stop(&s->image);
	vm_devices_stop(&s->devices);
	vm_teardown_stop(&s->teardown);
}

static void suspend_fini(struct vm_op *o)
{
	struct suspend *s = suspend_of(&o->op);

	vm_image_fini(&s->image);
	vm_devices_fini(&s->devices);
}

const struct vm_verb vm_verb_suspend = {
	.intent = VM_INTENT_SUSPEND,
	.size = sizeof(struct suspend),
	.resident = true,
	.admit = suspend_admit,
	.intend = suspend_intend,
	.begin = suspend_begin,
	.cancellable = suspend_cancellable,
	.guest_ended = suspend_guest_ended,
	.stop = suspend_stop,
	.fini = suspend_fini,
};
