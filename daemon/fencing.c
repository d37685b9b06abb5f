#include "daemon/fencing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/lease.h"
#include "daemon/names.h"
#include "pool/db/message.h"
#include "reactor/io.h"
#include "vm/vm_protect.h"

enum {
	FENCING_TICK_MS = 1000,
	/* One that was restarted promises again within this; until then what it promised
	 * holds, since its watchdog is on. */
	FENCING_GRACE_MS = 20 * 1000,
	FENCING_AT_ONCE = 64, /* VMs in one entry */
	FENCING_READS = 16,
	FENCING_TEXT = 300,
	FENCING_ENDED = 64, /* domains that it has ended, the last ones */
};

#define FENCING_FIX "systemctl enable --now reeve-fenced"

struct fencing {
	struct daemon *daemon;
	struct timer tick;
	struct io io;
	int fd; /* -1: not connected */
	bool started, stopped;
	bool greeted; /* it has told its state since it was connected */
	bool able;
	uint64_t told_seq; /* of the last list that it said it guards */
	int64_t lost_ms;   /* since when it can't guard; 0: it can */
	bool complained;
	bool list_due; /* `sent` is to be sent again */
	struct pool_commit commit;
	bool committing;
	char words[FENCE_WORDS];
	struct uuid ended[FENCING_ENDED]; /* by their handles */
	unsigned ended_count;
	struct fence_message sent, next, in; /* lists; messages that come */
	uint8_t bytes[FENCE_MESSAGE_BYTES + 1];
};

static const struct db *db_of(const struct fencing *f)
{
	return pool_db(f->daemon->pool);
}

static int64_t now_ms(const struct fencing *f)
{
	return loop_now_us(f->daemon->loop) / 1000;
}

/* --- what is armed --- */

static bool domain_of(
	const struct fencing *f, const struct row *vm, struct fence_domain *d)
{
	int64_t domid = db_int(vm, VM_DOMID);
	struct uuid boot = db_ref(vm, VM_HOST_BOOT_ID);

	if (domid < 1 || domid > FENCE_MAX_DOMID ||
		!uuid_eq(&boot, &f->daemon->hyper_host.boot_id))
		return false;
	*d = (struct fence_domain){
		.domid = (uint32_t)domid, .handle = db_ref(vm, VM_DOMAIN_HANDLE)};
	return !uuid_is_none(&d->handle);
}

static bool is_listed(const struct fence_message *m, const struct fence_domain *d)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (m->domains[i].domid == d->domid &&
			uuid_eq(&m->domains[i].handle, &d->handle))
			return true;
	return false;
}

/* What is to be guarded; what is armed stays in it until it is recorded as not so. */
static void list_make(const struct fencing *f, struct fence_message *m)
{
	const struct db *db = db_of(f);
	struct fence_domain d;

	m->type = FENCE_GUARD;
	m->count = 0;
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, f->daemon->host, vm));)
		if (vm_is_to_be_guarded(db, vm) && m->count < FENCE_MAX_DOMAINS &&
			domain_of(f, vm, &d))
			m->domains[m->count++] = d;
}

/* --- recording --- */

static void on_recorded(struct pool_commit *c)
{
	struct fencing *f = CONTAINER_OF(c, struct fencing, commit);

	f->committing = false; /* refused or not, the next look sees what is so */
}

/* It guards the last list, or did until a moment ago. */
static bool is_guarding(const struct fencing *f)
{
	return f->fd >= 0 && f->greeted && f->able && f->sent.seq &&
	       f->told_seq == f->sent.seq;
}

/* Guarded under this host's lease, and that is of this life of the pool: another life's
 * master counts with another lease. */
static bool is_promised(const struct fencing *f, const struct row *vm)
{
	struct fence_domain d;

	return is_guarding(f) && lease_until_ms(f->daemon->lease) > now_ms(f) &&
	       domain_of(f, vm, &d) && is_listed(&f->sent, &d);
}

/* Protected VMs that nobody would end: told once. */
static unsigned complain(struct fencing *f, struct txn *t)
{
	const struct db *db = db_of(f);
	const struct row *host = db_row(db, CLASS_HOST, f->daemon->host);
	struct names names = {.show = NAMES_SHOWN};
	char body[800];

	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, f->daemon->host, vm));)
		if (vm_wants_guard(db, vm))
			names_add(&names, row_name(vm));
	if (!names.count || !host)
		return 0;
	f->complained = true;
	snprintf(body, sizeof body,
		"Host %.64s can't end its protected VMs when it is cut off (%.200s), so "
		"they would not be started elsewhere: %s. To mend it: " FENCING_FIX,
		row_name(host), db_string(host, HOST_FENCING), names_end(&names));
	message_add(t, uuid_random(loop_prng(f->daemon->loop)),
		&(struct message){.name = "HOST_NOT_FENCING",
			.priority = 2,
			.cls = "host",
			.obj = f->daemon->host,
			.body = body});
	return 1;
}

static void record(struct fencing *f)
{
	const struct db *db = db_of(f);
	bool lost = f->lost_ms && now_ms(f) >= f->lost_ms + FENCING_GRACE_MS;
	unsigned changed = 0;
	struct rv_error e;
	struct txn t;

	if (f->committing || !db_pool(db) || !pool_can_commit(f->daemon->pool))
		return;
	txn_init(&t, db, loop_wall_ms(f->daemon->loop));
	for (const struct row *vm = NULL;
		changed < FENCING_AT_ONCE &&
		(vm = db_next_ref(db, VM_RESIDENT_ON, f->daemon->host, vm));)
		changed +=
			vm_arm_txn(db, vm, f->daemon->host, is_promised(f, vm), lost, &t);
	if (lost && !f->complained && !changed)
		changed = complain(f, &t);
	if (!changed) {
		txn_fini(&t);
		return;
	}
	memset(&f->commit, 0, sizeof f->commit);
	f->commit.essential = true;
	f->committing = true;
	if (pool_commit(f->daemon->pool, &f->commit, &t, on_recorded, &e)) {
		f->committing = false;
		log_debug("fencing.record", "error=\"%s\"", e.detail);
	}
}

static void show(struct fencing *f)
{
	char text[FENCING_TEXT];
	struct rv_error e;
	struct value v;

	if (f->fd < 0 || !f->greeted)
		snprintf(text, sizeof text, "reeve-fenced does not run there");
	else if (!f->able)
		snprintf(text, sizeof text, "reeve-fenced can't fence: %s", f->words);
	else
		snprintf(text, sizeof text, "armed");
	if (!db_row(db_of(f), CLASS_HOST, f->daemon->host) || value_from_cstr(&v, text))
		return;
	if (pool_set_live(f->daemon->pool, f->daemon->host, HOST_FENCING, &v, &e))
		log_debug("fencing.show", "error=\"%s\"", e.detail);
	value_fini(&v);
}

/* --- the connection --- */

static void drop(struct fencing *f, const char *why)
{
	if (f->fd < 0)
		return;
	if (f->greeted)
		log_warn("fencing.lost", "msg=\"%s\"", why);
	io_fini(&f->io);
	close(f->fd);
	f->fd = -1;
	f->greeted = f->able = false;
	f->told_seq = 0;
}

static void say(struct fencing *f, const struct fence_message *m)
{
	size_t len = fence_encode(m, f->bytes);

	if (f->fd < 0)
		return;
	/* It reads at once, or is stopped: then nothing that is told now matters. */
	if (send(f->fd, f->bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		drop(f, strerror(errno));
}

static void say_lease(struct fencing *f)
{
	int64_t until_ms = lease_until_ms(f->daemon->lease);

	f->in = (struct fence_message){.type = FENCE_LEASE, .until_ms = until_ms};
	if (until_ms)
		say(f, &f->in);
}

/* Not before the database is this day's: a list that lacks VMs would let go of them. */
static void say_list(struct fencing *f)
{
	bool same;

	if (f->fd < 0 || !f->greeted || !f->daemon->recorded || !db_pool(db_of(f)))
		return;
	list_make(f, &f->next);
	same = f->sent.seq && f->next.count == f->sent.count &&
	       memcmp(f->next.domains, f->sent.domains,
		       f->next.count * sizeof *f->next.domains) == 0;
	if (same && !f->list_due)
		return;
	f->next.seq = f->sent.seq + 1;
	f->sent = f->next;
	f->list_due = false;
	say(f, &f->sent);
}

bool fencing_was_fenced(void *arg, const struct uuid *host, const struct uuid *handle)
{
	const struct fencing *f = arg;

	for (unsigned i = 0; i < f->ended_count && i < FENCING_ENDED; i++)
		if (uuid_eq(&f->ended[i], handle))
			return uuid_eq(host, &f->daemon->host);
	return false;
}

static void on_message(struct fencing *f, size_t len)
{
	struct rv_error e;
	char text[UUID_TEXT_SIZE];

	if (fence_decode(&f->in, f->bytes, len, &e)) {
		drop(f, e.detail);
		return;
	}
	if (f->in.type == FENCE_ENDED) {
		if (fencing_was_fenced(f, &f->daemon->host, &f->in.domain.handle))
			return; /* told before */
		f->ended[f->ended_count++ % FENCING_ENDED] = f->in.domain.handle;
		log_warn("fencing.ended",
			"domid=%u handle=%s msg=\"destroyed: the lease had run out\"",
			f->in.domain.domid, uuid_format(&f->in.domain.handle, text));
		return;
	}
	if (f->in.type != FENCE_STATE)
		return;
	f->able = f->in.able;
	snprintf(f->words, sizeof f->words, "%s", f->in.words);
	f->told_seq = f->in.seq;
	if (!f->greeted) {
		log_info("fencing.connected", "guarded=%u", f->in.guarded);
		f->greeted = true;
		f->told_seq = 0; /* of a list that this start did not send */
		f->list_due = true;
		say_lease(f);
	}
	fencing_look(f);
}

static void on_readable(void *arg, int events)
{
	struct fencing *f = arg;

	(void)events;
	for (int i = 0; i < FENCING_READS && f->fd >= 0; i++) {
		ssize_t r = recv(f->fd, f->bytes, sizeof f->bytes, MSG_DONTWAIT);

		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (r <= 0)
			drop(f, "reeve-fenced has closed the connection");
		else
			on_message(f, (size_t)r);
	}
}

static void dial(struct fencing *f)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct fence_message hello = {.type = FENCE_HELLO, .version = FENCE_VERSION};
	int len = snprintf(a.sun_path, sizeof a.sun_path, "%s/%s",
		f->daemon->config->run_dir, FENCE_SOCKET_NAME);

	if (len >= (int)sizeof a.sun_path)
		return;
	f->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->fd < 0)
		return;
	if (connect(f->fd, (struct sockaddr *)&a, sizeof a) ||
		io_init(&f->io, f->daemon->loop, "fencing.io", f->fd, on_readable, f)) {
		close(f->fd);
		f->fd = -1;
		return;
	}
	io_want(&f->io, IO_READ);
	say(f, &hello);
}

/* --- looking --- */

void fencing_look(struct fencing *f)
{
	if (!f || f->stopped || !f->started || !f->daemon->recorded)
		return;
	say_list(f);
	record(f);
}

void fencing_lease(struct fencing *f, int64_t until_ms)
{
	(void)until_ms;
	if (!f || f->fd < 0 || !f->greeted)
		return;
	say_lease(f);
	/* It refused while there was no lease. */
	if (f->told_seq != f->sent.seq)
		f->list_due = true;
	fencing_look(f);
}

static void on_tick(void *arg)
{
	struct fencing *f = arg;

	timer_start_about_ms(&f->tick, FENCING_TICK_MS);
	if (f->fd < 0)
		dial(f);
	if (f->fd >= 0 && f->greeted && f->able) {
		f->lost_ms = 0;
		f->complained = false;
	} else if (!f->lost_ms) {
		f->lost_ms = now_ms(f);
	}
	show(f);
	fencing_look(f);
}

/* --- asking for it --- */

static bool host_is_armed(const struct row *host)
{
	return strcmp(db_string(host, HOST_FENCING), "armed") == 0;
}

int fencing_check(struct daemon *d, const struct row *vm, struct rv_error *e)
{
	const struct db *db = pool_db(d->pool);
	const struct row *on = db_follow(db, vm, VM_RESIDENT_ON), *last = NULL;
	const char *why;

	if (vm_pool_is_alone(db))
		return rv_error_set(e, RV_ENOTALLOWED,
			"VM %.64s can't be protected: this pool has one host, so there "
			"is "
			"no other to start it on; have another host join first",
			row_name(vm));
	for (const struct row *h = NULL; !on && (h = db_next(db, CLASS_HOST, h));) {
		if (db_enum(h, HOST_KIND) != HOST_KIND_HOST)
			continue;
		if (host_is_armed(h))
			return 0;
		last = h;
	}
	if (on && host_is_armed(on))
		return 0;
	if (!on)
		on = last;
	why = db_string(on, HOST_FENCING);
	return rv_error_set(e, RV_ENOTALLOWED,
		"VM %.64s can't be protected: host %.64s could not end it when it is cut "
		"off (%.200s), so it would never be started elsewhere. On that "
		"host: " FENCING_FIX,
		row_name(vm), row_name(on), *why ? why : "it has not told how it fences");
}

/* --- beginning and ending --- */

int fencing_new(struct fencing **out, struct daemon *d)
{
	struct fencing *f = calloc(1, sizeof *f);

	*out = f;
	if (!f)
		return RV_ENOMEM;
	f->daemon = d;
	f->fd = -1;
	timer_init(&f->tick, d->loop, "fencing.tick", on_tick, f);
	return 0;
}

void fencing_start(struct fencing *f)
{
	f->started = true;
	on_tick(f);
}

void fencing_stop(struct fencing *f)
{
	if (!f)
		return;
	f->stopped = true;
	timer_stop(&f->tick);
	drop(f, "reeved ends");
}

void fencing_free(struct fencing *f)
{
	fencing_stop(f);
	free(f);
}
