#include "storage/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "reactor/child.h"
#include "reactor/worker.h"
#include "storage/driver.h"
#include "storage/file_claim.h"
#include "storage/file_dir.h"
#include "storage/file_vdi.h"

/*
 * A request is a task: steps on the SR's worker, with qemu-img in between where needed.
 *
 *	BEGIN --+--> done
 *	        +--> SLICE, SLICE, ... --> COMMIT --> done      raw copy
 *	        +--> qemu-img (child) ---> COMMIT --> done      qcow2
 *	any failure or cancel after BEGIN: UNDO --> failed
 */
enum file_step { STEP_BEGIN, STEP_SLICE, STEP_COMMIT, STEP_UNDO };
enum file_next { NEXT_DONE, NEXT_SLICE, NEXT_COMMIT, NEXT_QEMU };

enum {
	QEMU_HEARTBEAT_MS = 2000, /* a child at work counts as progress */
	QEMU_BASE_MS = 60000,
	QEMU_BYTES_PER_S = 4 << 20, /* slower than this is taken for hung */
};

struct file_sr {
	struct storage_sr *sr;
	struct worker *worker;
	struct file_dir dir; /* the worker's, but for path */
	struct list tasks;
	bool closing;
};

struct file_task {
	struct job job;
	struct list node;
	struct storage_request *r;
	struct file_sr *fs;
	const struct file_dir *source; /* vdi_copy */
	enum file_step step;
	/* Written by the worker's step, read by the loop between steps. */
	enum file_next next;
	struct rv_error error;
	struct storage_result out;
	struct storage_vdi_info *vdis; /* owned */
	struct storage_claim *claims;  /* owned */
	uint8_t *data;		       /* owned */
	struct storage_vdi_info source_info;
	enum storage_format format;
	struct file_copy copy;
	bool making;  /* a temporary file of the target may be there */
	bool claimed; /* a "copy" claim on the source */
	/* The loop's. */
	struct child *child;
	bool stop; /* cancelled or timed out */
	struct timer heartbeat;
	char argv_from[FILE_NAME_SIZE + 32], argv_to[FILE_NAME_SIZE + 32], argv_size[24];
};

static const struct storage_config_key keys[] = {
	{"location", "absolute path of the directory that holds the SR", true},
};

/* --- steps, on the worker --- */

static int begin_create(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct file_dir *d = &t->fs->dir;
	bool there;
	int fd;
	t->format = call->format;
	if (call->format == STORAGE_FORMAT_RAW)
		return file_vdi_create_raw(
			d, &call->vdi, call->size, &t->out.vdi_info, &t->error);
	int rc = file_vdi_check_new(d, &call->vdi, call->format, call->size, &there,
		&t->out.vdi_info, &t->error);
	if (rc || there)
		return rc;
	rc = file_vdi_new_open(d, &call->vdi, call->format, &fd, &t->error);
	if (rc)
		return rc;
	close(fd);
	t->making = true;
	t->next = NEXT_QEMU;
	return 0;
}

static int begin_resize(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct file_dir *d = &t->fs->dir;
	char vdi[UUID_TEXT_SIZE];
	int rc = file_vdi_find(d, &call->vdi, &t->out.vdi_info, &t->error);
	if (rc)
		return rc;
	rc = file_claim_check_none(d, &call->vdi, &t->error);
	if (rc || t->out.vdi_info.virtual_size == call->size)
		return rc;
	if (t->out.vdi_info.virtual_size > call->size)
		return rv_error_set(&t->error, RV_EINVAL,
			"VDI %s has %llu bytes: it can only grow, not shrink to %llu",
			uuid_format(&call->vdi, vdi),
			(unsigned long long)t->out.vdi_info.virtual_size,
			(unsigned long long)call->size);
	t->format = t->out.vdi_info.format;
	if (t->format == STORAGE_FORMAT_QCOW2) {
		t->next = NEXT_QEMU;
		return 0;
	}
	rc = file_vdi_grow_raw(d, &call->vdi, call->size, &t->error);
	return rc ? rc : file_vdi_find(d, &call->vdi, &t->out.vdi_info, &t->error);
}

static int begin_copy(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct file_dir *d = &t->fs->dir;
	bool there;
	int rc = file_vdi_find(t->source, &call->vdi, &t->source_info, &t->error);
	if (rc)
		return rc;
	t->format = call->format ? call->format : t->source_info.format;
	rc = file_vdi_check_new(d, &call->target_vdi, t->format,
		t->source_info.virtual_size, &there, &t->out.vdi_info, &t->error);
	if (rc || there)
		return rc;
	if (!t->source->read_only) {
		struct claim claim = {.mode = CLAIM_COPY,
			.holder = call->target_vdi,
			.host = t->source->host};
		rc = file_claim_take(t->source, &call->vdi, &claim, 0, &t->error);
		if (rc)
			return rc;
		t->claimed = true;
	}
	t->making = true;
	if (t->format == STORAGE_FORMAT_RAW &&
		t->source_info.format == STORAGE_FORMAT_RAW) {
		t->next = NEXT_SLICE;
		return file_copy_open(
			&t->copy, t->source, &call->vdi, d, &call->target_vdi, &t->error);
	}
	int fd;
	rc = file_vdi_new_open(d, &call->target_vdi, t->format, &fd, &t->error);
	if (rc)
		return rc;
	close(fd);
	t->next = NEXT_QEMU;
	return 0;
}

static int begin_activate(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct file_dir *d = &t->fs->dir;
	char vdi[UUID_TEXT_SIZE];
	int rc = file_vdi_find(d, &call->vdi, &t->out.vdi_info, &t->error);
	if (rc)
		return rc;
	if (call->write && d->read_only)
		return file_error(d, &t->error, EROFS, "activating for writing",
			t->out.vdi_info.location);
	if (call->size > t->out.vdi_info.virtual_size)
		return rv_error_set(&t->error, RV_ECORRUPT,
			"VDI %s (%s/%s) has %llu bytes where %llu are expected: it was "
			"truncated; restore it from a backup",
			uuid_format(&call->vdi, vdi), d->path, t->out.vdi_info.location,
			(unsigned long long)t->out.vdi_info.virtual_size,
			(unsigned long long)call->size);
	struct claim claim = {
		.mode = call->write ? CLAIM_WRITE : CLAIM_READ,
		.holder = call->holder,
		.host = d->host,
		.generation = call->generation,
	};
	rc = file_claim_take(d, &call->vdi, &claim, call->void_generation, &t->error);
	if (rc)
		return rc;
	file_vdi_backend(d, &t->out.vdi_info, call->write, &t->out.backend);
	return 0;
}

static int raw_only(struct file_task *t, struct storage_vdi_info *info)
{
	const struct storage_call *call = &t->r->call;
	char vdi[UUID_TEXT_SIZE];
	int rc = file_vdi_find(&t->fs->dir, &call->vdi, info, &t->error);
	if (rc == 0 && info->format != STORAGE_FORMAT_RAW)
		rc = rv_error_set(&t->error, RV_EUNSUPPORTED,
			"VDI %s is a qcow2 image: copy it to format raw to read or write "
			"its "
			"bytes",
			uuid_format(&call->vdi, vdi));
	return rc;
}

static int begin_read(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct storage_vdi_info info;
	int rc = raw_only(t, &info);
	if (rc)
		return rc;
	t->data = malloc(call->length);
	if (!t->data)
		return rv_error_set(&t->error, RV_ENOMEM, "no memory to read a VDI");
	t->out.data = t->data;
	return file_vdi_read(&t->fs->dir, &call->vdi, call->offset, t->data, call->length,
		&t->out.data_len, &t->error);
}

static int begin_write(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct file_dir *d = &t->fs->dir;
	struct storage_vdi_info info;
	int rc = raw_only(t, &info);
	if (rc == 0)
		rc = file_claim_check_write(d, &call->vdi, &call->holder, &t->error);
	return rc ? rc
		  : file_vdi_write(d, &call->vdi, call->offset, call->data, call->length,
			    call->sync, &t->error);
}

static int begin_sr(struct file_task *t)
{
	struct file_dir *d = &t->fs->dir;
	struct storage_result *out = &t->out;
	int rc;
	switch (t->r->call.verb) {
	case STORAGE_SR_CREATE:
		return file_dir_create(d, &t->error);
	case STORAGE_SR_PROBE:
		return file_dir_probe(d, &out->probe, &t->error);
	case STORAGE_SR_ATTACH:
		return file_dir_attach(d, &out->sr_info, &t->error);
	case STORAGE_SR_DETACH:
		rc = file_claim_check_host_idle(d, &t->error);
		if (rc == 0)
			file_dir_close(d);
		return rc;
	case STORAGE_SR_DESTROY:
		return file_dir_destroy(d, &t->error);
	case STORAGE_SR_SCAN:
		rc = file_dir_scan(
			d, &out->sr_info, &t->vdis, &out->vdi_count, &t->error);
		out->vdis = t->vdis;
		return rc;
	case STORAGE_SR_CLAIMS:
		rc = file_claim_list(d, &t->claims, &out->claim_count, &t->error);
		out->claims = t->claims;
		return rc;
	default:
		return file_dir_stat(d, &out->sr_info, &t->error);
	}
}

static int step_begin(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct file_dir *d = &t->fs->dir;
	switch (call->verb) {
	case STORAGE_VDI_CREATE:
		return begin_create(t);
	case STORAGE_VDI_DESTROY:
		return file_vdi_destroy(d, &call->vdi, &t->error);
	case STORAGE_VDI_RESIZE:
		return begin_resize(t);
	case STORAGE_VDI_COPY:
		return begin_copy(t);
	case STORAGE_VDI_STAT:
		return file_vdi_find(d, &call->vdi, &t->out.vdi_info, &t->error);
	case STORAGE_VDI_ACTIVATE:
		return begin_activate(t);
	case STORAGE_VDI_DEACTIVATE:
		return file_claim_drop(d, &call->vdi, &call->holder,
			uuid_is_none(&call->claim_host) ? &d->host : &call->claim_host,
			call->generation, &t->error);
	case STORAGE_VDI_READ:
		return begin_read(t);
	case STORAGE_VDI_WRITE:
		return begin_write(t);
	default:
		return begin_sr(t);
	}
}

static const struct uuid *making_uuid(const struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	return call->verb == STORAGE_VDI_COPY ? &call->target_vdi : &call->vdi;
}

/* Both ends of a copy: the claim goes once the copy has its name, or its leftover is
 * gone. */
static int drop_copy_claim(struct file_task *t, struct rv_error *e)
{
	if (!t->claimed)
		return 0;
	t->claimed = false;
	return file_claim_drop(t->source, &t->r->call.vdi, &t->r->call.target_vdi,
		&t->source->host, UINT64_MAX, e);
}

static int step_commit(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	struct file_dir *d = &t->fs->dir;
	if (call->verb == STORAGE_VDI_RESIZE)
		return file_vdi_find(d, &call->vdi, &t->out.vdi_info, &t->error);
	file_copy_close(&t->copy);
	uint64_t size =
		call->verb == STORAGE_VDI_COPY ? t->source_info.virtual_size : call->size;
	int rc = file_vdi_new_commit(
		d, making_uuid(t), t->format, size, &t->out.vdi_info, &t->error);
	if (rc == 0)
		t->making = false;
	return rc ? rc : drop_copy_claim(t, &t->error);
}

static void step_undo(struct file_task *t)
{
	struct rv_error ignored; /* the first failure is what counts */
	file_copy_close(&t->copy);
	if (t->making)
		file_vdi_new_drop(&t->fs->dir, making_uuid(t), t->format);
	t->making = false;
	if (drop_copy_claim(t, &ignored))
		return; /* the next attach forgets it */
}

static void task_run(struct job *job)
{
	struct file_task *t = CONTAINER_OF(job, struct file_task, job);
	int rc = 0;
	t->next = NEXT_DONE;
	switch (t->step) {
	case STEP_BEGIN:
		rc = step_begin(t);
		break;
	case STEP_SLICE:
		rc = file_copy_slice(&t->copy, &t->fs->dir, &t->error);
		t->next = t->copy.at < t->copy.size ? NEXT_SLICE : NEXT_COMMIT;
		break;
	case STEP_COMMIT:
		rc = step_commit(t);
		break;
	case STEP_UNDO:
		step_undo(t);
		break;
	}
	if (rc == 0 && t->step != STEP_UNDO)
		rv_error_clear(&t->error); /* what a step looked for in vain */
	else if (rc && t->error.code == 0)
		t->error.code = rc;
}

/* --- the task, on the loop --- */

static void task_free(struct file_task *t)
{
	timer_stop(&t->heartbeat);
	list_remove(&t->node);
	free(t->vdis);
	free(t->claims);
	free(t->data);
	free(t);
}

static void task_finish(struct file_task *t)
{
	struct storage_request *r = t->r;
	r->result = t->out;
	r->result.error = t->error;
	if (t->error.code) {
		r->result.vdis = NULL;
		r->result.claims = NULL;
		r->result.vdi_count = r->result.claim_count = 0;
	}
	r->task = NULL;
	list_remove(&t->node);
	/* The result borrows vdis, claims and data: they go after the callback. */
	storage_request_finish(r);
	task_free(t);
}

static void task_submit(struct file_task *t, enum file_step step)
{
	t->step = step;
	int rc = worker_submit(t->fs->worker, &t->job);
	if (rc == 0)
		return;
	if (t->error.code == 0)
		rv_error_set(&t->error, rc,
			"%s: too much is waiting for this SR: try again later",
			t->fs->dir.path);
	file_copy_close(&t->copy);
	task_finish(t);
}

static void task_undo(struct file_task *t)
{
	if (t->making || t->claimed || t->copy.in >= 0 || t->copy.out >= 0)
		task_submit(t, STEP_UNDO);
	else
		task_finish(t);
}

static void on_heartbeat(void *arg)
{
	struct file_task *t = arg;
	timer_start_ms(&t->heartbeat, QEMU_HEARTBEAT_MS);
	storage_request_progress(t->r, 0, 0);
}

static void on_child(void *arg, const struct child_result *result)
{
	struct file_task *t = arg;
	t->child = NULL;
	timer_stop(&t->heartbeat);
	if (result->rc) {
		char vdi[UUID_TEXT_SIZE];
		child_describe(result, "qemu-img", &t->error);
		rv_error_prefix(&t->error, "VDI %s in %s",
			uuid_format(making_uuid(t), vdi), t->fs->dir.path);
		if (t->stop && result->rc != RV_ETIMEDOUT)
			t->error.code = RV_ECANCELLED;
		task_undo(t);
		return;
	}
	task_submit(t, STEP_COMMIT);
}

/* qemu-img sees the SR's directory as descriptor 3 (and the source's as 4): no path that
 * somebody could exchange, and no name that it could take for a protocol. */
static void task_qemu(struct file_task *t)
{
	const struct storage_call *call = &t->r->call;
	const char *argv[16];
	int n = 0;
	char name[FILE_NAME_SIZE], temp[FILE_NAME_SIZE];
	struct child_spec spec = {.argv = argv, .fds = {t->fs->dir.fd}, .fd_count = 1};
	file_name_vdi(making_uuid(t), t->format, name);
	snprintf(t->argv_to, sizeof t->argv_to, "/proc/self/fd/3/%s",
		call->verb == STORAGE_VDI_RESIZE
			? name
			: file_name_new(&t->fs->dir, name, temp));
	snprintf(t->argv_size, sizeof t->argv_size, "%llu",
		(unsigned long long)call->size);
	spec.timeout_ms = QEMU_BASE_MS;
	argv[n++] = "qemu-img";
	switch (call->verb) {
	case STORAGE_VDI_COPY:
		spec.fds[spec.fd_count++] = t->source->fd;
		spec.timeout_ms += (int64_t)(t->source_info.physical_utilisation /
					     QEMU_BYTES_PER_S) *
				   1000;
		snprintf(t->argv_from, sizeof t->argv_from, "/proc/self/fd/4/%s",
			t->source_info.location);
		argv[n++] = "convert";
		argv[n++] = "-q";
		argv[n++] = "-f";
		argv[n++] = storage_format_name(t->source_info.format);
		argv[n++] = "-O";
		argv[n++] = storage_format_name(t->format);
		argv[n++] = t->argv_from;
		argv[n++] = t->argv_to;
		break;
	default:
		argv[n++] = call->verb == STORAGE_VDI_CREATE ? "create" : "resize";
		argv[n++] = "-q";
		argv[n++] = "-f";
		argv[n++] = "qcow2";
		argv[n++] = t->argv_to;
		argv[n++] = t->argv_size;
		break;
	}
	argv[n] = NULL;
	if (child_start(&t->child, storage_loop(t->fs->sr->st), "storage.qemu-img", &spec,
		    on_child, t, &t->error)) {
		rv_error_prefix(&t->error,
			"%s: qemu-img can't be started (package "
			"qemu-utils)",
			t->fs->dir.path);
		t->child = NULL;
		task_undo(t);
		return;
	}
	timer_start_ms(&t->heartbeat, QEMU_HEARTBEAT_MS);
}

static void task_done(struct job *job, int rc)
{
	struct file_task *t = CONTAINER_OF(job, struct file_task, job);
	if (rc == RV_ECANCELLED || t->fs->closing)
		return; /* sr_close frees it */
	if (t->step == STEP_UNDO) {
		task_finish(t);
		return;
	}
	if (t->error.code) {
		task_undo(t);
		return;
	}
	if (t->stop && t->next != NEXT_DONE) {
		rv_error_set(&t->error, RV_ECANCELLED, "%s: %s was cancelled",
			t->fs->dir.path, storage_verb_name(t->r->call.verb));
		task_undo(t);
		return;
	}
	switch (t->next) {
	case NEXT_DONE:
		task_finish(t);
		break;
	case NEXT_SLICE:
		storage_request_progress(t->r, t->copy.at, t->copy.size);
		task_submit(t, STEP_SLICE);
		break;
	case NEXT_COMMIT:
		storage_request_progress(t->r, t->copy.at, t->copy.size);
		task_submit(t, STEP_COMMIT);
		break;
	case NEXT_QEMU:
		task_qemu(t);
		break;
	}
}

/* --- the driver --- */

static int file_sr_open(struct storage_sr *sr, struct rv_error *e)
{
	const char *location = storage_sr_config(sr, "location");
	int rc = file_location_check(location, e);
	if (rc)
		return rc;
	struct file_sr *fs = calloc(1, sizeof *fs);
	if (!fs)
		return rv_error_set(e, RV_ENOMEM, "no memory for an SR");
	rc = worker_new(&fs->worker, storage_loop(sr->st), "storage.file");
	if (rc) {
		free(fs);
		return rv_error_set(e, rc, "%s: no worker thread for the SR", location);
	}
	fs->sr = sr;
	fs->dir.sr = sr->uuid;
	fs->dir.host = storage_host(sr->st);
	fs->dir.fd = -1;
	snprintf(fs->dir.path, sizeof fs->dir.path, "%s", location);
	list_init(&fs->tasks);
	sr->data = fs;
	return 0;
}

static void file_sr_close(struct storage_sr *sr)
{
	struct file_sr *fs = sr->data;
	fs->closing = true;
	worker_free(fs->worker);
	LIST_FOR_EACH_SAFE (node, &fs->tasks) {
		struct file_task *t = CONTAINER_OF(node, struct file_task, node);
		file_copy_close(&t->copy);
		/* No loop runs any more to see it end; what it made is swept away by
		 * the next attach. */
		if (t->child)
			child_abandon(t->child);
		task_free(t);
	}
	file_dir_close(&fs->dir);
	free(fs);
	sr->data = NULL;
}

static void file_start(struct storage_request *r)
{
	struct file_sr *fs = r->sr->data;
	struct file_task *t = calloc(1, sizeof *t);
	if (!t) {
		struct rv_error e;
		rv_error_set(&e, RV_ENOMEM, "no memory for a storage request");
		storage_request_fail(r, &e);
		return;
	}
	t->r = r;
	t->fs = fs;
	t->job.run = task_run;
	t->job.done = task_done;
	t->job.name = "storage.file";
	t->copy.in = t->copy.out = -1;
	if (r->source_sr)
		t->source = &((struct file_sr *)r->source_sr->data)->dir;
	timer_init(&t->heartbeat, storage_loop(r->sr->st), "storage.heartbeat",
		on_heartbeat, t);
	list_init(&t->node);
	list_push_back(&fs->tasks, &t->node);
	r->task = t;
	task_submit(t, STEP_BEGIN);
}

static void file_cancel(struct storage_request *r)
{
	struct file_task *t = r->task;
	if (!t)
		return;
	t->stop = true;
	if (t->child)
		child_kill(t->child);
}

static const struct storage_driver driver = {
	.type =
		{
			.name = "file",
			.doc = "a directory on a local or mounted file system, one file "
			       "per "
			       "VDI",
			.features = STORAGE_CAN_SHARE | STORAGE_CAN_RESIZE |
				    STORAGE_CAN_COPY | STORAGE_CAN_READ_WRITE,
			.formats = STORAGE_FORMAT_RAW | STORAGE_FORMAT_QCOW2,
			.keys = keys,
			.key_count = sizeof keys / sizeof keys[0],
		},
	.sr_open = file_sr_open,
	.sr_close = file_sr_close,
	.start = file_start,
	.cancel = file_cancel,
};

int storage_file_add(struct storage *st)
{
	return storage_add(st, &driver, NULL);
}
