#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "sched/sched.h"

enum { UNIT_TEXT = 24, NAME_TEXT = 256 };

/* Text that grows to the right and is cut at the buffer's end. */
struct text {
	char *at;
	size_t left;
};

static void add(struct text *t, const char *fmt, ...) RV_PRINTF(2, 3);

static void add(struct text *t, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(t->at, t->left, fmt, args);
	va_end(args);
	if (n < 0)
		return;
	if ((size_t)n >= t->left)
		n = t->left > 0 ? (int)(t->left - 1) : 0;
	t->at += n;
	t->left -= (size_t)n;
}

static const char *name_of(
	const struct uuid *u, sched_name_fn *name, void *arg, char text[static NAME_TEXT])
{
	const char *known = name ? name(arg, u) : NULL;

	if (known && *known)
		snprintf(text, NAME_TEXT, "%s", known);
	else
		uuid_format(u, text);
	return text;
}

static const char *kib_text(uint64_t kib, char text[static UNIT_TEXT])
{
	return units_format_bytes(kib * KIB, text, UNIT_TEXT);
}

const char *sched_reason_xenapi(enum sched_why why)
{
	switch (why) {
	case SCHED_NOT_LIVE:
		return "HOST_NOT_LIVE";
	case SCHED_DISABLED:
		return "HOST_DISABLED";
	case SCHED_CPU_FEATURES:
		return "VM_INCOMPATIBLE_WITH_THIS_HOST";
	case SCHED_XEN_VERSION:
		return "VM_HOST_INCOMPATIBLE_VERSION";
	case SCHED_CLOCK:
		return "CLOCK_SKEW";
	case SCHED_NO_SR:
		return "VM_REQUIRES_SR";
	case SCHED_NO_NETWORK:
		return "VM_REQUIRES_NETWORK";
	case SCHED_PCPUS:
	case SCHED_VCPUS_LIMIT:
		return "HOST_NOT_ENOUGH_PCPUS";
	case SCHED_MEMORY:
		return "HOST_NOT_ENOUGH_FREE_MEMORY";
	case SCHED_EXCLUDED:
	case SCHED_NOT_AFFINE:
		return "VM_VIOLATES_PLACEMENT_RULES";
	case SCHED_METRICS:
		return "HOST_METRICS_IMPLAUSIBLE";
	case SCHED_OK:
	case SCHED_NOT_NAMED:
	case SCHED_WHY_COUNT:
		break;
	}
	return "";
}

static void add_memory(struct text *t, const struct sched_reason *why)
{
	char need[UNIT_TEXT], have[UNIT_TEXT], more[UNIT_TEXT];

	add(t, "needs %s, has %s free", kib_text(why->need, need),
		kib_text(why->have, have));
	if (why->squeezable_kib > 0)
		add(t, " and %s that squeezing could free",
			kib_text(why->squeezable_kib, more));
}

static void add_ok(struct text *t, const struct sched_reason *why)
{
	char need[UNIT_TEXT], have[UNIT_TEXT], squeeze[UNIT_TEXT];

	add(t, "%s: needs %s, has %s free", why->chosen ? "chosen" : "possible",
		kib_text(why->need, need), kib_text(why->have, have));
	if (why->squeeze_kib > 0)
		add(t, ", squeezing frees the missing %s",
			kib_text(why->squeeze_kib, squeeze));
	add(t, " (score %lld)", (long long)why->score);
	if (why->stale)
		add(t, ", on old metrics");
}

static void add_excluded(
	struct text *t, const struct sched_reason *why, sched_name_fn *name, void *arg)
{
	char object[NAME_TEXT];

	switch (why->what) {
	case SCHED_EXCLUDED_REFUSED:
		add(t, "just refused to reserve the memory");
		return;
	case SCHED_EXCLUDED_SOURCE:
		add(t, "the VM is there already");
		return;
	case SCHED_EXCLUDED_HOST:
		add(t, "starts no VM: %s", why->words ? why->words : "not known why");
		return;
	case SCHED_EXCLUDED_ANTI_AFFINE:
		add(t, "must be kept apart from VM %s, which is there",
			name_of(&why->object, name, arg, object));
		return;
	case SCHED_EXCLUDED_CALLER:
		break;
	}
	add(t, "excluded by the request");
}

static void add_missing(struct text *t, const struct sched_reason *why, const char *what,
	sched_name_fn *name, void *arg)
{
	char object[NAME_TEXT];

	add(t, "%s %s is not attached there", what,
		name_of(&why->object, name, arg, object));
	if (why->more > 0)
		add(t, ", nor are %u others", why->more);
}

static void add_reason(
	struct text *t, const struct sched_reason *why, sched_name_fn *name, void *arg)
{
	unsigned long long need = why->need, have = why->have;

	switch (why->why) {
	case SCHED_OK:
		add_ok(t, why);
		break;
	case SCHED_NOT_NAMED:
		add(t, "another host was named with on=");
		break;
	case SCHED_NOT_LIVE:
		add(t, "does not answer");
		break;
	case SCHED_DISABLED:
		add(t, "is disabled");
		break;
	case SCHED_EXCLUDED:
		add_excluded(t, why, name, arg);
		break;
	case SCHED_NOT_AFFINE:
		add(t, "is not among the hosts that the VM must run on");
		break;
	case SCHED_CPU_FEATURES:
		add(t, "its CPUs lack features that the VM is shown");
		break;
	case SCHED_XEN_VERSION:
		add(t, "runs Xen %llu.%llu, the VM needs %llu.%llu or newer", have >> 16,
			have & 0xffff, need >> 16, need & 0xffff);
		break;
	case SCHED_CLOCK:
		add(t, "its clock differs too much from the pool's");
		break;
	case SCHED_NO_SR:
		add_missing(t, why, "SR", name, arg);
		break;
	case SCHED_NO_NETWORK:
		add_missing(t, why, "network", name, arg);
		break;
	case SCHED_PCPUS:
		add(t, "needs %llu CPUs, has %llu", need, have);
		break;
	case SCHED_METRICS:
		if (have == 0)
			add(t, "has just started and not told its memory yet");
		else
			add(t, "reports impossible memory figures, not used until they "
			       "recover");
		break;
	case SCHED_VCPUS_LIMIT:
		add(t, "needs %llu vCPUs, has %llu left below its limit", need, have);
		break;
	case SCHED_MEMORY:
		add_memory(t, why);
		break;
	case SCHED_WHY_COUNT:
		break;
	}
}

char *sched_format_reason(const struct sched_reason *why, sched_name_fn *name, void *arg,
	char *text, size_t size)
{
	struct text t = {text, size};
	char host[NAME_TEXT];
	const char *xenapi =
		why->what == SCHED_EXCLUDED_HOST ? "" : sched_reason_xenapi(why->why);

	if (size > 0)
		*text = '\0';
	add(&t, "host %s: ", name_of(&why->host, name, arg, host));
	add_reason(&t, why, name, arg);
	if (*xenapi)
		add(&t, " (%s)", xenapi);
	return text;
}

/* Index of the reason to show next: of the kind that most hosts share, the host that is
 * nearest to fitting. */
static size_t nearest(
	const struct sched_reason *reasons, size_t count, enum sched_why why)
{
	size_t best = count;

	for (size_t i = 0; i < count; i++) {
		uint64_t room = reasons[i].have + reasons[i].squeezable_kib;

		if (reasons[i].why == why &&
			(best == count ||
				room > reasons[best].have + reasons[best].squeezable_kib))
			best = i;
	}
	return best;
}

static int code_of(enum sched_why why)
{
	switch (why) {
	case SCHED_MEMORY:
		return RV_EMEMORY;
	case SCHED_CPU_FEATURES:
	case SCHED_XEN_VERSION:
		return RV_ECPU;
	case SCHED_CLOCK:
		return RV_ECLOCK;
	case SCHED_NO_SR:
	case SCHED_NO_NETWORK:
		return RV_ENOTATTACHED;
	default:
		return RV_ENOHOST;
	}
}

int sched_refuse(const struct sched_reason *reasons, size_t count, sched_name_fn *name,
	void *arg, struct rv_error *e)
{
	size_t hosts[SCHED_WHY_COUNT] = {0}, named = count;
	char detail[RV_ERROR_DETAIL_MAX], one[SCHED_REASON_MAX];
	struct text t = {detail, sizeof detail};

	for (size_t i = 0; i < count; i++)
		hosts[reasons[i].why]++;
	if (hosts[SCHED_NOT_NAMED] > 0)
		for (named = 0; named < count; named++)
			if (reasons[named].why != SCHED_NOT_NAMED)
				break;
	if (named < count) {
		sched_format_reason(&reasons[named], name, arg, one, sizeof one);
		return rv_error_set(e, code_of(reasons[named].why), "%s", one);
	}
	if (count == 0)
		return rv_error_set(e, RV_ENOHOST, "the pool has no hosts");
	add(&t, "no host can run it");
	for (;;) {
		enum sched_why most = SCHED_OK;

		for (int w = SCHED_OK + 1; w < SCHED_WHY_COUNT; w++)
			if (hosts[w] > (most == SCHED_OK ? 0 : hosts[most]))
				most = (enum sched_why)w;
		if (most == SCHED_OK)
			break;
		sched_format_reason(&reasons[nearest(reasons, count, most)], name, arg,
			one, sizeof one);
		add(&t, "; %s", one);
		if (hosts[most] > 1)
			add(&t, " and %zu more for that reason", hosts[most] - 1);
		hosts[most] = 0;
	}
	return rv_error_set(e, RV_ENOHOST, "%s", detail);
}
