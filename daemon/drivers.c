#include "daemon/drivers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/bridge.h"
#include "net/sim.h"
#include "storage/file.h"
#include "xen/detect.h"
#include "xen/real.h"
#include "xen/sim.h"

/* Takes the named features away. */
static int take_features(const char *names, uint32_t *features, struct rv_error *e)
{
	static const struct {
		const char *name;
		uint32_t feature;
	} known[] = {{"sse4.2", HYPER_SIM_CPU_SSE42}, {"aes", HYPER_SIM_CPU_AES},
		{"avx", HYPER_SIM_CPU_AVX}, {"avx2", HYPER_SIM_CPU_AVX2},
		{"bmi2", HYPER_SIM_CPU_BMI2}, {"rdrand", HYPER_SIM_CPU_RDRAND}};

	for (const char *at = names + strspn(names, " "); *at; at += strspn(at, " ")) {
		size_t len = strcspn(at, " "), i = 0;

		while (i < sizeof known / sizeof *known &&
			(strlen(known[i].name) != len ||
				memcmp(known[i].name, at, len) != 0))
			i++;
		if (i == sizeof known / sizeof *known)
			return rv_error_set(e, RV_EINVAL,
				"hypervisor.sim-cpu-lacks: '%.*s' is none of sse4.2, "
				"aes, "
				"avx, avx2, bmi2, rdrand",
				(int)len, at);
		*features &= ~known[i].feature;
		at += len;
	}
	return 0;
}

static int open_simulated(struct daemon *d, const char *why, struct rv_error *e)
{
	const struct config *c = d->config;
	char state[CONFIG_TEXT_MAX + 32];
	struct hyper_sim_config sim;

	hyper_sim_config_init(&sim);
	snprintf(state, sizeof state, "%s/simulated-machine", c->state_dir);
	memcpy(&sim.seed, d->host.b, sizeof sim.seed);
	sim.memory_kib = c->sim_memory / 1024;
	sim.dom0_kib = c->sim_dom0_memory / 1024;
	sim.cpus = (uint32_t)c->sim_cpus;
	sim.step_us = (int64_t)c->sim_step_ms * 1000;
	sim.state_path = state;
	if (sscanf(c->sim_version, "%3u.%3u", &sim.version_major, &sim.version_minor) !=
		2)
		return rv_error_set(e, RV_EINVAL,
			"hypervisor.sim-version: '%s' is no version such as 4.17",
			c->sim_version);
	if (take_features(c->sim_cpu_lacks, &sim.cpu_features, e))
		return e->code;
	log_warn("daemon.drivers", "hypervisor=simulated msg=\"NO VM REALLY RUNS: %s\"",
		why);
	return hyper_sim_new(&d->hyper, d->loop, &sim, e);
}

static int open_real(
	struct daemon *d, const struct hyper_detection *found, struct rv_error *e)
{
	const struct config *c = d->config;
	const struct hyper_real_config real = {
		.driver_dir = c->xen_driver_dir,
		.helper = c->xen_helper,
		.scripts = c->xen_scripts,
		.xenstored = c->xenstored,
		.stored_patience_ms = (int64_t)c->xenstored_patience_ms,
	};
	int rc = hyper_real_new(&d->hyper, d->loop, found, &real, e);

	/* Never simulated on a Xen host by mistake: its VMs would look lost. */
	if (rc)
		return rv_error_prefix(e,
			"real Xen can't be managed ([hypervisor] driver = simulated "
			"tries Reeve without touching it)");
	log_info("daemon.drivers", "hypervisor=xen msg=\"%s\"", found->text);
	return 0;
}

static int open_hypervisor(struct daemon *d, struct rv_error *e)
{
	struct hyper_detection found;

	if (strcmp(d->config->hypervisor, "simulated") == 0)
		return open_simulated(d, "[hypervisor] driver = simulated", e);
	hyper_detect("", &found);
	if (strcmp(d->config->hypervisor, "auto") == 0 && found.here != HYPER_HERE_DOM0)
		return open_simulated(d, found.text, e);
	return open_real(d, &found, e);
}

static int open_network(struct daemon *d, struct rv_error *e)
{
	struct net_sim_config sim = {.devices = 2};
	int rc = RV_EUNSUPPORTED;

	if (strcmp(d->config->network, "simulated") != 0) {
		rc = net_bridge_new(&d->net, d->loop, e);
		if (!rc)
			return 0;
		if (strcmp(d->config->network, "bridge") == 0)
			return rc;
		log_warn(
			"daemon.drivers", "msg=\"no Linux bridges here: %s\"", e->detail);
		rv_error_clear(e);
	}
	memcpy(&sim.seed, d->host.b, sizeof sim.seed);
	log_warn("daemon.drivers",
		"network=simulated msg=\"NO NETWORK IS REALLY CHANGED: "
		"missing rights, or [network] driver = simulated\"");
	return net_sim_new(&d->net, d->loop, &sim);
}

int drivers_open(struct daemon *d, struct rv_error *e)
{
	int rc = open_hypervisor(d, e);

	if (!rc)
		rc = open_network(d, e);
	if (!rc)
		rc = storage_new(&d->storage, d->loop, d->host);
	if (!rc)
		rc = storage_file_add(d->storage);
	if (rc && !e->code)
		rv_error_set(e, rc, "the drivers can't be opened: %s", rv_error_text(rc));
	return rc;
}
