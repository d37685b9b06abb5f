#include "pool/restore.h"

static void restore_drop(struct restore *r)
{
	if (r->begun)
		r->fsm->restore_end(r->fsm_arg, false, 0, 0);
	r->begun = false;
}

static void restore_over(struct restore *r, int rc, const struct rv_error *e)
{
	if (rc)
		restore_drop(r);
	r->fn(r->arg, rc, e);
}

static void restore_step(void *arg)
{
	struct restore *r = arg;
	struct rv_error e = {0};
	size_t n;
	int rc = 0;

	if (!r->begun) {
		rc = r->fsm->restore_begin(r->fsm_arg);
		r->begun = !rc;
	}
	if (!rc && r->len == 0 && !r->fed &&
		!(r->file && snapfile_next(r->file, &r->file_at, &r->bytes, &r->len)))
		r->fed = true;
	if (!rc && !r->fed) {
		n = r->len < RESTORE_SLICE ? r->len : RESTORE_SLICE;
		rc = r->fsm->restore_next(r->fsm_arg, r->bytes, n, &e);
		r->bytes += n;
		r->len -= n;
	} else if (!rc) {
		rc = r->fsm->restore_finish(r->fsm_arg, &e);
		if (rc != RV_EAGAIN) {
			restore_over(r, rc, &e);
			return;
		}
		rc = 0;
	}
	if (rc)
		restore_over(r, rc, &e);
	else
		defer_start(&r->step);
}

void restore_start(struct restore *r, struct loop *l, const struct rlog_fsm *fsm,
	void *fsm_arg, const struct snapfile *file, const uint8_t *bytes, size_t len,
	restore_fn *fn, void *arg)
{
	*r = (struct restore){
		.fsm = fsm,
		.fsm_arg = fsm_arg,
		.file = file,
		.bytes = bytes,
		.len = len,
		.fn = fn,
		.arg = arg,
	};
	defer_init(&r->step, l, "pool.restore", restore_step, r);
	defer_start(&r->step);
}

void restore_cancel(struct restore *r)
{
	if (!r->fsm)
		return;
	defer_stop(&r->step);
	restore_drop(r);
}

void restore_commit(struct restore *r, uint64_t index, uint64_t term)
{
	r->begun = false;
	r->fsm->restore_end(r->fsm_arg, true, index, term);
}
