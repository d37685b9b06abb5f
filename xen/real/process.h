/*
 * Processes of reeve-xen-helper: one for each job, and some that wait for the next.
 *
 * To start the program takes about as long as all else that a job adds to Xen's own work:
 * its libraries are loaded and bound. So some time after the last job as many are started
 * as a suspend with a resume right after it takes: to save, to destroy, to restore. They
 * wait for a request, and the next jobs begin at once. They have opened nothing and hold
 * nothing (and some 1 MiB of memory each); they end when the daemon does, since
 * their control channel ends.
 *
 * A job whose result is there need not wait for the process's end: xen_process_let_go.
 */
#ifndef REEVE_XEN_REAL_PROCESS_H
#define REEVE_XEN_REAL_PROCESS_H

#include "base/list.h"
#include "reactor/child.h"
#include "xen/real/helper_wire.h"

enum {
	/* After a job's end, with none at work: those have the processor for themselves,
	 * and so has what follows a job at once. */
	XEN_HELPERS_SPARE_MS = 1000,
	XEN_HELPERS_STEP_MS = 50, /* between one that is started ahead and the next */
	XEN_HELPERS_SPARES = 3,	  /* that wait, at most */
};

struct xen_helpers;

struct xen_process {
	struct xen_helpers *helpers;
	struct child *child;  /* NULL after its end */
	int control_fd;	      /* the job's, once taken */
	int life_fd;	      /* closed: it is to undo and end */
	bool waits;	      /* for its request: no job has it yet */
	child_done_fn *ended; /* NULL while it waits, and once it was let go */
	void *arg;
	struct list node; /* of helpers->all */
};

struct xen_helpers {
	struct loop *loop;
	const char *program; /* borrowed */
	struct list all;
	struct timer later;
};

void xen_helpers_init(struct xen_helpers *h, struct loop *l, const char *program);
/* Kills what is there, without undoing. Idempotent. */
void xen_helpers_fini(struct xen_helpers *h);

/* One that waits, or a new one. `ended` is called once, with the process freed after
 * it, unless it was let go. RV_ECHILD (no such program), RV_ENOMEM, RV_EIO. */
int xen_process_get(struct xen_process **out, struct xen_helpers *h, child_done_fn *ended,
	void *arg, struct rv_error *e) RV_MUST_CHECK;

/* How many wait for a request. */
unsigned xen_helpers_waiting(const struct xen_helpers *h);

/* Nobody waits for its end any more: it ends by itself. */
void xen_process_let_go(struct xen_process *p);

/* It undoes what it began, and ends. Idempotent. */
void xen_process_cut(struct xen_process *p);

/* Kills it without undoing, and frees it; `ended` is not called. */
void xen_process_abandon(struct xen_process *p);

#endif
