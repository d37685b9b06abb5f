/*
 * One blocking operation on real Xen, done by one reeve-xen-helper process: the daemon's
 * side of it. The other side is xen/helper/.
 *
 * A job is started with its question, may be kicked and cancelled, and answers once by
 * `done`, from the loop, when its process is surely gone, or has nothing left to do but
 * to end, with all of the job's files closed: nothing happens later. What a helper that
 * failed or was cancelled had begun, it has undone by then; where it could not (it was
 * killed, or the undoing failed) the code is RV_EOUTCOME and `left` tells that a domain
 * may be there: start a DESTROY by handle until it answers 0.
 *
 * Jobs know one domain and one operation. That no two are at work on one domain, that
 * generations match, and deadlines are the caller's (xen/real/): it calls xen_job_cancel.
 * The helper itself compares the handle before it acts: RV_ENOENT, RV_ESTALE.
 *
 * What is at work at a domain's end, where each thing comes from:
 *	xenstore labels	xen/real/label.h (written by the driver, before and after)
 *	stream format	xen/real/envelope.h around libxl's migration stream, version 2
 *	messages	xen/real/helper_wire.h
 */
#ifndef REEVE_XEN_REAL_JOB_H
#define REEVE_XEN_REAL_JOB_H

#include "reactor/loop.h"
#include "xen/hyper.h"

enum {
	XEN_JOB_PATH_SIZE = 128,
	/* After a cancel, how long the helper may take to undo what it did before it is
	 * killed and the outcome is open. Destroying a large guest takes its time. */
	XEN_JOB_UNDO_MS = 120 * 1000,
};

struct xen_job;
struct xen_helpers; /* process.h */

struct xen_job_spec {
	/* Whose process does it; outlives the job. */
	struct xen_helpers *helpers;
	/* Where the helper's block and vif scripts are, borrowed for the call. NULL: the
	 * helper's own folder. */
	const char *scripts;
	/* CREATE, RESTORE, SAVE, RESUME, DESTROY, ATTACH_ and DETACH_VBD and _VIF,
	 * CONSOLE; others are refused with RV_EINVAL. */
	enum hyper_call call;

	/* create, restore: all of it is copied. The helper sets maxmem to what the guest
	 * boots with plus Xen's own overhead; a later growth raises it first. */
	const struct hyper_domain_spec *spec;

	/* All others: which domain. domid may be HYPER_DOMID_ANY for destroy alone. */
	uint32_t domid;
	struct uuid handle;
	const char *name; /* for messages; "" or NULL: the domid */

	/* save */
	struct uuid vm; /* goes into the stream: a restore of another VM is refused */
	enum hyper_type type;
	uint64_t actual_kib; /* at the start; the restore takes at least as much */
	/* What Xen counts for it beyond that (label.h); goes into the stream. */
	uint32_t extra_kib;
	struct hyper_save_spec save; /* called from the loop until done */

	struct hyper_source source;	  /* restore; called from the loop until done */
	const struct hyper_vbd_spec *vbd; /* attach: copied */
	const struct hyper_vif_spec *vif;
	uint32_t devid; /* detach */
};

struct xen_job_result {
	int rc;
	const struct rv_error *error; /* code 0 when rc is 0 */
	uint32_t domid;		      /* create, restore: the new domain */
	bool left; /* create, restore, destroy: something of it may still be there */
	/* save: it is suspended now (also told when the save failed). When the helper was
	 * killed it is false and rc is RV_EOUTCOME: look. */
	bool suspended;
	uint64_t stream_bytes; /* save, restore: of the envelope */
	uint32_t extra_kib;    /* restore that succeeded: as in the stream's head */
	char console[XEN_JOB_PATH_SIZE]; /* console: "/dev/pts/3", to be opened */
};

/* `result` is borrowed for the call; the job frees itself after it. */
typedef void xen_job_done_fn(void *arg, const struct xen_job_result *result);

/* Returned owned by itself. A failure to start is told here, `done` does not follow:
 * RV_EINVAL, RV_ENOMEM, RV_ECHILD (no such program). */
int xen_job_start(struct xen_job **out, struct loop *l, const struct xen_job_spec *spec,
	xen_job_done_fn *done, void *arg, struct rv_error *e) RV_MUST_CHECK;

/* Asks to end early and undo; `done` still follows, with RV_ECANCELLED or as it ended
 * anyway. A save whose guest is already suspended leaves it so. Idempotent until done. */
void xen_job_cancel(struct xen_job *j);

/* The sink has room again, or the source has bytes or has ended. */
void xen_job_kick(struct xen_job *j);

/* For the driver's own end: kills the process without undoing; `done` is not called. */
void xen_job_abandon(struct xen_job *j);

#endif
