#include "vm/vm_cpu.h"

#include "base/bytes.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* --- as text --- */

char *vm_cpu_format(const uint8_t *policy, size_t len, char text[static VM_CPU_TEXT_SIZE])
{
	return bytes_hex(policy, len > HYPER_MAX_CPU_POLICY ? 0 : len, text);
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int vm_cpu_parse(struct vm_cpu_level *l, const char *text)
{
	size_t len = strlen(text);

	l->len = 0;
	if (len % 2 || len / 2 > sizeof l->policy)
		return RV_ECORRUPT;
	for (size_t i = 0; i < len / 2; i++) {
		int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return RV_ECORRUPT;
		l->policy[i] = (uint8_t)(high << 4 | low);
	}
	l->len = len / 2;
	return 0;
}

/* --- levels --- */

static const char *level_of(const struct db *db)
{
	const struct row *pool = db_pool(db);

	return pool ? db_string(pool, POOL_CPU_POLICY) : "";
}

int vm_cpu_offers(struct hyper *h, const struct row *host, const struct row *pool,
	struct rv_error *e)
{
	const char *has = db_string(host, HOST_CPU_POLICY);
	const char *level = pool ? db_string(pool, POOL_CPU_POLICY) : "";
	struct vm_cpu_level offered, needed;

	/* Equal hosts, which most pools are made of, cost a comparison. */
	if (!*has || !*level || strcmp(has, level) == 0)
		return 0;
	if (vm_cpu_parse(&offered, has) || vm_cpu_parse(&needed, level))
		return rv_error_set(e, RV_ECORRUPT,
			"host %s: its CPU policy or the pool's is damaged on record; "
			"restart reeved there",
			row_name(host));
	return hyper_cpu_check(
		h, offered.policy, offered.len, needed.policy, needed.len, e);
}

void vm_cpu_shown(const struct db *db, struct uuid host, struct vm_cpu_level *l)
{
	const struct row *row = db_row(db, CLASS_HOST, host);
	const char *level = level_of(db);

	l->len = 0;
	if (row && strcmp(db_string(row, HOST_CPU_POLICY), level) == 0)
		return;
	if (vm_cpu_parse(l, level))
		l->len = 0;
}

static void level_hash(const struct db *db, char text[static 24])
{
	const char *level = level_of(db);

	text[0] = '\0';
	if (*level)
		snprintf(text, 24, "%016llx",
			(unsigned long long)XXH3_64bits(level, strlen(level)));
}

void vm_cpu_booted(const struct db *db, const struct row *vm, struct vm_cpu_level *l)
{
	const char *booted = db_map_get(vm, VM_LAST_BOOT_CPU_FLAGS, "level");
	char now[24];

	l->len = 0;
	level_hash(db, now);
	if (booted && *now && strcmp(booted, now) == 0 && vm_cpu_parse(l, level_of(db)))
		l->len = 0;
}

/* In the entry that begins it, before the domain is described: should the level change
 * between the two, the VM counts as shown all that its host has, never as shown less than
 * it was. */
void vm_cpu_txn_boot(struct vm_op *o, const struct db *db, struct txn *t)
{
	char now[24];

	level_hash(db, now);
	if (*now)
		txn_map_put(t, o->vm, VM_LAST_BOOT_CPU_FLAGS, "level", now);
	else
		txn_map_remove(t, o->vm, VM_LAST_BOOT_CPU_FLAGS, "level");
}

/* --- Xen's version --- */

static const char *xen_of(const struct db *db, struct uuid host)
{
	const struct row *row = db_row(db, CLASS_HOST, host);
	const char *text =
		row ? db_map_get(row, HOST_SOFTWARE_VERSION, "hypervisor-version") : NULL;

	return text ? text : "";
}

void vm_cpu_txn_saved(
	const struct db *db, struct txn *t, struct uuid vm, struct uuid host)
{
	txn_map_put(t, vm, VM_LAST_BOOT_CPU_FLAGS, "xen", xen_of(db, host));
}

uint32_t vm_cpu_xen_version(const char *text)
{
	unsigned major, minor;

	if (sscanf(text, "%5u.%5u", &major, &minor) != 2 || major > 0xffff ||
		minor > 0xffff)
		return 0;
	return major << 16 | minor;
}

uint32_t vm_cpu_xen_needed(const struct db *db, const struct row *vm)
{
	const char *saved = db_map_get(vm, VM_LAST_BOOT_CPU_FLAGS, "xen");

	switch (db_enum(vm, VM_POWER_STATE)) {
	case VM_POWER_STATE_SUSPENDED:
		return saved ? vm_cpu_xen_version(saved) : 0;
	case VM_POWER_STATE_RUNNING:
	case VM_POWER_STATE_PAUSED:
		return vm_cpu_xen_version(xen_of(db, db_ref(vm, VM_RESIDENT_ON)));
	default:
		return 0;
	}
}
