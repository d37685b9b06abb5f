/*
 *	LOOK ─► DIAL ─► PREPARE ─► BEGIN ─► SAVE ─► CLOSING ─► FINAL ─► (source_settle.c)
 *	  │       │        │         │       │ ╲       │          │
 *	  ╰───────┴────────┴─────────╯       │  SETTLING          │
 *	            END: the guest never     ╰──────┴──┴─► UNWIND │
 *	            stood still                              │    ▼
 *	                                                 back, or ABORT
 *
 * SAVE spans the rounds of pre-copy and, from the suspension on, the last pages. While
 * those are sent, disks are drained and deactivated, and the phase FINAL is recorded;
 * only when all three are done is FINAL sent. From the moment that the record of FINAL is
 * under way the guest goes on only after ABORT is applied: DESIGN.md section 9.
 */
#include "migrate/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "vm/vm_cpu.h"

#define SOURCE_BACK                                                                      \
	(OP_TO(SOURCE_FIND) | OP_TO(SOURCE_WAIT) | OP_TO(SOURCE_TEARDOWN) |              \
		OP_TO(SOURCE_ABORT))

static const struct op_state states[] = {
	[SOURCE_LOOK] = {"look", OP_TO(SOURCE_DIAL) | OP_TO(SOURCE_END) |
					 OP_TO(SOURCE_ENDED) | SOURCE_BACK},
	[SOURCE_DIAL] = {"dial", OP_TO(SOURCE_PREPARE) | OP_TO(SOURCE_END)},
	[SOURCE_PREPARE] = {"prepare", OP_TO(SOURCE_BEGIN) | OP_TO(SOURCE_END)},
	[SOURCE_BEGIN] = {"begin", OP_TO(SOURCE_SAVE) | OP_TO(SOURCE_END)},
	[SOURCE_SAVE] = {"save",
		OP_TO(SOURCE_CLOSING) | OP_TO(SOURCE_SETTLING) | OP_TO(SOURCE_UNWIND)},
	[SOURCE_SETTLING] = {"settling", OP_TO(SOURCE_UNWIND)},
	[SOURCE_CLOSING] = {"closing", OP_TO(SOURCE_FINAL) | OP_TO(SOURCE_UNWIND)},
	[SOURCE_FINAL] = {"final", SOURCE_BACK},
	[SOURCE_UNWIND] = {"unwind",
		OP_TO(SOURCE_ABORT) | OP_TO(SOURCE_DISKS) | OP_TO(SOURCE_FIND)},
	[SOURCE_ABORT] = {"abort", SOURCE_BACK},
	[SOURCE_WAIT] = {"wait", SOURCE_BACK},
	[SOURCE_FIND] = {"find",
		OP_TO(SOURCE_FIND) | OP_TO(SOURCE_DISKS) | OP_TO(SOURCE_END)},
	[SOURCE_DISKS] = {"disks", OP_TO(SOURCE_DISKS) | OP_TO(SOURCE_LABEL)},
	[SOURCE_LABEL] = {"label", OP_TO(SOURCE_LABEL) | OP_TO(SOURCE_RESUME)},
	[SOURCE_RESUME] = {"resume", OP_TO(SOURCE_RESUME) | OP_TO(SOURCE_END)},
	[SOURCE_TEARDOWN] = {"teardown", OP_TO(SOURCE_END) | OP_TO(SOURCE_ENDED)},
	[SOURCE_END] = {"end", OP_TO(SOURCE_ENDED)},
	[SOURCE_ENDED] = {"ended", 0},
};

static const struct op_table table = {
	"migrate.source", states, SOURCE_STATES, SOURCE_LOOK};

struct source *source_of(struct op *op)
{
	return CONTAINER_OF(op, struct source, vm.op);
}

/* --- what the target says --- */

static void source_ready(void *arg)
{
	struct source *s = arg;

	s->connected = true;
	op_kick(&s->vm.op);
}

static void source_lost(void *arg, int rc, const char *why)
{
	struct source *s = arg;

	s->lost = true;
	if (!s->refused)
		rv_error_set(&s->word, rc,
			"VM %s: the connection to the other host is lost: %s", s->vm.name,
			why);
	op_kick(&s->vm.op);
}

static void source_message(void *arg, const struct migrate_message *m)
{
	struct source *s = arg;

	switch (m->type) {
	case MIGRATE_READY_TO_STREAM:
		if (m->as.version == MIGRATE_VERSION)
			s->accepted = true;
		break;
	case MIGRATE_REFUSE:
	case MIGRATE_ABORTED:
	case MIGRATE_RETURNED:
		s->refused = true;
		s->word.code = m->as.reason.code;
		snprintf(s->word.detail, sizeof s->word.detail, "%s", m->as.reason.text);
		break;
	default:
		break; /* the database says it better: look there */
	}
	op_kick(&s->vm.op);
}

static const struct wire_events source_events = {
	.ready = source_ready,
	.message = source_message,
	.lost = source_lost,
};

/* The peer or the user wants no more, or the guest has ended. */
bool source_spoiled(struct source *s)
{
	struct op *op = &s->vm.op;

	if (op->error.code)
		return true;
	if (op->cancelled && s->vm.verb->cancellable(&s->vm))
		op_fail(op, RV_ECANCELLED, "VM %s: the migration was cancelled",
			s->vm.name);
	else if (s->guest_over)
		op_fail(op, RV_ESTATE,
			"VM %s: its guest ended by itself during the migration",
			s->vm.name);
	else if (s->refused || s->lost)
		op_fail(op, s->word.code, "%s", s->word.detail);
	return op->error.code != 0;
}

/* --- before the stream --- */

void source_end(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (s->wire && o->op.error.code)
		wire_send_reason(
			s->wire, MIGRATE_ABORTED, o->op.error.code, o->op.error.detail);
	wire_close(s->wire, &s->migrate->closing);
	s->wire = NULL;
	if (!s->guest_over)
		vm_memory_mode(o->host->memory, &s->journal.domain, MEMCTL_RUNNING);
	vm_op_end(o, SOURCE_END);
}

static bool source_may_run_live(const struct source *s, const struct hyper_host *h)
{
	if (db_enum(s->vm.row, VM_DOMAIN_TYPE) == VM_DOMAIN_TYPE_PV)
		return (h->caps & HYPER_CAP_LIVE_PV) != 0;
	return (h->caps & HYPER_CAP_LIVE_HVM) != 0;
}

static void send_prepare(struct source *s, const struct hyper_host *h)
{
	struct vm_cpu_level level;
	struct migrate_message m = {
		.type = MIGRATE_PREPARE,
		.as.prepare =
			{
				.version_min = MIGRATE_VERSION,
				.version_max = MIGRATE_VERSION,
				.migration = s->journal.migration,
				.task = s->vm.task,
				.vm = s->vm.vm,
				.source = s->journal.source,
				.target = s->journal.target,
				.generation = s->journal.generation,
				.seq = pool_seq(s->migrate->pool),
				.wall_ms = loop_wall_ms(s->migrate->loop),
				.target_kib = s->target_kib,
				.actual_kib = s->actual_kib,
				.xen_major = h->version_major,
				.xen_minor = h->version_minor,
				.live = s->args.live,
				.cpu_policy = h->cpu_policy,
				.cpu_policy_len = h->cpu_policy_len,
			},
	};

	/* A VM that was shown the pool's level may go where that is offered. */
	vm_cpu_booted(pool_db(s->migrate->pool), s->vm.row, &level);
	if (level.len) {
		m.as.prepare.cpu_policy = level.policy;
		m.as.prepare.cpu_policy_len = level.len;
	}
	snprintf(m.as.prepare.driver, sizeof m.as.prepare.driver, "%s", h->driver);
	s->prepared_us = loop_now_us(s->migrate->loop);
	wire_send(s->wire, &m);
	wire_watch(s->wire);
}

static void enter_dial(struct source *s)
{
	struct stream_config config;
	struct stream *stream;
	struct rv_error e;

	vm_op_progress(&s->vm, 0.01, "connecting to the other host");
	op_move(&s->vm.op, SOURCE_DIAL);
	if (wire_new(&s->wire, s->migrate->loop, &source_events, s)) {
		op_fail(&s->vm.op, RV_ENOMEM, "VM %s: no memory for its migration",
			s->vm.name);
		source_end(s);
		return;
	}
	wire_stream_config(s->wire, &config);
	if (s->migrate->config.dial(
		    s->migrate->config.arg, &s->journal.target, &config, &stream, &e)) {
		op_fail_with(&s->vm.op, &e);
		source_end(s);
		return;
	}
	wire_attach(s->wire, stream);
	op_await(&s->vm.op, MIGRATE_DIAL_MS);
}

/* The domain is known; targets are frozen from here on, so that what the target reserves
 * is enough. */
static void in_look_domain(struct source *s)
{
	struct vm_op *o = &s->vm;
	const struct hyper_domain *d = &o->hyper.domain;
	uint64_t ordered_kib = vm_memory_ordered_kib(o->host->memory, &s->journal.domain);

	if (o->hyper.rc) {
		op_fail(&o->op, o->hyper.rc, "VM %s: %s", o->name, o->hyper.error.detail);
	} else if (d->pod_kib > 0) {
		op_fail(&o->op, RV_ESTATE,
			"VM %s: some of its memory is still to be populated on demand; "
			"wait until its balloon driver runs",
			o->name);
	} else {
		s->actual_kib = d->actual_kib;
		s->target_kib = d->target_kib;
		/* An order may be carried out late. */
		if (ordered_kib > s->target_kib)
			s->target_kib = ordered_kib;
	}
	if (vm_point(o, "migrate.looked"))
		return;
	if (source_spoiled(s))
		source_end(s);
	else
		enter_dial(s);
}

static void in_look(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (o->rerun) {
		source_judge(s);
		return;
	}
	if (s->looked) {
		in_look_domain(s);
		return;
	}
	s->looked = true;
	if (source_spoiled(s)) {
		source_end(s);
		return;
	}
	s->began_us = loop_now_us(o->mgr->loop);
	vm_memory_mode(o->host->memory, &s->journal.domain, MEMCTL_FROZEN);
	hyper_info(o->host->hyper, vm_op_call(o, o->mgr->config.answer_ms),
		&s->journal.domain);
}

/* Connected: what this host can do belongs into PREPARE. */
static void in_dial(struct source *s)
{
	if (source_spoiled(s)) {
		source_end(s);
		return;
	}
	op_move(&s->vm.op, SOURCE_PREPARE);
	hyper_host(s->vm.host->hyper, vm_op_call(&s->vm, s->vm.mgr->config.answer_ms));
}

static void in_prepare(struct source *s)
{
	struct vm_op *o = &s->vm;

	if (o->hyper.call == HYPER_CALL_HOST && !s->accepted && !o->op.error.code) {
		if (o->hyper.rc)
			op_fail(&o->op, o->hyper.rc, "VM %s: %s", o->name,
				o->hyper.error.detail);
		else if (s->args.live && !source_may_run_live(s, o->hyper.host))
			op_fail(&o->op, RV_EUNSUPPORTED,
				"VM %s: a %s guest can't be migrated while it runs on "
				"this "
				"hypervisor (it is built without shadow paging). "
				"Migrate "
				"it with suspend: live=false",
				o->name,
				db_enum(o->row, VM_DOMAIN_TYPE) == VM_DOMAIN_TYPE_PV
					? "PV"
					: "HVM or PVH");
	}
	if (source_spoiled(s)) {
		source_end(s);
		return;
	}
	vm_op_progress(o, 0.02, "the other host prepares");
	send_prepare(s, o->hyper.host);
	op_await(&o->op, MIGRATE_PREPARE_MS);
}

/* --- steps --- */

/* Something is outstanding, and something else has happened. */
static void source_kicked(struct source *s)
{
	struct vm_op *o = &s->vm;

	switch (o->op.state) {
	case SOURCE_DIAL:
		if ((s->connected || source_spoiled(s)) && op_resume(&o->op, o->op.token))
			in_dial(s);
		return;
	case SOURCE_PREPARE:
		if (hyper_req_busy(&o->hyper))
			return;
		if (!s->accepted && !source_spoiled(s))
			return;
		if (vm_point(o, "migrate.prepared") || !op_resume(&o->op, o->op.token))
			return;
		if (source_spoiled(s))
			source_end(s);
		else
			source_begin_stream(s);
		return;
	case SOURCE_SAVE:
		if (!source_spoiled(s))
			return;
		op_settle(&o->op, SOURCE_SETTLING, 0);
		hyper_cancel(&o->hyper);
		return;
	case SOURCE_CLOSING:
		source_closing(s);
		return;
	default:
		source_settle_kicked(s);
	}
}

void source_step(struct op *op)
{
	struct source *s = source_of(op);

	if (op->awaiting) {
		source_kicked(s);
		return;
	}
	switch (op->state) {
	case SOURCE_LOOK:
		in_look(s);
		return;
	case SOURCE_PREPARE:
		in_prepare(s);
		return;
	case SOURCE_BEGIN:
		source_begun(s);
		return;
	case SOURCE_SAVE:
	case SOURCE_SETTLING:
		source_saved(s);
		return;
	case SOURCE_END:
		vm_op_ended(&s->vm, SOURCE_ENDED);
		return;
	default:
		source_settle_step(s);
	}
}

static void source_deadline(struct op *op)
{
	struct source *s = source_of(op);

	switch (op->state) {
	case SOURCE_LOOK:
	case SOURCE_PREPARE:
		if (hyper_req_busy(&s->vm.hyper)) {
			s->vm.hyper.token = op_await(op, 0);
			hyper_cancel(&s->vm.hyper);
			return;
		}
		op_fail(op, RV_ETIMEDOUT,
			"VM %s: the other host did not get ready within %d s", s->vm.name,
			MIGRATE_PREPARE_MS / 1000);
		source_kicked(s);
		return;
	case SOURCE_DIAL:
		op_fail(op, RV_ETIMEDOUT,
			"VM %s: no connection to the other host in %d s", s->vm.name,
			MIGRATE_DIAL_MS / 1000);
		source_kicked(s);
		return;
	case SOURCE_SAVE:
		if (s->wire->sent_bytes != s->seen_bytes) {
			s->seen_bytes = s->wire->sent_bytes;
			s->vm.hyper.token = op_await(op, MIGRATE_STALL_MS);
			return;
		}
		op_fail(op, RV_ETIMEDOUT, "VM %s: no memory moved for %d s: %s",
			s->vm.name, MIGRATE_STALL_MS / 1000,
			s->suspending ? "its guest does not suspend; it may lack the "
					"drivers for it"
				      : "the other host takes nothing");
		source_kicked(s);
		return;
	case SOURCE_CLOSING:
		op_fail(op, RV_ETIMEDOUT, "VM %s: its disks were not let go within %d s",
			s->vm.name, MIGRATE_CLOSE_MS / 1000);
		source_closing(s);
		return;
	default:
		source_settle_deadline(s);
	}
}

/* --- the verb --- */

static int source_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	struct source *s = source_of(&o->op);
	const struct source_start *start = o->extra;
	const struct migrate_args *a = start->args;
	const struct row *host = db_row(db, CLASS_HOST, a->host);
	char text[UUID_TEXT_SIZE];

	s->migrate = start->migrate;
	s->args = *a;
	s->args.user = s->args.origin = NULL;
	if (!host)
		return rv_error_set(e, RV_ENOENT,
			"VM %s: there is no host %s (host-list shows them)", o->name,
			uuid_format(&a->host, text));
	if (!o->host || uuid_eq(&a->host, &o->host->uuid))
		return rv_error_set(e, RV_EPARAM,
			"VM %s is on host %s already: name another one", o->name,
			row_name(host));
	if (a->max_downtime_ms < 0 || a->max_downtime_ms > 3600 * 1000 ||
		a->bandwidth_bytes_s < 0)
		return rv_error_set(e, RV_EPARAM,
			"VM %s: the longest pause must be between 1 ms and an hour, and "
			"the bandwidth not below 0",
			o->name);
	if (!db_bool(host, HOST_ENABLED))
		return rv_error_set(e, RV_ENOTALLOWED,
			"VM %s: host %s is disabled; enable it (host-enable) or name "
			"another one",
			o->name, row_name(host));
	if (!vm_recorded(o->row, &s->journal.domain))
		return rv_error_set(e, RV_ESTATE, "VM %s has no domain", o->name);
	s->journal.vm = o->vm;
	s->journal.task = o->task;
	s->journal.migration = vm_uuid(o->mgr);
	s->journal.source = o->host->uuid;
	s->journal.target = a->host;
	s->journal.generation = s->journal.domain.generation;
	return 0;
}

static void source_intend(struct vm_op *o, const struct db *db, struct txn *t)
{
	(void)db;
	journal_txn_begin(t, &source_of(&o->op)->journal);
}

static void finish(struct vm_op *o, const struct db *db, struct txn *t)
{
	(void)db;
	journal_txn_end(t, &source_of(&o->op)->journal);
}

static void source_done(struct op *op)
{
	struct source *s = source_of(op);
	struct migrate *m = s->migrate;

	migrate_watch_remove(&s->watch);
	vm_op_done(op);
	/* What it could not remove is looked at again; so is a guest that is gone. */
	vm_manager_look(m->vms);
	settle_soon(m);
}

static void source_begin(struct vm_op *o)
{
	struct source *s = source_of(&o->op);
	struct rv_error e;

	vm_devices_init(&s->disks, o->mgr->loop, o->host->storage, o->host->net);
	vm_devices_init(&s->all, o->mgr->loop, o->host->storage, o->host->net);
	vm_entry_init(&s->final_entry, o->mgr->loop, o->mgr->pool);
	o->finish = finish;
	o->op.on_deadline = source_deadline;
	migrate_watch_add(s->migrate, &s->watch, &o->op);
	op_start(&o->op, o->mgr->loop, &table, source_step, source_done, o->subject);
	if (migrate_load_devices(
		    &s->disks, pool_db(o->mgr->pool), o->row, VM_DEVICE_DISK, &e) &&
		!o->rerun)
		op_fail_with(&o->op, &e);
}

/* A guest that is suspended from the start may be called back until the hand-over. */
static bool source_cancellable(const struct vm_op *o)
{
	const struct source *s = (const struct source *)o;

	if (o->rerun)
		return false;
	return o->op.state < SOURCE_SAVE ||
	       (o->op.state == SOURCE_SAVE && !s->suspending);
}

static void source_guest_ended(struct vm_op *o, const struct hyper_event *event)
{
	struct source *s = source_of(&o->op);

	/* The suspension that we asked for. */
	if (event->kind == HYPER_EV_SHUTDOWN &&
		event->domain.reason == HYPER_REASON_SUSPEND)
		return;
	/* The domain that was left is destroyed. */
	if (o->op.state == SOURCE_TEARDOWN || o->op.state == SOURCE_WAIT)
		return;
	o->guest_event = *event;
	o->guest_event_due = true;
	s->guest_over = true;
	op_kick(&o->op);
}

static void source_stop(struct vm_op *o)
{
	struct source *s = source_of(&o->op);

	vm_entry_stop(&s->final_entry);
	vm_devices_stop(&s->disks);
	vm_devices_stop(&s->all);
	if (s->teardown.op.table)
		vm_teardown_stop(&s->teardown);
	wire_free(s->wire);
	s->wire = NULL;
}

static void source_fini(struct vm_op *o)
{
	struct source *s = source_of(&o->op);

	vm_devices_fini(&s->disks);
	vm_devices_fini(&s->all);
	wire_free(s->wire);
}

const struct vm_verb source_verb = {
	.intent = VM_INTENT_MIGRATE,
	.size = sizeof(struct source),
	.resident = true,
	.admit = source_admit,
	.intend = source_intend,
	.begin = source_begin,
	.cancellable = source_cancellable,
	.guest_ended = source_guest_ended,
	.stop = source_stop,
	.fini = source_fini,
};

int source_recover(struct migrate *m, const struct row *vm, struct rv_error *e)
{
	struct vm_op_args args = {.vm = row_uuid(vm)};
	struct journal j;
	struct source *s;
	struct vm_op *o;
	int rc;

	if (!journal_read(vm, &j))
		return rv_error_set(e, RV_ENOENT, "no migration is at work on it");
	if (vm_op_of(m->vms, &j.vm))
		return rv_error_set(e, RV_EBUSY, "an operation is at work on it");
	rc = vm_op_new(m->vms, &source_verb, VM_OP_MIGRATE, &args, j.task, vm, &o, e);
	if (rc)
		return rc;
	s = source_of(&o->op);
	s->migrate = m;
	s->journal = j;
	o->host = m->host;
	o->internal = o->rerun = true;
	vm_op_go(o);
	op_fail(&o->op, RV_EAGAIN,
		"VM %s: the daemon of its host was restarted during the migration, which "
		"was undone; try it again",
		o->name);
	return 0;
}
