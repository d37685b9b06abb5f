/*
 *	BEGIN ─► SAVE ─► CLOSING ─► FINAL
 *
 * From the record of the phase STREAM to FINAL: rounds, suspension, the last pages, and
 * beside them the disks and the record of the phase FINAL.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "migrate/source.h"

static void txn_stream(void *arg, const struct db *db, struct txn *t)
{
	(void)db;
	journal_txn_stream(t, &((struct source *)arg)->journal);
}

static bool stream_holds(void *arg, const struct db *db)
{
	struct source *s = arg;
	const struct row *vm = db_row(db, CLASS_VM, s->vm.vm);

	return vm &&
	       journal_standing(db, &s->vm.vm, &s->journal.migration) == JOURNAL_OPEN &&
	       db_enum(vm, VM_MIGRATION_PHASE) == VM_MIGRATION_PHASE_STREAM;
}

void source_begin_stream(struct source *s)
{
	op_move(&s->vm.op, SOURCE_BEGIN);
	s->entry_us = loop_now_us(s->migrate->loop);
	vm_op_record(&s->vm, txn_stream, stream_holds, false);
}

static void source_note_round(
	struct source *s, const struct hyper_precopy *r, const struct precopy_verdict *v)
{
	char note[160];
	double left = (double)r->dirty_pages, sent = (double)r->total_pages;

	snprintf(note, sizeof note,
		"round %u, %" PRIu64 " MiB sent at %" PRIu64 " MiB/s, %" PRIu64
		" MiB left (%" PRIu64 " pages/s written), pause of about %" PRId64 " ms",
		r->iteration, r->total_bytes >> 20, r->bytes_per_s >> 20,
		r->dirty_pages >> 8, r->dirty_per_s, v->predicted_us / 1000);
	vm_op_progress(
		&s->vm, 0.05 + 0.85 * sent / (sent + left > 0 ? sent + left : 1), note);
}

/* At first: two entries (FINAL in part beside the last pages), a few round trips, disks
 * on the other side. */
static int64_t handover_guess_us(const struct source *s)
{
	return 2 * s->commit_us + 15 * 1000 + (int64_t)s->disks.count * 5 * 1000;
}

static enum hyper_precopy_verdict source_policy(
	void *arg, const struct hyper_precopy *round)
{
	struct source *s = arg;
	struct precopy_verdict v = precopy_round(&s->precopy, round);
	struct migrate_message m = {
		.type = MIGRATE_ROUND,
		.as.round = {.round = round->iteration,
			.dirty_pages = round->dirty_pages,
			.bytes = round->total_bytes,
			.predicted_us = v.predicted_us},
	};
	struct rv_error e;

	s->rounds = round->iteration;
	s->predicted_us = v.predicted_us;
	source_note_round(s, round, &v);
	log_info("migrate.round",
		"%s round=%u bytes=%" PRIu64 " dirty_pages=%" PRIu64
		" bytes_per_s=%" PRIu64 " predicted_us=%" PRId64 " why=\"%s\"",
		s->vm.subject, round->iteration, round->total_bytes, round->dirty_pages,
		round->bytes_per_s, v.predicted_us, precopy_why_text(v.why));
	wire_send(s->wire, &m);
	if (v.what == HYPER_PRECOPY_ABORT) {
		if (v.why == PRECOPY_BELOW)
			handover_doubt(&s->migrate->handover, &s->args.host,
				handover_guess_us(s));
		precopy_refuse(&s->precopy, &v, s->vm.name, &e);
		op_fail_with(&s->vm.op, &e);
	}
	if (s->vm.op.error.code || (s->vm.op.cancelled && !s->suspending))
		return HYPER_PRECOPY_ABORT;
	if (v.what == HYPER_PRECOPY_STOP)
		s->suspending = true;
	return v.what;
}

static void txn_final(void *arg, const struct db *db, struct txn *t)
{
	(void)db;
	journal_txn_final(t, &((struct source *)arg)->journal);
}

/* Also when it has gone on from there. */
static bool final_holds(void *arg, const struct db *db)
{
	struct source *s = arg;

	switch (journal_standing(db, &s->vm.vm, &s->journal.migration)) {
	case JOURNAL_FINAL:
	case JOURNAL_COMMITTED:
	case JOURNAL_ABORTED:
		return true;
	default:
		return false;
	}
}

static void final_recorded(void *arg, uint64_t token, int rc)
{
	struct source *s = arg;

	(void)token;
	(void)rc;
	s->final_done = true;
	op_kick(&s->vm.op);
}

static void disks_dropped(void *arg, uint64_t token, int rc)
{
	struct source *s = arg;

	(void)token;
	(void)rc;
	s->disks_done = true;
	op_kick(&s->vm.op);
}

/* The guest stands still; its last pages follow. */
static void source_suspended(void *arg)
{
	struct source *s = arg;

	s->suspending = s->suspended = true;
	s->suspended_us = loop_now_us(s->migrate->loop);
	if (s->vm.op.state != SOURCE_SAVE || vm_point(&s->vm, "migrate.suspended"))
		return;
	vm_op_progress(&s->vm, 0.9, "suspended: the last pages");
	s->disks_down = true;
	vm_devices_down(&s->disks, s->journal.generation, true, disks_dropped, s, 0);
	vm_entry_commit(
		&s->final_entry, txn_final, final_holds, false, final_recorded, s, 0);
}

static uint64_t source_bandwidth(const struct source *s)
{
	const struct row *pool = db_pool(pool_db(s->migrate->pool));

	if (s->args.bandwidth_bytes_s)
		return (uint64_t)s->args.bandwidth_bytes_s;
	return pool && db_int(pool, POOL_MIGRATION_BANDWIDTH) > 0
		       ? (uint64_t)db_int(pool, POOL_MIGRATION_BANDWIDTH)
		       : 0;
}

static int64_t source_max_downtime_us(const struct source *s)
{
	const struct row *pool = db_pool(pool_db(s->migrate->pool));
	int64_t ms = s->args.max_downtime_ms;

	if (ms == 0)
		ms = pool ? db_int(pool, POOL_MIGRATION_MAX_DOWNTIME_MS) : 300;
	return ms * 1000;
}

static void enter_save(struct source *s)
{
	struct vm_op *o = &s->vm;
	struct hyper_save_spec spec = {
		.live = s->args.live,
		.policy = source_policy,
		.suspended = source_suspended,
		.arg = s,
	};
	struct precopy_config config = {
		.max_downtime_us = source_max_downtime_us(s),
		.handover_us = handover_expect(
			&s->migrate->handover, &s->args.host, handover_guess_us(s)),
		.suspend_us = 50 * 1000,
		.memory_pages = s->actual_kib / 4,
		.bandwidth_bytes_s = source_bandwidth(s),
		.diverge = s->args.accept ? PRECOPY_ACCEPT : PRECOPY_GIVE_UP,
	};
	struct hyper_req *req;

	precopy_init(&s->precopy, &config);
	vm_op_progress(o, 0.05, "sending memory");
	op_move(&o->op, SOURCE_SAVE);
	s->began = true;
	/* Not live: it stands still from the start, but may be called back. */
	req = vm_op_call(o, MIGRATE_STALL_MS);
	spec.sink = wire_sink(s->wire, req, config.bandwidth_bytes_s);
	hyper_save(o->host->hyper, req, &s->journal.domain, &spec);
}

void source_begun(struct source *s)
{
	struct vm_op *o = &s->vm;

	s->commit_us = loop_now_us(o->mgr->loop) - s->entry_us;
	if (o->entry.rc)
		op_fail(&o->op, o->entry.rc,
			"VM %s: its migration could not be recorded: %s", o->name,
			o->entry.error.detail);
	if (vm_point(o, "migrate.begun"))
		return;
	if (source_spoiled(s))
		source_end(s);
	else
		enter_save(s);
}

/* SAVE and SETTLING: the hypervisor's answer is there. */
void source_saved(struct source *s)
{
	struct vm_op *o = &s->vm;

	s->wire->save = NULL;
	if (vm_point(o, "migrate.saved"))
		return;
	if (o->hyper.rc && !source_spoiled(s))
		op_fail(&o->op, o->hyper.rc, "VM %s: %s", o->name, o->hyper.error.detail);
	if (source_spoiled(s) || o->op.state == SOURCE_SETTLING) {
		source_unwind(s);
		return;
	}
	wire_flush(s->wire);
	op_move(&o->op, SOURCE_CLOSING);
	op_await(&o->op, MIGRATE_CLOSE_MS);
	op_kick(&o->op);
}

static void send_final(struct source *s)
{
	int64_t now = loop_now_us(s->migrate->loop);
	struct migrate_message m = {
		.type = MIGRATE_FINAL,
		.as.final = {.migration = s->journal.migration,
			.generation = s->journal.generation,
			.bytes = s->wire->sent_bytes,
			.rounds = s->rounds,
			.total_us = now - s->began_us,
			.suspended_us = now - s->suspended_us,
			.prepared_us = now - s->prepared_us},
	};

	wire_send(s->wire, &m);
	s->final_sent = true;
}

/* The last pages are out; disks and the phase's record may be on their way yet. */
void source_closing(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (!source_spoiled(s)) {
		if (!s->disks_done || !s->final_done)
			return;
		if (s->disks.rc)
			op_fail(&o->op, s->disks.rc,
				"VM %s: a disk could not be let go: %s", o->name,
				s->disks.error.detail);
		else if (s->final_entry.rc)
			op_fail(&o->op, s->final_entry.rc,
				"VM %s: the end of its stream could not be recorded: %s",
				o->name, s->final_entry.error.detail);
	}
	if (o->op.error.code) {
		source_unwind(s);
		return;
	}
	if (vm_point(o, "migrate.closed"))
		return;
	vm_op_progress(o, 0.95, "handing over");
	send_final(s);
	op_move(&o->op, SOURCE_FINAL);
	op_await(&o->op, MIGRATE_READY_MS);
	if (vm_point(o, "migrate.final"))
		return;
}
