#include "daemon/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/host_check.h"

enum { GUARD_AGAIN_MS = 5000, GUARD_WORDS = 400 };

struct guard {
	struct daemon *daemon;
	struct timer again;
	struct job job;
	bool stopped;
	char why[GUARD_WORDS], told[GUARD_WORDS];
};

void guard_look(const char *root, bool dom0_fixed, char *why, size_t size)
{
	struct host_check_facts facts = {.dom0_fixed = dom0_fixed};
	struct host_finding found[HOST_CHECK_MAX];
	size_t count = host_check_run(root, &facts, found);

	why[0] = '\0';
	for (size_t i = 0; i < count; i++) {
		if (strcmp(found[i].check, "dom0-memory") != 0 &&
			strcmp(found[i].check, "saved-domains") != 0)
			continue;
		if (found[i].grade != HOST_CHECK_WRONG)
			continue;
		snprintf(why, size, "%s. To mend it: %s", found[i].words, found[i].fix);
		return;
	}
}

static const char *guard_root(const struct guard *g)
{
	return g->daemon->config->test_dom0_root;
}

static void guard_run(struct job *job)
{
	struct guard *g = CONTAINER_OF(job, struct guard, job);

	guard_look(
		guard_root(g), g->daemon->hyper_host.dom0_fixed, g->why, sizeof g->why);
}

/* What the master places by. */
static void guard_tell(struct guard *g)
{
	struct daemon *d = g->daemon;
	const struct row *host = db_row(pool_db(d->pool), CLASS_HOST, d->host);
	struct rv_error e;
	struct value v;

	if (!host || strcmp(db_string(host, HOST_START_REFUSAL), g->why) == 0 ||
		value_from_cstr(&v, g->why))
		return;
	if (pool_set_live(d->pool, d->host, HOST_START_REFUSAL, &v, &e))
		log_warn("daemon.guard", "msg=\"%s\"", e.detail);
	value_fini(&v);
}

static void guard_done(struct job *job, int rc)
{
	struct guard *g = CONTAINER_OF(job, struct guard, job);

	if (rc || g->stopped)
		return;
	vm_host_refuse(g->daemon->vms, &g->daemon->host, g->why);
	guard_tell(g);
	if (strcmp(g->why, g->told) != 0)
		log_warn("daemon.guard", "msg=\"%s\"",
			g->why[0] ? g->why : "VMs may be started here again");
	snprintf(g->told, sizeof g->told, "%s", g->why);
	timer_start_ms(&g->again, GUARD_AGAIN_MS);
}

static void guard_again(void *arg)
{
	struct guard *g = arg;

	g->job = (struct job){.run = guard_run, .done = guard_done, .name = "guard"};
	if (worker_submit(g->daemon->worker, &g->job))
		timer_start_ms(&g->again, GUARD_AGAIN_MS);
}

int guard_new(struct guard **out, struct daemon *d)
{
	struct guard *g = calloc(1, sizeof *g);

	*out = g;
	if (!g)
		return RV_ENOMEM;
	g->daemon = d;
	timer_init(&g->again, d->loop, "daemon.guard", guard_again, g);
	return 0;
}

void guard_start(struct guard *g)
{
	if (g->stopped || (g->daemon->hyper_host.is_simulated && !*guard_root(g)))
		return;
	/* The first look is not waited for by a start that comes at once. */
	guard_look(
		guard_root(g), g->daemon->hyper_host.dom0_fixed, g->why, sizeof g->why);
	guard_done(&g->job, 0);
}

void guard_stop(struct guard *g)
{
	if (!g)
		return;
	g->stopped = true;
	timer_stop(&g->again);
}

void guard_free(struct guard *g)
{
	free(g);
}
