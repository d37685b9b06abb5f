/* The worker: one operation, in a process that may be killed at any moment. */

#include "xen/helper/work.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- channels --- */

void work_send(struct work *w, const struct helper_message *m)
{
	struct rv_error e = {0};
	struct buf out;
	ssize_t r;

	buf_init(&out, HELPER_WIRE_MAX * 2);
	if (helper_wire_encode(&out, m, &e) == 0) {
		do
			r = send(w->control_fd, buf_data(&out), buf_len(&out),
				MSG_NOSIGNAL);
		while (r < 0 && errno == EINTR);
	}
	buf_fini(&out);
}

int work_receive(struct work *w, struct helper_message *m)
{
	uint8_t packet[4096];
	ssize_t r;

	do
		r = recv(w->control_fd, packet, sizeof packet, 0);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return work_fail(w, RV_ECANCELLED, "the daemon is gone");
	m->request = NULL;
	if (helper_wire_decode(m, packet, (size_t)r, &w->error) != 0)
		return w->error.code;
	if (m->kind != HELPER_VERDICT)
		return work_fail(w, RV_EPROTO, "the daemon answered something else");
	return 0;
}

/* One byte to the supervisor; see main.c. */
static void tell(struct work *w, char what)
{
	ssize_t r;

	do
		r = send(w->inner_fd, &what, 1, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
}

void work_begun(struct work *w)
{
	tell(w, 'B');
}

void work_asked(struct work *w)
{
	tell(w, 'S');
}

/* --- Xen's libraries --- */

int work_libxl(struct work *w)
{
	if (w->ctx)
		return 0;
	if (libxl_ctx_alloc(&w->ctx, LIBXL_VERSION, 0, &w->log.vtable) == 0)
		return 0;
	w->ctx = NULL;
	return work_fail(w, RV_EHYPERVISOR, "libxl can't be opened");
}

static int work_open(struct work *w)
{
	w->xc = xc_interface_open(&w->log.vtable, NULL, 0);
	if (!w->xc)
		return work_fail(w, RV_EHYPERVISOR,
			"Xen's interface can't be opened: %s; is this dom0, and are we "
			"root?",
			strerror(errno));
	w->xs = xs_open(0);
	if (!w->xs)
		return work_fail(w, RV_EHYPERVISOR,
			"xenstored can't be reached: %s; is it running?",
			strerror(errno));
	return 0;
}

/* --- the operation --- */

static int dispatch(struct work *w)
{
	switch (w->req->call) {
	case HYPER_CALL_CREATE:
	case HYPER_CALL_RESTORE:
		return work_create(w);
	case HYPER_CALL_SAVE:
		return work_save(w);
	case WORK_UNDO_SAVE:
		return work_undo_save(w);
	case HYPER_CALL_RESUME:
		return work_resume(w);
	case HYPER_CALL_DESTROY:
		return work_destroy(w);
	case HYPER_CALL_ATTACH_VBD:
	case HYPER_CALL_ATTACH_VIF:
		return work_attach(w);
	case HYPER_CALL_DETACH_VBD:
	case HYPER_CALL_DETACH_VIF:
		return work_detach(w);
	case HYPER_CALL_CONSOLE:
		return work_console(w);
	default:
		return work_fail(w, RV_EINVAL, "no such operation");
	}
}

void work_run(struct work *w)
{
	int rc;

	work_log_init(&w->log);
	rc = work_open(w);
	if (!rc)
		rc = dispatch(w);
	w->result.rc = rc;
	if (rc && !w->error.code)
		(void)rv_error_set(&w->error, rc, "%s", rv_error_text(rc));
	if (rc)
		memcpy(w->result.detail, w->error.detail, sizeof w->result.detail);
	work_saved_free(w);
	/* Before the result is told: nobody waits for our end. */
	close(w->data_fd);
	/* Xen's libraries are left to the process's end: nothing is to be flushed. */
}
