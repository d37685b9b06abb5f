/* What must be so: after every event, and when everything has come to rest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "../look.h"
#include "migrate/target.h"
#include "ring.h"
#include "vm/vm_invariants.h"
#include "vm/vm_memory.h"

size_t ring_model_domains(struct ring_host *h, struct hyper_domain *out)
{
	if (h->hyper)
		return look_domains(h->hyper, out, RING_DOMAINS);
	memcpy(out, h->last, h->last_count * sizeof *out);
	return h->last_count;
}

/* --- history: what is applied at a position is the same everywhere, for ever --- */

static void truth_learn(struct ring *r, struct ring_host *h);

static void history_follow(struct pool_subscriber *s, const struct db_result *result)
{
	struct ring_host *h = CONTAINER_OF(s, struct ring_host, subscriber);
	struct ring *r = h->ring;
	uint64_t seq = pool_seq(h->pool);
	struct db_hash now;

	/* After a snapshot, too; not for live fields, which are not in the log. */
	if (!result && seq <= r->truth_seq)
		return;
	if (seq >= RING_SEQS)
		ring_fail(r, "more than %d entries", RING_SEQS);
	now = db_hash(pool_db(h->pool));
	if (r->hashed[seq] &&
		(r->hashes[seq].hi != now.hi || r->hashes[seq].lo != now.lo))
		ring_fail(r, "host%d: entry %llu is another one than it was elsewhere",
			h->index + 1, (unsigned long long)seq);
	r->hashed[seq] = true;
	r->hashes[seq] = now;
	if (seq > r->truth_seq)
		truth_learn(r, h);
}

void ring_model_follow(struct ring_host *h)
{
	pool_subscribe(h->pool, &h->subscriber, history_follow);
}

/* --- tasks: each ends once, and what it promised is so at that entry --- */

static uint64_t ending_of(const struct row *task)
{
	char text[2048];
	int n = snprintf(text, sizeof text, "%d %lld %s %s %s %lld",
		db_enum(task, TASK_STATUS), (long long)db_int(task, TASK_FINISHED),
		db_string(task, TASK_RESULT), db_string(task, TASK_ERROR_CODE),
		db_string(task, TASK_ERROR_DETAIL),
		(long long)db_int(task, TASK_ERROR_NUMBER));

	return XXH3_64bits(text, (size_t)n < sizeof text ? (size_t)n : sizeof text);
}

static void check_promise(struct ring *r, const struct ring_task *t, const struct row *vm)
{
	static const int states[RING_ACTION_COUNT] = {
		[RING_ACTION_START] = VM_POWER_STATE_RUNNING,
		[RING_ACTION_RESUME] = VM_POWER_STATE_RUNNING,
		[RING_ACTION_CLEAN_SHUTDOWN] = VM_POWER_STATE_HALTED,
		[RING_ACTION_HARD_SHUTDOWN] = VM_POWER_STATE_HALTED,
		[RING_ACTION_CLEAN_REBOOT] = VM_POWER_STATE_RUNNING,
		[RING_ACTION_HARD_REBOOT] = VM_POWER_STATE_RUNNING,
		[RING_ACTION_PAUSE] = VM_POWER_STATE_PAUSED,
		[RING_ACTION_UNPAUSE] = VM_POWER_STATE_RUNNING,
		[RING_ACTION_SUSPEND] = VM_POWER_STATE_SUSPENDED,
		[RING_ACTION_MIGRATE] = VM_POWER_STATE_RUNNING,
		[RING_ACTION_MIGRATE_STRICT] = VM_POWER_STATE_RUNNING,
	};
	struct uuid on = db_ref(vm, VM_RESIDENT_ON),
		    restart = db_ref(vm, VM_HA_RESTART_TASK);

	if (db_enum(vm, VM_POWER_STATE) != states[t->action])
		ring_fail(r, "%s of VM %s succeeded, and it is in state %d",
			ring_action_name(t->action), row_name(vm),
			db_enum(vm, VM_POWER_STATE));
	if (!uuid_is_none(&t->on) && !uuid_eq(&t->on, &on))
		ring_fail(r, "%s of VM %s succeeded, and it is on another host",
			ring_action_name(t->action), row_name(vm));
	if ((states[t->action] == VM_POWER_STATE_HALTED ||
		    states[t->action] == VM_POWER_STATE_SUSPENDED) &&
		!uuid_is_none(&restart))
		ring_fail(r, "%s of VM %s succeeded, and it is to be started again",
			ring_action_name(t->action), row_name(vm));
}

static struct ring_vm *vm_of(struct ring *r, const struct uuid *uuid)
{
	for (int i = 0; i < RING_VMS; i++)
		if (uuid_eq(&r->vms[i].uuid, uuid))
			return &r->vms[i];
	return NULL;
}

static void learn_task(struct ring *r, struct ring_task *t, const struct db *db)
{
	const struct row *row = db_row(db, CLASS_TASK, t->uuid);
	const struct row *vm = db_row(db, CLASS_VM, t->vm);
	int status = row ? db_enum(row, TASK_STATUS) : TASK_STATUS_PENDING;

	if (!row && (t->accepted || t->ended_seq))
		ring_fail(r, "a task (%s) was accepted and is not there",
			ring_action_name(t->action));
	if (t->ended_seq && ending_of(row) != t->ending)
		ring_fail(r, "task %s has ended at %llu, and ended again",
			ring_action_name(t->action), (unsigned long long)t->ended_seq);
	if (t->ended_seq || status == TASK_STATUS_PENDING ||
		status == TASK_STATUS_CANCELLING)
		return;
	t->ended_seq = db_seq(db);
	t->ending = ending_of(row);
	t->status = status;
	ring_note(r, "task %s ended: %d %s", ring_action_name(t->action), status,
		db_string(row, TASK_ERROR_DETAIL));
	if (status == TASK_STATUS_FAILURE && !*db_string(row, TASK_ERROR_DETAIL))
		ring_fail(r, "%s failed without a reason", ring_action_name(t->action));
	if (db_int(row, TASK_ERROR_NUMBER) == -RV_ECORRUPT)
		ring_fail(r, "%s found damage, and nothing was damaged: %s",
			ring_action_name(t->action), db_string(row, TASK_ERROR_DETAIL));
	/* Its guest was asked, and may end all the same. */
	if (t->action == RING_ACTION_CLEAN_SHUTDOWN ||
		t->action == RING_ACTION_CLEAN_REBOOT)
		vm_of(r, &t->vm)->guest_ended = true;
	if (status == TASK_STATUS_SUCCESS && vm)
		check_promise(r, t, vm);
}

/* --- the truth: what anybody applied, for then the quorum had it --- */

/* The source has let go of the disk before the target may have it: its claim is what
 * would keep the target's daemon from it, not what should. */
static void check_left(struct ring *r, const struct ring_vm *v, const struct uuid *source)
{
	struct storage_sim_claims c = storage_sim_vdi_claims(r->bytes, v->vdi);

	if (c.writers && uuid_eq(&c.writer_host, source))
		ring_fail(r, "VM %s was handed over, and its source has its disk still",
			v->name);
}

/* The hand-over: never after an abort, and always to a new owner generation. */
static void learn_migration(struct ring *r, struct ring_vm *v, const struct row *vm)
{
	struct uuid migration = db_ref(vm, VM_MIGRATION), on = db_ref(vm, VM_RESIDENT_ON);
	int phase = db_enum(vm, VM_MIGRATION_PHASE);

	if (uuid_eq(&migration, &v->migration) && !uuid_is_none(&migration) &&
		v->phase == VM_MIGRATION_PHASE_ABORTED &&
		phase == VM_MIGRATION_PHASE_COMMITTED)
		ring_fail(r, "the migration of VM %s was aborted, and then committed",
			v->name);
	if (!uuid_eq(&on, &v->on) && !uuid_is_none(&on) && !uuid_is_none(&v->on) &&
		db_int(vm, VM_OWNER_GENERATION) == v->generation)
		ring_fail(r, "VM %s went to another host, its generation is %lld still",
			v->name, (long long)v->generation);
	if (phase == VM_MIGRATION_PHASE_COMMITTED && phase != v->phase &&
		!uuid_eq(&on, &v->on))
		check_left(r, v, &v->on);
	v->migration = migration;
	v->phase = phase;
}

static bool is_up(int state)
{
	return state == VM_POWER_STATE_RUNNING || state == VM_POWER_STATE_PAUSED;
}

/* The request to start it again is gone: it was started, or needs it no more. Once it was
 * up, whoever started it, that is done; what may end it then is learn_end's. */
static void learn_restart(
	struct ring *r, struct ring_vm *v, const struct row *vm, const struct db *db)
{
	struct uuid restart = db_ref(vm, VM_HA_RESTART_TASK);
	const struct row *task = db_row(db, CLASS_TASK, v->restart);
	int state = db_enum(vm, VM_POWER_STATE);

	if (!uuid_is_none(&v->restart) && uuid_is_none(&restart) && !v->restarted &&
		state == VM_POWER_STATE_HALTED &&
		db_enum(vm, VM_HA_RESTART_PRIORITY) == VM_RESTART_PRIORITY_RESTART &&
		!(task && db_enum(task, TASK_STATUS) == TASK_STATUS_SUCCESS))
		ring_fail(r, "VM %s was to be started again, and nobody did", v->name);
	if (!uuid_eq(&restart, &v->restart))
		v->restarted = false;
	if (is_up(state))
		v->restarted = true;
	v->restart = restart;
}

/* A client is shutting it down, which ends with this entry at last. */
static bool is_shut_down(struct ring *r, const struct ring_vm *v, const struct db *db)
{
	for (size_t i = 0; i < r->task_count; i++) {
		const struct ring_task *t = &r->tasks[i];

		if (uuid_eq(&t->vm, &v->uuid) && !t->ended_seq &&
			(t->action == RING_ACTION_CLEAN_SHUTDOWN ||
				t->action == RING_ACTION_HARD_SHUTDOWN) &&
			db_row(db, CLASS_TASK, t->uuid))
			return true;
	}
	return false;
}

/* A protected VM that was up, or suspended, stays so, or is to be started again, unless
 * somebody ended it. */
static void learn_end(
	struct ring *r, struct ring_vm *v, const struct row *vm, const struct db *db)
{
	struct uuid restart = db_ref(vm, VM_HA_RESTART_TASK),
		    handle = db_ref(vm, VM_DOMAIN_HANDLE);
	int state = db_enum(vm, VM_POWER_STATE);

	if ((is_up(v->state) || v->state == VM_POWER_STATE_SUSPENDED) &&
		state == VM_POWER_STATE_HALTED &&
		db_enum(vm, VM_HA_RESTART_PRIORITY) == VM_RESTART_PRIORITY_RESTART &&
		uuid_is_none(&restart) && !v->guest_ended && !is_shut_down(r, v, db))
		ring_fail(r, "VM %s was protected, nobody ended it, and it is down",
			v->name);
	/* A domain runs after it was recorded, and may end before it is said that it
	 * runs. */
	if (!uuid_is_none(&handle) && !uuid_eq(&handle, &v->handle))
		v->guest_ended = false;
	v->state = state;
}

static void learn_vm(struct ring *r, struct ring_vm *v, const struct db *db)
{
	const struct row *vm = db_row(db, CLASS_VM, v->uuid);
	const char *number;

	if (!vm) {
		if (v->made)
			ring_fail(r, "VM %s was made, and is not there", v->name);
		return;
	}
	learn_migration(r, v, vm);
	learn_restart(r, v, vm, db);
	learn_end(r, v, vm, db);
	v->on = db_ref(vm, VM_RESIDENT_ON);
	v->handle = db_ref(vm, VM_DOMAIN_HANDLE);
	if (db_int(vm, VM_OWNER_GENERATION) < v->generation)
		ring_fail(r, "VM %s: generation %lld after %lld", v->name,
			(long long)db_int(vm, VM_OWNER_GENERATION),
			(long long)v->generation);
	v->generation = db_int(vm, VM_OWNER_GENERATION);
	number = db_map_get(vm, VM_OTHER_CONFIG, "number");
	if (strtoll(number ? number : "0", NULL, 10) < v->acked)
		ring_fail(r, "VM %s: %lld was acknowledged, %s is there", v->name,
			(long long)v->acked, number ? number : "nothing");
}

static void truth_learn(struct ring *r, struct ring_host *h)
{
	const struct db *db = pool_db(h->pool);

	r->truth_seq = db_seq(db);
	for (int i = 0; i < RING_VMS; i++)
		learn_vm(r, &r->vms[i], db);
	for (size_t i = 0; i < r->task_count; i++)
		learn_task(r, &r->tasks[i], db);
	ring_register_applied(r, db, r->truth_seq);
}

/* One master per term, and it begins with all that was ever applied. */
static void check_master(struct ring_host *h)
{
	struct ring *r = h->ring;
	bool leads = h->pool && !h->dead_at_point && pool_is_master(h->pool);
	struct rlog_status s;
	int8_t *leader;

	if (!leads) {
		h->led = false;
		return;
	}
	if (h->led)
		return;
	h->led = true;
	rlog_status(pool_log(h->pool), &s);
	if (s.term >= RING_TERMS)
		ring_fail(r, "term %llu", (unsigned long long)s.term);
	leader = &r->leaders[s.term];
	if (*leader && *leader != h->index + 1)
		ring_fail(r, "host%d and host%d lead in term %llu", *leader, h->index + 1,
			(unsigned long long)s.term);
	*leader = (int8_t)(h->index + 1);
	ring_note(r, "host%d leads in term %llu at entry %llu", h->index + 1,
		(unsigned long long)s.term, (unsigned long long)pool_seq(h->pool));
	r->totals->masters++;
	if (s.term <= r->highest_term)
		return;
	r->totals->terms += s.term - r->highest_term;
	r->highest_term = s.term;
	if (pool_seq(h->pool) < r->truth_seq)
		ring_fail(r, "entry %llu was committed, the new master has only %llu",
			(unsigned long long)r->truth_seq,
			(unsigned long long)pool_seq(h->pool));
}

/* --- this moment --- */

static void check_turn(
	struct ring_host *h, struct ring_vm *v, const struct hyper_domain *d)
{
	if (uuid_eq(&v->ran, &d->id.handle))
		return;
	for (unsigned i = 0; i < v->past_count && i < RING_DOMAINS; i++)
		if (uuid_eq(&v->past[i], &d->id.handle))
			ring_fail(h->ring,
				"VM %s goes on as domain %u on host%d, after another of "
				"its domains has run",
				v->name, d->id.domid, h->index + 1);
	v->past[v->past_count++ % RING_DOMAINS] = v->ran;
	v->ran = d->id.handle;
}

static void check_running(struct ring_host *h, const struct hyper_domain *d, int *where)
{
	struct ring *r = h->ring;
	struct ring_vm *v = vm_of(r, &d->vm);
	struct storage_sim_claims c;

	if (!v)
		ring_fail(r, "host%d runs %s, which nobody made", h->index + 1, d->name);
	if (where[v - r->vms] >= 0)
		ring_fail(r, "VM %s runs on host%d and on host%d", v->name,
			where[v - r->vms] + 1, h->index + 1);
	where[v - r->vms] = h->index;
	check_turn(h, v, d);
	if (!uuid_eq(&v->on, &h->uuid) || !uuid_eq(&v->handle, &d->id.handle)) {
		struct ring_host *on = ring_host_of(r, &v->on);

		ring_fail(r,
			"VM %s runs on host%d as domain %u; the database says host%d, "
			"%s domain",
			v->name, h->index + 1, d->id.domid, on ? on->index + 1 : 0,
			uuid_eq(&v->handle, &d->id.handle) ? "this" : "another");
	}
	c = storage_sim_vdi_claims(r->bytes, v->vdi);
	if (c.writers != 1 || !uuid_eq(&c.writer_host, &h->uuid))
		ring_fail(r, "VM %s runs on host%d, its disk has %u writers there",
			v->name, h->index + 1, c.writers);
}

/* Whether a domain is being built with this reservation: booked as that, not as used. */
static bool builds(struct ring_host *h, const struct memctl_reservation *res,
	const struct hyper_domain *d)
{
	const struct vm_op *o = vm_op_of(h->mgr, &d->vm);
	const struct target *t = (const struct target *)o;
	struct memctl_view known;

	if (!o || memctl_domain_get(vm_memory_controller(h->mgr->hosts[0]->memory),
			  d->id.domid, &known) == 0)
		return false;
	if (o->verb == &target_verb)
		return uuid_eq(&t->journal.migration, &res->owner) &&
		       uuid_eq(&t->id.handle, &d->id.handle);
	return uuid_eq(&o->task, &res->owner);
}

/* What is used and promised fits into the host, and the books never show more as free
 * than there is. */
static void check_memory(struct ring_host *h, const struct memctl *m,
	const struct hyper_domain *domains, size_t n)
{
	uint64_t used_kib = h->config.dom0_kib, promised_kib = 0, built_kib = 0;
	uint64_t total_kib = h->config.memory_kib, grown_kib = 0;

	for (size_t i = 0; i < n; i++) {
		struct memctl_view v;

		used_kib += domains[i].actual_kib + domains[i].overhead_kib;
		/* Up to its maxmem it may grow at any moment: that is promised to it. */
		if (memctl_domain_get(m, domains[i].id.domid, &v) == 0 &&
			domains[i].actual_kib > v.d.actual_kib &&
			domains[i].actual_kib <= v.limit_kib)
			grown_kib += domains[i].actual_kib - v.d.actual_kib;
	}
	for (size_t k = 0; k < memctl_reservation_count(m); k++) {
		struct memctl_reservation res = memctl_reservation_at(m, k);
		uint64_t kib = 0;

		for (size_t i = 0; i < n; i++)
			if (builds(h, &res, &domains[i]))
				kib += domains[i].actual_kib + domains[i].overhead_kib;
		built_kib += kib;
		if (res.granted && res.kib > kib)
			promised_kib += res.kib - kib;
	}
	if (used_kib + promised_kib > total_kib)
		ring_fail(h->ring,
			"host%d: %llu KiB are used, %llu promised, it has %llu",
			h->index + 1, (unsigned long long)used_kib,
			(unsigned long long)promised_kib, (unsigned long long)total_kib);
	if (memctl_totals(m).free_kib > total_kib - used_kib + built_kib + grown_kib)
		ring_fail(h->ring, "host%d: %llu KiB are booked as free, there are %llu",
			h->index + 1, (unsigned long long)memctl_totals(m).free_kib,
			(unsigned long long)(total_kib - used_kib + built_kib +
					     grown_kib));
}

/* An operation of this host was ended by the master, which let its VM go; the host finds
 * out with the next thing that it records. */
static bool was_overtaken(const struct ring_host *h)
{
	LIST_FOR_EACH (node, &h->mgr->ops) {
		const struct vm_op *o = CONTAINER_OF(node, struct vm_op, node);
		const struct row *task = db_row(pool_db(h->pool), CLASS_TASK, o->task);

		if (task && !vm_task_open(task))
			return true;
	}
	return false;
}

static void check_host(struct ring_host *h, const struct hyper_domain *domains, size_t n)
{
	/* Sums are check_memory's, which knows what is being built for whom. */
	struct vm_observed seen = {.host = h->uuid,
		.domains = domains,
		.domain_count = n,
		.seq = UINT64_MAX};
	struct vm_memory *memory = h->mgr ? vm_host_memory(h->mgr, &h->uuid) : NULL;
	struct rv_error e;

	if (h->hyper && hyper_sim_check(h->hyper, &e))
		ring_fail(h->ring, "host%d: %s", h->index + 1, e.detail);
	if (!memory || !vm_memory_ready(memory) || h->dead_at_point || h->death_due ||
		ring_host_frozen(h))
		return;
	seen.memory = vm_memory_controller(memory);
	check_memory(h, seen.memory, domains, n);
	if (was_overtaken(h))
		seen.memory = NULL;
	if (vm_invariants_hosts(pool_db(h->pool), &seen, 1, &e))
		ring_fail(h->ring, "host%d: %s", h->index + 1, e.detail);
	if (h->checked_seq == pool_seq(h->pool))
		return; /* as it was after the last event */
	h->checked_seq = pool_seq(h->pool);
	if (vm_invariants_operations(pool_db(h->pool), &e))
		ring_fail(h->ring, "host%d: %s", h->index + 1, e.detail);
}

void ring_model_event(struct ring *r)
{
	struct hyper_domain domains[RING_DOMAINS];
	int where[RING_VMS];

	if (!r->formed)
		return;
	memset(where, -1, sizeof where);
	for (int i = 0; i < r->count; i++) {
		size_t n = ring_model_domains(&r->hosts[i], domains);

		/* A machine that sleeps runs nothing. */
		for (size_t k = 0; k < n && !r->hosts[i].asleep; k++)
			if (domains[k].state == HYPER_RUNNING)
				check_running(&r->hosts[i], &domains[k], where);
		check_host(&r->hosts[i], domains, n);
		check_master(&r->hosts[i]);
	}
}

/* --- rest --- */

static bool vm_at_rest(const struct row *vm)
{
	struct uuid migration = db_ref(vm, VM_MIGRATION);
	struct uuid restart = db_ref(vm, VM_HA_RESTART_TASK);

	return uuid_is_none(&restart) && db_enum(vm, VM_INTENT) == VM_INTENT_NONE &&
	       value_count(row_value(vm, VM_CURRENT_OPERATIONS)) == 0 &&
	       uuid_is_none(&migration) &&
	       /* None is declared dead here: who thinks it saw a ghost takes it back. */
	       value_count(row_value(vm, VM_GHOSTS)) == 0;
}

static bool host_at_rest(struct ring_host *h, char *why, size_t size)
{
	const struct db *db;

	if (!ring_host_up(h)) {
		snprintf(why, size, "host%d is not up (%d)", h->index + 1, h->life);
		return false;
	}
	db = pool_db(h->pool);
	if (vm_op_count(h->mgr) || !list_empty(&h->asks)) {
		snprintf(why, size, "host%d has %zu operations, %s", h->index + 1,
			vm_op_count(h->mgr),
			list_empty(&h->asks) ? "owes nobody" : "owes an answer");
		return false;
	}
	for (const struct row *t = NULL; (t = db_next(db, CLASS_TASK, t));)
		if (db_enum(t, TASK_STATUS) == TASK_STATUS_PENDING) {
			snprintf(why, size, "host%d: task %s is pending", h->index + 1,
				db_string(t, TASK_METHOD));
			return false;
		}
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));)
		if (!vm_at_rest(vm)) {
			snprintf(why, size,
				"host%d: VM %s: intent %d, %zu operations, phase %d, %zu "
				"ghosts",
				h->index + 1, row_name(vm), db_enum(vm, VM_INTENT),
				(size_t)value_count(row_value(vm, VM_CURRENT_OPERATIONS)),
				db_enum(vm, VM_MIGRATION_PHASE),
				(size_t)value_count(row_value(vm, VM_GHOSTS)));
			return false;
		}
	if (!ring_lease_at_rest(h, why, size) || !ring_fence_at_rest(h, why, size))
		return false;
	if (pool_seq(h->pool) != pool_seq(h->ring->hosts[0].pool)) {
		snprintf(why, size, "host%d is behind: %llu", h->index + 1,
			(unsigned long long)pool_seq(h->pool));
		return false;
	}
	return true;
}

bool ring_model_at_rest(struct ring *r, char *why, size_t size)
{
	struct ring_host *master = ring_host_master(r);

	if (!ring_link_whole(r)) {
		snprintf(why, size, "links are down");
		return false;
	}
	for (int i = 0; i < r->count; i++)
		if (!host_at_rest(&r->hosts[i], why, size))
			return false;
	if (!master) {
		snprintf(why, size, "there is no master");
		return false;
	}
	return ring_voters_at_rest(master, why, size);
}

static void settled_domain(struct ring *r, const struct row *vm, struct ring_host *h,
	const struct hyper_domain *d)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON), uuid = row_uuid(vm);
	int state = db_enum(vm, VM_POWER_STATE);
	struct hyper_sim_view view;

	if (!uuid_eq(&on, &h->uuid))
		ring_fail(r,
			"VM %s has domain %u (%s, generation %llu of %lld) on host%d, "
			"where it does not belong",
			row_name(vm), d->id.domid, hyper_state_name(d->state),
			(unsigned long long)d->id.generation,
			(long long)db_int(vm, VM_OWNER_GENERATION), h->index + 1);
	if (state != VM_POWER_STATE_RUNNING && state != VM_POWER_STATE_PAUSED)
		ring_fail(r, "VM %s is down, and has domain %u on host%d", row_name(vm),
			d->id.domid, h->index + 1);
	if (d->state != (state == VM_POWER_STATE_RUNNING ? HYPER_RUNNING
							 : HYPER_PAUSED) &&
		!*db_string(vm, VM_PAUSED_BY))
		ring_fail(r, "VM %s is in state %d, its domain in %s", row_name(vm),
			state, hyper_state_name(d->state));
	if (hyper_sim_look(h->hyper, &uuid, &view) == 0 && view.damaged_pages)
		ring_fail(r, "VM %s: %llu pages are damaged", row_name(vm),
			(unsigned long long)view.damaged_pages);
}

static void settled_vm(struct ring *r, struct ring_vm *v)
{
	const struct row *vm = db_row(pool_db(r->hosts[0].pool), CLASS_VM, v->uuid);
	struct hyper_domain domains[RING_DOMAINS];
	struct storage_sim_claims c = storage_sim_vdi_claims(r->bytes, v->vdi);
	unsigned count = 0;
	int state;

	if (!vm)
		return;
	for (int i = 0; i < r->count; i++) {
		size_t n = ring_model_domains(&r->hosts[i], domains);

		for (size_t k = 0; k < n; k++)
			if (uuid_eq(&domains[k].vm, &v->uuid)) {
				settled_domain(r, vm, &r->hosts[i], &domains[k]);
				count++;
			}
	}
	state = db_enum(vm, VM_POWER_STATE);
	if (count != (state == VM_POWER_STATE_RUNNING || state == VM_POWER_STATE_PAUSED))
		ring_fail(r, "VM %s is in state %d and has %u domains", v->name, state,
			count);
	if (c.writers + c.readers != count)
		ring_fail(r, "VM %s has %u domains, its disk %u claims", v->name, count,
			c.writers + c.readers);
}

static void settled_task(struct ring *r, const struct ring_task *t)
{
	const struct row *row = db_row(pool_db(r->hosts[0].pool), CLASS_TASK, t->uuid);

	if (!row)
		return;
	r->totals->tasks++;
	if (db_enum(row, TASK_STATUS) == TASK_STATUS_SUCCESS)
		r->totals->succeeded[t->action]++;
	else
		r->totals->failed++;
}

void ring_model_settled(struct ring *r)
{
	struct db_hash first = db_hash(pool_db(r->hosts[0].pool));

	for (int i = 0; i < r->count; i++) {
		struct ring_host *h = &r->hosts[i];
		struct db_hash hash = db_hash(pool_db(h->pool));
		const struct memctl *m =
			vm_memory_controller(vm_host_memory(h->mgr, &h->uuid));
		struct pool_status status;

		if (hash.hi != first.hi || hash.lo != first.lo)
			ring_fail(r, "host%d has another database", i + 1);
		pool_status(h->pool, &status);
		if (status.db_differs)
			ring_fail(r, "host%d says its database differs", i + 1);
		if (memctl_reservation_count(m))
			ring_fail(r, "host%d: %zu reservations are left", i + 1,
				memctl_reservation_count(m));
		if (vm_manager_complaint(h->mgr))
			ring_fail(r, "host%d complains: %s", i + 1,
				vm_manager_complaint(h->mgr));
	}
	for (int i = 0; i < RING_VMS; i++)
		settled_vm(r, &r->vms[i]);
	for (size_t i = 0; i < r->task_count; i++)
		settled_task(r, &r->tasks[i]);
	ring_register_check(r);
}
