#include "daemon/lost_vms.h"

#include <stdio.h>

#include "base/mpcheck.h"
#include "daemon/names.h"
#include "pool/db/message.h"
#include "vm/vm_ghost_marks.h"
#include "vm/vm_lost.h"
#include "vm/vm_protect.h"

/* --- a host --- */

static void tell(const struct row *host, const char *name, int priority,
	struct uuid message, const char *body, struct txn *t)
{
	message_add(t, message,
		&(struct message){.name = name,
			.priority = priority,
			.cls = "host",
			.obj = row_uuid(host),
			.body = body});
}

/* It is on the host, or is about to be. */
static bool is_lost(const struct row *vm, struct uuid host)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON), to = db_ref(vm, VM_INTENT_HOST);

	return uuid_eq(&on, &host) || (uuid_is_none(&on) && uuid_eq(&to, &host));
}

/* Its domain was still to go when its memory was on disk: that is dropped (vm_lost.c),
 * though to everybody who asked it was Suspended. */
static bool loses_memory(const struct row *vm)
{
	struct uuid image = db_ref(vm, VM_SUSPEND_VDI);

	return db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_SUSPENDED &&
	       !uuid_is_none(&image);
}

struct lost {
	struct names halted, dropped;
	unsigned undone;
};

static void words(struct lost *l, const struct row *host, char *account)
{
	int len = snprintf(account, LOST_WORDS_MAX,
		"%u VMs of host %.64s count as halted%s%s", l->halted.count,
		row_name(host), l->halted.count ? ": " : "", names_end(&l->halted));

	if (l->dropped.count)
		len += snprintf(account + len, LOST_WORDS_MAX - (size_t)len,
			"; the suspended memory of these is deleted, since it may not "
			"fit what is on their disks, so they boot anew: %s",
			names_end(&l->dropped));
	if (l->undone)
		snprintf(account + len, LOST_WORDS_MAX - (size_t)len,
			"; %u clones that it was making are undone", l->undone);
	mpcheck_mend_utf8(account);
}

void lost_host_txn(const struct db *db, const struct row *host, const char *user,
	struct uuid message, int64_t wall_ms, struct txn *t,
	char account[static LOST_WORDS_MAX])
{
	char why[200], body[LOST_WORDS_MAX + 300];
	struct uuid uuid = row_uuid(host);
	struct lost l = {
		.halted.show = NAMES_SHOWN,
		.dropped.show = NAMES_SHOWN,
	};

	snprintf(why, sizeof why, "host %.64s, where it was at work, was declared dead",
		row_name(host));
	txn_expect_bool(t, uuid, HOST_DECLARED_DEAD, db_bool(host, HOST_DECLARED_DEAD));
	txn_set_bool(t, uuid, HOST_DECLARED_DEAD, true);
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, uuid, vm));) {
		if (vm_lost_txn(db, vm, why, wall_ms, t)) {
			vm_restart_due_txn(vm, message, t);
			names_add(&l.halted, row_name(vm));
			if (loses_memory(vm))
				names_add(&l.dropped, row_name(vm));
		}
	}
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_INTENT_HOST, uuid, vm));) {
		struct uuid on = db_ref(vm, VM_RESIDENT_ON);

		if (!uuid_is_none(&on))
			continue; /* with those above, or another host's */
		if (vm_lost_txn(db, vm, why, wall_ms, t)) {
			vm_restart_due_txn(vm, message, t);
			names_add(&l.halted, row_name(vm));
		} else {
			l.undone++;
		}
	}
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_DEVICES_LEFT_ON, uuid, vm));)
		if (!is_lost(vm, uuid)) /* those above have been let go of */
			vm_left_txn(db, vm, t);
	/* What it was heard to have counts as ended; back, it tells again. */
	vm_ghost_unmark_all_txn(db, uuid, t);
	words(&l, host, account);
	snprintf(body, sizeof body,
		"Host %.64s was declared dead%s%.64s. %s. They may be started elsewhere. "
		"Should the host still run, they run twice and ruin their disks: make "
		"sure "
		"that it is off",
		row_name(host), *user ? " by " : "", user, account);
	tell(host, "HOST_DECLARED_DEAD", 1, message, body, t);
}

void lost_host_back_txn(const struct row *host, struct uuid message, struct txn *t)
{
	char body[300];

	txn_expect_bool(t, row_uuid(host), HOST_DECLARED_DEAD, true);
	txn_set_bool(t, row_uuid(host), HOST_DECLARED_DEAD, false);
	snprintf(body, sizeof body,
		"Host %.64s, which had been declared dead, is back. Domains that still "
		"run "
		"there are no VMs of the pool any more: messages name them",
		row_name(host));
	tell(host, "HOST_IS_BACK", 1, message, body, t);
}
