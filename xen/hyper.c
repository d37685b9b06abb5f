#include "xen/hyper.h"

#include <assert.h>
#include <inttypes.h>

#include "base/units.h"

const char *hyper_call_name(enum hyper_call call)
{
	static const char *const names[HYPER_CALL_COUNT] = {
		[HYPER_CALL_NONE] = "none",
		[HYPER_CALL_CREATE] = "create",
		[HYPER_CALL_RESTORE] = "restore",
		[HYPER_CALL_SAVE] = "save",
		[HYPER_CALL_RESUME] = "resume",
		[HYPER_CALL_DESTROY] = "destroy",
		[HYPER_CALL_PAUSE] = "pause",
		[HYPER_CALL_UNPAUSE] = "unpause",
		[HYPER_CALL_REQUEST_SHUTDOWN] = "request-shutdown",
		[HYPER_CALL_SET_TARGET] = "set-target",
		[HYPER_CALL_SET_MAXMEM] = "set-maxmem",
		[HYPER_CALL_ATTACH_VBD] = "attach-vbd",
		[HYPER_CALL_DETACH_VBD] = "detach-vbd",
		[HYPER_CALL_ATTACH_VIF] = "attach-vif",
		[HYPER_CALL_DETACH_VIF] = "detach-vif",
		[HYPER_CALL_RELABEL] = "relabel",
		[HYPER_CALL_CONSOLE] = "console",
		[HYPER_CALL_HOST] = "host",
		[HYPER_CALL_METRICS] = "metrics",
		[HYPER_CALL_LIST] = "list",
		[HYPER_CALL_INFO] = "info",
	};

	return (unsigned)call < HYPER_CALL_COUNT ? names[call] : "unknown";
}

const char *hyper_state_name(enum hyper_state state)
{
	static const char *const names[] = {
		[HYPER_BUILDING] = "building",
		[HYPER_PAUSED] = "paused",
		[HYPER_RUNNING] = "running",
		[HYPER_SHUTDOWN] = "shutdown",
		[HYPER_DYING] = "dying",
	};

	return (unsigned)state <= HYPER_DYING ? names[state] : "unknown";
}

const char *hyper_reason_name(enum hyper_reason reason)
{
	static const char *const names[] = {
		[HYPER_REASON_NONE] = "none",
		[HYPER_REASON_POWEROFF] = "poweroff",
		[HYPER_REASON_REBOOT] = "reboot",
		[HYPER_REASON_SUSPEND] = "suspend",
		[HYPER_REASON_CRASH] = "crash",
		[HYPER_REASON_WATCHDOG] = "watchdog",
	};

	return (unsigned)reason <= HYPER_REASON_WATCHDOG ? names[reason] : "unknown";
}

void hyper_req_init(struct hyper_req *req, hyper_done_fn *done, void *arg)
{
	memset(req, 0, sizeof *req);
	req->done = done;
	req->arg = arg;
	req->fd = -1;
}

void hyper_init(struct hyper *h, const struct hyper_ops *ops, struct loop *l)
{
	h->ops = ops;
	h->loop = l;
	list_init(&h->listeners);
}

void hyper_submit(struct hyper *h, struct hyper_req *req, enum hyper_call call)
{
	assert(req->done != NULL && req->hyper == NULL);
	req->call = call;
	req->hyper = h;
	req->job = NULL;
	req->rc = 0;
	rv_error_clear(&req->error);
	memset(&req->domain, 0, sizeof req->domain);
	req->domains = NULL;
	req->domain_count = 0;
	req->host = NULL;
	req->metrics = NULL;
	req->fd = -1;
	h->ops->submit(h, req);
}

void hyper_finish(struct hyper_req *req)
{
	assert(req->hyper != NULL);
	req->hyper = NULL;
	req->job = NULL;
	req->done(req->arg, req);
}

void hyper_cancel(struct hyper_req *req)
{
	if (req->hyper != NULL)
		req->hyper->ops->cancel(req->hyper, req);
}

void hyper_kick(struct hyper_req *req)
{
	if (req->hyper != NULL)
		req->hyper->ops->kick(req->hyper, req);
}

void hyper_listen(
	struct hyper *h, struct hyper_listener *l, hyper_event_fn *fn, void *arg)
{
	l->fn = fn;
	l->arg = arg;
	list_push_back(&h->listeners, &l->node);
}

void hyper_unlisten(struct hyper_listener *l)
{
	list_remove(&l->node);
}

void hyper_emit(struct hyper *h, const struct hyper_event *event)
{
	/* A listener may unlisten itself in its callback. */
	LIST_FOR_EACH_SAFE (node, &h->listeners) {
		struct hyper_listener *l =
			CONTAINER_OF(node, struct hyper_listener, node);

		l->fn(l->arg, event);
	}
}

void hyper_free(struct hyper *h)
{
	if (h == NULL)
		return;
	LIST_FOR_EACH_SAFE (node, &h->listeners)
		list_remove(node);
	h->ops->free(h);
}

uint64_t hyper_xen_overhead_kib(
	enum hyper_type type, uint32_t vcpus_max, uint64_t static_max_kib)
{
	uint64_t overhead_kib = KIB;

	if (type != HYPER_PV)
		overhead_kib +=
			4 * (256 * (uint64_t)vcpus_max + 2 * (static_max_kib / KIB));
	return overhead_kib;
}

int hyper_check_spec(const struct hyper_domain_spec *spec, struct rv_error *e)
{
	const char *name = spec->name ? spec->name : "domain";

	if (uuid_is_none(&spec->vm) || uuid_is_none(&spec->handle))
		return rv_error_set(e, RV_EINVAL, "%s: vm and handle must be set", name);
	if ((unsigned)spec->type > HYPER_HVM)
		return rv_error_set(e, RV_EINVAL, "%s: no such type of guest", name);
	if (spec->vcpus_max < 1 || spec->vcpus_max > HYPER_MAX_VCPUS ||
		spec->vcpus_online > spec->vcpus_max)
		return rv_error_set(e, RV_EINVAL,
			"%s: %u of %u vcpus; between 1 and %d can be", name,
			spec->vcpus_online, spec->vcpus_max, HYPER_MAX_VCPUS);
	if (spec->target_kib < 4 || spec->target_kib > spec->static_max_kib)
		return rv_error_set(e, RV_EINVAL,
			"%s: a memory target of %" PRIu64
			" KiB is not between 4 KiB and the static maximum of %" PRIu64
			" KiB",
			name, spec->target_kib, spec->static_max_kib);
	if (spec->static_max_kib > UINT64_C(16) << 30)
		return rv_error_set(e, RV_EINVAL, "%s: more memory than 16 TiB", name);
	if (spec->vbd_count > HYPER_MAX_VBDS || spec->vif_count > HYPER_MAX_VIFS)
		return rv_error_set(e, RV_EINVAL,
			"%s: %zu disks and %zu interfaces; at most %d and %d can be",
			name, spec->vbd_count, spec->vif_count, HYPER_MAX_VBDS,
			HYPER_MAX_VIFS);
	if (spec->cpu_policy_len > HYPER_MAX_CPU_POLICY)
		return rv_error_set(e, RV_EINVAL, "%s: a CPU policy of %zu bytes", name,
			spec->cpu_policy_len);
	return 0;
}
