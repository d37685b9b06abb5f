/*
 *	admit: placed by sched/, the host is in the intent
 *
 *	BUILD ──────────────────────────► END ─► ENDED
 *	  │ ▲  memory refused there         ▲
 *	  ▼ │                               │
 *	MOVE: the intent names another     none left, cancelled, or failed
 *	      host                         (undone by the build)
 */
#include "base/log.h"
#include "vm/vm_build.h"
#include "vm/vm_domain.h"
#include "vm/vm_protect.h"

enum { BUILD, MOVE, END, ENDED };

static const struct op_state states[] = {
	[BUILD] = {"build", OP_TO(MOVE) | OP_TO(END)},
	[MOVE] = {"move", OP_TO(BUILD) | OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.start", states, 4, BUILD};

struct start {
	struct vm_op vm; /* first */
	struct vm_build build;
	bool building;
	struct uuid refused[VM_MAX_HOSTS];
	size_t refused_count;
};

static struct start *start_of(struct op *op)
{
	return CONTAINER_OF(op, struct start, vm.op);
}

static void start_step(struct op *op);

/* --- the ending --- */

static void finish_started(struct vm_op *o, const struct db *db, struct txn *t)
{
	const struct row *vm = db_row(db, CLASS_VM, o->vm);
	const struct row *metrics = vm ? db_follow(db, vm, VM_METRICS) : NULL;

	txn_set_enum(t, o->vm, VM_POWER_STATE,
		o->args.start_paused ? VM_POWER_STATE_PAUSED : VM_POWER_STATE_RUNNING);
	if (metrics)
		txn_set_time(t, row_uuid(metrics), VM_METRICS_START_TIME,
			loop_wall_ms(o->mgr->loop));
}

/* Nothing of it is left; its generation is spent, so that whatever might still turn up of
 * it is known as stale. */
static void finish_undone(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct start *s = start_of(&o->op);
	const struct row *vm = db_row(db, CLASS_VM, o->vm);

	vm_txn_no_domain(
		db, t, o->vm, o->host->uuid, VM_POWER_STATE_HALTED, &s->build.devices);
	txn_set_int(t, o->vm, VM_OWNER_GENERATION, (int64_t)s->build.generation);
	if (vm && s->build.may_have_run)
		vm_restart_due_txn(vm, vm_uuid(o->mgr), t);
}

/* Its domain could not be removed: say what is there, so that nothing else is started and
 * vm-shutdown --force can try again. */
static void finish_left(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct start *s = start_of(&o->op);

	vm_txn_domain(db, t, o->vm, &s->build.id, o->host->uuid);
	vm_txn_attached(db, t, o->vm);
	txn_set_enum(t, o->vm, VM_POWER_STATE, VM_POWER_STATE_PAUSED);
	txn_set_string(t, o->vm, VM_PAUSED_BY, "a start that failed");
}

/* --- steps --- */

static void start_built(struct vm_build *b)
{
	struct start *s = CONTAINER_OF(b, struct start, build);

	s->building = false;
	op_resume(&s->vm.op, s->vm.op.token);
	start_step(&s->vm.op);
}

static void start_build(struct start *s)
{
	vm_build_fini(&s->build);
	s->build = (struct vm_build){
		.owner = &s->vm,
		.host = s->vm.host,
		.generation = (uint64_t)db_int(s->vm.row, VM_OWNER_GENERATION) + 1,
		.start_paused = s->vm.args.start_paused,
	};
	s->building = true;
	op_await(&s->vm.op, 0);
	vm_build_start(&s->build, start_built);
}

/* Another host may have the memory that this one has not. */
static bool start_elsewhere(struct start *s)
{
	struct vm_host *host;
	struct rv_error e;

	if (!s->build.memory_refused || s->build.domain_left || s->vm.op.cancelled ||
		!uuid_is_none(&s->vm.args.on) || s->refused_count == VM_MAX_HOSTS)
		return false;
	s->refused[s->refused_count++] = s->vm.host->uuid;
	if (vm_place(s->vm.mgr, s->vm.row, NULL, s->refused, s->refused_count, &host, &e))
		return false;
	s->vm.host = host;
	vm_placed(&s->vm, s->vm.row);
	return true;
}

static void txn_move(void *arg, const struct db *db, struct txn *t)
{
	struct start *s = arg;

	(void)db;
	txn_expect_ref(t, s->vm.vm, VM_INTENT_TASK, s->vm.task);
	txn_set_ref(t, s->vm.vm, VM_INTENT_HOST, s->vm.host->uuid);
}

static bool move_holds(void *arg, const struct db *db)
{
	struct start *s = arg;
	const struct row *vm = db_row(db, CLASS_VM, s->vm.vm);
	struct uuid host = vm ? db_ref(vm, VM_INTENT_HOST) : UUID_NONE;

	return uuid_eq(&host, &s->vm.host->uuid);
}

static void in_build(struct start *s)
{
	struct vm_op *o = &s->vm;

	if (!s->build.op.table) {
		start_build(s);
		return;
	}
	if (s->build.op.error.code && start_elsewhere(s)) {
		op_move(&o->op, MOVE);
		vm_op_record(o, txn_move, move_holds, false);
		return;
	}
	if (!s->build.op.error.code) {
		o->finish = finish_started;
	} else {
		op_fail_with(&o->op, &s->build.op.error);
		o->finish = s->build.domain_left ? finish_left : finish_undone;
	}
	vm_op_end(o, END);
}

static void start_step(struct op *op)
{
	struct start *s = start_of(op);

	if (op->awaiting) {
		if (op->cancelled && s->building)
			op_cancel(&s->build.op);
		return;
	}
	switch (op->state) {
	case BUILD:
		in_build(s);
		return;
	case MOVE:
		if (s->vm.entry.rc || op->cancelled) {
			if (s->vm.entry.rc)
				op_fail_with(op, &s->vm.entry.error);
			else
				vm_op_cancelled(&s->vm);
			s->vm.finish = finish_undone;
			vm_op_end(&s->vm, END);
			return;
		}
		op_move(op, BUILD);
		start_build(s);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

/* --- the verb --- */

static int start_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	struct vm_devices devices;
	int rc;

	/* What can't be attached is refused before anything is promised. */
	vm_devices_init(&devices, o->mgr->loop, NULL, NULL);
	rc = vm_devices_load(&devices, db, o->row, UUID_NONE, e);
	vm_devices_fini(&devices);
	if (!rc)
		rc = vm_place(o->mgr, o->row, &o->args.on, NULL, 0, &o->host, e);
	if (!rc)
		vm_placed(o, o->row);
	return rc;
}

static void start_begin(struct vm_op *o)
{
	op_start(&o->op, o->mgr->loop, &table, start_step, vm_op_done, o->subject);
}

static bool start_cancellable(const struct vm_op *o)
{
	const struct start *s = (const struct start *)o;

	return o->op.state != END && o->op.state != ENDED &&
	       vm_build_cancellable(&s->build);
}

static void start_stop(struct vm_op *o)
{
	struct start *s = start_of(&o->op);

	if (s->build.owner)
		vm_build_stop(&s->build);
}

static void start_fini(struct vm_op *o)
{
	vm_build_fini(&start_of(&o->op)->build);
}

const struct vm_verb vm_verb_start = {
	.intent = VM_INTENT_START,
	.size = sizeof(struct start),
	.admit = start_admit,
	.intend = vm_domain_txn_boot,
	.begin = start_begin,
	.cancellable = start_cancellable,
	.stop = start_stop,
	.fini = start_fini,
};
