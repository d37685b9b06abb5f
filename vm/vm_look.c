/*
 *	vm_look_begin ─► hyper_host (first time) ─► hyper_list ─► each VM: vm_decide
 *	                                                       ╰─► each domain: known?
 *
 * The list is as old as its answer took: a VM whose row has changed since the question
 * was asked, or that has an operation at work, is left for the next look.
 */
#include "vm/vm_look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_ghost_marks.h"
#include "vm/vm_invariants.h"
#include "vm/vm_memory.h"

enum {
	LOOK_RETRY_MS = 1000,
	LOOK_ALL = 30, /* so often all VMs are looked at, halted ones too */
};

/* --- one VM --- */

static enum vm_found found(const struct hyper_domain *d)
{
	if (!d)
		return VM_FOUND_NONE;
	switch (d->state) {
	case HYPER_BUILDING:
		return VM_FOUND_BUILDING;
	case HYPER_PAUSED:
		return VM_FOUND_PAUSED;
	case HYPER_RUNNING:
		return VM_FOUND_RUNNING;
	case HYPER_SHUTDOWN:
		return d->reason == HYPER_REASON_SUSPEND ? VM_FOUND_SUSPENDED
							 : VM_FOUND_ENDED;
	case HYPER_DYING:
		return VM_FOUND_NONE;
	}
	return VM_FOUND_NONE;
}

/* Or the record says that there is something to release. */
static bool attached(const struct db *db, struct uuid vm)
{
	if (db_follow(db, db_row(db, CLASS_VM, vm), VM_DEVICES_LEFT_ON))
		return true;
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, vm, r));)
		if (db_bool(r, VBD_CURRENTLY_ATTACHED))
			return true;
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, vm, r));)
		if (db_bool(r, VIF_CURRENTLY_ATTACHED))
			return true;
	return false;
}

static void see(struct vm_host *h, const struct row *vm, const struct hyper_domain *d,
	const struct vm_leftovers *left, struct vm_seen *s)
{
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);
	const char *generation = db_map_get(vm, VM_INTENT_DATA, "generation");
	const char *paused = db_map_get(vm, VM_INTENT_DATA, "start_paused");
	const struct vm_manager_config *config = &h->mgr->config;
	struct hyper_domain_id id;
	char now[24];

	*s = (struct vm_seen){
		.power_state = (enum vm_power_state)db_enum(vm, VM_POWER_STATE),
		.intent = (enum vm_intent)db_enum(vm, VM_INTENT),
		.kind = VM_OP_COUNT,
		.recorded = vm_recorded(vm, &id),
		.same_boot = uuid_eq(&id.boot_id, &h->boot_id),
		.start_paused = paused != NULL,
		.preserved = db_string(vm, VM_PAUSED_BY)[0] != '\0',
		.ending = db_bool(vm, VM_ENDING),
		.attached = attached(pool_db(h->mgr->pool), row_uuid(vm)),
		.leftovers = left && left->count > 0,
		.found = found(d),
		.after_crash = (enum vm_after)db_enum(vm, VM_ACTIONS_AFTER_CRASH),
	};
	s->fenced = s->recorded && config->was_fenced &&
		    config->was_fenced(config->was_fenced_arg, &h->uuid, &id.handle);
	snprintf(now, sizeof now, "%lld", (long long)db_int(vm, VM_OWNER_GENERATION));
	s->advanced = generation && strcmp(generation, now) != 0;
	if (value_count(current) > 0) {
		int kind = vm_operation_by_name(value_at(current, 0));

		if (kind >= 0)
			s->kind = (enum vm_operation)kind;
	}
}

static struct uuid current_task(const struct row *vm)
{
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);
	struct uuid task = UUID_NONE;
	const char *text;

	if (value_count(current) == 0)
		return task;
	text = value_key_at(current, 0);
	if (uuid_parse(&task, text, strlen(text)))
		return UUID_NONE;
	return task;
}

void vm_look_at(struct vm_host *h, const struct row *vm, const struct hyper_domain *d,
	const struct vm_leftovers *left)
{
	static const struct vm_leftovers none;
	struct vm_op_args args = {.vm = row_uuid(vm)};
	struct hyper_event event = {.kind = HYPER_EV_SHUTDOWN};
	struct vm_verdict v;
	struct vm_seen s;
	struct rv_error e;
	int rc = 0;

	see(h, vm, d, left, &s);
	v = vm_decide(&s);
	switch (v.what) {
	case VM_KEEP:
		return;
	case VM_GUEST_ENDED:
		event.domain = *d;
		vm_guest_ended(h, &event);
		return;
	case VM_RERUN:
		rc = vm_op_start_internal(
			h->mgr, v.kind, &args, current_task(vm), NULL, NULL, &e);
		break;
	case VM_SETTLE:
		rc = vm_settle(h, vm, s.kind, &v, left ? left : &none, &e);
		break;
	}
	if (rc)
		log_warn("vm.look", "vm=%s rc=%s msg=\"%s\"", row_name(vm),
			rv_error_symbol(rc), e.detail);
}

void vm_preserve(struct vm_host *h, const struct row *vm, const char *note)
{
	static const struct vm_leftovers none;
	struct vm_verdict v = {
		.what = VM_SETTLE,
		.keep_domain = true,
		.power_state = VM_POWER_STATE_PAUSED,
		.paused_by = note,
		.why = note,
		.note = "VM_CRASHED",
	};
	struct rv_error e;

	if (vm_settle(h, vm, VM_OP_COUNT, &v, &none, &e))
		log_warn("vm.look", "vm=%s msg=\"%s\"", row_name(vm), e.detail);
}

/* --- all of a host --- */

static void add_memory(
	struct vm_host *h, const struct row *vm, const struct hyper_domain *d)
{
	struct memctl_domain m = {
		.domid = d->id.domid,
		.vm = d->vm,
		.static_min_kib = (uint64_t)db_int(vm, VM_MEMORY_STATIC_MIN) >> 10,
		.static_max_kib = d->static_max_kib,
		.dynamic_min_kib = (uint64_t)db_int(vm, VM_MEMORY_DYNAMIC_MIN) >> 10,
		.dynamic_max_kib = (uint64_t)db_int(vm, VM_MEMORY_DYNAMIC_MAX) >> 10,
		.actual_kib = d->actual_kib,
		.target_kib = d->target_kib,
		.maxmem_kib = d->maxmem_kib,
		.pod_kib = d->pod_kib,
		.proven = db_bool(vm, VM_BALLOON_PROVEN),
		.mode = MEMCTL_FROZEN,
	};
	struct rv_error e;

	if (d->state == HYPER_RUNNING)
		m.mode = MEMCTL_RUNNING;
	else if (d->state == HYPER_PAUSED)
		m.mode = MEMCTL_PAUSED;
	/* What is there counts, even where the record says otherwise by now. */
	if (m.static_min_kib > m.static_max_kib)
		m.static_min_kib = m.static_max_kib;
	if (m.dynamic_max_kib > m.static_max_kib)
		m.dynamic_max_kib = m.static_max_kib;
	if (m.dynamic_min_kib > m.dynamic_max_kib)
		m.dynamic_min_kib = m.dynamic_max_kib;
	if (m.dynamic_min_kib < m.static_min_kib)
		m.static_min_kib = m.dynamic_min_kib;
	if (vm_memory_add(h->memory, &d->id, &m, d->overhead_kib, NULL, &e))
		log_warn("vm.look", "domid=%u msg=\"%s\"", d->id.domid, e.detail);
	else if (d->is_up || d->can_balloon)
		vm_memory_up(h->memory, &d->id);
}

static void adopt_devices(struct vm_host *h, const struct row *vm);

/* One that was adopted: from now on its memory is the controller's. */
static void take_in(struct vm_host *h, const struct row *vm, const struct hyper_domain *d)
{
	struct memctl_view view;

	if (d->state == HYPER_DYING)
		return;
	if (memctl_domain_get(vm_memory_controller(h->memory), d->id.domid, &view) == 0) {
		vm_memory_seen(h->memory, d);
		return;
	}
	add_memory(h, vm, d);
	adopt_devices(h, vm);
}

static bool recorded_as(const struct row *vm, const struct hyper_domain *d)
{
	struct hyper_domain_id id;

	return vm_recorded(vm, &id) && uuid_eq(&id.handle, &d->id.handle) &&
	       uuid_eq(&id.boot_id, &d->id.boot_id);
}

/* The host where what is at work on the VM was begun; NULL: none that could go on with
 * it. It alone knows whether it is still at it. */
static const struct row *worker(const struct vm_host *h, const struct row *vm)
{
	const struct db *db = pool_db(h->mgr->pool);
	const struct row *task = db_row(db, CLASS_TASK, current_task(vm));
	const struct row *host = task ? db_follow(db, task, TASK_RESIDENT_ON) : NULL;

	return host && !db_bool(host, HOST_DECLARED_DEAD) ? host : NULL;
}

/* For a VM that is on no host and bears no intent: a clone's source, whose task alone
 * names the host that copies. */
static bool is_worked_on(const struct vm_host *h, const struct row *vm, bool here)
{
	const struct row *host = worker(h, vm);
	struct uuid uuid = host ? row_uuid(host) : UUID_NONE;

	return host && uuid_eq(&uuid, &h->mgr->config.self) == here;
}

static bool is_elsewhere(const struct vm_host *h, const struct row *vm)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON), intent = db_ref(vm, VM_INTENT_HOST);

	return uuid_is_none(&on) && uuid_is_none(&intent) && is_worked_on(h, vm, false);
}

/* What was left can be tried again: where an SR is away, it would be in vain. */
static bool can_release(const struct vm_host *h, const struct row *vm)
{
	const struct db *db = pool_db(h->mgr->pool);

	for (const struct row *r = NULL;
		(r = db_next_ref(db, VBD_VM, row_uuid(vm), r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);
		struct uuid sr = vdi ? db_ref(vdi, VDI_SR) : UUID_NONE;

		if (vdi && db_bool(r, VBD_CURRENTLY_ATTACHED) &&
			!storage_sr_attached(h->storage, &sr))
			return false;
	}
	return true;
}

/* `d`: a domain that bears the VM's mark is here. */
static bool concerns(
	const struct vm_host *h, const struct row *vm, const struct hyper_domain *d)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON), intent = db_ref(vm, VM_INTENT_HOST);
	const struct row *left;

	if (!uuid_is_none(&on))
		return uuid_eq(&on, &h->uuid);
	if (!uuid_is_none(&intent))
		return uuid_eq(&intent, &h->uuid);
	/* On no host: that one's which has not released its devices, since nobody else
	 * can; or the master's; and where a domain of it was left or an operation on it
	 * (a clone of it) was begun. */
	left = vm_left_on(pool_db(h->mgr->pool), vm);
	if (left && !d) {
		on = row_uuid(left);
		return uuid_eq(&on, &h->uuid) && can_release(h, vm);
	}
	return h == h->mgr->hosts[0] &&
	       (d || pool_is_master(h->mgr->pool) || is_worked_on(h, vm, true));
}

static bool changed_since(const struct row *vm, uint64_t seq)
{
	return row_seq(vm) > seq;
}

/* A domain of a VM that the database has not recorded as the VM's: half-made, or a ghost.
 */
static bool is_half_made(const struct row *vm, const struct hyper_domain *d)
{
	uint64_t generation = (uint64_t)db_int(vm, VM_OWNER_GENERATION);

	return d->state != HYPER_RUNNING || d->id.generation > generation;
}

/* The listed domains by VM: chains of those that bear the same one; and by handle. */
struct look_index {
	struct map first;		  /* VM to its first domain */
	struct map handles;		  /* handle to its domain */
	uint32_t next[HYPER_MAX_DOMAINS]; /* index + 1; 0: the last */
};

static int index_fill(struct look_index *x, const struct hyper_req *req)
{
	for (size_t i = req->domain_count; i-- > 0;) {
		const struct hyper_domain *d = &req->domains[i];
		struct hyper_domain *before;

		if (i >= HYPER_MAX_DOMAINS)
			continue;
		(void)map_remove(&x->handles, &d->id.handle, sizeof d->id.handle);
		if (map_add(&x->handles, &d->id.handle, sizeof d->id.handle, (void *)d))
			return RV_ENOMEM;
		if (uuid_is_none(&d->vm))
			continue;
		before = map_remove(&x->first, &d->vm, sizeof d->vm);
		x->next[i] = before ? (uint32_t)(before - req->domains) + 1 : 0;
		if (map_add(&x->first, &d->vm, sizeof d->vm, (void *)d))
			return RV_ENOMEM;
	}
	return 0;
}

/* The VM's recorded domain, whatever its label; NULL: it is not there. */
static const struct hyper_domain *recorded_in(
	const struct look_index *x, const struct row *vm)
{
	struct uuid handle = db_ref(vm, VM_DOMAIN_HANDLE);
	const struct hyper_domain *d = map_get(&x->handles, &handle, sizeof handle);

	return d && recorded_as(vm, d) ? d : NULL;
}

/* Not judged this time: what was known as a ghost stays one. */
static void look_keep(struct vm_host *h, const struct hyper_req *req,
	const struct look_index *x, const struct hyper_domain *d)
{
	for (uint32_t next; d; d = next ? &req->domains[next - 1] : NULL) {
		next = x->next[d - req->domains];
		vm_ghost_still(h, d);
	}
}

/* The VM is another host's by now, which was not told by this one: it was declared dead,
 * and came back. What is here of former generations is not the VM any more. A migration's
 * domains are the migration's. */
static void look_overtaken(struct vm_host *h, const struct row *vm,
	const struct hyper_req *req, const struct look_index *x,
	const struct hyper_domain *d)
{
	uint64_t generation = (uint64_t)db_int(vm, VM_OWNER_GENERATION);
	struct uuid migration = db_ref(vm, VM_MIGRATION);

	if (!uuid_is_none(&migration)) {
		look_keep(h, req, x, d);
		return;
	}
	for (uint32_t next; d; d = next ? &req->domains[next - 1] : NULL) {
		next = x->next[d - req->domains];
		if (d->id.generation < generation)
			vm_ghost_seen(h, d);
	}
}

static void look_vm(struct vm_host *h, const struct row *vm, const struct hyper_req *req,
	const struct look_index *x)
{
	struct vm_leftovers left = {.count = 0};
	struct uuid uuid = row_uuid(vm);
	const struct hyper_domain *d = map_get(&x->first, &uuid, sizeof uuid),
				  *own = recorded_in(x, vm);

	if (vm_op_of(h->mgr, &uuid) || (h->listed && changed_since(vm, h->look_seq))) {
		look_keep(h, req, x, d);
		return;
	}
	if (!concerns(h, vm, d)) {
		look_overtaken(h, vm, req, x, d);
		return;
	}
	if (own && own->state != HYPER_DYING && vm_ghost_take(h, vm, own))
		return;
	for (uint32_t next; d; d = next ? &req->domains[next - 1] : NULL) {
		next = x->next[d - req->domains];
		if (d == own)
			continue;
		if (!is_half_made(vm, d))
			vm_ghost_seen(h, d);
		else if (left.count < VM_MAX_LEFTOVERS)
			left.id[left.count++] = d->id;
	}
	if (own)
		take_in(h, vm, own);
	if (!is_elsewhere(h, vm))
		vm_look_at(h, vm, own, &left);
}

/* Every VM, at the start and now and then; else those that have, or should have,
 * something to do with this host. */
static void look_vms(struct vm_host *h, const struct hyper_req *req, bool all)
{
	const struct db *db = pool_db(h->mgr->pool);
	struct look_index *x = calloc(1, sizeof *x);
	const struct row *vm = NULL;

	if (!x) {
		h->ghosts_lost = true;
		return;
	}
	map_init(&x->first, prng_next(loop_prng(h->mgr->loop)));
	map_init(&x->handles, prng_next(loop_prng(h->mgr->loop)));
	if (index_fill(x, req)) {
		h->ghosts_lost = true;
		goto out;
	}
	while (all && (vm = db_next(db, CLASS_VM, vm)))
		look_vm(h, vm, req, x);
	for (size_t i = 0; !all && i < req->domain_count; i++) {
		vm = db_row(db, CLASS_VM, req->domains[i].vm);
		if (vm)
			look_vm(h, vm, req, x);
	}
	for (vm = NULL; !all && (vm = db_next_ref(db, VM_RESIDENT_ON, h->uuid, vm));)
		look_vm(h, vm, req, x);
	for (vm = NULL; !all && (vm = db_next_ref(db, VM_INTENT_HOST, h->uuid, vm));)
		look_vm(h, vm, req, x);
	for (vm = NULL; !all && (vm = db_next_ref(db, VM_DEVICES_LEFT_ON, h->uuid, vm));)
		look_vm(h, vm, req, x);
out:
	map_fini(&x->first);
	map_fini(&x->handles);
	free(x);
}

/* A broken invariant is told once, and again when it is another one or comes back. */
static void vm_complain(struct vm_host *h, const struct hyper_req *req)
{
	struct vm_manager *m = h->mgr;
	struct vm_observed seen = {
		.host = h->uuid,
		.domains = req->domains,
		.domain_count = req->domain_count,
		.total_kib = h->total_kib,
		.dom0_kib = h->dom0_kib,
		.memory = vm_memory_controller(h->memory),
		.seq = h->look_seq,
	};
	struct rv_error e;

	/* The books are of now, the list is older: sums only when nothing has moved. */
	if (m->op_count > 0 || pool_seq(m->pool) != h->look_seq) {
		seen.memory = NULL;
		seen.total_kib = 0;
	}
	if (vm_invariants_check(pool_db(m->pool), &seen, 1, &e) == 0) {
		if (seen.memory) /* all of them were looked at */
			vm_told_over(&m->told, h->uuid);
		return;
	}
	if (!vm_told_new(&m->told, h->uuid, e.detail))
		return;
	snprintf(m->complaint, sizeof m->complaint, "%s", e.detail);
	vm_note(m, "INVARIANT_BROKEN", 1, UUID_NONE, "%s", e.detail);
}

static void adopted(void *arg, uint64_t token, const struct net_result *result)
{
	(void)arg;
	(void)token;
	if (result->rc)
		log_warn("vm.look", "msg=\"%s\"", result->error.detail);
}

static void vm_adopt_vif(struct vm_host *h, const struct row *vif)
{
	const struct row *network = db_follow(pool_db(h->mgr->pool), vif, VIF_NETWORK);
	struct uuid uuid = row_uuid(network);
	char bridge[NET_NAME_SIZE];
	struct net_call call = {
		.verb = NET_VIF_PLUG,
		.vif = row_uuid(vif),
		.network = uuid,
		.bridge = bridge,
		.mac = db_string(vif, VIF_MAC),
		.mtu = (int)db_int(vif, VIF_MTU),
		.vlan = NET_VLAN_NONE,
		.done = adopted,
	};
	struct rv_error e;

	if (db_string(network, NETWORK_BRIDGE)[0])
		snprintf(bridge, sizeof bridge, "%s", db_string(network, NETWORK_BRIDGE));
	else
		net_bridge_name(&uuid, bridge);
	if (net_start(h->net, &call, NULL, &e))
		log_warn("vm.look", "msg=\"%s\"", e.detail);
}

static void adopt_devices(struct vm_host *h, const struct row *vm)
{
	/* The network port keeps its reservations in memory only. */
	for (const struct row *r = NULL;
		(r = db_next_ref(pool_db(h->mgr->pool), VIF_VM, row_uuid(vm), r));)
		if (db_bool(r, VIF_CURRENTLY_ATTACHED))
			vm_adopt_vif(h, r);
}

static void look_first(struct vm_host *h, const struct hyper_req *req)
{
	const struct db *db = pool_db(h->mgr->pool);

	for (size_t i = 0; i < req->domain_count; i++) {
		const struct hyper_domain *d = &req->domains[i];
		const struct row *vm = db_row(db, CLASS_VM, d->vm);

		if (vm && recorded_as(vm, d) && !vm_op_of(h->mgr, &d->vm)) {
			add_memory(h, vm, d);
			adopt_devices(h, vm);
		}
	}
}

static void look_listed(void *arg, struct hyper_req *req)
{
	struct vm_host *h = arg;
	struct vm_manager *m = h->mgr;
	const struct db *db = pool_db(m->pool);
	bool all;

	h->looking = false;
	timer_stop(&h->look_deadline);
	if (m->stopped || !pool_can_commit(m->pool))
		return;
	if (req->rc) {
		log_warn("vm.look", "rc=%s msg=\"%s\"", rv_error_symbol(req->rc),
			req->error.detail);
		timer_start_ms(&m->look, LOOK_RETRY_MS);
		return;
	}
	if (!h->listed)
		look_first(h, req);
	h->ghosts_lost = false; /* unless it comes again */
	vm_ghosts_begin(h);
	all = !h->listed || h->looks++ % LOOK_ALL == 0;
	look_vms(h, req, all);
	for (size_t i = 0; i < req->domain_count; i++) {
		const struct hyper_domain *d = &req->domains[i];

		if (!db_row(db, CLASS_VM, d->vm))
			vm_ghost_seen(h, d);
	}
	if (all)
		vm_ghost_marks_due_all(h);
	vm_ghosts_end(h);
	vm_complain(h, req);
	vm_discard_look(h);
	vm_claims_look(h, req);
	h->listed = true;
	vm_manager_seen(m);
}

static void look_hosted(void *arg, struct hyper_req *req)
{
	struct vm_host *h = arg;

	if (h->mgr->stopped)
		return;
	if (req->rc) {
		h->looking = false;
		timer_stop(&h->look_deadline);
		log_warn("vm.look", "rc=%s msg=\"%s\"", rv_error_symbol(req->rc),
			req->error.detail);
		timer_start_ms(&h->mgr->look, LOOK_RETRY_MS);
		return;
	}
	h->boot_id = req->host->boot_id;
	h->total_kib = req->host->total_kib;
	h->dom0_kib = req->host->dom0_kib;
	if (!h->seen)
		vm_memory_sync(h->memory, req->host);
	h->seen = true;
	h->look_seq = pool_seq(h->mgr->pool);
	hyper_list(h->hyper, &h->look_req);
}

/* Nobody else would ask again. */
static void look_late(void *arg)
{
	struct vm_host *h = arg;

	hyper_cancel(&h->host_req);
	hyper_cancel(&h->look_req);
}

void vm_look_init(struct vm_host *h)
{
	timer_init(&h->look_deadline, h->mgr->loop, "vm.look.deadline", look_late, h);
	hyper_req_init(&h->look_req, look_listed, h);
	hyper_req_init(&h->host_req, look_hosted, h);
}

void vm_look_begin(struct vm_host *h)
{
	if (h->looking)
		return;
	h->looking = true;
	timer_start_ms(&h->look_deadline, h->mgr->config.answer_ms);
	if (h->seen) {
		h->look_seq = pool_seq(h->mgr->pool);
		hyper_list(h->hyper, &h->look_req);
	} else {
		hyper_host(h->hyper, &h->host_req);
	}
}

void vm_look_timer(void *arg)
{
	struct vm_manager *m = arg;

	for (size_t i = 0; i < m->host_count; i++)
		vm_look_begin(m->hosts[i]);
	timer_start_ms(&m->look, m->config.look_ms);
}
