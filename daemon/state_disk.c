#include "daemon/state_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "pool/db/message.h"
#include "vm/vm_protect.h"

#define STATE_DISK_LITTLE (UINT64_C(1) << 30)

enum { STATE_DISK_LOOK_MS = 10 * 1000 };

struct state_disk {
	struct daemon *daemon;
	struct timer timer;
	struct job job;
	struct pool_commit commit;
	bool stopped, committing;
	/* The job's: */
	const char *path;
	uint64_t free_bytes, size_bytes;
	int error; /* errno */
};

bool state_disk_is_low(bool was_low, uint64_t free_bytes, uint64_t size_bytes)
{
	uint64_t little = size_bytes / 10;

	if (little > STATE_DISK_LITTLE)
		little = STATE_DISK_LITTLE;
	return free_bytes < (was_low ? little + little / 4 : little);
}

bool state_disk_endangers_vms(const struct db *db, struct uuid host)
{
	const struct row *vm = NULL;

	do
		vm = db_next_ref(db, VM_RESIDENT_ON, host, vm);
	while (vm && !vm_is_protected(vm));
	return vm && !vm_pool_is_alone(db);
}

/* --- telling --- */

static void on_told(struct pool_commit *commit)
{
	/* Refused or unknown: the next look sees what is so. */
	CONTAINER_OF(commit, struct state_disk, commit)->committing = false;
}

static void body_of(const struct state_disk *s, const struct row *host, bool low,
	char *body, size_t size)
{
	bool endangered =
		state_disk_endangers_vms(pool_db(s->daemon->pool), row_uuid(host));
	uint64_t mib = s->free_bytes >> 20;

	if (low)
		snprintf(body, size,
			"Host %.128s has %" PRIu64 " MiB left on the disk of %.200s. "
			"When it is full the host takes no change any more%s: "
			"free some space, or give it more",
			row_name(host), mib, s->path,
			endangered ? ", and its protected VMs are ended there and "
				     "started elsewhere"
				   : "");
	else
		snprintf(body, size,
			"Host %.128s has room again on the disk of %.200s: %" PRIu64
			" MiB",
			row_name(host), s->path, mib);
}

static void tell(struct state_disk *s, const struct row *host, bool low)
{
	struct daemon *d = s->daemon;
	struct uuid uuid = row_uuid(host);
	char body[700];
	struct rv_error e;
	struct txn t;

	body_of(s, host, low, body, sizeof body);
	log_warn("state-disk.room", "low=%s msg=\"%s\"", low ? "true" : "false", body);
	txn_init(&t, pool_db(d->pool), loop_wall_ms(d->loop));
	txn_expect_bool(&t, uuid, HOST_STATE_DISK_LOW, !low);
	txn_set_bool(&t, uuid, HOST_STATE_DISK_LOW, low);
	message_add(&t, uuid_random(loop_prng(d->loop)),
		&(struct message){.name = low ? "HOST_DISK_LOW" : "HOST_DISK_HAS_ROOM",
			.priority = low ? 2 : 4,
			.cls = "host",
			.obj = uuid,
			.body = body});
	memset(&s->commit, 0, sizeof s->commit);
	s->committing = true;
	if (pool_commit(d->pool, &s->commit, &t, on_told, &e)) {
		s->committing = false;
		log_info("state-disk.tell", "error=\"%s\"", e.detail);
	}
}

/* --- looking --- */

static void look_run(struct job *job)
{
	struct state_disk *s = CONTAINER_OF(job, struct state_disk, job);
	struct statvfs st;

	s->error = statvfs(s->path, &st) ? errno : 0;
	if (s->error)
		return;
	s->free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
	s->size_bytes = (uint64_t)st.f_blocks * st.f_frsize;
}

static void look_done(struct job *job, int rc)
{
	struct state_disk *s = CONTAINER_OF(job, struct state_disk, job);
	struct daemon *d = s->daemon;
	const struct row *host = NULL;
	struct rv_error e;
	struct value v;
	bool was_low;

	if (rc || s->stopped)
		return;
	timer_start_about_ms(&s->timer, STATE_DISK_LOOK_MS);
	if (s->error)
		log_warn("state-disk.look", "path=%s error=\"%s\"", s->path,
			strerror(s->error));
	else
		host = db_row(pool_db(d->pool), CLASS_HOST, d->host);
	if (!host)
		return;
	v = value_int((int64_t)s->free_bytes);
	if (pool_set_live(d->pool, d->host, HOST_STATE_DISK_FREE, &v, &e))
		log_debug("state-disk.set", "error=\"%s\"", e.detail);
	was_low = db_bool(host, HOST_STATE_DISK_LOW);
	if (!s->committing &&
		state_disk_is_low(was_low, s->free_bytes, s->size_bytes) != was_low)
		tell(s, host, !was_low);
}

static void on_look(void *arg)
{
	struct state_disk *s = arg;

	s->job = (struct job){
		.run = look_run, .done = look_done, .name = "state-disk.look"};
	if (worker_submit(s->daemon->worker, &s->job))
		timer_start_about_ms(&s->timer, STATE_DISK_LOOK_MS);
}

/* --- beginning and ending --- */

int state_disk_new(struct state_disk **out, struct daemon *d)
{
	struct state_disk *s = calloc(1, sizeof *s);

	*out = s;
	if (!s)
		return RV_ENOMEM;
	s->daemon = d;
	s->path = d->config->state_dir;
	timer_init(&s->timer, d->loop, "state-disk.look", on_look, s);
	return 0;
}

void state_disk_start(struct state_disk *s)
{
	if (!s->stopped)
		on_look(s);
}

void state_disk_stop(struct state_disk *s)
{
	if (!s)
		return;
	s->stopped = true;
	timer_stop(&s->timer);
}

void state_disk_free(struct state_disk *s)
{
	free(s);
}
