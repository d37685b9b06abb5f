#include "daemon/ranges.h"

#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "net/net.h"
#include "pool/lease.h"

enum { HOUR_MS = 3600 * 1000, WEEK_MS = 7 * 24 * HOUR_MS, DAY_S = 24 * 3600 };

struct range {
	int64_t least, most;
	const char *why; /* or NULL */
};

static const char mtu_why[] = "the least that every host takes, and the most that Xen's "
			      "network interfaces carry";

static const struct {
	enum schema_field_id field;
	struct range range;
} fields[] = {
	{POOL_CLOCK_SKEW_LIMIT_MS, {10, HOUR_MS, NULL}},
	{POOL_LEASE_MS, {LEASE_MIN_MS, LEASE_MAX_MS, NULL}},
	{POOL_MIGRATION_MAX_DOWNTIME_MS, {1, HOUR_MS, NULL}},
	{POOL_MIGRATION_BANDWIDTH, {0, INT64_MAX, NULL}},
	{NETWORK_MTU, {NET_MTU_MIN, NET_MTU_MAX, mtu_why}},
	{VIF_MTU, {NET_MTU_MIN, NET_MTU_MAX, mtu_why}},
	{VM_ORDER, {0, INT32_MAX, NULL}},
	{VM_START_DELAY, {0, DAY_S, "seconds, a day at most"}},
	{VM_SHUTDOWN_DELAY, {0, DAY_S, "seconds, a day at most"}},
};

static const struct {
	enum schema_method_id method;
	const char *arg;
	struct range range;
} args[] = {
	{METHOD_VM_CLEAN_SHUTDOWN, "timeout_ms", {0, WEEK_MS, "a week at most"}},
	{METHOD_VM_CLEAN_REBOOT, "timeout_ms", {0, WEEK_MS, "a week at most"}},
	{METHOD_SR_CREATE, "physical_size", {0, INT64_MAX, NULL}},
};

static int range_check(const struct range *r, const char *name, const struct value *v,
	struct rv_error *e)
{
	int64_t n = value_get_int(v);
	size_t len = strlen(name);
	const char *unit = len > 3 && strcmp(name + len - 3, "_ms") == 0 ? " ms" : "";
	char typed[64] = "";

	if (n >= r->least && n <= r->most)
		return 0;
	for (size_t i = 0; name[i] && i < sizeof typed - 1; i++)
		typed[i] = name[i] == '_' ? '-' : name[i]; /* as people type it */
	if (r->most == INT64_MAX)
		return rv_error_set(e, RV_EINVAL, "%s: %lld%s is less than %lld%s", typed,
			(long long)n, unit, (long long)r->least, unit);
	return rv_error_set(e, RV_EINVAL, "%s: %lld%s is not within %lld and %lld%s%s%s",
		typed, (long long)n, unit, (long long)r->least, (long long)r->most, unit,
		r->why ? ": " : "", r->why ? r->why : "");
}

int range_field(const struct schema_field *f, const struct value *v, struct rv_error *e)
{
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
		if (fields[i].field == f->id)
			return range_check(&fields[i].range, f->name, v, e);
	return 0;
}

int range_arg(const struct schema_method *m, const struct schema_arg *arg,
	const struct value *v, struct rv_error *e)
{
	for (size_t i = 0; i < sizeof args / sizeof args[0]; i++)
		if (args[i].method == m->id && strcmp(args[i].arg, arg->name) == 0)
			return range_check(&args[i].range, arg->name, v, e);
	return 0;
}
