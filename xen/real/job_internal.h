/* What the parts of the helper's runner share. Internal to job*.c. */
#ifndef REEVE_XEN_REAL_JOB_INTERNAL_H
#define REEVE_XEN_REAL_JOB_INTERNAL_H

#include "reactor/io.h"
#include "xen/real/envelope.h"
#include "xen/real/helper_wire.h"
#include "xen/real/job.h"
#include "xen/real/process.h"

struct xen_job {
	struct loop *loop;
	xen_job_done_fn *done;
	void *arg;
	enum hyper_call call;
	char name[HYPER_NAME_SIZE];	/* for messages; or empty */
	struct helper_request *request; /* owned */
	struct hyper_save_spec save;
	struct hyper_source source;
	struct envelope_head head; /* to be written; or what a restore wants */

	struct xen_helpers *helpers;
	struct xen_process *process; /* NULL before it is taken and after its end */
	bool started, cut, killed;
	int control_fd, data_fd; /* -1: closed */
	struct io control, data;
	struct defer step;
	struct timer undo;
	struct buf out;
	uint8_t packet[4096]; /* the helper's messages are short */
	char silence[RV_ERROR_DETAIL_MAX];

	struct rv_error error; /* ours, the first */
	bool answered;
	struct helper_message answer;

	struct envelope_writer writer;
	struct envelope_reader reader;
	bool ended; /* the envelope's end was written or read */
	bool deaf;  /* the helper reads no more */
	bool file;  /* the helper writes or reads it by itself */
	uint64_t stream_bytes, round_from;
};

/* Fills the request; refuses what can't be. job_spec.c. */
int xen_job_take(struct xen_job *j, const struct xen_job_spec *spec,
	struct rv_error *e) RV_MUST_CHECK;

/* Ends the helper's work, which it undoes; `e` is what the caller is told. */
void xen_job_stop(struct xen_job *j, const struct rv_error *e);

#endif
