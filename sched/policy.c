#include "sched/policy.h"

#include <string.h>

enum {
	AGE_SHORT_S = 300, /* ages count on a logarithmic scale from here */
	HOLES_WEIGHT = 2,
};

/* log2(1 + s / AGE_SHORT_S) in millionths, linear between powers of two. */
static int64_t log_age(uint32_t s)
{
	uint64_t x = ((uint64_t)s + AGE_SHORT_S) * 65536 / AGE_SHORT_S; /* 16.16 */
	int bits = 63 - __builtin_clzll(x);
	uint64_t fraction = ((x << 20) >> bits) - (UINT64_C(1) << 20);

	return (int64_t)(bits - 16) * POLICY_PPM +
	       (int64_t)((fraction * POLICY_PPM) >> 20);
}

static int64_t ppm_of(uint64_t part, uint64_t whole)
{
	if (part >= whole)
		return POLICY_PPM;
	/* KiB of a host stay below 2^44, so the product fits. */
	return (int64_t)(part * POLICY_PPM / whole);
}

static uint64_t room_kib(const struct reeve_sched_host *h)
{
	return h->memory_free_kib + h->memory_squeezable_kib;
}

static int64_t vcpus_free_ppm(const struct reeve_sched_host *h)
{
	uint32_t left = h->vcpus >= h->vcpus_limit ? 0 : h->vcpus_limit - h->vcpus;

	return ppm_of(left, h->vcpus_limit);
}

/* Free CPU: what load leaves, and no more than what the vCPU limit leaves. */
static int64_t cpu_free_ppm(const struct reeve_sched_host *h)
{
	int64_t free = POLICY_PPM - (int64_t)h->cpu_load_ppm;

	if (free < 0)
		free = 0;
	if (h->vcpus_limit && vcpus_free_ppm(h) < free)
		free = vcpus_free_ppm(h);
	return free;
}

/* Most free in CPU and memory together: the scarcer of the two counts, the other one
 * decides between equals. */
static int64_t standing_greedy(const struct reeve_sched_host *h)
{
	int64_t cpu = cpu_free_ppm(h);
	int64_t memory = ppm_of(room_kib(h), h->memory_total_kib);

	return (cpu < memory ? cpu : memory) + (cpu + memory) / 16;
}

/* Fill first the hosts that will stay in use anyway, so that the others can empty: how
 * long a VM will still run grows with how long it has run, so a host that holds old VMs
 * will hold them for long. Among hosts of like age the fullest goes first. */
static int64_t standing_conservative(const struct reeve_sched_host *h)
{
	int64_t room = ppm_of(room_kib(h), h->memory_total_kib);
	int64_t cpu = h->vcpus_limit ? vcpus_free_ppm(h) : cpu_free_ppm(h);
	int64_t stays = 39 * log_age(h->mean_vm_s) + 107 * log_age(h->oldest_vm_s) +
			151 * log_age(h->in_use_s);

	return stays / 100 - (h->vcpus_limit ? cpu + room / 16 : room + cpu / 16);
}

int64_t policy_standing(enum picture_policy p, const struct reeve_sched_host *h)
{
	return p == PICTURE_GREEDY ? standing_greedy(h) : standing_conservative(h);
}

/* The largest power of two that is at most a third of `whole`. */
static uint8_t largest_log2(uint64_t whole)
{
	return whole < 3 ? 0 : (uint8_t)(63 - __builtin_clzll(whole / 3));
}

struct picture_holes policy_holes(const struct reeve_sched_host *h)
{
	int64_t cpu = cpu_free_ppm(h), memory = ppm_of(room_kib(h), h->memory_total_kib);
	uint64_t used = (uint64_t)(POLICY_PPM - (cpu < memory ? cpu : memory));
	uint64_t mib = h->memory_total_kib >> 10;
	struct picture_holes holes = {
		.room_kib = room_kib(h),
		.room_log2 = largest_log2(h->memory_total_kib),
		.per_gib = mib ? (uint32_t)(used * HOLES_WEIGHT * 1024 / mib) : 0,
	};

	/* Without a limit vCPUs share the pCPUs: there are no holes to keep. */
	if (h->vcpus_limit > h->vcpus) {
		holes.vcpus = h->vcpus_limit - h->vcpus;
		holes.vcpus_log2 = largest_log2(h->vcpus_limit);
		holes.per_vcpu = (uint32_t)(used * HOLES_WEIGHT / h->vcpus_limit);
	}
	return holes;
}

unsigned policy_tier(enum picture_policy p, struct policy_tier t)
{
	if (p == PICTURE_GREEDY)
		return t.squeeze ? 0 : 1;
	if (!t.used)
		return 2;
	if (t.busy)
		return t.squeeze ? 0 : 1;
	return t.squeeze ? 3 : 4;
}

bool policy_busy(const struct reeve_sched_host *h)
{
	return !h->vcpus_limit && cpu_free_ppm(h) < POLICY_PPM - POLICY_BUSY_PPM;
}

static int64_t score(enum picture_policy p, const struct reeve_sched_host *h,
	const struct reeve_sched_request *vm)
{
	struct policy_tier t = {
		.used = h->vms > 0,
		.busy = policy_busy(h),
		.squeeze = h->memory_free_kib < vm->memory_min_kib,
	};
	struct picture_holes holes = policy_holes(h);

	return policy_score(policy_rank(h->flags, policy_tier(p, t)),
		policy_standing(p, h),
		policy_loss(p, &holes, vm->vcpus, vm->memory_min_kib));
}

static int64_t score_greedy(
	const struct reeve_sched_host *h, const struct reeve_sched_request *vm)
{
	return score(PICTURE_GREEDY, h, vm);
}

static int64_t score_conservative(
	const struct reeve_sched_host *h, const struct reeve_sched_request *vm)
{
	return score(PICTURE_CONSERVATIVE, h, vm);
}

const struct reeve_sched_policy sched_greedy = {
	.abi_version = REEVE_SCHED_ABI_VERSION,
	.struct_size = sizeof(struct reeve_sched_policy),
	.name = "greedy",
	.doc = "Starts a VM where most is free, in CPU load and memory together.",
	.score = score_greedy,
};

const struct reeve_sched_policy sched_conservative = {
	.abi_version = REEVE_SCHED_ABI_VERSION,
	.struct_size = sizeof(struct reeve_sched_policy),
	.name = "conservative",
	.doc = "Uses as few hosts as possible: fills those that stay in use anyway.",
	.score = score_conservative,
};

const struct reeve_sched_policy *sched_builtin(const char *name)
{
	if (strcmp(name, sched_greedy.name) == 0)
		return &sched_greedy;
	if (strcmp(name, sched_conservative.name) == 0)
		return &sched_conservative;
	return NULL;
}

enum picture_policy policy_index(const struct reeve_sched_policy *p)
{
	if (p == &sched_greedy)
		return PICTURE_GREEDY;
	return p == &sched_conservative ? PICTURE_CONSERVATIVE : PICTURE_POLICIES;
}

static bool name_is_good(const char *name)
{
	size_t len = strnlen(name, 64);

	return len >= 1 && len <= 63 &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

int sched_check_policy(const struct reeve_sched_policy *p, struct rv_error *e)
{
	if (p->abi_version != REEVE_SCHED_ABI_VERSION)
		return rv_error_set(e, RV_EINVAL,
			"scheduler plugin speaks policy interface %u, this daemon %u: "
			"rebuild it with this version's reeve-sched.h",
			p->abi_version, REEVE_SCHED_ABI_VERSION);
	/* Version 1 began with this size; later ones only grow. */
	if (p->struct_size < sizeof *p)
		return rv_error_set(e, RV_EINVAL,
			"scheduler plugin: struct_size is %u, less than the %zu that "
			"interface 1 has: set it to sizeof(struct reeve_sched_policy)",
			p->struct_size, sizeof *p);
	if (!p->name || !name_is_good(p->name))
		return rv_error_set(e, RV_EINVAL,
			"scheduler plugin: its name must be 1 to 63 characters of a-z, "
			"0-9 and '-'");
	if (!p->doc)
		return rv_error_set(
			e, RV_EINVAL, "scheduler plugin %s: doc is missing", p->name);
	if (!p->score == !p->decide)
		return rv_error_set(e, RV_EINVAL,
			"scheduler plugin %s: exactly one of score and decide must be "
			"set",
			p->name);
	return 0;
}
