#include "daemon/cpu_level.h"

#include <string.h>

#include "base/log.h"
#include "daemon/witness.h"

/* The first VM that a change of the level would harm; NULL: none. */
static const struct row *in_the_way(const struct db *db)
{
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));)
		if (db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_HALTED ||
			db_enum(vm, VM_INTENT) != VM_INTENT_NONE)
			return vm;
	return NULL;
}

/* What all members offer; len 0: somebody's is not known, or they share nothing. */
static void common(struct hyper *h, const struct db *db, struct vm_cpu_level *all)
{
	const char *before = "";

	all->len = 0;
	for (const struct row *r = NULL; (r = db_next(db, CLASS_HOST, r));) {
		const char *text = db_string(r, HOST_CPU_POLICY);
		struct vm_cpu_level one, both;
		struct rv_error e = {0};
		int rc;

		if (witness_is(r) || (*text && strcmp(text, before) == 0))
			continue;
		rc = !*text ? RV_ENOENT : vm_cpu_parse(&one, text);
		if (!rc && !*before)
			both = one;
		else if (!rc)
			rc = hyper_cpu_common(h, all->policy, all->len, one.policy,
				one.len, both.policy, &both.len, &e);
		if (rc) {
			log_debug("cpu_level.common", "host=\"%s\" error=\"%s\"",
				row_name(r), e.detail);
			all->len = 0;
			return;
		}
		before = text;
		*all = both;
	}
}

void cpu_level_txn(struct hyper *h, const struct db *db, struct txn *t)
{
	const struct row *pool = db_pool(db);
	const char *now = db_string(pool, POOL_CPU_POLICY);
	char text[VM_CPU_TEXT_SIZE];
	struct vm_cpu_level all;

	common(h, db, &all);
	if (!all.len || strcmp(vm_cpu_format(all.policy, all.len, text), now) == 0)
		return;
	/* The first level harms nobody: VMs of before count as shown all of their host's
	 * features. */
	if (*now && in_the_way(db))
		return;
	log_info("cpu_level.changed", "msg=\"the pool's CPU level is what its hosts have "
				      "in common now\"");
	txn_expect_string(t, row_uuid(pool), POOL_CPU_POLICY, now);
	txn_set_string(t, row_uuid(pool), POOL_CPU_POLICY, text);
}

/* VMs go to the same or a newer Xen only: none could go to a host that is older than all
 * others. */
static int xen_check(const struct db *db, const char *xen, struct rv_error *e)
{
	const char *oldest = NULL;

	for (const struct row *r = NULL; (r = db_next(db, CLASS_HOST, r));) {
		const char *v =
			db_map_get(r, HOST_SOFTWARE_VERSION, "hypervisor-version");

		if (v && (!oldest || vm_cpu_xen_version(v) < vm_cpu_xen_version(oldest)))
			oldest = v;
	}
	if (!oldest || vm_cpu_xen_version(xen) >= vm_cpu_xen_version(oldest))
		return 0;
	return rv_error_set(e, RV_EUNSUPPORTED,
		"the joining host runs Xen %s and the pool's hosts %s or newer: VMs "
		"could "
		"not migrate to it; update Xen there first",
		xen, oldest);
}

/* `why` names what the joining host lacks. */
static int lower(struct hyper *h, const struct db *db, const struct vm_cpu_level *now,
	const struct cpu_level_joiner *j, const struct rv_error *why,
	struct vm_cpu_level *level, struct rv_error *e)
{
	const struct row *vm = in_the_way(db);
	int rc;

	if (vm)
		return rv_error_set(e, RV_ECPU,
			"the joining host's CPUs have less than the pool's level, and VM "
			"%s runs, is suspended or is being worked on: shut down all VMs "
			"of the pool, then join again, which lowers the level (%s)",
			row_name(vm), why->detail);
	rc = hyper_cpu_common(h, now->policy, now->len, j->policy, j->policy_len,
		level->policy, &level->len, e);
	return rc ? rv_error_prefix(e, "the joining host's CPUs") : 0;
}

static const struct row *first_host(const struct db *db)
{
	const struct row *h = db_next(db, CLASS_HOST, NULL);

	while (h && witness_is(h))
		h = db_next(db, CLASS_HOST, h);
	return h;
}

int cpu_level_join(struct hyper *h, const struct db *db, const struct cpu_level_joiner *j,
	struct vm_cpu_level *level, struct rv_error *e)
{
	const struct row *host = first_host(db);
	bool simulated =
		host && db_enum(host, HOST_HYPERVISOR) == HOST_HYPERVISOR_SIMULATED;
	struct vm_cpu_level now;
	struct rv_error why = {0};
	int rc;

	level->len = 0;
	if (!*j->xen || !j->policy_len || j->policy_len > HYPER_MAX_CPU_POLICY)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"the joining host does not say which Xen and CPUs it has: its "
			"software is too old for this pool; update it first");
	if (host && j->is_simulated != simulated)
		return rv_error_set(e, RV_ENOTALLOWED,
			"the joining host's hypervisor is %s and the pool's %s: they "
			"don't mix; set [hypervisor] driver in its configuration",
			j->is_simulated ? "simulated" : "Xen",
			simulated ? "simulated" : "Xen");
	rc = xen_check(db, j->xen, e);
	if (rc)
		return rc;
	rc = vm_cpu_parse(&now, db_string(db_pool(db), POOL_CPU_POLICY));
	if (rc || !now.len)
		return rv_error_set(e, RV_EAGAIN,
			"the pool's CPU level is not on record yet; join again in some "
			"seconds, when all its hosts run this version");
	rc = hyper_cpu_check(h, j->policy, j->policy_len, now.policy, now.len, &why);
	if (rc == RV_ECPU)
		return lower(h, db, &now, j, &why, level, e);
	if (rc)
		*e = why;
	return rc ? rv_error_prefix(e, "the joining host's CPUs") : 0;
}
