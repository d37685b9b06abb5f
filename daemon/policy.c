#include "daemon/policy.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "sched/loader.h"
#include "sched/sched.h"

int policy_check(struct daemon *d, const char *name, struct rv_error *e)
{
	struct loader_plugin plugin = {0};
	int rc;

	if (sched_builtin(name))
		return 0;
	rc = loader_open(&plugin, d->config->sched_plugins, name, e);
	loader_close(&plugin);
	if (rc == RV_ENOENT)
		return rv_error_set(e, RV_EINVAL,
			"there is no placement policy '%s': use greedy, conservative, or "
			"a plugin in %s",
			name, d->config->sched_plugins);
	return rc;
}

void policy_follow(struct daemon *d)
{
	const struct row *pool = db_pool(pool_db(d->pool));
	const char *name = pool ? db_string(pool, POOL_SCHEDULER) : "";
	const struct reeve_sched_policy *policy;
	struct loader_plugin plugin = {0};
	struct rv_error e = {0};

	if (!*name || !d->vms || strcmp(name, d->policy_name) == 0)
		return;
	snprintf(d->policy_name, sizeof d->policy_name, "%s", name);
	policy = sched_builtin(name);
	if (!policy && loader_open(&plugin, d->config->sched_plugins, name, &e)) {
		log_error("daemon.policy",
			"policy=\"%s\" error=\"%s\" msg=\"the one before goes on\"", name,
			e.detail);
		return;
	}
	vm_manager_set_policy(d->vms, policy ? policy : plugin.policy);
	loader_close(&d->policy_plugin);
	d->policy_plugin = plugin;
	log_info("daemon.policy", "policy=%s", name);
}

void policy_close(struct daemon *d)
{
	loader_close(&d->policy_plugin);
}
