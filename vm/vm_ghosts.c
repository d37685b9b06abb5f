/*
 * Domains that the database does not know (ghosts): made by another tool, or left by a
 * crash. They are remembered and told of, never destroyed from here. One that a VM has
 * been recorded for (VM.adopt) is taken in: the entry alone makes it the VM's, and the
 * domain's label follows it here, at once or, after a crash, at the next look.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_ghost_marks.h"
#include "vm/vm_look.h"
#include "vm/vm_op.h"

enum { GHOSTS_NAMED = 3 };

/* --- the list --- */

static struct vm_ghost *ghost_find(
	const struct vm_host *h, const struct hyper_domain_id *id)
{
	for (size_t i = 0; i < h->ghost_count; i++)
		if (h->ghosts[i].id.domid == id->domid &&
			uuid_eq(&h->ghosts[i].id.handle, &id->handle))
			return &h->ghosts[i];
	return NULL;
}

/* Room for one more. A host has no more domains than that. */
static int ghost_room(struct vm_host *h)
{
	size_t room = h->ghost_room ? 2 * h->ghost_room : 16;
	struct vm_ghost *ghosts;

	if (h->ghost_count < h->ghost_room)
		return 0;
	if (h->ghost_room >= HYPER_MAX_DOMAINS)
		return RV_ELIMIT;
	ghosts = realloc(h->ghosts, room * sizeof *ghosts);
	if (!ghosts)
		return RV_ENOMEM;
	h->ghosts = ghosts;
	h->ghost_room = room;
	return 0;
}

/* Whether a VM that runs here is recorded to have this domain, whatever its label. */
static bool is_known(const struct vm_host *h, const struct hyper_domain_id *id)
{
	const struct db *db = pool_db(h->mgr->pool);
	struct hyper_domain_id own;

	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, h->uuid, vm));)
		if (vm_recorded(vm, &own) && uuid_eq(&own.handle, &id->handle) &&
			uuid_eq(&own.boot_id, &id->boot_id))
			return true;
	return false;
}

/* A message lasts longer than the daemon: each domain is told of once. */
static bool is_told(struct vm_host *h, const char *handle)
{
	const struct db *db = pool_db(h->mgr->pool);

	for (const struct row *r = NULL; (r = db_next(db, CLASS_MESSAGE, r));)
		if (strcmp(db_string(r, MESSAGE_NAME), "DOMAIN_UNKNOWN") == 0 &&
			strstr(db_string(r, MESSAGE_BODY), handle))
			return true;
	return false;
}

static void ghost_tell(struct vm_host *h, const struct hyper_domain *d)
{
	const struct db *db = pool_db(h->mgr->pool);
	const struct row *vm = db_row(db, CLASS_VM, d->vm),
			 *host = db_row(db, CLASS_HOST, h->uuid);
	const char *name = host ? row_name(host) : "this one";
	char handle[UUID_TEXT_SIZE];

	if (is_told(h, uuid_format(&d->id.handle, handle)))
		return;
	vm_note(h->mgr, "DOMAIN_UNKNOWN", 2, d->vm,
		"host %.64s: domain %u (%.64s, %llu MiB, %s) is there, but the database "
		"does not know it%s%.64s. It was left alone: vm-adopt makes it "
		"%s%s%.64s, "
		"host-ghost-destroy ends it (host=%.64s domid=%u)",
		name, d->id.domid, d->name, (unsigned long long)(d->actual_kib >> 10),
		handle, vm ? "; it bears the mark of VM " : "", vm ? row_name(vm) : "",
		vm ? "that VM again" : "a VM", vm ? " with vm=" : "",
		vm ? row_name(vm) : "", name, d->id.domid);
}

void vm_ghost_seen(struct vm_host *h, const struct hyper_domain *d)
{
	struct vm_ghost *known = ghost_find(h, &d->id);

	if (known) {
		known->listed = true;
		return;
	}
	if (d->state == HYPER_DYING || is_known(h, &d->id))
		return;
	if (ghost_room(h)) {
		if (!h->ghosts_lost)
			log_error("vm.ghost",
				"domid=%u msg=\"no room to remember this unknown domain; "
				"no VM starts until there is: end unknown domains (xl "
				"list, xl destroy)\"",
				d->id.domid);
		h->ghosts_lost = true;
		return;
	}
	h->ghosts[h->ghost_count++] =
		(struct vm_ghost){.id = d->id, .vm = d->vm, .listed = true};
	snprintf(h->ghosts[h->ghost_count - 1].name,
		sizeof h->ghosts[h->ghost_count - 1].name, "%.63s", d->name);
	ghost_tell(h, d);
}

void vm_ghost_still(struct vm_host *h, const struct hyper_domain *d)
{
	struct vm_ghost *known = ghost_find(h, &d->id);

	if (known)
		known->listed = true;
}

static void ghost_drop(struct vm_host *h, size_t i)
{
	vm_ghost_mark_due(h, h->ghosts[i].vm);
	h->ghosts[i] = h->ghosts[--h->ghost_count];
}

void vm_ghost_forget(struct vm_host *h, uint32_t domid)
{
	for (size_t i = 0; i < h->ghost_count; i++)
		if (h->ghosts[i].id.domid == domid) {
			ghost_drop(h, i);
			vm_ghost_marks(h);
			return;
		}
}

void vm_ghosts_begin(struct vm_host *h)
{
	for (size_t i = 0; i < h->ghost_count; i++)
		h->ghosts[i].listed = false;
}

void vm_ghosts_end(struct vm_host *h)
{
	for (size_t i = 0; i < h->ghost_count;)
		if (h->ghosts[i].listed)
			i++;
		else
			ghost_drop(h, i);
	vm_ghost_marks(h);
}

size_t vm_ghosts_say(
	const struct vm_manager *m, const struct uuid *host, char *names, size_t size)
{
	const struct vm_host *h = vm_host_find(m, host);
	size_t len = 0, count = h ? h->ghost_count : 0;

	names[0] = '\0';
	for (size_t i = 0; i < count && i < GHOSTS_NAMED && len < size; i++)
		len += (size_t)snprintf(names + len, size - len, "%s%s (domain %u)",
			i ? ", " : "", h->ghosts[i].name, h->ghosts[i].id.domid);
	if (count > GHOSTS_NAMED && len < size)
		snprintf(names + len, size - len, " and %zu more", count - GHOSTS_NAMED);
	return count;
}

bool vm_ghost_is(const struct vm_manager *m, const struct uuid *host,
	const struct hyper_domain_id *id)
{
	const struct vm_host *h = vm_host_find(m, host);

	return h && ghost_find(h, id) && !is_known(h, id);
}

bool vm_ghost_of(
	const struct vm_manager *m, const struct uuid *host, const struct uuid *vm)
{
	const struct vm_host *h = vm_host_find(m, host);

	for (size_t i = 0; h && i < h->ghost_count; i++)
		if (uuid_eq(&h->ghosts[i].vm, vm))
			return true;
	return false;
}

void vm_ghost_gone(
	struct vm_manager *m, const struct uuid *host, const struct hyper_domain_id *id)
{
	struct vm_host *h = vm_host_find(m, host);

	if (h && ghost_find(h, id))
		vm_ghost_forget(h, id->domid);
}

bool vm_ghost_claim(struct vm_manager *m, const struct uuid *host,
	const struct hyper_domain_id *id, const struct uuid *vm)
{
	const struct vm_host *h = vm_host_find(m, host);
	struct vm_ghost *g = h ? ghost_find(h, id) : NULL;

	if (!g)
		return false;
	g->vm = *vm;
	return true;
}

/* --- taking one in --- */

static void labelled(void *arg, struct hyper_req *req)
{
	struct vm_host *h = arg;
	const struct row *vm = db_row(pool_db(h->mgr->pool), CLASS_VM, h->label_vm);

	timer_stop(&h->label_deadline);
	if (h->mgr->stopped)
		return;
	if (req->rc) {
		/* Tried again at each look. */
		log_warn("vm.ghost", "vm=%s rc=%s msg=\"%s\"", vm ? row_name(vm) : "-",
			rv_error_symbol(req->rc), req->error.detail);
		return;
	}
	log_info("vm.ghost", "vm=%s domid=%u msg=\"adopted\"", vm ? row_name(vm) : "-",
		req->id.domid);
	vm_ghost_forget(h, req->id.domid);
	vm_manager_look(h->mgr);
}

static void label_late(void *arg)
{
	struct vm_host *h = arg;

	hyper_cancel(&h->label_req);
}

void vm_ghosts_init(struct vm_host *h)
{
	vm_ghost_marks_init(h);
	hyper_req_init(&h->label_req, labelled, h);
	timer_init(&h->label_deadline, h->mgr->loop, "vm.label", label_late, h);
}

void vm_ghosts_stop(struct vm_host *h)
{
	timer_stop(&h->label_deadline);
	vm_ghost_marks_stop(h);
}

bool vm_ghost_take(
	struct vm_host *h, const struct row *vm, const struct hyper_domain *domain)
{
	uint64_t generation = (uint64_t)db_int(vm, VM_OWNER_GENERATION);
	struct uuid uuid = row_uuid(vm);

	if (uuid_eq(&domain->vm, &uuid) && domain->id.generation >= generation)
		return false;
	if (hyper_req_busy(&h->label_req))
		return true; /* its turn comes */
	h->label_vm = uuid;
	timer_start_ms(&h->label_deadline, h->mgr->config.answer_ms);
	hyper_relabel(h->hyper, &h->label_req, &domain->id, &uuid, generation);
	return true;
}
