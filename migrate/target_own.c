/*
 *	(COMMIT is applied)
 *	DISKS ─► ATTACH ─► UNPAUSE ─────────► END (RUNNING) ─► ENDED
 *	  │        │         │  ╲  ▲
 *	  │        │         │  LOOK: does it run? has it?
 *	  ▼        ▼         ▼     │
 *	RETURNING ─► UNDO ─► RETURN ─► ENDED      never unpaused: the source has it again
 *
 * Owning it, this side may give the VM back only as long as it surely never ran here;
 * that it is about to is recorded first (RETURNING), so that a successor of this daemon
 * knows it too. Where it may have run and is gone, it is a VM that crashed.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "migrate/target.h"

enum { OWN_TRIES = 4 };

static void own_rest(struct target *s, enum target_state state)
{
	op_move(&s->vm.op, (int)state);
	s->resting = true;
	op_await(&s->vm.op, MIGRATE_RETRY_MS);
}

/* --- giving it back --- */

static void txn_returning(void *arg, const struct db *db, struct txn *t)
{
	(void)db;
	journal_txn_returning(t, &((struct target *)arg)->journal);
}

static bool returning_holds(void *arg, const struct db *db)
{
	struct target *s = arg;
	const struct row *vm = db_row(db, CLASS_VM, s->vm.vm);
	struct journal j;

	return vm && journal_read(vm, &j) && j.returning &&
	       uuid_eq(&j.migration, &s->journal.migration);
}

static void enter_returning(struct target *s)
{
	op_move(&s->vm.op, TARGET_RETURNING);
	vm_op_record(&s->vm, txn_returning, returning_holds, true);
}

static void target_torn_down(struct vm_teardown *t)
{
	struct target *s = CONTAINER_OF(t, struct target, teardown);

	if (op_resume(&s->vm.op, s->vm.op.token))
		target_step(&s->vm.op);
}

static void enter_teardown(struct target *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	op_await(&o->op, 0);
	if (vm_devices_load(&s->all, pool_db(o->mgr->pool), o->row, UUID_NONE, &e))
		log_warn("migrate.target", "%s msg=\"%s\"", o->subject, e.detail);
	s->teardown = (struct vm_teardown){
		.owner = o,
		.host = o->host,
		.id = s->id,
		.has_domain = s->maybe,
		.devices = &s->all,
		.generation = s->id.generation,
		.all_devices = true,
		.memory_domid = s->id.domid,
	};
	vm_teardown_start(&s->teardown, target_torn_down);
}

void target_undo(struct target *s)
{
	struct vm_op *o = &s->vm;

	if (s->wire && !s->owner && o->op.error.code)
		wire_send_reason(
			s->wire, MIGRATE_ABORTED, o->op.error.code, o->op.error.detail);
	op_move(&o->op, TARGET_UNDO);
	/* What a half-made domain holds is not free before it is gone. */
	if (!s->maybe)
		vm_memory_release(&s->reservation);
	enter_teardown(s);
}

static void txn_return(void *arg, const struct db *db, struct txn *t)
{
	journal_txn_return(db, t, &((struct target *)arg)->journal);
}

static bool return_holds(void *arg, const struct db *db)
{
	struct target *s = arg;

	return journal_standing(db, &s->vm.vm, &s->journal.migration) !=
	       JOURNAL_COMMITTED;
}

static void in_undo(struct target *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "target.undone"))
		return;
	if (s->teardown.domain_left)
		vm_memory_abandon(&s->reservation);
	else
		vm_memory_release(&s->reservation);
	if (s->teardown.op.error.code) {
		vm_note(o->mgr, "VM_MIGRATION_UNCLEAN", 2, o->vm, "%s",
			s->teardown.op.error.detail);
		/* Not given back with a domain or disks left here. */
		if (s->owner) {
			own_rest(s, TARGET_UNDO);
			return;
		}
	}
	if (!s->owner) {
		op_move(&o->op, TARGET_ENDED);
		op_finish(&o->op);
		return;
	}
	op_move(&o->op, TARGET_RETURN);
	vm_op_record(o, txn_return, return_holds, true);
}

/* RETURNING and RETURN could not be recorded: not by this host, or it is over anyway. A
 * successor finds what is left. */
static void own_over(struct target *s)
{
	op_move(&s->vm.op, TARGET_ENDED);
	op_finish(&s->vm.op);
}

static void in_return(struct target *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "target.returned"))
		return;
	if (o->entry.rc == 0 && s->wire)
		wire_send_reason(s->wire, MIGRATE_RETURNED,
			o->op.error.code ? o->op.error.code : RV_EAGAIN,
			o->op.error.code ? o->op.error.detail : "it was given back");
	own_over(s);
}

/* --- running it --- */

static void finish_running(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct target *s = target_of(&o->op);
	char text[160];

	(void)db;
	txn_expect_enum(t, o->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_COMMITTED);
	txn_expect_int(t, o->vm, VM_OWNER_GENERATION, (int64_t)s->id.generation);
	journal_txn_end(t, &s->journal);
	if (o->op.error.code || !s->final_came)
		return;
	snprintf(text, sizeof text,
		"downtime_ms=%" PRId64 " total_ms=%" PRId64 " bytes=%" PRIu64
		" rounds=%u",
		(s->downtime_us + 500) / 1000,
		(s->final.total_us - s->final.suspended_us + s->downtime_us) / 1000,
		s->final.bytes, s->final.rounds);
	txn_set_string(t, o->task, TASK_RESULT, text);
}

static void enter_end(struct target *s)
{
	struct vm_op *o = &s->vm;

	s->downtime_us =
		s->final.suspended_us + (loop_now_us(o->mgr->loop) - s->final_at_us) +
		migrate_final_late_us(&s->final, s->final_at_us - s->prepare_at_us);
	if (o->op.error.code == 0)
		vm_memory_mode(o->host->memory, &s->id, MEMCTL_RUNNING);
	o->finish = finish_running;
	vm_op_end(o, TARGET_END);
}

/* The VM is this host's: it waits, paused, for as long as the host may let nothing run.
 */
static void unpause(struct target *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	if (vm_may_run(o, &e)) {
		log_warn("migrate.target", "%s msg=\"%s\"", o->subject, e.detail);
		s->resting = true;
		op_await(&o->op, MIGRATE_RETRY_MS);
		return;
	}
	vm_unpause(o, vm_op_call(o, o->mgr->config.answer_ms), &s->id);
}

static void enter_unpause(struct target *s)
{
	op_move(&s->vm.op, TARGET_UNPAUSE);
	unpause(s);
}

static void attach_next(struct target *s)
{
	struct vm_op *o = &s->vm;
	struct hyper_vbd_spec vbd;

	vm_device_vbd(&s->disks.list[s->attached], &vbd);
	hyper_attach_vbd(
		o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms), &s->id, &vbd);
}

static void enter_attach(struct target *s)
{
	if (s->attached == s->disks.count) {
		if (s->vm.op.state != TARGET_ATTACH)
			op_move(&s->vm.op, TARGET_ATTACH);
		enter_unpause(s);
		return;
	}
	op_move(&s->vm.op, TARGET_ATTACH);
	attach_next(s);
}

static void enter_disks(struct target *s)
{
	vm_devices_up(
		&s->disks, s->id.generation, target_answered, s, op_await(&s->vm.op, 0));
}

static void enter_look(struct target *s)
{
	struct vm_op *o = &s->vm;

	op_move(&o->op, TARGET_LOOK);
	hyper_info(o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms), &s->id);
}

/* The owner's record is this host's domain. */
void target_own(struct target *s)
{
	struct vm_op *o = &s->vm;
	const struct row *vm = db_row(pool_db(o->mgr->pool), CLASS_VM, o->vm);
	struct journal j;

	s->owner = s->maybe = true;
	rv_error_clear(&o->op.error);
	if (!o->rerun) {
		wire_send_generation(s->wire, MIGRATE_COMMITTED, s->id.generation);
		op_move(&o->op, TARGET_DISKS);
		if (!vm_point(o, "target.owner"))
			enter_disks(s);
		return;
	}
	vm_recorded(vm, &s->id);
	if (journal_read(vm, &j) && j.returning) {
		enter_returning(s);
		return;
	}
	enter_look(s);
}

static void in_disks(struct target *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "target.disks"))
		return;
	if (s->disks.rc == 0) {
		s->tries = 0;
		enter_attach(s);
		return;
	}
	if (++s->tries < OWN_TRIES) {
		s->resting = true;
		op_await(&o->op, MIGRATE_RETRY_MS);
		return;
	}
	op_fail(&o->op, s->disks.rc, "VM %s: a disk can't be had on the other host: %s",
		o->name, s->disks.error.detail);
	enter_returning(s);
}

static void in_attach(struct target *s)
{
	struct vm_op *o = &s->vm;
	int rc = o->hyper.rc;

	if (vm_point(o, "target.attached"))
		return;
	if (rc == 0 || rc == RV_EEXIST) {
		s->attached++;
		s->tries = 0;
		enter_attach(s);
	} else if (migrate_is_refusal(rc) || rc == RV_ENOENT || rc == RV_ESTALE ||
		   ++s->tries >= OWN_TRIES) {
		op_fail(&o->op, rc, "VM %s: %s", o->name, o->hyper.error.detail);
		enter_returning(s);
	} else {
		own_rest(s, TARGET_ATTACH);
	}
}

static void in_unpause(struct target *s)
{
	struct vm_op *o = &s->vm;
	int rc = o->hyper.rc;

	if (vm_point(o, "target.unpaused"))
		return;
	if (rc == 0) {
		enter_end(s);
	} else if (migrate_is_refusal(rc) ||
		   ((rc == RV_ENOENT || rc == RV_ESTALE) && s->tries == 0)) {
		op_fail(&o->op, rc, "VM %s: %s", o->name, o->hyper.error.detail);
		enter_returning(s);
	} else {
		s->tries++;
		enter_look(s);
	}
}

/* An answer left it open, or a former daemon did. */
static void in_look(struct target *s)
{
	struct vm_op *o = &s->vm;
	const struct hyper_domain *d = &o->hyper.domain;

	switch (o->hyper.rc) {
	case 0:
		break;
	case RV_ENOENT:
	case RV_ESTALE:
		op_fail(&o->op, RV_EHYPERVISOR,
			"VM %s: its domain vanished on the host it was migrated to, and "
			"may have run for a moment: its disks have moved on, so the one "
			"that was left can't go on either. It counts as crashed",
			o->name);
		enter_end(s);
		return;
	default:
		own_rest(s, TARGET_LOOK);
		return;
	}
	if (d->state != HYPER_PAUSED) {
		enter_end(s); /* it ran; if it has ended, that is its own ending */
	} else if (s->tries < OWN_TRIES) {
		/* Surely not yet: the answer came after whatever could have been. */
		op_move(&o->op, TARGET_DISKS);
		s->attached = 0;
		enter_disks(s);
	} else {
		op_fail(&o->op, RV_EHYPERVISOR,
			"VM %s: its domain on the other host could not be unpaused",
			o->name);
		enter_returning(s);
	}
}

/* --- steps --- */

void target_own_step(struct target *s)
{
	struct vm_op *o = &s->vm;

	switch (o->op.state) {
	case TARGET_DISKS:
		in_disks(s);
		return;
	case TARGET_ATTACH:
		in_attach(s);
		return;
	case TARGET_UNPAUSE:
		in_unpause(s);
		return;
	case TARGET_LOOK:
		in_look(s);
		return;
	case TARGET_RETURNING:
		if (vm_point(o, "target.returning"))
			return;
		if (o->entry.rc)
			own_over(s);
		else
			target_undo(s);
		return;
	case TARGET_UNDO:
		in_undo(s);
		return;
	case TARGET_RETURN:
		in_return(s);
		return;
	case TARGET_END:
		if (s->wire && o->entry.rc == 0)
			wire_send_generation(s->wire, MIGRATE_RUNNING, s->id.generation);
		vm_op_ended(o, TARGET_ENDED);
		return;
	default:
		vm_op_lost(&o->op);
	}
}

void target_own_deadline(struct target *s)
{
	struct vm_op *o = &s->vm;

	if (!s->resting) {
		/* Answered once it surely happened or will not: see hyper.h. */
		o->hyper.token = op_await(&o->op, 0);
		hyper_cancel(&o->hyper);
		return;
	}
	s->resting = false;
	switch (o->op.state) {
	case TARGET_DISKS:
		enter_disks(s);
		return;
	case TARGET_ATTACH:
		attach_next(s);
		return;
	case TARGET_UNPAUSE:
		unpause(s);
		return;
	case TARGET_LOOK:
		hyper_info(
			o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms), &s->id);
		return;
	case TARGET_UNDO:
		enter_teardown(s);
		return;
	default:
		vm_op_lost(&o->op);
	}
}
