#include "vm/vm_ghost_marks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mpcheck.h"
#include "vm/vm_op.h"

enum { MARKS_AT_ONCE = 64 }; /* changes in one entry */

/* --- reading --- */

/* The host that a record is of; false: no host's. */
static bool host_at(const struct value *all, unsigned i, struct uuid *host)
{
	const char *key = value_key_at(all, i);

	return uuid_parse(host, key, strlen(key)) == 0;
}

bool vm_ghost_marked_at(const struct db *db, const struct row *vm, unsigned *at,
	struct vm_ghost_mark *mark)
{
	const struct value *all = row_value(vm, VM_GHOSTS);

	while (*at < value_count(all)) {
		unsigned i = (*at)++;
		struct uuid host;
		char *end;

		if (!host_at(all, i, &host))
			continue;
		mark->host = db_row(db, CLASS_HOST, host);
		if (!mark->host || db_bool(mark->host, HOST_DECLARED_DEAD))
			continue;
		mark->domid = (uint32_t)strtoul(value_at(all, i), &end, 10);
		mark->name = *end ? end + 1 : end;
		return true;
	}
	return false;
}

bool vm_ghost_marked(
	const struct db *db, const struct row *vm, struct vm_ghost_mark *mark)
{
	unsigned at = 0;

	return vm_ghost_marked_at(db, vm, &at, mark);
}

bool vm_ghost_marked_on(const struct row *vm, struct uuid host)
{
	char key[UUID_TEXT_SIZE];

	return value_count(row_value(vm, VM_GHOSTS)) > 0 &&
	       db_map_get(vm, VM_GHOSTS, uuid_format(&host, key));
}

/* --- writing --- */

void vm_ghost_unmark_txn(
	const struct db *db, struct uuid vm, struct uuid host, struct txn *t)
{
	const struct row *row = db_row(db, CLASS_VM, vm);
	char key[UUID_TEXT_SIZE];

	if (row && vm_ghost_marked_on(row, host))
		txn_map_remove(t, vm, VM_GHOSTS, uuid_format(&host, key));
}

void vm_ghost_unmark_all_txn(const struct db *db, struct uuid host, struct txn *t)
{
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));)
		vm_ghost_unmark_txn(db, row_uuid(vm), host, t);
}

void vm_ghost_expect(const struct db *db, const struct row *seen, struct txn *t)
{
	const struct value *all = row_value(seen, VM_GHOSTS);
	struct uuid host;

	txn_expect_value(t, row_uuid(seen), VM_GHOSTS, all);
	for (unsigned i = 0; i < value_count(all); i++) {
		if (!host_at(all, i, &host))
			continue;
		if (db_row(db, CLASS_HOST, host))
			txn_expect_bool(t, host, HOST_DECLARED_DEAD, true);
		else
			txn_expect_absent(t, CLASS_HOST, host);
	}
}

void vm_ghost_reported_txn(const struct db *db, struct uuid host, struct txn *t)
{
	const struct row *row = db_row(db, CLASS_HOST, host);
	int64_t count = row ? db_int(row, HOST_GHOST_REPORTS) : 0;

	/* Read from a database that is behind, the count would not change. */
	txn_expect_int(t, host, HOST_GHOST_REPORTS, count);
	txn_set_int(t, host, HOST_GHOST_REPORTS, count + 1);
}

void vm_ghost_expect_no_report(const struct row *host, struct txn *t)
{
	txn_expect_int(
		t, row_uuid(host), HOST_GHOST_REPORTS, db_int(host, HOST_GHOST_REPORTS));
}

/* --- a host's own --- */

/* The VM whose ghost it is; NULL: none, or the VM's recorded domain by now. */
static const struct row *haunted(const struct db *db, const struct vm_ghost *g)
{
	const struct row *vm = db_row(db, CLASS_VM, g->vm);
	struct hyper_domain_id own;

	if (!vm || (vm_recorded(vm, &own) && uuid_eq(&own.handle, &g->id.handle) &&
			   uuid_eq(&own.boot_id, &g->id.boot_id)))
		return NULL;
	return vm;
}

/* A VM may have several: the first one is on record. */
static const struct vm_ghost *first_of(
	const struct vm_host *h, const struct db *db, struct uuid vm)
{
	for (size_t i = 0; i < h->ghost_count; i++)
		if (uuid_eq(&h->ghosts[i].vm, &vm) && haunted(db, &h->ghosts[i]))
			return &h->ghosts[i];
	return NULL;
}

static unsigned mark(const struct vm_host *h, const struct db *db,
	const struct vm_ghost *g, struct txn *t)
{
	const struct row *vm = haunted(db, g);
	char key[UUID_TEXT_SIZE], text[sizeof g->name + 16];
	const char *now;

	if (!vm || first_of(h, db, g->vm) != g)
		return 0;
	uuid_format(&h->uuid, key);
	snprintf(text, sizeof text, "%u %s", g->id.domid, g->name);
	mpcheck_mend_utf8(text); /* another tool's name, and cut */
	now = db_map_get(vm, VM_GHOSTS, key);
	if (now && strcmp(now, text) == 0)
		return 0;
	if (t) {
		txn_expect_exists(t, CLASS_VM, g->vm);
		txn_map_put(t, g->vm, VM_GHOSTS, key, text);
	}
	return 1;
}

static bool is_over(const struct vm_host *h, const struct db *db, struct uuid uuid)
{
	const struct row *vm = db_row(db, CLASS_VM, uuid);

	return vm && vm_ghost_marked_on(vm, h->uuid) && !first_of(h, db, uuid);
}

/* How many records differ; into `t`, unless that is NULL. A ghost that could not be
 * remembered may be any VM's: nothing is taken out then. */
static unsigned differ(const struct vm_host *h, const struct db *db, struct txn *t)
{
	unsigned count = 0;

	for (size_t i = 0; i < h->ghost_count && count < MARKS_AT_ONCE; i++)
		count += mark(h, db, &h->ghosts[i], t);
	if (count && t)
		vm_ghost_reported_txn(db, h->uuid, t);
	for (size_t i = 0; i < h->unmark_count && count < MARKS_AT_ONCE; i++) {
		if (h->ghosts_lost || !is_over(h, db, h->unmark[i]))
			continue;
		count++;
		if (t) {
			txn_expect_exists(t, CLASS_VM, h->unmark[i]);
			vm_ghost_unmark_txn(db, h->unmark[i], h->uuid, t);
		}
	}
	return count;
}

/* Ejected, its word counts no more: who let it go has seen that it had none. */
static void txn_marks(void *arg, const struct db *db, struct txn *t)
{
	const struct vm_host *h = arg;

	txn_expect_exists(t, CLASS_HOST, h->uuid);
	(void)differ(h, db, t);
}

static bool marks_hold(void *arg, const struct db *db)
{
	return differ(arg, db, NULL) == 0;
}

/* Refused: the next look compares again. */
static void marked(void *arg, uint64_t token, int rc)
{
	struct vm_host *h = arg;

	(void)token;
	if (rc)
		log_warn("vm.ghost", "rc=%s msg=\"not recorded: %s\"",
			rv_error_symbol(rc), h->mark_entry.error.detail);
	else if (!h->mgr->stopped)
		vm_ghost_marks(h);
}

void vm_ghost_marks(struct vm_host *h)
{
	const struct db *db = pool_db(h->mgr->pool);
	size_t left = 0;

	if (h->mark_entry.busy)
		return;
	for (size_t i = 0; i < h->unmark_count; i++)
		if (h->ghosts_lost || is_over(h, db, h->unmark[i]))
			h->unmark[left++] = h->unmark[i];
	h->unmark_count = left;
	if (differ(h, db, NULL))
		vm_entry_commit(
			&h->mark_entry, txn_marks, marks_hold, false, marked, h, 0);
}

void vm_ghost_mark_due(struct vm_host *h, struct uuid vm)
{
	struct uuid *grown;

	if (uuid_is_none(&vm))
		return;
	for (size_t i = 0; i < h->unmark_count; i++)
		if (uuid_eq(&h->unmark[i], &vm))
			return;
	if (h->unmark_count == h->unmark_room) {
		size_t room = h->unmark_room ? 2 * h->unmark_room : 16;

		grown = realloc(h->unmark, room * sizeof *grown);
		if (!grown)
			return; /* vm_ghost_marks_due_all comes round */
		h->unmark = grown;
		h->unmark_room = room;
	}
	h->unmark[h->unmark_count++] = vm;
}

void vm_ghost_marks_due_all(struct vm_host *h)
{
	const struct db *db = pool_db(h->mgr->pool);

	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));)
		if (vm_ghost_marked_on(vm, h->uuid))
			vm_ghost_mark_due(h, row_uuid(vm));
}

void vm_ghost_marks_init(struct vm_host *h)
{
	vm_entry_init(&h->mark_entry, h->mgr->loop, h->mgr->pool);
}

void vm_ghost_marks_stop(struct vm_host *h)
{
	vm_entry_stop(&h->mark_entry);
}

void vm_ghost_marks_fini(struct vm_host *h)
{
	free(h->unmark);
	h->unmark = NULL;
}
