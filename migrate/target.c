/*
 *	CHECK ─► RESERVE ─► NICS ─► RESTORE ─► WHOLE ─► COMMIT ─► (target_own.c)
 *	  │         │         │       │  ╲       │        │
 *	  │         │         │       │ SETTLING │        ▼
 *	  ╰─────────┴─────────┴───────┴──┴───────╯      ABORT: asked, since COMMIT's fate
 *	        UNDO ─► ENDED  ◄────────────────────────╯      must be known
 *
 * The domain is restored paused, without disks: those are the source's until COMMIT is
 * applied, so nothing here could touch them. Until FINAL has come any failure only undoes
 * this side; the source sees the connection end. After COMMIT was proposed only the
 * database says whether it took place.
 */
#include "migrate/target.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_domain.h"

static const struct op_state states[] = {
	[TARGET_CHECK] = {"check", OP_TO(TARGET_RESERVE) | OP_TO(TARGET_UNDO) |
					   OP_TO(TARGET_ABORT) | OP_TO(TARGET_DISKS) |
					   OP_TO(TARGET_LOOK) | OP_TO(TARGET_RETURNING) |
					   OP_TO(TARGET_END)},
	[TARGET_RESERVE] = {"reserve", OP_TO(TARGET_NICS) | OP_TO(TARGET_UNDO)},
	[TARGET_NICS] = {"nics", OP_TO(TARGET_RESTORE) | OP_TO(TARGET_UNDO)},
	[TARGET_RESTORE] = {"restore",
		OP_TO(TARGET_WHOLE) | OP_TO(TARGET_SETTLING) | OP_TO(TARGET_UNDO)},
	[TARGET_SETTLING] = {"settling", OP_TO(TARGET_UNDO)},
	[TARGET_WHOLE] = {"whole", OP_TO(TARGET_COMMIT) | OP_TO(TARGET_UNDO)},
	[TARGET_COMMIT] = {"commit",
		OP_TO(TARGET_DISKS) | OP_TO(TARGET_ABORT) | OP_TO(TARGET_UNDO)},
	[TARGET_ABORT] = {"abort", OP_TO(TARGET_ABORT) | OP_TO(TARGET_DISKS) |
					   OP_TO(TARGET_LOOK) | OP_TO(TARGET_UNDO)},
	[TARGET_DISKS] = {"disks", OP_TO(TARGET_ATTACH) | OP_TO(TARGET_RETURNING)},
	[TARGET_ATTACH] = {"attach",
		OP_TO(TARGET_ATTACH) | OP_TO(TARGET_UNPAUSE) | OP_TO(TARGET_RETURNING)},
	[TARGET_UNPAUSE] = {"unpause",
		OP_TO(TARGET_LOOK) | OP_TO(TARGET_END) | OP_TO(TARGET_RETURNING)},
	[TARGET_LOOK] = {"look", OP_TO(TARGET_LOOK) | OP_TO(TARGET_END) |
					 OP_TO(TARGET_DISKS) | OP_TO(TARGET_RETURNING)},
	[TARGET_RETURNING] = {"returning", OP_TO(TARGET_UNDO) | OP_TO(TARGET_ENDED)},
	[TARGET_UNDO] = {"undo",
		OP_TO(TARGET_UNDO) | OP_TO(TARGET_RETURN) | OP_TO(TARGET_ENDED)},
	[TARGET_RETURN] = {"return", OP_TO(TARGET_ENDED)},
	[TARGET_END] = {"end", OP_TO(TARGET_ENDED)},
	[TARGET_ENDED] = {"ended", 0},
};

static const struct op_table table = {
	"migrate.target", states, TARGET_STATES, TARGET_CHECK};

struct target *target_of(struct op *op)
{
	return CONTAINER_OF(op, struct target, vm.op);
}

void target_answered(void *arg, uint64_t token, int rc)
{
	struct target *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		target_step(&s->vm.op);
}

/* --- what the source says --- */

static void target_lost(void *arg, int rc, const char *why)
{
	struct target *s = arg;

	s->lost = true;
	if (!s->refused)
		rv_error_set(&s->word, rc,
			"VM %s: the connection to the host it comes from is lost: %s",
			s->vm.name, why);
	op_kick(&s->vm.op);
}

static void target_message(void *arg, const struct migrate_message *m)
{
	struct target *s = arg;

	switch (m->type) {
	case MIGRATE_FINAL:
		if (!uuid_eq(&m->as.final.migration, &s->journal.migration) ||
			m->as.final.generation != s->journal.generation)
			break;
		s->final = m->as.final;
		s->final_at_us = loop_now_us(s->migrate->loop);
		s->final_came = true;
		break;
	case MIGRATE_ABORTED:
		s->refused = true;
		s->word.code = m->as.reason.code;
		snprintf(s->word.detail, sizeof s->word.detail, "%s", m->as.reason.text);
		break;
	default:
		break;
	}
	op_kick(&s->vm.op);
}

const struct wire_events target_events = {
	.message = target_message,
	.lost = target_lost,
};

/* Once FINAL is here the link is of no importance any more: the database decides. */
static bool target_spoiled(struct target *s)
{
	struct op *op = &s->vm.op;

	if (op->error.code == 0 && (s->refused || s->lost) && !s->final_came)
		op_fail(op, s->word.code, "%s", s->word.detail);
	return op->error.code != 0;
}

/* --- before the stream --- */

/* What this host is for the VM, by the database and the ports. */
static int target_fits(struct target *s, const struct hyper_host *h, struct rv_error *e)
{
	struct vm_op *o = &s->vm;
	const char *name = o->name;

	if (o->host->refusal[0])
		return rv_error_set(e, RV_ENOTALLOWED,
			"VM %s: the host it should go to takes none: %s", name,
			o->host->refusal);
	if (h->version_major < s->xen_major ||
		(h->version_major == s->xen_major && h->version_minor < s->xen_minor))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"VM %s comes from Xen %u.%u and can't go to %u.%u: VMs migrate "
			"to "
			"the same or a newer version only. Update this host first",
			name, s->xen_major, s->xen_minor, h->version_major,
			h->version_minor);
	if (hyper_cpu_check(o->host->hyper, h->cpu_policy, h->cpu_policy_len,
		    s->cpu_policy, s->cpu_policy_len, e))
		return rv_error_prefix(e, "VM %s", name);
	for (size_t i = 0; i < s->disks.count; i++) {
		const struct row *sr =
			db_row(pool_db(s->migrate->pool), CLASS_SR, s->disks.list[i].sr);

		if (!storage_sr_attached(o->host->storage, &s->disks.list[i].sr))
			return rv_error_set(e, RV_ENOTATTACHED,
				"VM %s: SR %s is not attached to the host it should go "
				"to; "
				"plug its PBD there (pbd-plug)",
				name, sr ? row_name(sr) : "of its disk");
	}
	return 0;
}

static void enter_reserve(struct target *s);

static void in_check(struct target *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	if (!s->asked) {
		s->asked = true;
		if (target_spoiled(s))
			target_undo(s);
		else
			hyper_host(
				o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms));
		return;
	}
	if (o->hyper.rc)
		op_fail(&o->op, o->hyper.rc, "VM %s: %s", o->name, o->hyper.error.detail);
	else if (target_fits(s, o->hyper.host, &e))
		op_fail_with(&o->op, &e);
	if (vm_point(o, "target.checked"))
		return;
	if (target_spoiled(s))
		target_undo(s);
	else
		enter_reserve(s);
}

static void target_reserved(void *arg, uint64_t token, int rc, uint64_t short_kib)
{
	struct target *s = arg;

	if (!op_resume(&s->vm.op, token))
		return;
	if (rc)
		op_fail(&s->vm.op, rc,
			"VM %s: needs %" PRIu64 " MiB of memory, %" PRIu64
			" MiB are missing on the host it should go to even after "
			"squeezing the others. Choose another one, or stop or shrink a "
			"VM there",
			s->vm.name, s->need_kib >> 10, (short_kib + 1023) >> 10);
	target_step(&s->vm.op);
}

/* max(target, actual), as the hypervisor will restore it: DESIGN.md section 8. */
static void enter_reserve(struct target *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;
	uint64_t token, kib = s->target_kib;

	if (s->actual_kib > kib)
		kib = s->actual_kib;
	s->target_kib = kib;
	s->need_kib = kib + vm_overhead_kib(o->host, o->row);
	op_move(&o->op, TARGET_RESERVE);
	token = op_await(&o->op, MIGRATE_PREPARE_MS);
	/* In the migration's name: the task may end before this side has cleaned up. */
	if (vm_memory_reserve(o->host->memory, &s->reservation, &s->journal.migration,
		    s->need_kib, target_reserved, s, token, &e) &&
		op_resume(&o->op, token)) {
		op_fail_with(&o->op, &e);
		target_undo(s);
	}
}

static void in_reserve(struct target *s)
{
	if (vm_point(&s->vm, "target.reserved"))
		return;
	if (target_spoiled(s)) {
		target_undo(s);
		return;
	}
	op_move(&s->vm.op, TARGET_NICS);
	vm_devices_up(&s->nics, s->journal.generation + 1, target_answered, s,
		op_await(&s->vm.op, 0));
}

/* --- the stream --- */

static void in_nics(struct target *s)
{
	struct vm_op *o = &s->vm;
	struct migrate_message ready = {
		.type = MIGRATE_READY_TO_STREAM, .as.version = MIGRATE_VERSION};
	struct vm_domain_spec d;
	struct hyper_req *req;
	struct rv_error e;

	if (s->nics.rc)
		op_fail_with(&o->op, &s->nics.error);
	if (vm_point(o, "target.nics"))
		return;
	if (!target_spoiled(s) && vm_domain_describe(&d, o, s->id.handle,
					  s->id.generation, s->target_kib, &s->nics, &e))
		op_fail_with(&o->op, &e);
	if (!o->op.error.code && vm_may_run(o, &e))
		op_fail_with(&o->op, &e);
	if (o->op.error.code) {
		target_undo(s);
		return;
	}
	op_move(&o->op, TARGET_RESTORE);
	vm_memory_build(&s->reservation);
	s->maybe = true;
	req = vm_op_call(o, MIGRATE_STALL_MS);
	s->source = wire_source(s->wire, req);
	hyper_restore(o->host->hyper, req, &d.spec, &s->source);
	wire_send(s->wire, &ready);
}

/* The domain is there: its memory is its own. */
static int target_take_memory(struct target *s)
{
	struct vm_op *o = &s->vm;
	struct memctl_domain d =
		vm_domain_memory(o->row, s->id.domid, s->target_kib, false);
	struct rv_error e;
	int rc = vm_memory_add(o->host->memory, &s->id, &d,
		vm_overhead_kib(o->host, o->row), &s->reservation, &e);

	if (rc)
		op_fail_with(&o->op, &e);
	else
		vm_memory_restored(o->host->memory, &s->id);
	return rc;
}

static void enter_commit(struct target *s);

static void in_restore(struct target *s)
{
	struct vm_op *o = &s->vm;
	int rc = o->hyper.rc;

	wire_source_done(s->wire);
	if (rc) {
		if (migrate_is_refusal(rc))
			s->maybe = false;
		if (o->op.error.code == 0 && !target_spoiled(s))
			op_fail(&o->op, rc, "VM %s: %s", o->name, o->hyper.error.detail);
	} else {
		s->id = o->hyper.id;
	}
	if (vm_point(o, "target.restored"))
		return;
	if (o->op.error.code || o->op.state == TARGET_SETTLING || target_take_memory(s)) {
		target_undo(s);
		return;
	}
	/* Whole; but the source may still hold the disks. */
	op_move(&o->op, TARGET_WHOLE);
	op_await(&o->op, MIGRATE_STALL_MS);
	op_kick(&o->op);
}

static void in_whole(struct target *s)
{
	struct vm_op *o = &s->vm;

	if (!target_spoiled(s) && !s->final_came)
		return;
	if (!op_resume(&o->op, o->op.token))
		return;
	if (o->op.error.code)
		target_undo(s);
	else
		enter_commit(s);
}

/* --- the hand-over --- */

static void txn_commit(void *arg, const struct db *db, struct txn *t)
{
	struct target *s = arg;

	journal_txn_commit(db, t, &s->journal, &s->id);
}

static bool commit_holds(void *arg, const struct db *db)
{
	struct target *s = arg;

	return journal_standing(db, &s->vm.vm, &s->journal.migration) ==
	       JOURNAL_COMMITTED;
}

static void enter_commit(struct target *s)
{
	wire_send_generation(s->wire, MIGRATE_READY, s->id.generation);
	op_move(&s->vm.op, TARGET_COMMIT);
	if (vm_point(&s->vm, "target.whole"))
		return;
	vm_op_record(&s->vm, txn_commit, commit_holds, false);
}

static void txn_abort(void *arg, const struct db *db, struct txn *t)
{
	journal_txn_abort(db, t, &((struct target *)arg)->journal);
}

static bool abort_holds(void *arg, const struct db *db)
{
	struct target *s = arg;

	return journal_standing(db, &s->vm.vm, &s->journal.migration) == JOURNAL_ABORTED;
}

static void target_rest(struct target *s)
{
	s->resting = true;
	op_await(&s->vm.op, MIGRATE_RETRY_MS);
}

/* By the database, after COMMIT or ABORT was asked for. */
static void target_judge(struct target *s)
{
	struct vm_op *o = &s->vm;

	switch (journal_standing(
		pool_db(s->migrate->pool), &o->vm, &s->journal.migration)) {
	case JOURNAL_COMMITTED:
		target_own(s);
		return;
	case JOURNAL_ABORTED:
	case JOURNAL_GONE:
		op_fail(&o->op, RV_ECONFLICT,
			"VM %s: the migration was ended by the other side", o->name);
		target_undo(s);
		return;
	case JOURNAL_OPEN:
	case JOURNAL_FINAL:
		break;
	}
	if (o->op.state == TARGET_ABORT) {
		target_rest(s);
		return;
	}
	op_move(&o->op, TARGET_ABORT);
	vm_op_record(o, txn_abort, abort_holds, true);
}

static void in_commit(struct target *s)
{
	struct vm_op *o = &s->vm;
	char why[RV_ERROR_DETAIL_MAX + VM_NAME_SIZE + 64];

	if (vm_point(o, "target.committed"))
		return;
	if (o->entry.rc)
		log_warn("migrate.target", "%s rc=%s msg=\"not committed: %s\"",
			o->subject, rv_error_symbol(o->entry.rc), o->entry.error.detail);
	if (o->entry.rc && o->entry.rc != RV_ECONFLICT) {
		/* So that the user is told; it decides nothing. */
		snprintf(why, sizeof why,
			"VM %s: the hand-over could not be recorded: %s", o->name,
			o->entry.error.detail);
		wire_send_reason(s->wire, MIGRATE_ABORTED, o->entry.rc, why);
	}
	target_judge(s);
}

/* --- steps --- */

static void target_kicked(struct target *s)
{
	struct vm_op *o = &s->vm;

	switch (o->op.state) {
	case TARGET_RESERVE:
		if (target_spoiled(s) && op_resume(&o->op, o->op.token))
			target_undo(s);
		return;
	case TARGET_NICS:
		if (target_spoiled(s))
			vm_devices_cancel(&s->nics);
		return;
	case TARGET_RESTORE:
		if (!target_spoiled(s))
			return;
		op_settle(&o->op, TARGET_SETTLING, 0);
		hyper_cancel(&o->hyper);
		return;
	case TARGET_WHOLE:
		in_whole(s);
		return;
	default:
		return;
	}
}

void target_step(struct op *op)
{
	struct target *s = target_of(op);

	if (op->awaiting) {
		target_kicked(s);
		return;
	}
	switch (op->state) {
	case TARGET_CHECK:
		if (s->vm.rerun)
			target_judge(s);
		else
			in_check(s);
		return;
	case TARGET_RESERVE:
		in_reserve(s);
		return;
	case TARGET_NICS:
		in_nics(s);
		return;
	case TARGET_RESTORE:
	case TARGET_SETTLING:
		in_restore(s);
		return;
	case TARGET_COMMIT:
		in_commit(s);
		return;
	case TARGET_ABORT:
		if (!vm_point(&s->vm, "target.aborted"))
			target_judge(s);
		return;
	default:
		target_own_step(s);
	}
}

static void target_deadline(struct op *op)
{
	struct target *s = target_of(op);
	struct vm_op *o = &s->vm;

	if (s->resting && op->state == TARGET_ABORT) {
		s->resting = false;
		vm_op_record(o, txn_abort, abort_holds, true);
		return;
	}
	switch (op->state) {
	case TARGET_CHECK:
		o->hyper.token = op_await(op, 0);
		hyper_cancel(&o->hyper);
		return;
	case TARGET_RESERVE:
		op_fail(op, RV_ETIMEDOUT,
			"VM %s: waited %d s for %" PRIu64
			" MiB of memory that other VMs should have given back; look for "
			"one that is stuck (host-memory-show)",
			o->name, MIGRATE_PREPARE_MS / 1000, s->need_kib >> 10);
		target_kicked(s);
		return;
	case TARGET_RESTORE:
		/* As long as bytes come it is the source's to be patient. */
		if (s->wire->received_bytes != s->seen_bytes) {
			s->seen_bytes = s->wire->received_bytes;
			o->hyper.token = op_await(op, MIGRATE_STALL_MS);
			return;
		}
		op_fail(op, RV_ETIMEDOUT, "VM %s: nothing came for %d s", o->name,
			MIGRATE_STALL_MS / 1000);
		target_kicked(s);
		return;
	case TARGET_WHOLE:
		op_fail(op, RV_ETIMEDOUT,
			"VM %s: the stream is whole, but the other host has not let go "
			"within %d s",
			o->name, MIGRATE_STALL_MS / 1000);
		in_whole(s);
		return;
	default:
		target_own_deadline(s);
	}
}

/* --- the verb --- */

static void target_done(struct op *op)
{
	struct target *s = target_of(op);
	struct migrate *m = s->migrate;

	migrate_watch_remove(&s->watch);
	wire_close(s->wire, &m->closing);
	s->wire = NULL;
	vm_op_done(op);
	vm_manager_look(m->vms);
	settle_soon(m);
}

static void target_begin(struct vm_op *o)
{
	struct target *s = target_of(&o->op);
	const struct db *db = pool_db(o->mgr->pool);
	struct rv_error e;

	vm_devices_init(&s->nics, o->mgr->loop, o->host->storage, o->host->net);
	vm_devices_init(&s->disks, o->mgr->loop, o->host->storage, o->host->net);
	vm_devices_init(&s->all, o->mgr->loop, o->host->storage, o->host->net);
	o->op.on_deadline = target_deadline;
	migrate_watch_add(s->migrate, &s->watch, &o->op);
	op_start(&o->op, o->mgr->loop, &table, target_step, target_done, o->subject);
	if (migrate_load_devices(&s->disks, db, o->row, VM_DEVICE_DISK, &e) ||
		migrate_load_devices(&s->nics, db, o->row, VM_DEVICE_NIC, &e)) {
		if (o->rerun)
			log_warn("migrate.target", "%s msg=\"%s\"", o->subject, e.detail);
		else
			op_fail_with(&o->op, &e);
	}
}

/* The source cancels; this side follows. */
static bool target_cancellable(const struct vm_op *o)
{
	(void)o;
	return false;
}

static void target_guest_ended(struct vm_op *o, const struct hyper_event *event)
{
	struct target *s = target_of(&o->op);

	/* Before the hand-over it is no guest; afterwards it may end as any. */
	if (!s->owner || o->op.state == TARGET_UNDO || o->op.state == TARGET_RETURN)
		return;
	o->guest_event = *event;
	o->guest_event_due = true;
}

static void target_stop(struct vm_op *o)
{
	struct target *s = target_of(&o->op);

	vm_devices_stop(&s->nics);
	vm_devices_stop(&s->disks);
	vm_devices_stop(&s->all);
	if (s->teardown.op.table)
		vm_teardown_stop(&s->teardown);
	if (s->reservation.memory)
		s->reservation.answer_due = false;
	wire_free(s->wire);
	s->wire = NULL;
}

static void target_fini(struct vm_op *o)
{
	struct target *s = target_of(&o->op);

	vm_devices_fini(&s->nics);
	vm_devices_fini(&s->disks);
	vm_devices_fini(&s->all);
	wire_free(s->wire);
	free(s->cpu_policy);
}

const struct vm_verb target_verb = {
	.intent = VM_INTENT_MIGRATE,
	.size = sizeof(struct target),
	.begin = target_begin,
	.cancellable = target_cancellable,
	.guest_ended = target_guest_ended,
	.stop = target_stop,
	.fini = target_fini,
};

int target_new(struct migrate *m, const struct row *vm, const struct journal *j,
	struct target **out, struct rv_error *e)
{
	struct vm_op_args args = {.vm = row_uuid(vm)};
	struct target *s;
	struct vm_op *o;
	int rc;

	*out = NULL;
	if (vm_op_of(m->vms, &j->vm))
		return rv_error_set(e, RV_EBUSY,
			"VM %s: this host is still busy with it; try again soon",
			row_name(vm));
	rc = vm_op_new(m->vms, &target_verb, VM_OP_MIGRATE, &args, j->task, vm, &o, e);
	if (rc)
		return rc;
	s = target_of(&o->op);
	s->migrate = m;
	s->journal = *j;
	o->host = m->host;
	o->internal = true;
	s->id = (struct hyper_domain_id){
		.boot_id = m->host->boot_id,
		.domid = HYPER_DOMID_ANY,
		.handle = vm_uuid(m->vms),
		.generation = j->generation + 1,
	};
	*out = s;
	return 0;
}

int target_recover(struct migrate *m, const struct row *vm, struct rv_error *e)
{
	struct target *s;
	struct journal j;
	int rc;

	if (!journal_read(vm, &j))
		return rv_error_set(e, RV_ENOENT, "no migration is at work on it");
	rc = target_new(m, vm, &j, &s, e);
	if (rc)
		return rc;
	s->vm.rerun = true;
	vm_op_go(&s->vm);
	return 0;
}
