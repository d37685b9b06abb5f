/*
 *	UNWIND ─► ABORT ──► FIND ─► DISKS ─► LABEL ─► RESUME ─► END ─► ENDED
 *	   ╰──────────────────▲        (the guest goes on where it was)
 *	FINAL ─► ABORT ───────┤
 *	   ╰───► WAIT ────────┘ RETURN was recorded
 *	          ╰─► TEARDOWN ─► ENDED    RUNNING was, or the VM is the other host's
 *	                                   to lose
 *
 * Nothing but the database says which way it goes: source_judge. Where it can't be asked
 * for want of a quorum, the guest stays suspended.
 */
#include "migrate/source.h"

#include <stdio.h>

#include "base/log.h"
#include "vm/vm_domain.h"

static void source_rest(struct source *s, enum source_state state)
{
	op_move(&s->vm.op, (int)state);
	s->resting = true;
	op_await(&s->vm.op, MIGRATE_RETRY_MS);
}

/* --- ABORT --- */

static void txn_abort(void *arg, const struct db *db, struct txn *t)
{
	journal_txn_abort(db, t, &((struct source *)arg)->journal);
}

static bool abort_holds(void *arg, const struct db *db)
{
	struct source *s = arg;

	return journal_standing(db, &s->vm.vm, &s->journal.migration) == JOURNAL_ABORTED;
}

static void enter_abort(struct source *s)
{
	op_move(&s->vm.op, SOURCE_ABORT);
	vm_op_progress(&s->vm, 0.97, "suspended until the pool has decided whose it is");
	vm_op_record(&s->vm, txn_abort, abort_holds, true);
}

static void in_abort(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "migrate.aborted"))
		return;
	source_judge(s);
}

/* --- which way --- */

static void enter_find(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (o->op.error.code == 0 && s->refused)
		op_fail(&o->op, s->word.code, "%s", s->word.detail);
	else if (o->op.error.code == 0)
		op_fail(&o->op, RV_EAGAIN,
			"VM %s: the other host could not take it over, and gave it back",
			o->name);
	if (s->wire)
		wire_send_reason(
			s->wire, MIGRATE_ABORTED, o->op.error.code, o->op.error.detail);
	wire_close(s->wire, &s->migrate->closing);
	s->wire = NULL;
	op_move(&o->op, SOURCE_FIND);
	hyper_info(o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms),
		&s->journal.domain);
}

static void torn_down(struct vm_teardown *t)
{
	struct source *s = CONTAINER_OF(t, struct source, teardown);

	if (op_resume(&s->vm.op, s->vm.op.token))
		source_step(&s->vm.op);
}

static void enter_teardown(struct source *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	wire_close(s->wire, &s->migrate->closing);
	s->wire = NULL;
	op_move(&o->op, SOURCE_TEARDOWN);
	if (vm_point(o, "migrate.leaving"))
		return;
	if (vm_devices_load(&s->all, pool_db(o->mgr->pool), o->row, UUID_NONE, &e))
		log_warn("migrate.source", "%s msg=\"%s\"", o->subject, e.detail);
	op_await(&o->op, 0);
	s->teardown = (struct vm_teardown){
		.owner = o,
		.host = o->host,
		.id = s->journal.domain,
		.has_domain = true,
		.devices = &s->all,
		.generation = s->journal.generation,
		.all_devices = true,
		.memory_domid = s->journal.domain.domid,
	};
	vm_teardown_start(&s->teardown, torn_down);
}

/* The row names our domain: then it is not to be destroyed, whoever ended the rest. */
static bool source_is_recorded(const struct source *s, const struct db *db)
{
	const struct row *vm = db_row(db, CLASS_VM, s->vm.vm);
	struct hyper_domain_id id;

	return vm && vm_recorded(vm, &id) &&
	       uuid_eq(&id.handle, &s->journal.domain.handle);
}

/* RUNNING is recorded, which took an entry after the pause was over. Of the pause, what
 * was expected of memory is not the hand-over's. */
static void source_learn(struct source *s)
{
	int64_t pause_us = loop_now_us(s->migrate->loop) - s->suspended_us - s->commit_us;

	if (s->predicted_us > 0 && s->suspended)
		handover_learn(&s->migrate->handover, &s->args.host,
			pause_us - (s->predicted_us - s->precopy.config.handover_us));
}

void source_judge(struct source *s)
{
	struct op *op = &s->vm.op;
	const struct db *db = pool_db(s->migrate->pool);

	switch (journal_standing(db, &s->vm.vm, &s->journal.migration)) {
	case JOURNAL_OPEN:
	case JOURNAL_FINAL:
		if (op->state == SOURCE_ABORT) {
			/* Not decided yet: asked again, for as long as it takes. */
			s->resting = true;
			op_await(op, MIGRATE_RETRY_MS);
			return;
		}
		enter_abort(s);
		return;
	case JOURNAL_ABORTED:
		enter_find(s);
		return;
	case JOURNAL_COMMITTED:
		if (op->state != SOURCE_WAIT) {
			vm_op_progress(&s->vm, 0.98, "the other host has it");
			op_move(op, SOURCE_WAIT);
			if (vm_point(&s->vm, "migrate.waiting"))
				return;
		}
		if (!op->awaiting)
			op_await(op, 0);
		return;
	case JOURNAL_GONE:
		if (!source_is_recorded(s, db)) {
			source_learn(s);
			enter_teardown(s);
		} else {
			op_move(op, SOURCE_TEARDOWN);
			op_move(op, SOURCE_ENDED);
			op_finish(op);
		}
		return;
	}
}

/* --- the way back --- */

void source_unwind(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (s->wire && !s->final_sent)
		wire_send_reason(
			s->wire, MIGRATE_ABORTED, o->op.error.code, o->op.error.detail);
	op_move(&o->op, SOURCE_UNWIND);
	op_await(&o->op, 0);
	op_kick(&o->op);
}

static void in_unwind(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (s->disks_down && !(s->disks_done && s->final_done))
		return;
	if (vm_point(o, "migrate.unwinding") || !op_resume(&o->op, o->op.token))
		return;
	/* What was recorded, others may have seen; what may have been recorded too. */
	if (s->disks_down &&
		(s->final_entry.rc == 0 || s->final_entry.rc == RV_EOUTCOME ||
			s->final_entry.rc == RV_ENOTMASTER))
		enter_abort(s);
	else
		enter_find(s);
}

static uint64_t recorded_generation(const struct source *s)
{
	const struct row *vm = db_row(pool_db(s->migrate->pool), CLASS_VM, s->vm.vm);

	return vm ? (uint64_t)db_int(vm, VM_OWNER_GENERATION) : s->journal.generation;
}

static void disks_are_up(void *arg, uint64_t token, int rc)
{
	struct source *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		source_step(&s->vm.op);
}

static void enter_disks(struct source *s)
{
	op_move(&s->vm.op, SOURCE_DISKS);
	vm_devices_up(&s->disks, recorded_generation(s), disks_are_up, s,
		op_await(&s->vm.op, 0));
}

static void enter_label(struct source *s)
{
	struct vm_op *o = &s->vm;
	uint64_t generation = recorded_generation(s);

	op_move(&o->op, SOURCE_LABEL);
	if (generation == s->journal.domain.generation) {
		op_await(&o->op, 0);
		op_resume(&o->op, o->op.token);
		o->hyper.rc = 0;
		op_kick(&o->op);
		return;
	}
	hyper_relabel(o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms),
		&s->journal.domain, &o->vm, generation);
}

/* The domain is gone or ended by itself: vm/'s reconciler goes on from there. */
static void source_give_up(struct source *s)
{
	s->guest_over = true;
	source_end(s);
}

static void in_find(struct source *s)
{
	struct vm_op *o = &s->vm;
	const struct hyper_domain *d = &o->hyper.domain;
	uint64_t recorded = recorded_generation(s);

	switch (o->hyper.rc) {
	case 0:
		break;
	case RV_ESTALE:
		/* It may bear the new generation already, from before a restart. */
		if (s->journal.domain.generation != recorded) {
			s->journal.domain.generation = recorded;
			enter_find(s);
			return;
		}
		source_give_up(s);
		return;
	case RV_ENOENT:
		source_give_up(s);
		return;
	default:
		source_rest(s, SOURCE_FIND);
		return;
	}
	if (d->state == HYPER_SHUTDOWN && d->reason != HYPER_REASON_SUSPEND) {
		source_give_up(s);
		return;
	}
	if (s->disks_down || o->rerun)
		enter_disks(s);
	else {
		op_move(&o->op, SOURCE_DISKS);
		enter_label(s);
	}
}

static void in_disks(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "migrate.disks"))
		return;
	if (s->disks.rc == 0) {
		s->tries = 0;
		enter_label(s);
		return;
	}
	if (s->tries++ == 0)
		vm_note(o->mgr, "VM_MIGRATION_STUCK", 1, o->vm,
			"VM %s stays suspended: a disk that was let go for its migration "
			"can't be had back: %s. It is tried again by itself",
			o->name, s->disks.error.detail);
	source_rest(s, SOURCE_DISKS);
}

/* The pool may start it elsewhere while this host has no lease. */
static void resume(struct source *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	if (vm_may_resume(o, &e)) {
		s->resting = true;
		op_await(&o->op, VM_RESUME_LOOK_MS);
		return;
	}
	hyper_resume(o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms),
		&s->journal.domain);
}

static void in_label(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (o->hyper.rc && o->hyper.rc != RV_ESTALE && o->hyper.rc != RV_ENOENT) {
		source_rest(s, SOURCE_LABEL);
		return;
	}
	s->journal.domain.generation = recorded_generation(s);
	op_move(&o->op, SOURCE_RESUME);
	resume(s);
}

/* A former daemon may have known its memory, not this one. */
static void source_manage_memory(struct source *s, const struct hyper_domain *d)
{
	struct memctl_domain m =
		vm_domain_memory(s->vm.row, d->id.domid, d->target_kib, false);
	struct rv_error e;

	m.actual_kib = d->actual_kib;
	m.maxmem_kib = d->maxmem_kib;
	m.mode = MEMCTL_RUNNING;
	if (vm_memory_add(s->vm.host->memory, &d->id, &m, d->overhead_kib, NULL, &e))
		log_warn("migrate.source", "%s msg=\"%s\"", s->vm.subject, e.detail);
}

static void in_resume(struct source *s)
{
	struct vm_op *o = &s->vm;
	const struct hyper_domain *d = &o->hyper.domain;
	int rc = o->hyper.rc;

	if (vm_point(o, "migrate.resumed"))
		return;
	if (rc && rc != RV_ENOENT && rc != RV_ESTALE && rc != RV_ESTATE &&
		++s->tries < MIGRATE_RETRIES) {
		source_rest(s, SOURCE_RESUME);
		return;
	}
	if (rc && rc != RV_ENOENT && rc != RV_ESTATE)
		vm_note(o->mgr, "VM_MIGRATION_STUCK", 1, o->vm,
			"VM %s was not migrated, and its guest does not go on: %s. It is "
			"tried again by itself; vm-reboot --force starts it anew",
			o->name, o->hyper.error.detail);
	if (rc == 0 && d->state == HYPER_RUNNING)
		source_manage_memory(s, d);
	if (rc == RV_ENOENT || rc == RV_ESTALE || rc == RV_ESTATE)
		s->guest_over = true;
	source_end(s);
}

/* --- steps --- */

static void in_final(struct source *s)
{
	struct vm_op *o = &s->vm;
	const struct db *db = pool_db(s->migrate->pool);

	switch (journal_standing(db, &o->vm, &s->journal.migration)) {
	case JOURNAL_FINAL:
	case JOURNAL_OPEN:
		if (o->op.error.code == 0 && (s->refused || s->lost))
			op_fail(&o->op, s->word.code, "%s", s->word.detail);
		if (o->op.error.code && op_resume(&o->op, o->op.token))
			enter_abort(s);
		return;
	default:
		if (op_resume(&o->op, o->op.token))
			source_judge(s);
	}
}

void source_settle_kicked(struct source *s)
{
	struct vm_op *o = &s->vm;

	switch (o->op.state) {
	case SOURCE_FINAL:
		in_final(s);
		return;
	case SOURCE_WAIT:
		if (journal_standing(pool_db(s->migrate->pool), &o->vm,
			    &s->journal.migration) == JOURNAL_COMMITTED)
			return;
		if (s->refused && o->op.error.code == 0)
			op_fail(&o->op, s->word.code, "%s", s->word.detail);
		if (op_resume(&o->op, o->op.token))
			source_judge(s);
		return;
	case SOURCE_UNWIND:
		in_unwind(s);
		return;
	default:
		return; /* goes on when the answer is there */
	}
}

static void teardown_over(struct source *s)
{
	struct vm_op *o = &s->vm;
	const struct db *db = pool_db(s->migrate->pool);
	const struct row *task = db_row(db, CLASS_TASK, o->task);

	if (s->teardown.op.error.code)
		vm_note(o->mgr, "VM_MIGRATION_UNCLEAN", 2, o->vm, "%s",
			s->teardown.op.error.detail);
	if (task && vm_task_open(task) && !uuid_is_none(&o->task)) {
		/* Whoever ended the migration left its task open. */
		op_fail(&o->op, RV_ESTATE,
			"VM %s: the migration was ended by somebody else", o->name);
		o->finish = NULL;
		s->guest_over = true;
		source_end(s);
		return;
	}
	op_move(&o->op, SOURCE_ENDED);
	op_finish(&o->op);
}

void source_settle_step(struct source *s)
{
	switch (s->vm.op.state) {
	case SOURCE_FINAL:
	case SOURCE_WAIT:
		source_judge(s);
		return;
	case SOURCE_ABORT:
		in_abort(s);
		return;
	case SOURCE_FIND:
		in_find(s);
		return;
	case SOURCE_DISKS:
		in_disks(s);
		return;
	case SOURCE_LABEL:
		in_label(s);
		return;
	case SOURCE_RESUME:
		in_resume(s);
		return;
	case SOURCE_TEARDOWN:
		teardown_over(s);
		return;
	default:
		vm_op_lost(&s->vm.op);
	}
}

static void source_again(struct source *s)
{
	struct vm_op *o = &s->vm;

	s->resting = false;
	switch (o->op.state) {
	case SOURCE_ABORT:
		vm_op_record(o, txn_abort, abort_holds, true);
		return;
	case SOURCE_FIND:
		hyper_info(o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms),
			&s->journal.domain);
		return;
	case SOURCE_DISKS:
		enter_disks(s);
		return;
	case SOURCE_LABEL:
		enter_label(s);
		return;
	default:
		resume(s);
	}
}

void source_settle_deadline(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (s->resting) {
		source_again(s);
		return;
	}
	if (hyper_req_busy(&o->hyper)) {
		/* Answered once it surely happened or will not: see hyper.h. */
		o->hyper.token = op_await(&o->op, 0);
		hyper_cancel(&o->hyper);
		return;
	}
	if (o->op.state == SOURCE_FINAL) {
		op_fail(&o->op, RV_ETIMEDOUT,
			"VM %s: the other host did not take it over within %d s", o->name,
			MIGRATE_READY_MS / 1000);
		in_final(s);
		return;
	}
	vm_op_lost(&o->op);
}
