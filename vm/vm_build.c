/*
 *	RESERVE ─► PLUG ─► LEASE ─► CREATE ─► RECORD ─► UNPAUSE ───────► BUILT
 *	   │        │        │       │  ╲        │        │    ╲
 *	   │        │        │       │   ╲       │        │     ╰─► LOOK: does it run?
 *	   │        │        │       │    ╰──► SETTLING ◄─╯         │
 *	   ▼        ▼        ▼       ▼           ▼                  ▼
 *	 UNDO (destroy, then devices; vm_teardown) ─────────────► UNDONE
 *
 * No way back after UNPAUSE was sent, but where it surely failed. The owner's record is
 * committed before the domain may run: DESIGN.md, one owner always.
 */
#include "vm/vm_build.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_domain.h"
#include "vm/vm_ghost_marks.h"

enum {
	RESERVE,
	PLUG,
	LEASE,
	CREATE,
	RECORD,
	UNPAUSE,
	LOOK,
	SETTLING,
	UNDO,
	BUILT,
	UNDONE
};

enum {
	BUILD_MEMORY_MS = 60 * 1000, /* how long to wait for others to be squeezed */
	BUILD_DOMAIN_MS = 5 * 60 * 1000,
	BUILD_LOOK_MS = 500,
	BUILD_LEASE_LOOK_MS = 250,
};

static const struct op_state states[] = {
	[RESERVE] = {"reserve", OP_TO(PLUG) | OP_TO(UNDO)},
	[PLUG] = {"plug", OP_TO(LEASE) | OP_TO(UNDO)},
	[LEASE] = {"lease", OP_TO(CREATE) | OP_TO(UNDO)},
	[CREATE] = {"create", OP_TO(RECORD) | OP_TO(SETTLING) | OP_TO(UNDO)},
	[RECORD] = {"record", OP_TO(UNPAUSE) | OP_TO(BUILT) | OP_TO(UNDO)},
	[UNPAUSE] = {"unpause", OP_TO(BUILT) | OP_TO(LOOK) | OP_TO(UNDO)},
	[LOOK] = {"look", OP_TO(LOOK) | OP_TO(BUILT) | OP_TO(UNDO)},
	[SETTLING] = {"settling", OP_TO(UNDO)},
	[UNDO] = {"undo", OP_TO(UNDONE)},
	[BUILT] = {"built", 0},
	[UNDONE] = {"undone", 0},
};

static const struct op_table table = {"vm.build", states, 11, RESERVE};

static void build_step(struct op *op);

static struct vm_build *build_of(struct op *op)
{
	return CONTAINER_OF(op, struct vm_build, op);
}

static void build_answered(void *arg, struct hyper_req *req)
{
	struct vm_build *b = arg;

	if (op_resume(&b->op, req->token))
		build_step(&b->op);
}

static void build_resume(void *arg, uint64_t token, int rc)
{
	struct vm_build *b = arg;

	(void)rc;
	if (op_resume(&b->op, token))
		build_step(&b->op);
}

/* --- undo --- */

static void undone(struct vm_teardown *t)
{
	struct vm_build *b = CONTAINER_OF(t, struct vm_build, undo);

	b->domain_left = t->domain_left;
	b->devices_left = t->devices_left;
	if (t->domain_left)
		vm_memory_abandon(&b->reservation);
	else
		vm_memory_release(&b->reservation);
	if (t->op.error.code)
		op_fail_with(&b->op, &t->op.error);
	op_move(&b->op, UNDONE);
	op_finish(&b->op);
}

static void undo(struct vm_build *b)
{
	op_move(&b->op, UNDO);
	op_await(&b->op, 0);
	/* What a half-made domain holds is not free before it is gone. */
	if (!b->maybe)
		vm_memory_release(&b->reservation);
	b->undo = (struct vm_teardown){
		.owner = b->owner,
		.host = b->host,
		.id = b->id,
		.has_domain = b->maybe,
		.devices = &b->devices,
		.generation = b->generation,
		.memory_domid = b->id.domid,
	};
	vm_teardown_start(&b->undo, undone);
}

/* Cancelled or failed, with nothing outstanding. */
static bool build_over(struct vm_build *b)
{
	if (b->op.cancelled && !b->op.error.code)
		op_fail(&b->op, RV_ECANCELLED, "VM %s: cancelled", b->owner->name);
	return b->op.error.code != 0;
}

/* True: it failed, since by that row of the VM a host has a ghost of it. */
static bool fail_beside_ghost(struct vm_build *b, const struct row *vm)
{
	struct vm_ghost_mark ghost;

	if (!vm_op_makes_domain(b->owner) ||
		!vm_ghost_marked(pool_db(b->owner->mgr->pool), vm, &ghost))
		return false;
	op_fail(&b->op, RV_ESTATE,
		"VM %s: host %.64s has just reported domain %u (%.64s) of it, which may "
		"be writing to its disks: end that one (host-ghost-destroy) or take it "
		"as the VM (vm-adopt) first",
		b->owner->name, row_name(ghost.host), ghost.domid, ghost.name);
	return true;
}

/* --- memory --- */

static void reserved(void *arg, uint64_t token, int rc, uint64_t short_kib)
{
	struct vm_build *b = arg;

	if (!op_resume(&b->op, token))
		return;
	if (rc) {
		b->memory_refused = true;
		op_fail(&b->op, rc,
			"VM %s: needs %llu MiB of memory, %llu MiB are missing on its "
			"host "
			"even after squeezing the others. Stop or shrink a VM there",
			b->owner->name, (unsigned long long)(b->need_kib >> 10),
			(unsigned long long)((short_kib + 1023) >> 10));
	}
	build_step(&b->op);
}

static void enter_reserve(struct vm_build *b)
{
	struct vm_memory *m = b->host->memory;
	uint64_t min_kib, max_kib, overhead_kib;
	struct memctl_totals totals = vm_memory_totals(m);
	struct rv_error e;
	uint64_t token;
	int rc;

	vm_memory_needs(b->host, b->owner->row, &min_kib, &max_kib);
	overhead_kib = vm_overhead_kib(b->host, b->owner->row);
	/* A restored guest gets what it had: max(target, actual) of DESIGN.md section 8.
	 */
	if (b->source)
		min_kib = max_kib = b->actual_kib;
	/* What it would like if it is there now, else the least it can do with. */
	b->target_kib = totals.unpromised_kib >= (int64_t)(max_kib + overhead_kib)
				? max_kib
				: min_kib;
	b->need_kib = b->target_kib + overhead_kib;
	token = op_await(&b->op, BUILD_MEMORY_MS);
	vm_unplaced(b->owner);
	if (b->has_predecessor)
		rc = vm_memory_succeed(m, &b->predecessor, &b->reservation,
			&b->owner->task, b->need_kib, reserved, b, token, &e);
	else
		rc = vm_memory_reserve(m, &b->reservation, &b->owner->task, b->need_kib,
			reserved, b, token, &e);
	if (rc && op_resume(&b->op, token)) {
		op_fail_with(&b->op, &e);
		undo(b);
	}
}

/* --- the domain --- */

static void enter_plug(struct vm_build *b)
{
	vm_op_progress(b->owner, 0.2, "attaching devices");
	op_move(&b->op, PLUG);
	vm_devices_up(&b->devices, b->generation, build_resume, b, op_await(&b->op, 0));
}

static void enter_create(struct vm_build *b)
{
	struct vm_domain_spec s;
	struct rv_error e;

	if (vm_domain_describe(&s, b->owner, b->id.handle, b->generation, b->target_kib,
		    &b->devices, &e)) {
		op_fail_with(&b->op, &e);
		undo(b);
		return;
	}
	vm_op_progress(b->owner, 0.4, "building the domain");
	op_move(&b->op, CREATE);
	vm_memory_build(&b->reservation);
	b->maybe = true;
	b->req.token = op_await(&b->op, BUILD_DOMAIN_MS);
	if (b->source)
		hyper_restore(b->host->hyper, &b->req, &s.spec, b->source);
	else
		hyper_create(b->host->hyper, &b->req, &s.spec);
}

/* Right before the domain is made: not a moment earlier. */
static void look_lease(struct vm_build *b)
{
	struct rv_error e;

	if (!vm_may_run(b->owner, &e)) {
		enter_create(b);
	} else if (b->lease_waited_ms >= VM_MAY_RUN_MS) {
		op_fail_with(&b->op, &e);
		undo(b);
	} else {
		if (!b->lease_waited_ms)
			vm_op_progress(b->owner, 0.3, "waiting for the host's lease");
		b->lease_waited_ms += BUILD_LEASE_LOOK_MS;
		op_await(&b->op, BUILD_LEASE_LOOK_MS);
	}
}

static void enter_lease(struct vm_build *b)
{
	op_move(&b->op, LEASE);
	b->lease_waited_ms = 0;
	look_lease(b);
}

static bool is_refusal(int rc)
{
	switch (rc) {
	case RV_EINVAL:
	case RV_EEXIST:
	case RV_EBUSY:
	case RV_EMEMORY:
	case RV_ECPU:
	case RV_ELIMIT:
	case RV_EUNSUPPORTED:
	case RV_ECORRUPT:
	case RV_EPROTO:
		return true;
	default:
		return false;
	}
}

/* The reservation becomes the domain's. */
static int take_memory(struct vm_build *b)
{
	const struct row *vm = b->owner->row;
	bool boots_full = db_enum(vm, VM_DOMAIN_TYPE) != VM_DOMAIN_TYPE_PV && !b->source;
	struct memctl_domain d =
		vm_domain_memory(vm, b->id.domid, b->target_kib, boots_full);
	struct rv_error e;
	int rc;

	/* A restored guest is the one that was tried out; a new one is not. */
	d.proven = d.proven && b->source;
	rc = vm_memory_add(b->host->memory, &b->id, &d, vm_overhead_kib(b->host, vm),
		&b->reservation, &e);
	if (rc)
		op_fail_with(&b->op, &e);
	else if (b->source)
		vm_memory_restored(b->host->memory, &b->id);
	return rc;
}

static void txn_owner(void *arg, const struct db *db, struct txn *t)
{
	struct vm_build *b = arg;

	txn_expect_ref(t, b->owner->vm, VM_INTENT_TASK, b->owner->task);
	txn_expect_int(t, b->owner->vm, VM_OWNER_GENERATION,
		db_int(db_row(db, CLASS_VM, b->owner->vm), VM_OWNER_GENERATION));
	/* It has not run yet: the last moment at which a ghost can keep it from that. */
	if (vm_op_makes_domain(b->owner))
		vm_ghost_expect(db, b->owner->row, t);
	vm_txn_domain(db, t, b->owner->vm, &b->id, b->host->uuid);
	vm_txn_attached(db, t, b->owner->vm);
}

static bool owner_holds(void *arg, const struct db *db)
{
	struct vm_build *b = arg;
	const struct row *vm = db_row(db, CLASS_VM, b->owner->vm);
	struct uuid handle = vm ? db_ref(vm, VM_DOMAIN_HANDLE) : UUID_NONE;

	return uuid_eq(&handle, &b->id.handle);
}

static void built(struct vm_build *b)
{
	vm_memory_mode(b->host->memory, &b->id,
		b->start_paused ? MEMCTL_PAUSED : MEMCTL_RUNNING);
	op_move(&b->op, BUILT);
	op_finish(&b->op);
}

static void in_create(struct vm_build *b)
{
	if (b->req.rc) {
		if (is_refusal(b->req.rc))
			b->maybe = false;
		if (b->req.rc == RV_EMEMORY)
			b->memory_refused = true;
		if (b->req.rc == RV_ECANCELLED && b->op.cancelled)
			build_over(b);
		else
			op_fail(&b->op, b->req.rc, "VM %s: %s", b->owner->name,
				b->req.error.detail);
	} else {
		b->id = b->req.id;
	}
	if (build_over(b)) {
		undo(b);
		return;
	}
	if (vm_point(b->owner, "build.created"))
		return;
	if (take_memory(b)) {
		undo(b);
		return;
	}
	vm_op_progress(b->owner, 0.7, "recording its owner");
	op_move(&b->op, RECORD);
	vm_entry_commit(&b->entry, txn_owner, owner_holds, false, build_resume, b,
		op_await(&b->op, 0));
}

static void not_recorded(struct vm_build *b)
{
	const struct row *vm =
		db_row(pool_db(b->owner->mgr->pool), CLASS_VM, b->owner->vm);

	if (b->entry.rc != RV_ECONFLICT || !vm || !fail_beside_ghost(b, vm))
		op_fail(&b->op, b->entry.rc, "VM %s: its owner could not be recorded: %s",
			b->owner->name, b->entry.error.detail);
}

static void in_record(struct vm_build *b)
{
	struct rv_error e;

	if (b->entry.rc)
		not_recorded(b);
	else
		b->recorded = true;
	if (vm_point(b->owner, "build.recorded"))
		return;
	if (build_over(b)) {
		undo(b);
		return;
	}
	if (b->start_paused) {
		built(b);
		return;
	}
	if (vm_may_run(b->owner, &e)) {
		op_fail_with(&b->op, &e);
		undo(b);
		return;
	}
	op_move(&b->op, UNPAUSE);
	b->req.token = op_await(&b->op, b->owner->mgr->config.answer_ms);
	vm_unpause(b->owner, &b->req, &b->id);
}

static void look(struct vm_build *b)
{
	b->looked = false;
	op_move(&b->op, LOOK);
	op_await(&b->op, BUILD_LOOK_MS);
}

static void in_unpause(struct vm_build *b)
{
	if (vm_point(b->owner, "build.unpaused"))
		return;
	if (b->req.rc == 0) {
		built(b);
	} else if (is_refusal(b->req.rc) || b->req.rc == RV_EAGAIN) {
		op_fail(&b->op, b->req.rc, "VM %s: %s", b->owner->name,
			b->req.error.detail);
		undo(b);
	} else {
		look(b);
	}
}

/* The answer to unpause left it open. */
static void in_look(struct vm_build *b)
{
	const struct hyper_domain *d = &b->req.domain;

	if (b->req.rc == RV_ENOENT || b->req.rc == RV_ESTALE) {
		b->may_have_run = true;
		op_fail(&b->op, RV_EHYPERVISOR,
			"VM %s: its domain vanished while it was started",
			b->owner->name);
		undo(b);
	} else if (b->req.rc) {
		look(b);
	} else if (d->state == HYPER_PAUSED || d->state == HYPER_BUILDING) {
		op_fail(&b->op, RV_EHYPERVISOR, "VM %s: its domain could not be unpaused",
			b->owner->name);
		undo(b);
	} else {
		built(b); /* it ran; if it has ended already, that is its own ending */
	}
}

/* Asked to end early while something is outstanding. */
static void build_interrupt(struct vm_build *b)
{
	switch (b->op.state) {
	case RESERVE:
		build_over(b);
		undo(b);
		return;
	case PLUG:
		vm_devices_cancel(&b->devices);
		return;
	case LEASE:
		build_over(b);
		undo(b);
		return;
	case CREATE:
		build_over(b);
		op_settle(&b->op, SETTLING, 0);
		hyper_cancel(&b->req);
		return;
	default:
		return; /* looked at when the answer is there, or too late */
	}
}

static void build_step(struct op *op)
{
	struct vm_build *b = build_of(op);

	if (op->awaiting) {
		if (op->cancelled)
			build_interrupt(b);
		return;
	}
	switch (op->state) {
	case RESERVE:
		if (build_over(b))
			undo(b);
		else if (!b->reservation.granted)
			enter_reserve(b);
		else if (!vm_point(b->owner, "build.reserved"))
			enter_plug(b);
		return;
	case PLUG:
		if (b->devices.rc && !op->cancelled)
			op_fail_with(op, &b->devices.error);
		if (vm_point(b->owner, "build.plugged"))
			return;
		if (build_over(b))
			undo(b);
		else
			enter_lease(b);
		return;
	case CREATE:
		in_create(b);
		return;
	case SETTLING:
		if (b->req.rc == 0)
			b->id = b->req.id;
		undo(b);
		return;
	case RECORD:
		in_record(b);
		return;
	case UNPAUSE:
		in_unpause(b);
		return;
	case LOOK:
		in_look(b);
		return;
	default:
		vm_op_lost(op);
	}
}

static void build_deadline(struct op *op)
{
	struct vm_build *b = build_of(op);

	switch (op->state) {
	case LEASE:
		look_lease(b);
		return;
	case RESERVE:
		op_fail(op, RV_ETIMEDOUT,
			"VM %s: waited %d s for %llu MiB of memory that other VMs should "
			"have given back; look for one that is stuck (message-list)",
			b->owner->name, BUILD_MEMORY_MS / 1000,
			(unsigned long long)(b->need_kib >> 10));
		undo(b);
		return;
	case CREATE:
		op_fail(op, RV_ETIMEDOUT, "VM %s: its domain was not built within %d s",
			b->owner->name, BUILD_DOMAIN_MS / 1000);
		op_settle(op, SETTLING, 0);
		hyper_cancel(&b->req);
		return;
	case UNPAUSE:
		/* Answered once it surely happened or will not: see hyper.h. */
		op_await(op, 0);
		b->req.token = op->token;
		hyper_cancel(&b->req);
		return;
	case LOOK:
		if (b->looked) {
			op_await(op, 0);
			b->req.token = op->token;
			hyper_cancel(&b->req);
			return;
		}
		b->looked = true;
		b->req.token = op_await(op, b->owner->mgr->config.answer_ms);
		hyper_info(b->host->hyper, &b->req, &b->id);
		return;
	default:
		vm_op_lost(op);
	}
}

static void build_done(struct op *op)
{
	struct vm_build *b = build_of(op);

	b->done(b);
}

void vm_build_start(struct vm_build *b, void (*done)(struct vm_build *b))
{
	struct vm_manager *m = b->owner->mgr;
	struct rv_error e;

	b->done = done;
	b->id = (struct hyper_domain_id){
		.boot_id = b->host->boot_id,
		.domid = HYPER_DOMID_ANY,
		.handle = vm_uuid(m),
		.generation = b->generation,
	};
	hyper_req_init(&b->req, build_answered, b);
	vm_entry_init(&b->entry, m->loop, m->pool);
	if (!b->devices.list)
		vm_devices_init(&b->devices, m->loop, b->host->storage, b->host->net);
	b->op.on_deadline = build_deadline;
	op_start(&b->op, m->loop, &table, build_step, build_done, b->owner->subject);
	/* One that came right behind the intent is in this row already: txn_owner sees
	 * only those that come later. */
	if (fail_beside_ghost(b, b->owner->row))
		return;
	if (vm_devices_load(&b->devices, pool_db(m->pool), b->owner->row, UUID_NONE, &e))
		op_fail_with(&b->op, &e);
}

bool vm_build_cancellable(const struct vm_build *b)
{
	return !b->op.table || b->op.state < UNPAUSE;
}

void vm_build_stop(struct vm_build *b)
{
	vm_op_halt(&b->op);
	vm_entry_stop(&b->entry);
	vm_devices_stop(&b->devices);
	if (b->undo.op.table)
		vm_teardown_stop(&b->undo);
	if (b->reservation.memory)
		defer_stop(&b->reservation.answer);
}

void vm_build_fini(struct vm_build *b)
{
	vm_devices_fini(&b->devices);
}
