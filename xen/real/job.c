/*
 * The daemon's side of one helper process.
 *
 *	starting --> working --> (result read) --> process gone --> done
 *	   |            |
 *	   |            +-- cancel: the life line is cut, the helper undoes
 *	   +-- restore: the stream's head is read first; a wrong one starts nothing
 *
 * With a file (hyper_file) the helper writes or reads that by itself (saved_file.h), and
 * only tells how far it is.
 *
 * Bytes of a save go pipe -> envelope -> sink, of a restore source -> envelope -> pipe,
 * a bounded number per event. No more is read than there is room for, so a slow peer
 * holds the helper back.
 */
#include "xen/real/job.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "xen/real/job_internal.h"
#include "xen/real/request.h"

enum {
	JOB_PIPE_BYTES = 1 << 20,   /* what the helper may be ahead, or behind */
	JOB_PACKETS_PER_EVENT = 16, /* a helper sends a handful in its life */
};

static void job_step(struct xen_job *j);

/* Its bytes come through us. */
static bool is_stream(const struct xen_job *j, enum hyper_call call)
{
	return j->call == call && !j->file;
}

/* --- failing --- */

/* What went wrong first is told. */
static void job_fail(struct xen_job *j, const struct rv_error *e)
{
	if (j->error.code == 0)
		j->error = *e;
}

static void life_cut(struct xen_job *j)
{
	if (j->cut)
		return;
	j->cut = true;
	xen_process_cut(j->process);
	timer_start_ms(&j->undo, XEN_JOB_UNDO_MS);
}

/* Ends the helper's work, which it undoes; `e` is what the caller is told. */
void xen_job_stop(struct xen_job *j, const struct rv_error *e)
{
	job_fail(j, e);
	if (j->process)
		life_cut(j);
	defer_start(&j->step);
}

static void undo_expired(void *arg)
{
	struct xen_job *j = arg;

	if (j->process && !j->killed) {
		j->killed = true;
		child_kill(j->process->child);
	}
}

/* --- the end --- */

static void fd_close(int *fd, struct io *io)
{
	if (*fd < 0)
		return;
	io_fini(io);
	close(*fd);
	*fd = -1;
}

static void job_release(struct xen_job *j)
{
	defer_stop(&j->step);
	timer_stop(&j->undo);
	fd_close(&j->control_fd, &j->control);
	fd_close(&j->data_fd, &j->data);
	if (j->process)
		xen_process_let_go(j->process);
	envelope_writer_fini(&j->writer);
	envelope_reader_fini(&j->reader);
	buf_fini(&j->out);
	free(j->request);
	free(j);
}

/* Every byte of the stream, to its end, has been taken. */
static bool save_is_out(const struct xen_job *j)
{
	return !is_stream(j, HYPER_CALL_SAVE) ||
	       (j->ended && envelope_writer_idle(&j->writer));
}

/* The helper's own account of what happened, or what we make of its silence. */
static void judge_helper(struct xen_job *j, struct xen_job_result *r)
{
	const struct helper_result *h = &j->answer.result;

	if (!j->started)
		return;
	if (!j->answered) {
		r->left = j->call == HYPER_CALL_CREATE || j->call == HYPER_CALL_RESTORE ||
			  j->call == HYPER_CALL_DESTROY;
		(void)rv_error_set(&j->error, RV_EOUTCOME, "%s%s%s", j->silence,
			j->error.code ? "; before that: " : "",
			j->error.code ? rv_error_text(j->error.code) : "");
		return;
	}
	r->domid = h->domid;
	r->left = h->left;
	r->suspended = h->suspended;
	snprintf(
		r->console, sizeof r->console, "%.*s", XEN_JOB_PATH_SIZE - 1, h->console);
	/* What we stopped it for says more than that it was stopped, but not more than
	 * that it could not undo. */
	if (h->rc != 0 && (j->error.code == 0 || h->rc == RV_EOUTCOME)) {
		rv_error_clear(&j->error);
		(void)rv_error_set(&j->error, h->rc, "%s%s%s", j->name,
			j->name[0] ? ": " : "", h->detail);
	} else if (h->rc == 0 && j->error.code == RV_ECANCELLED &&
		   (j->call != HYPER_CALL_SAVE || save_is_out(j))) {
		rv_error_clear(&j->error); /* it was done before the cancel came */
	} else if (h->rc == 0 && j->error.code && j->call != HYPER_CALL_SAVE) {
		r->left = true; /* it made what we no longer want */
		j->error.code = RV_EOUTCOME;
	}
}

/* The helper has written so much into its file by now. */
static void job_written(struct xen_job *j, uint64_t bytes)
{
	uint64_t more = bytes > j->stream_bytes ? bytes - j->stream_bytes : 0;

	j->stream_bytes += more;
	if (more > 0 && j->call == HYPER_CALL_SAVE && !j->error.code)
		j->save.sink.filled(j->save.sink.arg, more);
}

static void job_finish(struct xen_job *j)
{
	struct xen_job_result r = {0};

	judge_helper(j, &r);
	if (j->file && j->answered && !j->error.code)
		job_written(j, j->answer.result.file_bytes);
	r.stream_bytes = j->stream_bytes;
	r.extra_kib = j->file ? j->answer.result.extra_kib : j->reader.head.extra_kib;
	r.rc = j->error.code;
	r.error = &j->error;
	j->done(j->arg, &r);
	job_release(j);
}

static void job_ended(void *arg, const struct child_result *result)
{
	struct xen_job *j = arg;
	struct rv_error e = {0};

	j->process = NULL;
	timer_stop(&j->undo);
	child_describe(result, "the Xen helper", &e);
	snprintf(j->silence, sizeof j->silence,
		"what became of it is unknown: %.600s; look, then destroy or repeat",
		e.detail);
	/* What it sent last may still be unread. */
	defer_start(&j->step);
}

/* --- messages --- */

/* `data_fd`: goes with it, or -1. */
static void job_send_with(struct xen_job *j, const struct helper_message *m, int data_fd)
{
	struct rv_error e = {0};
	ssize_t r;

	buf_consume(&j->out, buf_len(&j->out));
	if (helper_wire_encode(&j->out, m, &e) != 0) {
		xen_job_stop(j, &e);
		return;
	}
	r = xen_request_send(j->control_fd, buf_data(&j->out), buf_len(&j->out), data_fd);
	if (r >= 0 || errno == EPIPE || errno == ECONNRESET)
		return; /* it has ended; its end is told elsewhere */
	(void)rv_error_set(
		&e, RV_ECHILD, "the Xen helper can't be written to: %s", strerror(errno));
	xen_job_stop(j, &e);
}

static void job_send(struct xen_job *j, const struct helper_message *m)
{
	job_send_with(j, m, -1);
}

/* Rates of the round that the helper just finished, as the policy wants them. */
static void job_precopy(struct xen_job *j, const struct helper_precopy *h)
{
	struct hyper_precopy round = {
		.iteration = h->iteration,
		.total_pages = h->total_pages,
		.total_bytes = j->stream_bytes,
		.dirty_pages = h->dirty_pages,
		.round_pages = h->round_pages,
		.round_us = h->round_us > 0 ? h->round_us : 1,
	};
	struct helper_message m = {.kind = HELPER_VERDICT};
	double seconds = (double)round.round_us / 1e6;

	round.bytes_per_s =
		(uint64_t)((double)(j->stream_bytes - j->round_from) / seconds);
	round.dirty_per_s = (uint64_t)((double)h->dirty_pages / seconds);
	j->round_from = j->stream_bytes;
	m.verdict = HYPER_PRECOPY_STOP;
	if (j->error.code)
		m.verdict = HYPER_PRECOPY_ABORT;
	else if (j->save.policy)
		m.verdict = (uint32_t)j->save.policy(j->save.arg, &round);
	if (m.verdict == HYPER_PRECOPY_ABORT && j->error.code == 0)
		(void)rv_error_set(&j->error, RV_ECANCELLED,
			"the pre-copy was ended by its policy; the guest goes on "
			"running");
	job_send(j, &m);
}

static void job_packet(struct xen_job *j, const uint8_t *data, size_t len)
{
	struct helper_message m = {0};
	struct rv_error e = {0};

	if (helper_wire_decode(&m, data, len, &e) != 0 || m.kind == HELPER_VERDICT) {
		if (!e.code)
			(void)rv_error_set(&e, RV_EPROTO,
				"the Xen helper sent what only the daemon sends");
		xen_job_stop(j, &e);
		return;
	}
	if (m.kind == HELPER_RESULT) {
		j->answer = m;
		j->answered = true;
	} else if (j->call != HYPER_CALL_SAVE || j->answered) {
		(void)rv_error_set(&e, RV_EPROTO, "the Xen helper spoke out of turn");
		xen_job_stop(j, &e);
	} else if (m.kind == HELPER_WRITTEN) {
		job_written(j, m.written);
	} else if (m.kind == HELPER_PRECOPY) {
		job_precopy(j, &m.precopy);
	} else if (j->save.suspended && !j->error.code) {
		j->save.suspended(j->save.arg);
	}
}

/* False when nothing more will come. */
static bool control_read(struct xen_job *j)
{
	for (int i = 0; i < JOB_PACKETS_PER_EVENT; i++) {
		ssize_t r = recv(j->control_fd, j->packet, sizeof j->packet,
			MSG_DONTWAIT | MSG_TRUNC);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno == EAGAIN;
		if (r == 0)
			return false;
		if ((size_t)r > sizeof j->packet) {
			struct rv_error e = {0};

			(void)rv_error_set(&e, RV_ETOOBIG,
				"the Xen helper sent a message of %zd bytes", r);
			xen_job_stop(j, &e);
			continue;
		}
		job_packet(j, j->packet, (size_t)r);
	}
	return true;
}

static void control_ready(void *arg, int events)
{
	struct xen_job *j = arg;

	(void)events;
	if (!control_read(j))
		fd_close(&j->control_fd, &j->control);
	defer_start(&j->step);
}

/* --- starting --- */

static void data_ready(void *arg, int events)
{
	(void)events;
	job_step(arg);
}

/* Ours is watched, the helper's comes in *its. */
static int data_open(struct xen_job *j, int *its, struct rv_error *e)
{
	int ends[2], ours = j->call == HYPER_CALL_SAVE ? 0 : 1;

	*its = -1;
	if (j->file || (j->call != HYPER_CALL_SAVE && j->call != HYPER_CALL_RESTORE))
		return 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return rv_error_set(e, rv_error_from_errno(errno),
			"can't make a channel to the Xen helper: %s", strerror(errno));
	j->data_fd = ends[ours];
	*its = ends[!ours];
	/* A small one serves too, slower. */
	(void)fcntl(j->data_fd, F_SETPIPE_SZ, JOB_PIPE_BYTES);
	if (fcntl(j->data_fd, F_SETFL, O_NONBLOCK) == 0 &&
		io_init(&j->data, j->loop, "xen.job.data", j->data_fd, data_ready, j) ==
			0)
		return 0;
	return rv_error_set(e, RV_ENOMEM, "can't watch the Xen helper");
}

static int process_take(struct xen_job *j, struct rv_error *e)
{
	int rc = xen_process_get(&j->process, j->helpers, job_ended, j, e);

	if (rc)
		return rc;
	j->control_fd = j->process->control_fd;
	j->process->control_fd = -1;
	rc = io_init(
		&j->control, j->loop, "xen.job.control", j->control_fd, control_ready, j);
	if (!rc)
		return 0;
	xen_process_abandon(j->process);
	j->process = NULL;
	return rv_error_set(e, rc, "can't watch the Xen helper");
}

static void request_send(struct xen_job *j, int data_fd)
{
	struct helper_message m = {.kind = HELPER_REQUEST, .request = j->request};

	job_send_with(j, &m, data_fd);
}

static int helper_start(struct xen_job *j, struct rv_error *e)
{
	int its_data, rc = data_open(j, &its_data, e);

	if (!rc)
		rc = process_take(j, e);
	if (!rc) {
		j->started = true;
		io_want(&j->control, IO_READ);
		request_send(j, its_data);
		if (is_stream(j, HYPER_CALL_SAVE))
			envelope_writer_head(&j->writer, &j->head);
	}
	if (its_data >= 0)
		close(its_data);
	return rc;
}

/* --- the save's bytes --- */

/* True when all of what was framed is with the sink. */
static bool sink_push(struct xen_job *j, size_t *moved)
{
	struct envelope_writer *w = &j->writer;

	while (!envelope_writer_idle(w)) {
		uint8_t *room = NULL;
		size_t n = j->save.sink.room(j->save.sink.arg, &room);

		if (n > w->len - w->at)
			n = w->len - w->at;
		if (n > HYPER_CHUNK_MAX)
			n = HYPER_CHUNK_MAX;
		if (n == 0)
			return false;
		memcpy(room, w->bytes + w->at, n);
		w->at += n;
		j->stream_bytes += n;
		*moved += n;
		j->save.sink.filled(j->save.sink.arg, n);
	}
	return true;
}

static void save_step(struct xen_job *j)
{
	size_t moved = 0;

	if (j->error.code) { /* nobody wants them any more */
		fd_close(&j->data_fd, &j->data);
		return;
	}
	while (sink_push(j, &moved)) {
		ssize_t r;

		if (j->data_fd < 0) {
			if (!j->answered || j->answer.result.rc != 0 || j->ended)
				return;
			/* The whole stream is out and the helper says so. */
			j->ended = true;
			envelope_writer_end(&j->writer);
			continue;
		}
		if (moved >= HYPER_CHUNK_MAX)
			break;
		r = read(
			j->data_fd, envelope_writer_room(&j->writer), ENVELOPE_CHUNK_MAX);
		if (r > 0) {
			envelope_writer_chunk(&j->writer, (size_t)r);
		} else if (r == 0 || (errno != EAGAIN && errno != EINTR)) {
			fd_close(&j->data_fd, &j->data);
		} else {
			break;
		}
	}
	if (j->data_fd >= 0)
		io_want(&j->data, envelope_writer_idle(&j->writer) ? IO_READ : 0);
}

/* --- the restore's bytes --- */

static void restore_failed(struct xen_job *j, int code, const char *text)
{
	struct rv_error e = {0};

	(void)rv_error_set(&e, code, "%s", text);
	xen_job_stop(j, &e);
}

/* The head is known: is it the right guest? If so its helper is started. */
static void restore_head(struct xen_job *j)
{
	const struct envelope_head *h = &j->reader.head;
	struct rv_error e = {0};

	if (!uuid_eq(&h->vm, &j->head.vm)) {
		char was[UUID_TEXT_SIZE], is[UUID_TEXT_SIZE];

		(void)rv_error_set(&e, RV_ESTATE,
			"the saved state is of VM %s, not of %s; restore it there",
			uuid_format(&h->vm, was), uuid_format(&j->head.vm, is));
	} else if (h->type != j->head.type) {
		(void)rv_error_set(&e, RV_ESTATE,
			"the saved guest is of another type than the VM now is: set the "
			"VM's type back");
	} else if (h->actual_kib > UINT64_MAX / 2048) {
		(void)rv_error_set(&e, RV_ECORRUPT,
			"the saved domain's stream is damaged: its memory is impossible");
	} else {
		j->request->domain.actual_kib = h->actual_kib;
		if (helper_start(j, &e) == 0)
			return;
	}
	xen_job_stop(j, &e);
}

/* Moves the verified chunk to the helper; true when all of it is there. */
static bool chunk_push(struct xen_job *j)
{
	while (j->reader.chunk_len > 0 && j->data_fd >= 0) {
		ssize_t r = write(j->data_fd, j->reader.chunk, j->reader.chunk_len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN)
			return false;
		if (r < 0) { /* it reads no more; its result says why */
			fd_close(&j->data_fd, &j->data);
			j->deaf = true;
			break;
		}
		j->reader.chunk += r;
		j->reader.chunk_len -= (size_t)r;
	}
	return true;
}

/* Takes what the source has; false when it has to wait, or all is done. */
static bool source_pull(struct xen_job *j, size_t *moved)
{
	struct rv_error e = {0};
	const uint8_t *data = NULL;
	enum envelope_step step;
	bool end = false;
	size_t used = 0, n = j->source.peek(j->source.arg, &data, &end);

	if (n == 0 && end)
		restore_failed(j, RV_EPROTO,
			"the saved domain's stream ends before its end: it was cut off");
	if (n == 0)
		return false;
	step = envelope_reader_feed(&j->reader, data, n, &used, &e);
	j->stream_bytes += used;
	*moved += used;
	if (used > 0)
		j->source.consumed(j->source.arg, used);
	if (step == ENVELOPE_HEAD) {
		restore_head(j);
	} else if (step == ENVELOPE_END) {
		j->ended = true;
		fd_close(&j->data_fd, &j->data); /* tells the helper that all was good */
	} else if (step == ENVELOPE_BAD) {
		xen_job_stop(j, &e);
	}
	return step != ENVELOPE_BAD && step != ENVELOPE_END;
}

static void restore_step(struct xen_job *j)
{
	size_t moved = 0;

	while (!j->error.code && !j->ended && !j->deaf && chunk_push(j) && !j->deaf) {
		if (moved >= HYPER_CHUNK_MAX) {
			defer_start(&j->step);
			break;
		}
		if (!source_pull(j, &moved))
			break;
	}
	/* After an error the pipe stays open: its end would tell the helper that all of
	 * the stream was good. */
	if (j->data_fd >= 0)
		io_want(&j->data,
			j->reader.chunk_len > 0 && !j->error.code ? IO_WRITE : 0);
}

/* --- the step --- */

/* All is done and told: what its process still does is to end, and that takes long where
 * page tables are Xen's. */
static bool is_done(const struct xen_job *j)
{
	if (!j->answered || j->answer.result.rc != 0 || j->error.code)
		return false;
	return is_stream(j, HYPER_CALL_RESTORE) ? j->ended : save_is_out(j);
}

static bool job_over(struct xen_job *j)
{
	if (!j->started)
		return j->error.code != 0;
	if (j->process)
		return is_done(j);
	return !is_stream(j, HYPER_CALL_SAVE) || j->error.code || !j->answered ||
	       j->answer.result.rc != 0 || (j->ended && envelope_writer_idle(&j->writer));
}

static void job_step(struct xen_job *j)
{
	if (j->started && !j->process && j->control_fd >= 0 && !control_read(j))
		fd_close(&j->control_fd, &j->control);
	if (is_stream(j, HYPER_CALL_SAVE))
		save_step(j);
	else if (is_stream(j, HYPER_CALL_RESTORE))
		restore_step(j);
	if (job_over(j))
		job_finish(j);
}

static void step_due(void *arg)
{
	struct xen_job *j = arg;
	struct rv_error e = {0};

	if (!j->started && !j->error.code && !is_stream(j, HYPER_CALL_RESTORE) &&
		helper_start(j, &e) != 0)
		job_fail(j, &e);
	job_step(j);
}

/* --- the owner's calls --- */

void xen_job_cancel(struct xen_job *j)
{
	struct rv_error e = {0};

	(void)rv_error_set(&e, RV_ECANCELLED, "cancelled");
	xen_job_stop(j, &e);
}

void xen_job_kick(struct xen_job *j)
{
	defer_start(&j->step);
}

void xen_job_abandon(struct xen_job *j)
{
	if (j->process)
		xen_process_abandon(j->process);
	j->process = NULL;
	job_release(j);
}

int xen_job_start(struct xen_job **out, struct loop *l, const struct xen_job_spec *spec,
	xen_job_done_fn *done, void *arg, struct rv_error *e)
{
	struct xen_job *j = calloc(1, sizeof *j);
	int rc;

	if (!j)
		return rv_error_set(
			e, RV_ENOMEM, "no memory for a job of the Xen helper");
	j->loop = l;
	j->done = done;
	j->arg = arg;
	j->control_fd = j->data_fd = -1;
	defer_init(&j->step, l, "xen.job.step", step_due, j);
	timer_init(&j->undo, l, "xen.job.undo", undo_expired, j);
	buf_init(&j->out, HELPER_WIRE_MAX * 2);
	rc = xen_job_take(j, spec, e);
	if (rc) {
		job_release(j);
		return rc;
	}
	/* Nothing is called back inside this call. */
	defer_start(&j->step);
	*out = j;
	return 0;
}
