#include "vm/vm_request.h"

#include <assert.h>

enum { REQUEST_RETRY_MS = 500 };

static void request_try(void *arg);

static void request_end(struct vm_request *r, int rc, const struct rv_error *e)
{
	bool again = rc && rv_error_retryable(rc) && rc != RV_ESPACE && !r->cancelled;

	r->rc = rc;
	r->request = NULL;
	if (rc)
		r->error = *e;
	if (again && --r->tries > 0) {
		timer_start_ms(&r->timer, REQUEST_RETRY_MS);
		return;
	}
	r->busy = false;
	r->fn(r->arg, r->token, rc);
}

static void request_done(void *arg, uint64_t token, const struct storage_result *result)
{
	struct vm_request *r = arg;

	(void)token;
	if (!r->stopped)
		request_end(r, result->rc, &result->error);
}

static void request_progress(void *arg, uint64_t token, uint64_t bytes, uint64_t total)
{
	struct vm_request *r = arg;

	(void)token;
	if (!r->stopped && r->progress)
		r->progress(r->arg, r->token, bytes, total);
}

/* From the timer, so that a refusal at once is not told inside vm_request_start. */
static void request_try(void *arg)
{
	struct vm_request *r = arg;
	struct rv_error e;
	int rc;

	if (r->cancelled) {
		rv_error_set(&e, RV_ECANCELLED, "cancelled");
		request_end(r, RV_ECANCELLED, &e);
		return;
	}
	rc = storage_start(r->storage, &r->call, &r->request, &e);
	if (rc)
		request_end(r, rc, &e);
}

void vm_request_start(struct vm_request *r, struct loop *l, struct storage *st,
	const struct storage_call *call, int tries, vm_request_fn *fn,
	storage_progress_fn *progress, void *arg, uint64_t token)
{
	assert(!r->busy && !r->stopped);
	*r = (struct vm_request){.loop = l,
		.storage = st,
		.call = *call,
		.tries = tries,
		.busy = true,
		.fn = fn,
		.progress = progress,
		.arg = arg,
		.token = token};
	r->call.done = request_done;
	r->call.progress = request_progress;
	r->call.arg = r;
	timer_init(&r->timer, l, "vm.request", request_try, r);
	timer_start_us(&r->timer, 0);
}

void vm_request_cancel(struct vm_request *r)
{
	if (!r->busy || r->cancelled)
		return;
	r->cancelled = true;
	if (r->request)
		storage_cancel(r->request);
	else
		timer_start_us(&r->timer, 0);
}

void vm_request_stop(struct vm_request *r)
{
	r->stopped = true;
	if (r->loop)
		timer_stop(&r->timer);
}
