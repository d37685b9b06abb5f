#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "xen/sim.h"

void hyper_sim_guest_init(struct hyper_sim_guest *g)
{
	memset(g, 0, sizeof *g);
	g->balloon = HYPER_SIM_BALLOON_IDEAL;
	g->balloon_kib_per_s = GIB / KIB;
	g->stuck_period_us = 2000000;
	g->stuck_for_us = 1000000;
	g->used_ppm = 250000;
	g->working_set_kib = 64 * MIB / KIB;
	g->boot_us = 300000;
	g->suspend_us = 50000;
	g->shutdown_us = 200000;
	g->load_ppm = 20000;
	g->load_period_us = 60000000;
}

void hyper_sim_config_init(struct hyper_sim_config *config)
{
	memset(config, 0, sizeof *config);
	config->seed = 1;
	config->memory_kib = 16 * GIB / KIB;
	config->dom0_kib = GIB / KIB;
	config->cpus = 8;
	config->nodes = 1;
	config->cpu_features = HYPER_SIM_CPU_SSE42 | HYPER_SIM_CPU_AES |
			       HYPER_SIM_CPU_AVX | HYPER_SIM_CPU_AVX2 |
			       HYPER_SIM_CPU_BMI2 | HYPER_SIM_CPU_RDRAND;
	config->version_major = 4;
	config->version_minor = 17;
	config->caps = HYPER_CAP_PV | HYPER_CAP_PVH | HYPER_CAP_HVM | HYPER_CAP_LIVE_HVM |
		       HYPER_CAP_CLAIM | HYPER_CAP_CONSOLE | HYPER_CAP_WATCHDOG;
	config->balloon_tick_us = 10000;
	hyper_sim_guest_init(&config->guest);
}

const char *hyper_sim_fault_name(enum hyper_sim_fault fault)
{
	static const char *const names[HYPER_SIM_FAULT_COUNT] = {
		[HYPER_SIM_FAULT_NONE] = "none",
		[HYPER_SIM_FAULT_ERROR] = "error",
		[HYPER_SIM_FAULT_EFFECT_ERROR] = "effect-then-error",
		[HYPER_SIM_FAULT_LATE] = "late-effect",
		[HYPER_SIM_FAULT_LOST] = "lost-reply",
		[HYPER_SIM_FAULT_CRASH] = "crash",
	};

	return (unsigned)fault < HYPER_SIM_FAULT_COUNT ? names[fault] : "unknown";
}

/* --- platform keys --- */

enum kind {
	KIND_NUMBER,
	KIND_KIB,
	KIND_US,
	KIND_BOOL,
	KIND_BALLOON,
	KIND_REASON,
	KIND_LOAD
};

struct key {
	const char *name;
	enum kind kind;
	size_t offset, size;
	uint64_t most;
};

/* 30 days: long enough for any pause, short enough to add up without overflow. */
#define MOST_US	 (UINT64_C(30) * 86400 * 1000000)
#define MOST_KIB (UINT64_C(16) << 30)

#define KEY(name, kind, field, most)                                                     \
	{                                                                                \
		name, kind, offsetof(struct hyper_sim_guest, field),                     \
			sizeof((struct hyper_sim_guest *)0)->field, most                 \
	}

static const struct key keys[] = {
	KEY("balloon", KIND_BALLOON, balloon, 0),
	KEY("balloon_rate", KIND_KIB, balloon_kib_per_s, UINT64_C(1) << 30),
	KEY("balloon_floor", KIND_KIB, balloon_floor_kib, MOST_KIB),
	KEY("balloon_overshoot", KIND_KIB, balloon_overshoot_kib, MOST_KIB),
	KEY("stuck_period", KIND_US, stuck_period_us, MOST_US),
	KEY("stuck_for", KIND_US, stuck_for_us, MOST_US),
	KEY("feature_balloon", KIND_BOOL, feature_balloon, 1),
	KEY("used_ppm", KIND_NUMBER, used_ppm, 1000000),
	KEY("working_set", KIND_KIB, working_set_kib, MOST_KIB),
	KEY("dirty_pages_per_s", KIND_NUMBER, dirty_pages_per_s, UINT64_C(1) << 28),
	KEY("boot", KIND_US, boot_us, MOST_US),
	KEY("suspend", KIND_US, suspend_us, MOST_US),
	KEY("shutdown", KIND_US, shutdown_us, MOST_US),
	KEY("ignores_shutdown", KIND_BOOL, ignores_shutdown, 1),
	KEY("ignores_suspend", KIND_BOOL, ignores_suspend, 1),
	KEY("ends_by", KIND_REASON, ends_by, 0),
	KEY("ends_after", KIND_US, ends_after_us, MOST_US),
	KEY("load", KIND_LOAD, load, 0),
	KEY("load_ppm", KIND_NUMBER, load_ppm, 1000000),
	KEY("load_period", KIND_US, load_period_us, MOST_US),
};

static int parse_name(const char *text, const char *const *names, uint64_t *value)
{
	for (uint64_t i = 0; names[i] != NULL; i++) {
		if (strcmp(text, names[i]) == 0) {
			*value = i;
			return 0;
		}
	}
	return RV_EINVAL;
}

static int parse_number(const char *text, uint64_t *value)
{
	uint64_t n = 0;

	if (*text == '\0' || strlen(text) > 18)
		return RV_EINVAL;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return RV_EINVAL;
		n = n * 10 + (uint64_t)(*text - '0');
	}
	*value = n;
	return 0;
}

static int parse_value(const struct key *key, const char *text, uint64_t *value)
{
	static const char *const balloons[] = {
		"ideal", "slow", "stuck", "intermittent", "limited", "overshoot", NULL};
	static const char *const reasons[] = {
		"none", "poweroff", "reboot", "suspend", "crash", "watchdog", NULL};
	static const char *const loads[] = {"steady", "wave", NULL};
	static const char *const bools[] = {"false", "true", NULL};
	int rc;

	switch (key->kind) {
	case KIND_BALLOON:
		return parse_name(text, balloons, value);
	case KIND_REASON:
		return parse_name(text, reasons, value);
	case KIND_LOAD:
		return parse_name(text, loads, value);
	case KIND_BOOL:
		if (parse_name(text, bools, value) == 0)
			return 0;
		rc = parse_number(text, value);
		break;
	case KIND_KIB:
		rc = units_parse_bytes(text, value);
		*value = rc == 0 ? *value / KIB : 0;
		break;
	case KIND_US:
		rc = units_parse_ms(text, value);
		if (rc == 0 && *value > MOST_US / 1000)
			return RV_EINVAL;
		*value = rc == 0 ? *value * 1000 : 0;
		break;
	default:
		rc = parse_number(text, value);
	}
	return rc == 0 && *value <= key->most ? 0 : RV_EINVAL;
}

static void store(struct hyper_sim_guest *g, const struct key *key, uint64_t value)
{
	uint8_t *at = (uint8_t *)g + key->offset;
	uint32_t word = (uint32_t)value;
	bool flag = value != 0;

	if (key->size == sizeof(uint64_t))
		memcpy(at, &value, sizeof value);
	else if (key->size == sizeof(uint32_t))
		memcpy(at, &word, sizeof word);
	else
		memcpy(at, &flag, sizeof flag);
}

static int parse_pair(struct hyper_sim_guest *g, char *name, struct rv_error *e)
{
	char *text = strchr(name, '=');
	uint64_t value = 0;

	if (text == NULL)
		return rv_error_set(e, RV_EINVAL,
			"platform: 'sim.%s' has no value; write key=value", name);
	*text++ = '\0';
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		if (strcmp(name, keys[i].name) != 0)
			continue;
		if (parse_value(&keys[i], text, &value) != 0)
			return rv_error_set(e, RV_EINVAL,
				"platform: sim.%s can't be '%s'", name, text);
		store(g, &keys[i], value);
		return 0;
	}
	return 0;
}

int hyper_sim_guest_parse(struct hyper_sim_guest *g, const char *text, struct rv_error *e)
{
	char copy[1024], *save = NULL;
	size_t len = text != NULL ? strlen(text) : 0;

	if (len >= sizeof copy)
		return rv_error_set(
			e, RV_EINVAL, "platform: longer than %zu bytes", sizeof copy - 1);
	memcpy(copy, text != NULL ? text : "", len + 1);
	for (char *pair = strtok_r(copy, " \t\n", &save); pair != NULL;
		pair = strtok_r(NULL, " \t\n", &save)) {
		int rc = 0;

		if (strncmp(pair, "sim.", 4) == 0)
			rc = parse_pair(g, pair + 4, e);
		if (rc != 0)
			return rc;
	}
	return 0;
}
