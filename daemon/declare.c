#include "daemon/declare.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/lost_vms.h"
#include "daemon/members.h"
#include "vm/vm_lost.h"

/* Whether this host, the master, knows better. False: the call has been failed. */
static bool may_declare(struct call *c, const struct row *host)
{
	struct daemon *d = c->daemon;
	struct uuid uuid = row_uuid(host);

	if (!d->members || uuid_eq(&uuid, &d->host))
		call_failf(c, RV_ENOTALLOWED,
			"host %s is alive: it is the one that answers you",
			row_name(host));
	else if (!pool_is_master(d->pool))
		call_failf(c, RV_ENOTMASTER,
			"this needs the pool's master, and none is known here now; "
			"nothing was done: try again");
	else if (members_is_up(d->members, &uuid))
		call_failf(c, RV_ENOTALLOWED,
			"host %s is alive: the master hears from it; shut down or "
			"migrate its VMs instead",
			row_name(host));
	else
		return true;
	return false;
}

void host_declare_dead(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct row *host = call_row(c, "self");
	char account[LOST_WORDS_MAX];
	struct value result;
	struct txn t;

	if (!host || !may_declare(c, host))
		return;
	txn_init(&t, pool_db(d->pool), loop_wall_ms(d->loop));
	lost_host_txn(pool_db(d->pool), host, c->who.user,
		uuid_random(loop_prng(d->loop)), loop_wall_ms(d->loop), &t, account);
	if (value_from_cstr(&result, account)) {
		txn_fini(&t);
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	log_warn("declare.dead", "host=%s user=\"%s\" msg=\"%s\"", row_name(host),
		c->who.user, account);
	call_commit(c, &t, result, row_uuid(host));
}

void vm_reset_power_state(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct db *db = pool_db(d->pool);
	const struct row *vm = call_row(c, "self"), *host;
	bool left = false;
	char why[200];
	struct txn t;

	if (!vm)
		return;
	host = db_follow(db, vm, VM_RESIDENT_ON);
	if (!host)
		host = db_follow(db, vm, VM_INTENT_HOST);
	if (!host) {
		host = db_follow(db, vm, VM_DEVICES_LEFT_ON);
		left = host != NULL;
	}
	if (!host) {
		call_failf(c, RV_ESTATE,
			"VM %s is %s and on no host: there is nothing to reset%s",
			row_name(vm),
			schema_enum_text(schema_field(VM_POWER_STATE)->enum_texts,
				db_enum(vm, VM_POWER_STATE)),
			db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_SUSPENDED
				? "; vm-shutdown force=true drops its memory"
				: "");
		return;
	}
	if (!may_declare(c, host))
		return;
	snprintf(why, sizeof why, "VM %.64s was declared to be off", row_name(vm));
	txn_init(&t, db, loop_wall_ms(d->loop));
	if (left)
		vm_left_txn(db, vm, &t);
	else
		(void)vm_lost_txn(db, vm, why, loop_wall_ms(d->loop), &t);
	log_warn("declare.vm", "vm=%s host=%s user=\"%s\"", row_name(vm), row_name(host),
		c->who.user);
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(vm));
}

/* --- the dead that come back --- */

static void on_back(struct pool_commit *commit)
{
	struct daemon *d = CONTAINER_OF(commit, struct daemon, back_commit);

	d->back_pending = false; /* refused or not, the next look sees what is so */
}

void declare_look(struct daemon *d)
{
	const struct db *db = pool_db(d->pool);
	const struct row *h = NULL;
	struct rv_error e = {0};
	struct txn t;

	if (!d->members || d->back_pending || !pool_is_master(d->pool))
		return;
	while ((h = db_next(db, CLASS_HOST, h))) {
		struct uuid uuid = row_uuid(h);

		if (db_bool(h, HOST_DECLARED_DEAD) &&
			(uuid_eq(&uuid, &d->host) || members_is_up(d->members, &uuid)))
			break;
	}
	if (!h)
		return;
	log_warn("declare.back", "host=%s", row_name(h));
	txn_init(&t, db, loop_wall_ms(d->loop));
	lost_host_back_txn(h, uuid_random(loop_prng(d->loop)), &t);
	memset(&d->back_commit, 0, sizeof d->back_commit);
	d->back_pending = pool_commit(d->pool, &d->back_commit, &t, on_back, &e) == 0;
}
