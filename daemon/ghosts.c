#include "daemon/ghosts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/ghosts_internal.h"
#include "rpc/message.h"
#include "vm/vm_entry.h"
#include "vm/vm_ghost_marks.h"

enum {
	ASK_ANSWER_MS = 30 * 1000,
	DESTROY_ANSWER_MS = 5 * 60 * 1000, /* a large domain takes its time */
	RECORD_ANSWER_MS = 30 * 1000,	   /* the pool may be without a master */
};

/* A question to the hypervisor, for one call. */
struct asked {
	struct list node;
	struct ghosts *all;
	struct call *call; /* NULL: answered, while the entry is still being found out */
	struct hyper_req req;
	struct timer deadline;
	uint32_t domid;
	char name[HYPER_NAME_SIZE];
	/* host_ghost_destroy */
	struct hyper_domain_id id;
	struct uuid vm; /* whose mark it bore; none */
	struct vm_entry entry;
};

static bool is_ghost(const struct ghosts *g, const struct hyper_domain *d)
{
	return vm_ghost_is(g->daemon->vms, &g->daemon->host, &d->id);
}

const struct hyper_domain *ghost_find(const struct ghosts *g, const struct hyper_req *req,
	uint32_t domid, struct rv_error *e)
{
	for (size_t i = 0; i < req->domain_count; i++) {
		const struct hyper_domain *d = &req->domains[i];

		if (d->id.domid != domid)
			continue;
		if (is_ghost(g, d))
			return d;
		rv_error_set(e, RV_ESTATE,
			"domain %u (%s) is no ghost: it is a VM of the pool, or was not "
			"looked at yet",
			domid, d->name);
		return NULL;
	}
	rv_error_set(e, RV_ENOENT,
		"there is no domain %u on this host; host-ghost-list shows the unknown "
		"ones",
		domid);
	return NULL;
}

/* --- listing and destroying --- */

static void asked_free(struct asked *a)
{
	timer_stop(&a->deadline);
	list_remove(&a->node);
	free(a);
}

/* The domain is ended; whether that is on record could not be found out, or is not. */
static void fail_unrecorded(struct asked *a, const char *why)
{
	struct rv_error e;

	rv_error_set(&e, RV_EOUTCOME,
		"domain %u (%s) is ended, but it is not known yet whether that is on "
		"record: %s. There is nothing to repeat: this host records it as soon as "
		"the pool takes changes, and its VM may start once VM.ghosts does not "
		"show the domain any more (vm-list params=name-label,ghosts)",
		a->domid, a->name, why);
	call_fail(a->call, &e);
	a->call = NULL;
}

/* One of host_ghost_destroy's entry can wait for a master for any time. */
static void asked_late(void *arg)
{
	struct asked *a = arg;

	if (a->entry.busy)
		fail_unrecorded(a, "the pool's master does not answer");
	else
		hyper_cancel(&a->req);
}

/* The call's question, or NULL: the call has been failed. */
static struct asked *asked_new(struct call *c, hyper_done_fn *done, int64_t answer_ms)
{
	const struct row *host = call_row(c, "self");
	struct ghosts *g = c->daemon->ghosts;
	struct uuid uuid;
	struct asked *a;

	if (!host)
		return NULL;
	uuid = row_uuid(host);
	if (!uuid_eq(&uuid, &c->daemon->host)) {
		call_failf(c, RV_ENOTALLOWED, "host %s is another machine; ask it there",
			row_name(host));
		return NULL;
	}
	a = calloc(1, sizeof *a);
	if (!a) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return NULL;
	}
	a->all = g;
	a->call = c;
	timer_init(&a->deadline, c->daemon->loop, "ghosts.deadline", asked_late, a);
	timer_start_ms(&a->deadline, answer_ms);
	hyper_req_init(&a->req, done, a);
	list_push_back(&g->asked, &a->node);
	return a;
}

/* False: the call has been failed, and `a` is gone. */
static bool asked_ok(struct asked *a)
{
	if (!a->req.rc)
		return true;
	call_fail(a->call, &a->req.error);
	asked_free(a);
	return false;
}

static void pack_ghost(msgpack_packer *pk, const struct hyper_domain *d, const char *vm)
{
	static const char *const types[] = {"pv", "pvh", "hvm"};
	char handle[UUID_TEXT_SIZE];

	msgpack_pack_map(pk, 8);
	rpc_pack_key(pk, "domid");
	msgpack_pack_uint64(pk, d->id.domid);
	rpc_pack_key(pk, "name");
	rpc_pack_text(pk, d->name);
	rpc_pack_key(pk, "type");
	rpc_pack_key(pk, types[d->type]);
	rpc_pack_key(pk, "state");
	rpc_pack_key(pk, hyper_state_name(d->state));
	rpc_pack_key(pk, "memory");
	msgpack_pack_uint64(pk, d->actual_kib << 10);
	rpc_pack_key(pk, "vcpus");
	msgpack_pack_uint64(pk, d->vcpus_online);
	rpc_pack_key(pk, "handle");
	rpc_pack_key(pk, uuid_format(&d->id.handle, handle));
	rpc_pack_key(pk, "marked");
	rpc_pack_text(pk, vm);
}

static void listed(void *arg, struct hyper_req *req)
{
	struct asked *a = arg;
	const struct db *db = pool_db(a->call->daemon->pool);
	msgpack_packer *pk;
	size_t count = 0;

	if (!asked_ok(a))
		return;
	for (size_t i = 0; i < req->domain_count; i++)
		count += is_ghost(a->all, &req->domains[i]);
	pk = call_reply_begin(a->call);
	msgpack_pack_array(pk, count);
	for (size_t i = 0; i < req->domain_count; i++) {
		const struct row *vm = db_row(db, CLASS_VM, req->domains[i].vm);

		if (is_ghost(a->all, &req->domains[i]))
			pack_ghost(pk, &req->domains[i], vm ? row_name(vm) : "");
	}
	call_reply_end(a->call);
	asked_free(a);
}

void host_ghost_list(struct call *c)
{
	struct asked *a = asked_new(c, listed, ASK_ANSWER_MS);

	if (a)
		hyper_list(c->daemon->hyper, &a->req);
}

/* Its VM may start at once. */
static void txn_unmark(void *arg, const struct db *db, struct txn *t)
{
	struct asked *a = arg;

	vm_ghost_unmark_txn(db, a->vm, a->all->daemon->host, t);
}

static bool unmark_holds(void *arg, const struct db *db)
{
	struct asked *a = arg;
	const struct row *vm = db_row(db, CLASS_VM, a->vm);

	return !vm || !vm_ghost_marked_on(vm, a->all->daemon->host);
}

/* The domain is gone, whatever became of the record: a look puts that right. */
static void unmarked(void *arg, uint64_t token, int rc)
{
	struct asked *a = arg;
	struct daemon *d = a->all->daemon;

	(void)token;
	if (a->all->stopped)
		return;
	vm_manager_look(d->vms);
	if (a->call && rc && !unmark_holds(a, pool_db(d->pool)))
		fail_unrecorded(a, a->entry.error.detail);
	else if (a->call)
		call_reply_nil(a->call);
	asked_free(a);
}

static void destroyed(void *arg, struct hyper_req *req)
{
	struct asked *a = arg;
	struct daemon *d = a->call->daemon;

	(void)req;
	if (!asked_ok(a))
		return;
	timer_stop(&a->deadline);
	log_warn("ghosts.destroyed", "domid=%u name=\"%s\" user=\"%s\"", a->domid,
		a->name, a->call->who.user);
	vm_ghost_gone(d->vms, &d->host, &a->id);
	if (unmark_holds(a, pool_db(d->pool)) || vm_ghost_of(d->vms, &d->host, &a->vm)) {
		unmarked(a, 0, 0);
		return;
	}
	timer_start_ms(&a->deadline, RECORD_ANSWER_MS);
	vm_entry_commit(&a->entry, txn_unmark, unmark_holds, false, unmarked, a, 0);
}

static void found_to_destroy(void *arg, struct hyper_req *req)
{
	struct asked *a = arg;
	const struct hyper_domain *d;
	struct rv_error e = {0};

	if (!asked_ok(a))
		return;
	d = ghost_find(a->all, req, a->domid, &e);
	if (d && ghost_is_adopted(a->all, &d->id))
		rv_error_set(
			&e, RV_EBUSY, "domain %u is being adopted just now", a->domid);
	if (e.code) {
		call_fail(a->call, &e);
		asked_free(a);
		return;
	}
	snprintf(a->name, sizeof a->name, "%s", d->name);
	a->id = d->id; /* the list is the driver's */
	a->vm = d->vm;
	vm_entry_init(&a->entry, a->all->daemon->loop, a->all->daemon->pool);
	hyper_req_init(&a->req, destroyed, a);
	timer_start_ms(&a->deadline, DESTROY_ANSWER_MS);
	hyper_destroy(a->call->daemon->hyper, &a->req, &a->id);
}

/* An argument that is a domid. False: the call has been failed. */
bool ghost_domid(struct call *c, uint32_t *out)
{
	int64_t domid = call_int(c, "domid", -1);

	if (domid < 1 || domid >= UINT32_MAX) {
		call_failf(c, RV_EPARAM,
			"domid: %lld is no domain's number; host-ghost-list shows them",
			(long long)domid);
		return false;
	}
	*out = (uint32_t)domid;
	return true;
}

void host_ghost_destroy(struct call *c)
{
	struct asked *a;
	uint32_t domid;

	if (!ghost_domid(c, &domid))
		return;
	a = asked_new(c, found_to_destroy, ASK_ANSWER_MS);
	if (!a)
		return;
	a->domid = domid;
	hyper_list(c->daemon->hyper, &a->req);
}

/* --- life --- */

int ghosts_new(struct ghosts **out, struct daemon *d)
{
	struct ghosts *g = calloc(1, sizeof *g);

	*out = g;
	if (!g)
		return RV_ENOMEM;
	g->daemon = d;
	list_init(&g->asked);
	list_init(&g->adoptions);
	return 0;
}

void ghosts_stop(struct ghosts *g)
{
	if (!g || g->stopped)
		return;
	g->stopped = true;
	LIST_FOR_EACH (node, &g->asked) {
		struct asked *a = CONTAINER_OF(node, struct asked, node);

		timer_stop(&a->deadline);
		vm_entry_stop(&a->entry);
	}
	ghost_adoptions_stop(g);
}

void ghosts_free(struct ghosts *g)
{
	if (!g)
		return;
	LIST_FOR_EACH_SAFE (node, &g->asked)
		asked_free(CONTAINER_OF(node, struct asked, node));
	ghost_adoptions_free(g);
	free(g);
}
