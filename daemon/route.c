#include "daemon/route.h"

#include <string.h>

#include "daemon/daemon.h"
#include "daemon/members.h"
#include "daemon/witness.h"
#include "rpc/message.h"

enum { ROUTE_MAX_SRS = 64 };

/* The SRs that a call works on; a host must have all of them attached. */
struct srs {
	struct uuid list[ROUTE_MAX_SRS];
	size_t count;
};

static void srs_add(struct srs *s, struct uuid sr)
{
	if (uuid_is_none(&sr) || s->count == ROUTE_MAX_SRS)
		return;
	for (size_t i = 0; i < s->count; i++)
		if (uuid_eq(&s->list[i], &sr))
			return;
	s->list[s->count++] = sr;
}

static const struct db *db_of(const struct call *c)
{
	return pool_db(c->daemon->pool);
}

static bool attached_at(const struct db *db, struct uuid sr, struct uuid host)
{
	for (const struct row *pbd = db_next_ref(db, PBD_SR, sr, NULL); pbd;
		pbd = db_next_ref(db, PBD_SR, sr, pbd)) {
		struct uuid at = db_ref(pbd, PBD_HOST);

		if (uuid_eq(&at, &host))
			return db_bool(pbd, PBD_CURRENTLY_ATTACHED);
	}
	return false;
}

static bool all_attached_at(const struct db *db, const struct srs *s, struct uuid host)
{
	for (size_t i = 0; i < s->count; i++)
		if (!attached_at(db, s->list[i], host))
			return false;
	return true;
}

static bool is_reachable(const struct call *c, struct uuid host)
{
	return uuid_eq(&host, &c->daemon->host) ||
	       (c->daemon->members && members_is_up(c->daemon->members, &host));
}

/* This host if it has the SRs, else another one that has. Where none has, this one
 * refuses in its own words. */
static enum route route_srs(const struct call *c, const struct srs *s, struct uuid *host)
{
	const struct db *db = db_of(c);

	if (all_attached_at(db, s, c->daemon->host))
		return ROUTE_HERE;
	for (const struct row *row = db_next(db, CLASS_HOST, NULL); row;
		row = db_next(db, CLASS_HOST, row)) {
		*host = row_uuid(row);
		if (is_reachable(c, *host) && all_attached_at(db, s, *host))
			return ROUTE_HOST;
	}
	return ROUTE_HERE;
}

/* --- by class --- */

static enum route to_host(struct call *c, struct uuid where, struct uuid *host)
{
	if (uuid_is_none(&where) || uuid_eq(&where, &c->daemon->host))
		return ROUTE_HERE;
	*host = where;
	return ROUTE_HOST;
}

static struct uuid vm_host(const struct row *vm)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON);

	return uuid_is_none(&on) ? db_ref(vm, VM_INTENT_HOST) : on;
}

static struct srs vm_srs(const struct call *c, const struct row *vm)
{
	const struct db *db = db_of(c);
	struct srs s = {.count = 0};

	for (const struct row *vbd = db_next_ref(db, VBD_VM, row_uuid(vm), NULL); vbd;
		vbd = db_next_ref(db, VBD_VM, row_uuid(vm), vbd)) {
		const struct row *vdi = db_follow(db, vbd, VBD_VDI);

		if (vdi)
			srs_add(&s, db_ref(vdi, VDI_SR));
	}
	return s;
}

static enum route route_vm(struct call *c, struct uuid *host)
{
	const struct row *vm = db_row(db_of(c), CLASS_VM, call_ref(c, "self"));
	struct srs s;

	if (!vm)
		return ROUTE_HERE; /* refuses */
	switch (c->method->id) {
	case METHOD_VM_START:
	case METHOD_VM_RESUME:
		if (call_arg(c, "on"))
			return to_host(c, call_ref(c, "on"), host);
		return ROUTE_PLACE;
	case METHOD_VM_START_ON:
		return to_host(c, call_ref(c, "host"), host);
	case METHOD_VM_CLONE:
	case METHOD_VM_PROVISION:
		s = vm_srs(c, vm);
		srs_add(&s, call_ref(c, "sr"));
		if (s.count == 0)
			srs_add(&s, db_ref(db_pool(db_of(c)), POOL_DEFAULT_SR));
		return route_srs(c, &s, host);
	case METHOD_VM_DESTROY:
		s = vm_srs(c, vm);
		return route_srs(c, &s, host);
	default:
		return to_host(c, vm_host(vm), host);
	}
}

static enum route route_device(
	struct call *c, enum schema_field_id owner, struct uuid *host)
{
	const struct row *row = db_row(db_of(c), c->method->cls, call_ref(c, "self"));
	const struct row *vm = row ? db_follow(db_of(c), row, owner) : NULL;

	return vm ? to_host(c, vm_host(vm), host) : ROUTE_HERE;
}

static enum route route_sr(struct call *c, struct uuid *host)
{
	struct srs s = {.count = 0};

	if (c->method->id == METHOD_SR_CREATE)
		return to_host(c, call_ref(c, "host"), host);
	srs_add(&s, call_ref(c, "self"));
	return route_srs(c, &s, host);
}

static enum route route_vdi(struct call *c, struct uuid *host)
{
	const struct db *db = db_of(c);
	struct srs s = {.count = 0};

	if (c->method->id == METHOD_VDI_CREATE) {
		const msgpack_object *o = rpc_map_get(call_record(c, "record"), "SR");
		struct uuid sr;

		if (o && o->type == MSGPACK_OBJECT_STR &&
			!uuid_parse(&sr, o->via.str.ptr, o->via.str.size))
			srs_add(&s, sr);
		else
			srs_add(&s, db_ref(db_pool(db), POOL_DEFAULT_SR));
	} else {
		const struct row *vdi = db_row(db, CLASS_VDI, call_ref(c, "self"));

		if (vdi)
			srs_add(&s, db_ref(vdi, VDI_SR));
	}
	return route_srs(c, &s, host);
}

/* A field of the object itself names the host. */
static enum route route_field(
	struct call *c, enum schema_field_id field, struct uuid *host)
{
	const struct row *row = db_row(db_of(c), c->method->cls, call_ref(c, "self"));

	return row ? to_host(c, db_ref(row, field), host) : ROUTE_HERE;
}

static enum route route_own(struct call *c, struct uuid *host)
{
	if (c->method->kind != METHOD_KIND_OWN || !c->daemon->members)
		return ROUTE_HERE;
	switch (c->method->id) {
	case METHOD_VM_CREATE:
	case METHOD_VBD_CREATE:
	case METHOD_VBD_DESTROY:
	case METHOD_VIF_CREATE:
	case METHOD_VIF_DESTROY:
	case METHOD_PBD_CREATE:
	case METHOD_PBD_DESTROY:
	case METHOD_SR_INTRODUCE: /* a record only; it has no SR yet */
		return ROUTE_HERE;
	case METHOD_HOST_CHECK:
	case METHOD_HOST_GHOST_LIST:
	case METHOD_HOST_GHOST_DESTROY:
	case METHOD_HOST_REFRESH_SERVER_CERTIFICATE:
	case METHOD_HOST_OP_LIST:
	case METHOD_HOST_LOOP_STATS:
		return to_host(c, call_ref(c, "self"), host);
	case METHOD_VM_ADOPT:
	case METHOD_VM_IMPORT_XL:
	case METHOD_PIF_SCAN:
	case METHOD_PIF_INTRODUCE:
		return to_host(c, call_ref(c, "host"), host);
	case METHOD_POOL_STATUS:
		*host = pool_master(c->daemon->pool);
		return !c->forwarded && !uuid_is_none(host) &&
				       !uuid_eq(host, &c->daemon->host) &&
				       is_reachable(c, *host)
			       ? ROUTE_HOST
			       : ROUTE_HERE;
	case METHOD_POOL_ROTATE_CA:
	case METHOD_POOL_DESIGNATE_NEW_MASTER:
	case METHOD_POOL_DATABASE_UPLOAD:
	case METHOD_POOL_DATABASE_RESTORE:
		return ROUTE_MASTER;
	case METHOD_POOL_EJECT:
	case METHOD_HOST_DECLARE_DEAD:
	case METHOD_VM_RESET_POWER_STATE:
		return to_host(c, pool_master(c->daemon->pool), host);
	case METHOD_TASK_CANCEL:
		return route_field(c, TASK_RESIDENT_ON, host);
	default:
		break;
	}
	switch (c->method->cls) {
	case CLASS_VM:
		return route_vm(c, host);
	case CLASS_VBD:
		return route_device(c, VBD_VM, host);
	case CLASS_VIF:
		return route_device(c, VIF_VM, host);
	case CLASS_SR:
		return route_sr(c, host);
	case CLASS_VDI:
		return route_vdi(c, host);
	case CLASS_PBD:
		return route_field(c, PBD_HOST, host);
	case CLASS_PIF:
		return route_field(c, PIF_HOST, host);
	default:
		return ROUTE_HERE;
	}
}

enum route route_call(struct call *c, struct uuid *host)
{
	enum route route = route_own(c, host);

	/* Where none is linked, it refuses: see witness_lacks. */
	if (route == ROUTE_HERE && witness_is_here(c->daemon) &&
		witness_lacks(c->method) && witness_stand_in(c->daemon, host))
		route = ROUTE_HOST;
	return route;
}
