#include "daemon/eject_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "daemon/names.h"
#include "daemon/tasks.h"
#include "daemon/witness.h"
#include "link/ca.h"
#include "pool/db/message.h"
#include "reactor/tls.h"
#include "vm/vm_ghost_marks.h"

enum { SHOW = 3 }; /* objects listed by name in one reason */

/* --- reasons --- */

struct reasons {
	const struct db *db;
	struct uuid host;
	struct rv_error *e;
	unsigned count;
	bool lasting; /* one that does not go by itself */
};

static void RV_PRINTF(3, 4) against(struct reasons *r, bool lasting, const char *fmt, ...)
{
	char text[400];
	size_t len = strlen(r->e->detail);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	snprintf(r->e->detail + len, sizeof r->e->detail - len, "%s%s",
		r->count ? "; " : "", text);
	r->count++;
	r->lasting |= lasting;
}

static void check_vms(struct reasons *r)
{
	const struct row *host = db_row(r->db, CLASS_HOST, r->host);
	struct names resident = {.show = SHOW}, coming = {.show = SHOW};

	for (const struct row *vm = NULL;
		(vm = db_next_ref(r->db, VM_RESIDENT_ON, r->host, vm));)
		names_add(&resident, row_name(vm));
	if (resident.count && db_bool(host, HOST_LIVE))
		against(r, true,
			"VMs run on it: %s (shut them down or migrate them away first)",
			names_end(&resident));
	else if (resident.count)
		against(r, true,
			"VMs ran on it when it was last heard of: %s (bring it back; if "
			"it is off for good, `reeve host-declare-dead host=%s` lets go "
			"of them)",
			names_end(&resident), row_name(host));
	for (const struct row *vm = NULL;
		(vm = db_next_ref(r->db, VM_INTENT_HOST, r->host, vm));)
		names_add(&coming, row_name(vm));
	for (const struct row *vm = NULL;
		(vm = db_next_ref(r->db, VM_MIGRATION_TARGET, r->host, vm));)
		names_add(&coming, row_name(vm));
	if (coming.count)
		against(r, false,
			"operations on VMs are at work there: %s (wait for them, or "
			"cancel their tasks)",
			names_end(&coming));
}

/* What its claims keep from all others. */
static void check_left(struct reasons *r)
{
	const struct row *host = db_row(r->db, CLASS_HOST, r->host);
	struct names left = {.show = SHOW};

	for (const struct row *vm = NULL;
		(vm = db_next_ref(r->db, VM_DEVICES_LEFT_ON, r->host, vm));)
		names_add(&left, row_name(vm));
	if (left.count && db_bool(host, HOST_LIVE))
		against(r, false,
			"it has not released all disks and interfaces of VMs that ran on "
			"it: %s (it tries again by itself: wait)",
			names_end(&left));
	else if (left.count)
		against(r, true,
			"it had not released all disks and interfaces of VMs when it was "
			"last heard of: %s (bring it back; if it is off for good, "
			"`reeve host-declare-dead host=%s` lets go of them)",
			names_end(&left), row_name(host));
}

/* Once it is in no pool nobody would hear of them, and their VMs could be started. */
static void check_ghosts(struct reasons *r)
{
	const struct row *host = db_row(r->db, CLASS_HOST, r->host);
	struct names ghosts = {.show = SHOW};

	for (const struct row *vm = NULL; (vm = db_next(r->db, CLASS_VM, vm));)
		if (vm_ghost_marked_on(vm, r->host))
			names_add(&ghosts, row_name(vm));
	if (ghosts.count && db_bool(host, HOST_LIVE))
		against(r, true,
			"domains run on it that are left of VMs: %s (host-ghost-list "
			"host=%s shows them; host-ghost-destroy ends them, vm-adopt "
			"makes them VMs again)",
			names_end(&ghosts), row_name(host));
	else if (ghosts.count)
		against(r, true,
			"domains ran on it, when it was last heard of, that are left of "
			"VMs: %s (bring it back; if it is off for good, `reeve "
			"host-declare-dead host=%s` lets go of them)",
			names_end(&ghosts), row_name(host));
}

static void check_tasks(struct reasons *r)
{
	struct names tasks = {.show = SHOW};

	if (!db_bool(db_row(r->db, CLASS_HOST, r->host), HOST_LIVE))
		return; /* it can't end them: the entry does */
	for (const struct row *t = NULL;
		(t = db_next_ref(r->db, TASK_RESIDENT_ON, r->host, t));)
		if (db_int(t, TASK_FINISHED) == 0)
			names_add(&tasks, db_string(t, TASK_METHOD));
	if (tasks.count)
		against(r, false, "tasks are at work there: %s (wait for them)",
			names_end(&tasks));
}

static void check_writers(struct reasons *r)
{
	struct names disks = {.show = SHOW};

	for (const struct row *vdi = NULL;
		(vdi = db_next_ref(r->db, VDI_WRITER, r->host, vdi));)
		names_add(&disks, row_name(vdi));
	if (disks.count)
		against(r, true,
			"it has disks open for writing: %s (shut down the VMs that use "
			"them)",
			names_end(&disks));
}

/* How else an SR is reached. */
struct ways {
	unsigned others, plugged;
};

static struct ways other_ways(const struct db *db, struct uuid sr, struct uuid host)
{
	struct ways w = {0, 0};

	for (const struct row *pbd = NULL; (pbd = db_next_ref(db, PBD_SR, sr, pbd));) {
		struct uuid at = db_ref(pbd, PBD_HOST);

		if (uuid_eq(&at, &host))
			continue;
		w.others++;
		w.plugged += db_bool(pbd, PBD_CURRENTLY_ATTACHED);
	}
	return w;
}

static void check_sr(struct reasons *r, const struct row *pbd)
{
	const struct row *sr = db_follow(r->db, pbd, PBD_SR);
	struct ways w = other_ways(r->db, row_uuid(sr), r->host);
	struct names disks = {.show = SHOW};

	for (const struct row *vdi = NULL;
		(vdi = db_next_ref(r->db, VDI_SR, row_uuid(sr), vdi));)
		names_add(&disks, row_name(vdi));
	if (w.others == 0 && disks.count)
		against(r, true,
			"SR %.64s is reached from it alone, with the disks %s (move or "
			"destroy them; or pbd-unplug and sr-forget the SR, which leaves "
			"them where they are)",
			row_name(sr), names_end(&disks));
	else if (w.others && !w.plugged && db_bool(pbd, PBD_CURRENTLY_ATTACHED))
		against(r, true,
			"SR %.64s is plugged on no other host (pbd-plug it on one first, "
			"or pbd-unplug it here)",
			row_name(sr));
}

int eject_check(const struct db *db, struct uuid host, struct rv_error *e)
{
	struct reasons r = {.db = db, .host = host, .e = e};
	const struct row *row = db_row(db, CLASS_HOST, host);

	if (!witness_is(row) && witness_count_hosts(db) <= 1)
		return rv_error_set(e, RV_ENOTALLOWED,
			"host %s is the only one of its pool%s: the last host can't "
			"leave",
			row_name(row), witness_of(db) ? " besides the witness" : "");
	if (db_count(db, CLASS_HOST) <= 1)
		return rv_error_set(
			e, RV_ENOTALLOWED, "%s is in no pool but its own", row_name(row));
	e->detail[0] = '\0';
	check_vms(&r);
	check_left(&r);
	check_ghosts(&r);
	check_writers(&r);
	for (const struct row *pbd = NULL; (pbd = db_next_ref(db, PBD_HOST, host, pbd));)
		check_sr(&r, pbd);
	check_tasks(&r);
	if (r.count == 0)
		return 0;
	e->code = r.lasting ? RV_ENOTALLOWED : RV_EBUSY;
	return rv_error_prefix(e, "host %.64s can't be ejected", row_name(row));
}

/* --- the entry --- */

/* A PIF goes with what is built on it. */
static void delete_pif(const struct db *db, struct uuid pif, struct txn *t)
{
	static const struct {
		enum schema_class_id cls;
		enum schema_field_id field;
	} on[] = {{CLASS_VLAN, VLAN_UNTAGGED_PIF}, {CLASS_BOND, BOND_MASTER}};

	for (size_t i = 0; i < sizeof on / sizeof on[0]; i++)
		for (const struct row *r = NULL;
			(r = db_next_ref(db, on[i].field, pif, r));)
			txn_delete(t, on[i].cls, row_uuid(r));
	txn_delete(t, CLASS_PIF, pif);
}

static void delete_pbd(
	const struct db *db, const struct row *pbd, struct uuid host, struct txn *t)
{
	struct uuid sr = db_ref(pbd, PBD_SR);

	txn_delete(t, CLASS_PBD, row_uuid(pbd));
	if (other_ways(db, sr, host).others == 0)
		txn_delete(t, CLASS_SR, sr); /* refused if a disk was made meanwhile */
}

static void end_tasks(
	const struct db *db, const struct row *host, int64_t wall_ms, struct txn *t)
{
	struct rv_error e = {0};

	(void)rv_error_set(&e, RV_EEJECTED,
		"host %.64s, which worked on it, was ejected from the pool before it was "
		"done",
		row_name(host));
	for (const struct row *task = NULL;
		(task = db_next_ref(db, TASK_RESIDENT_ON, row_uuid(host), task));) {
		tasks_abandon(t, task, wall_ms, &e);
	}
}

/* Bounded: the one ejected first is forgotten. "WALL_MS HOST NAME" by fingerprint; by the
 * host's UUID where it never came to record its certificate. */
static void remember(const struct row *pool, const struct row *host,
	const char *fingerprint, int64_t wall_ms, struct txn *t)
{
	const struct value *known = row_value(pool, POOL_EJECTED);
	struct uuid uuid = row_uuid(host);
	char text[UUID_TEXT_SIZE], value[256];
	long long oldest_ms = 0;
	size_t oldest = 0;

	for (size_t i = 0; i < value_count(known); i++) {
		long long ms = strtoll(value_at(known, i), NULL, 10);

		if (i == 0 || ms < oldest_ms) {
			oldest_ms = ms;
			oldest = i;
		}
	}
	if (value_count(known) >= EJECT_REMEMBERED)
		txn_map_remove(
			t, row_uuid(pool), POOL_EJECTED, value_key_at(known, oldest));
	uuid_format(&uuid, text);
	snprintf(value, sizeof value, "%lld %s %.128s", (long long)wall_ms, text,
		row_name(host));
	txn_map_put(t, row_uuid(pool), POOL_EJECTED, *fingerprint ? fingerprint : text,
		value);
}

bool eject_remembers(const struct row *pool, struct uuid host, int64_t issued_s)
{
	const struct value *known = row_value(pool, POOL_EJECTED);
	int64_t made_ms = issued_s ? (issued_s + TLS_BACKDATE_S) * 1000 : 0;
	char text[UUID_TEXT_SIZE], *name;

	uuid_format(&host, text);
	for (size_t i = 0; i < value_count(known); i++)
		if (strtoll(value_at(known, i), &name, 10) >= made_ms && *name == ' ' &&
			strncmp(name + 1, text, UUID_TEXT_LEN) == 0)
			return true;
	return false;
}

/* What it joined by: a token that was used is good for the same request once more. */
static void forget_tokens(const struct row *pool, struct uuid host, struct txn *t)
{
	const struct value *tokens = row_value(pool, POOL_JOIN_TOKENS);
	char text[UUID_TEXT_SIZE];

	uuid_format(&host, text);
	for (size_t i = 0; i < value_count(tokens); i++)
		if (strstr(value_at(tokens, i), text))
			txn_map_remove(t, row_uuid(pool), POOL_JOIN_TOKENS,
				value_key_at(tokens, i));
}

static void tell(
	const struct row *host, struct uuid message, const char *user, struct txn *t)
{
	char body[400];

	snprintf(body, sizeof body,
		"Host %.128s was ejected from the pool%s%.64s; its certificate is good "
		"for "
		"nothing any more. It has its former database back once it has heard of "
		"this, and can join again with a new token",
		row_name(host), *user ? " by " : "", user);
	message_add(t, message,
		&(struct message){.name = "HOST_EJECTED",
			.priority = 3,
			.cls = "host",
			.obj = row_uuid(host),
			.body = body});
}

void eject_txn(const struct db *db, struct uuid host, const char *fingerprint,
	struct uuid master, struct uuid message, const char *user, int64_t wall_ms,
	struct txn *t)
{
	const struct row *row = db_row(db, CLASS_HOST, host), *pool = db_pool(db);
	struct uuid named = db_ref(pool, POOL_MASTER);
	char text[2 * CA_FINGERPRINT_SIZE + 1];
	uint8_t next[CA_FINGERPRINT_SIZE];
	struct rv_error e;

	txn_expect_exists(t, CLASS_HOST, host);
	/* Had it gone and joined again in between, this would be another time. */
	txn_expect_value(t, host, HOST_JOINED, row_value(row, HOST_JOINED));
	if (uuid_eq(&named, &host))
		txn_set_ref(t, row_uuid(pool), POOL_MASTER, master);
	end_tasks(db, row, wall_ms, t);
	for (const struct row *pbd = NULL; (pbd = db_next_ref(db, PBD_HOST, host, pbd));)
		delete_pbd(db, pbd, host, t);
	/* VLANs name their tagged PIF too: they go first. */
	for (const struct row *pif = NULL; (pif = db_next_ref(db, PIF_HOST, host, pif));)
		delete_pif(db, row_uuid(pif), t);
	remember(pool, row, fingerprint, wall_ms, t);
	if (!ca_fingerprint(db_string(row, HOST_CERTIFICATE_NEXT), next, &e))
		remember(pool, row, bytes_hex(next, sizeof next, text), wall_ms, t);
	forget_tokens(pool, host, t);
	if (witness_is(row))
		txn_set_string(t, row_uuid(pool), POOL_WITNESS_ADDRESS, "");
	/* One that it found meanwhile would be forgotten with it. */
	vm_ghost_expect_no_report(row, t);
	txn_delete(t, CLASS_HOST, host);
	tell(row, message, user, t);
}
