#include "vm/vm.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mpcheck.h"
#include "sched/sched.h"
#include "vm/vm_ghost_marks.h"
#include "vm/vm_look.h"
#include "vm/vm_op.h"
#include "vm/vm_protect.h"

/* --- looking --- */

struct vm_host *vm_host_find(const struct vm_manager *m, const struct uuid *host)
{
	for (size_t i = 0; i < m->host_count; i++)
		if (uuid_eq(&m->hosts[i]->uuid, host))
			return m->hosts[i];
	return NULL;
}

struct vm_op *vm_op_of(const struct vm_manager *m, const struct uuid *vm)
{
	return map_get(&m->by_vm, vm, sizeof *vm);
}

bool vm_recorded(const struct row *vm, struct hyper_domain_id *id)
{
	int64_t domid = db_int(vm, VM_DOMID);

	*id = (struct hyper_domain_id){
		.boot_id = db_ref(vm, VM_HOST_BOOT_ID),
		.domid = domid < 0 ? HYPER_DOMID_ANY : (uint32_t)domid,
		.handle = db_ref(vm, VM_DOMAIN_HANDLE),
		.generation = (uint64_t)db_int(vm, VM_OWNER_GENERATION),
	};
	return !uuid_is_none(&id->handle);
}

static void say_ghost(
	struct vm_condition *c, const struct row *host, uint32_t domid, const char *name)
{
	snprintf(c->ghost_host, sizeof c->ghost_host, "%s",
		host ? row_name(host) : "NAME");
	snprintf(c->ghost_name, sizeof c->ghost_name, "%s", name);
	mpcheck_mend_utf8(c->ghost_host);
	mpcheck_mend_utf8(c->ghost_name);
	c->ghost_domid = domid;
}

/* One that this host has seen itself may not be on record yet. */
static bool has_ghost(const struct vm_manager *m, struct uuid vm, struct vm_condition *c)
{
	for (size_t i = 0; i < m->host_count; i++) {
		const struct vm_host *h = m->hosts[i];

		if (h->ghosts_lost)
			return true; /* may be: better none than two */
		for (size_t j = 0; j < h->ghost_count; j++)
			if (uuid_eq(&h->ghosts[j].vm, &vm)) {
				say_ghost(c,
					db_row(pool_db(m->pool), CLASS_HOST, h->uuid),
					h->ghosts[j].id.domid, h->ghosts[j].name);
				return true;
			}
	}
	return false;
}

static void look_for_ghost(
	const struct vm_manager *m, const struct row *vm, struct vm_condition *c)
{
	struct vm_ghost_mark mark;

	c->has_domain = has_ghost(m, row_uuid(vm), c);
	if (!c->has_domain && vm_ghost_marked(pool_db(m->pool), vm, &mark)) {
		c->has_domain = true;
		say_ghost(c, mark.host, mark.domid, mark.name);
	}
}

void vm_condition(
	const struct vm_manager *m, const struct row *vm, struct vm_condition *c)
{
	struct uuid uuid = row_uuid(vm);
	const struct vm_op *o = vm_op_of(m, &uuid);
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);
	struct uuid restart = db_ref(vm, VM_HA_RESTART_TASK);

	*c = (struct vm_condition){
		.power_state = (enum vm_power_state)db_enum(vm, VM_POWER_STATE),
		.is_a_template = db_bool(vm, VM_IS_A_TEMPLATE),
		.is_a_snapshot = db_bool(vm, VM_IS_A_SNAPSHOT),
		.current = VM_OP_COUNT,
		.restart_due = !uuid_is_none(&restart),
	};
	look_for_ghost(m, vm, c);
	if (o) {
		c->current = o->kind;
		c->current_cancellable = !o->begun || o->verb->cancellable(o);
	} else if (value_count(current) > 0) {
		int kind = vm_operation_by_name(value_at(current, 0));

		c->busy = true;
		if (kind >= 0)
			c->current = (enum vm_operation)kind;
	}
}

uint32_t vm_allowed_now(const struct vm_manager *m, const struct row *vm)
{
	struct vm_condition c;

	vm_condition(m, vm, &c);
	return vm_allowed_all(&c);
}

struct vm_memory *vm_host_memory(const struct vm_manager *m, const struct uuid *host)
{
	struct vm_host *h = vm_host_find(m, host);

	return h ? h->memory : NULL;
}

void vm_memory_changed(struct vm_manager *m, const struct uuid *vm)
{
	const struct row *row = db_row(pool_db(m->pool), CLASS_VM, *vm);
	struct uuid host = row ? db_ref(row, VM_RESIDENT_ON) : UUID_NONE;
	struct vm_host *h = vm_host_find(m, &host);
	struct hyper_domain_id id;
	struct rv_error e;
	int rc;

	if (!h || !vm_recorded(row, &id))
		return;
	rc = vm_memory_range(h->memory, &id,
		(uint64_t)db_int(row, VM_MEMORY_DYNAMIC_MIN) >> 10,
		(uint64_t)db_int(row, VM_MEMORY_DYNAMIC_MAX) >> 10, &e);
	if (rc)
		log_warn("vm.memory", "vm=%s rc=%s msg=\"%s\"", row_name(row),
			rv_error_symbol(rc), e.detail);
}

void vm_host_refuse(struct vm_manager *m, const struct uuid *host, const char *why)
{
	struct vm_host *h = vm_host_find(m, host);

	if (h)
		snprintf(h->refusal, sizeof h->refusal, "%s", why);
}

int vm_host_may_run(const struct vm_host *h, struct rv_error *e)
{
	const struct vm_manager_config *c = &h->mgr->config;

	return c->may_run ? c->may_run(c->may_run_arg, &h->uuid, e) : 0;
}

int vm_may_run(const struct vm_op *o, struct rv_error *e)
{
	int rc = vm_host_may_run(o->host, e);

	return rc ? rv_error_prefix(e, "VM %s", o->name) : 0;
}

static int may_run_still(void *arg, struct rv_error *e)
{
	return vm_host_may_run(((const struct vm_op *)arg)->host, e);
}

void vm_unpause(struct vm_op *o, struct hyper_req *req, const struct hyper_domain_id *id)
{
	hyper_unpause_if(o->host->hyper, req, id, may_run_still, o);
}

int vm_may_resume(struct vm_op *o, struct rv_error *e)
{
	const struct row *vm = db_row(pool_db(o->mgr->pool), CLASS_VM, o->vm);
	int rc = vm && vm_is_protected(vm) ? vm_may_run(o, e) : 0;

	if (!rc || o->waits_for_lease)
		return rc;
	o->waits_for_lease = true;
	vm_op_progress(o, 0.97, "suspended until its host has a lease again");
	vm_note(o->mgr, "VM_WAITS_FOR_LEASE", 2, o->vm,
		"VM %s is protected and stays suspended, where it was to go on after a "
		"save or a migration that came to nothing: %s",
		o->name, e->detail);
	return rc;
}

size_t vm_op_count(const struct vm_manager *m)
{
	return m->op_count;
}

const char *vm_manager_complaint(const struct vm_manager *m)
{
	return m->complaint[0] ? m->complaint : NULL;
}

struct uuid vm_uuid(struct vm_manager *m)
{
	return uuid_random(loop_prng(m->loop));
}

/* --- life --- */

static void manager_settle(void *arg)
{
	struct vm_manager *m = arg;
	vm_ready_fn *fn = m->ready_fn;

	m->ready_fn = NULL;
	if (fn)
		fn(m->ready_arg);
}

int vm_manager_new(struct vm_manager **out, const struct vm_manager_config *config,
	struct rv_error *e)
{
	struct vm_manager *m = calloc(1, sizeof *m);

	*out = NULL;
	if (!m)
		return rv_error_set(e, RV_ENOMEM, "no memory for the VM manager");
	m->sched = sched_new(SCHED_MAX_HOSTS);
	if (!m->sched) {
		free(m);
		return rv_error_set(e, RV_ENOMEM, "no memory for the VM manager");
	}
	m->config = *config;
	if (m->config.look_ms <= 0)
		m->config.look_ms = VM_LOOK_MS;
	if (m->config.answer_ms <= 0)
		m->config.answer_ms = VM_ANSWER_MS;
	m->loop = config->loop;
	m->pool = config->pool;
	m->policy = &sched_greedy;
	list_init(&m->ops);
	list_init(&m->waiting);
	list_init(&m->notes);
	map_init(&m->by_vm, prng_next(loop_prng(m->loop)));
	map_init(&m->by_task, prng_next(loop_prng(m->loop)));
	timer_init(&m->look, m->loop, "vm.look", vm_look_timer, m);
	defer_init(&m->settle, m->loop, "vm.ready", manager_settle, m);
	*out = m;
	return 0;
}

/* What the controller found out about a guest's driver. */
static void manager_balloon(void *arg, const struct memctl_action *a)
{
	struct vm_host *h = arg;
	const struct row *vm = db_row(pool_db(h->mgr->pool), CLASS_VM, a->vm);
	struct hyper_domain_id id;

	if (a->what == MEMCTL_DECLARE_PROVEN && vm && vm_recorded(vm, &id) &&
		id.domid == a->domid)
		vm_note_proven(h->mgr, a->vm, id.handle);
	else if (a->what == MEMCTL_DECLARE_STUCK)
		vm_note(h->mgr, "VM_MEMORY_STUCK", 3, a->vm,
			"domain %u does not give back memory it was asked for; its share "
			"is "
			"taken from others until it moves again",
			a->domid);
	else if (a->what == MEMCTL_DECLARE_FREE)
		log_info("vm.memory", "domid=%u msg=\"balloon moves again\"", a->domid);
}

static void manager_foreign(void *arg, const struct vm_memory_foreign *f)
{
	struct vm_host *h = arg;

	vm_note(h->mgr, "VM_MEMORY_CHANGED", 3, f->vm,
		"another tool has changed the memory of domain %u: its target to %" PRIu64
		" MiB, its limit (maxmem) to %" PRIu64
		" MiB. Reeve has set them again, to "
		"%" PRIu64 " and %" PRIu64 " MiB. To give the VM more or less use 'reeve "
		"vm-memory-dynamic-range-set', "
		"not 'xl mem-set'",
		f->domid, f->found_target_kib >> 10, f->found_maxmem_kib >> 10,
		f->set_target_kib >> 10, f->set_maxmem_kib >> 10);
}

int vm_manager_add_host(
	struct vm_manager *m, const struct vm_host_config *config, struct rv_error *e)
{
	struct vm_host *h;

	if (m->host_count == VM_MAX_HOSTS)
		return rv_error_set(e, RV_ELIMIT, "at most %d hosts", VM_MAX_HOSTS);
	if (vm_host_find(m, &config->uuid))
		return rv_error_set(e, RV_EEXIST, "the host is there already");
	h = calloc(1, sizeof *h);
	if (!h)
		return rv_error_set(e, RV_ENOMEM, "no memory for a host");
	h->mgr = m;
	h->uuid = config->uuid;
	h->hyper = config->hyper;
	h->storage = config->storage;
	h->net = config->net;
	if (vm_memory_new(
		    &h->memory, m->loop, h->hyper, config->memory, manager_balloon, h)) {
		free(h);
		return rv_error_set(e, RV_ENOMEM, "no memory for a host");
	}
	vm_memory_on_foreign(h->memory, manager_foreign);
	vm_look_init(h);
	vm_ghosts_init(h);
	vm_discard_init(h);
	vm_claims_init(h);
	hyper_listen(h->hyper, &h->listener, vm_host_event, h);
	m->hosts[m->host_count++] = h;
	return 0;
}

void vm_manager_set_policy(struct vm_manager *m, const struct reeve_sched_policy *p)
{
	m->policy = p ? p : &sched_greedy;
}

void vm_manager_start(struct vm_manager *m, vm_ready_fn *ready, void *arg)
{
	assert(m->host_count > 0 && !m->stopped);
	m->started = true;
	m->ready = false;
	for (size_t i = 0; i < m->host_count; i++)
		m->hosts[i]->listed = false;
	m->ready_fn = ready;
	m->ready_arg = arg;
	timer_start_ms(&m->look, 0);
}

bool vm_manager_ready(const struct vm_manager *m)
{
	return m->ready;
}

void vm_manager_seen(struct vm_manager *m)
{
	if (m->ready)
		return;
	for (size_t i = 0; i < m->host_count; i++)
		if (!m->hosts[i]->listed)
			return;
	m->ready = true;
	defer_start(&m->settle);
}

void vm_manager_take_over(struct vm_manager *m)
{
	for (size_t i = 0; i < m->host_count; i++)
		m->hosts[i]->looks = 0; /* at all VMs */
	vm_manager_look(m);
}

void vm_manager_look(struct vm_manager *m)
{
	if (m->started && !m->stopped)
		timer_start_ms(&m->look, 0);
}

void vm_manager_stop(struct vm_manager *m)
{
	if (m->stopped)
		return;
	m->stopped = true;
	m->ready = false;
	timer_stop(&m->look);
	defer_stop(&m->settle);
	vm_ops_stop(m);
	vm_notes_stop(m);
	for (size_t i = 0; i < m->host_count; i++) {
		hyper_unlisten(&m->hosts[i]->listener);
		timer_stop(&m->hosts[i]->look_deadline);
		vm_ghosts_stop(m->hosts[i]);
		vm_discard_stop(m->hosts[i]);
		vm_claims_stop(m->hosts[i]);
		vm_memory_stop(m->hosts[i]->memory);
	}
}

void vm_manager_free(struct vm_manager *m)
{
	if (!m)
		return;
	assert(m->stopped);
	vm_ops_free(m);
	vm_notes_free(m);
	for (size_t i = 0; i < m->host_count; i++) {
		vm_memory_free(m->hosts[i]->memory);
		free(m->hosts[i]->ghosts);
		vm_ghost_marks_fini(m->hosts[i]);
		vm_claims_fini(m->hosts[i]);
		free(m->hosts[i]);
	}
	map_fini(&m->by_vm);
	map_fini(&m->by_task);
	sched_free(m->sched);
	free(m);
}
