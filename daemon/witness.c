#include "daemon/witness.h"

#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/members.h"
#include "rpc/message.h"

bool witness_is_here(const struct daemon *d)
{
	return d->config->witness;
}

bool witness_is(const struct row *host)
{
	return db_enum(host, HOST_KIND) == HOST_KIND_WITNESS;
}

const struct row *witness_of(const struct db *db)
{
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));)
		if (witness_is(h))
			return h;
	return NULL;
}

size_t witness_count_hosts(const struct db *db)
{
	size_t n = 0;

	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));)
		n += !witness_is(h);
	return n;
}

/* --- calls --- */

/* What can be asked about, or done to, a witness as to any member. */
static bool is_for_all(enum schema_method_id id)
{
	return id == METHOD_POOL_EJECT || id == METHOD_HOST_OP_LIST ||
	       id == METHOD_HOST_LOOP_STATS || id == METHOD_HOST_DECLARE_DEAD ||
	       id == METHOD_HOST_REFRESH_SERVER_CERTIFICATE;
}

/* The host in a record such as a new PBD's. */
static struct uuid host_in(const msgpack_object *record)
{
	const msgpack_object *o = rpc_map_get(record, "host");
	struct uuid host;

	return o && o->type == MSGPACK_OBJECT_STR &&
			       !uuid_parse(&host, o->via.str.ptr, o->via.str.size)
		       ? host
		       : UUID_NONE;
}

static const struct row *named_witness(const struct call *c)
{
	const struct db *db = pool_db(c->daemon->pool);

	for (int i = 0; i < c->method->arg_count; i++) {
		const struct schema_arg *arg = &c->method->args[i];
		struct uuid uuid = UUID_NONE;
		const struct row *host;

		if (arg->ref_class == CLASS_HOST && c->args[i].type == VALUE_REF)
			uuid = value_get_ref(&c->args[i]);
		else if (c->records[i] && c->records[i]->type == MSGPACK_OBJECT_MAP)
			uuid = host_in(c->records[i]);
		host = db_row(db, CLASS_HOST, uuid);
		if (host && witness_is(host))
			return host;
	}
	return NULL;
}

bool witness_refuses(const struct call *c, struct rv_error *e)
{
	const struct row *host;

	if (c->method->kind != METHOD_KIND_OWN || is_for_all(c->method->id))
		return false;
	host = named_witness(c);
	if (!host)
		return false;
	rv_error_set(e, RV_ENOTALLOWED,
		"%s.%s: host %s is the pool's witness: it votes and keeps the database, "
		"but "
		"runs no VMs and has no storage and networks; name another host",
		c->method->group, c->method->name, row_name(host));
	return true;
}

bool witness_lacks(const struct schema_method *m)
{
	if (m->kind != METHOD_KIND_OWN)
		return false;
	switch (m->cls) {
	case CLASS_VM:
	case CLASS_VBD:
	case CLASS_VIF:
	case CLASS_SR:
	case CLASS_VDI:
	case CLASS_PBD:
	case CLASS_NETWORK:
	case CLASS_PIF:
		return true;
	default:
		return false;
	}
}

bool witness_stand_in(const struct daemon *d, struct uuid *host)
{
	const struct db *db = pool_db(d->pool);
	const struct row *h = db_row(db, CLASS_HOST, pool_master(d->pool));

	if (h && !witness_is(h)) {
		*host = row_uuid(h);
		return true;
	}
	for (h = NULL; (h = db_next(db, CLASS_HOST, h));) {
		*host = row_uuid(h);
		if (!witness_is(h) && d->members && members_is_up(d->members, host))
			return true;
	}
	return false;
}

/* --- joining and starting --- */

int witness_may_join(const struct db *db, struct rv_error *e)
{
	const struct row *other = witness_of(db);

	if (other)
		return rv_error_set(e, RV_ENOTALLOWED,
			"the pool has a witness already, %s; a second one would be of no "
			"use: "
			"pool-eject it first where this one is to take its place",
			row_name(other));
	return 0;
}

/* Alone, and without a VM or an SR: it may become what it likes. */
static bool is_blank(const struct db *db)
{
	return db_count(db, CLASS_HOST) == 1 && !db_count(db, CLASS_VM) &&
	       !db_count(db, CLASS_SR);
}

int witness_may_start(const struct daemon *d, struct rv_error *e)
{
	const struct db *db = pool_db(d->pool);
	const struct row *host = db_row(db, CLASS_HOST, d->host);

	if (!host || witness_is(host) == witness_is_here(d) || is_blank(db))
		return 0;
	if (witness_is(host))
		return rv_error_set(e, RV_ENOTALLOWED,
			"%s is its pool's witness: start reeved with --witness; to make "
			"a "
			"host of it, pool-eject it and join anew without",
			row_name(host));
	return rv_error_set(e, RV_ENOTALLOWED,
		"%s is a host of its pool, not a witness: start reeved without "
		"--witness; to make a witness of it, pool-eject it first",
		row_name(host));
}

void witness_txn(const struct daemon *d, struct txn *t)
{
	const struct db *db = pool_db(d->pool);
	const struct row *host = db_row(db, CLASS_HOST, d->host);
	bool was = host && witness_is(host), is = witness_is_here(d);

	if (is != was) {
		txn_set_enum(
			t, d->host, HOST_KIND, is ? HOST_KIND_WITNESS : HOST_KIND_HOST);
		txn_set_bool(t, d->host, HOST_ENABLED, !is);
	}
	if (db_pool(db) && is != was && was)
		txn_set_string(t, row_uuid(db_pool(db)), POOL_WITNESS_ADDRESS, "");
	else if (db_pool(db) && is)
		txn_set_string(t, row_uuid(db_pool(db)), POOL_WITNESS_ADDRESS,
			members_address(d->members));
}

const char *witness_advice(const struct db *db)
{
	if (witness_count_hosts(db) != 2 || witness_of(db))
		return "";
	return "of two hosts one decides alone, and without it no change is possible: "
	       "with a witness either may be lost (reeved --witness on a third machine, "
	       "then pool-join there)";
}

void witness_advise(const struct db *db, struct rv_error *e)
{
	const char *advice = witness_advice(db);
	size_t len = strlen(e->detail);

	if (e->code == RV_ENOTMASTER && *advice)
		snprintf(e->detail + len, sizeof e->detail - len, " (%s)", advice);
}
