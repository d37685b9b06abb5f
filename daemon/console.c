#include "daemon/console.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "reactor/io.h"
#include "rpc/message.h"
#include "vm/vm_op.h"

enum {
	CONSOLE_KEPT_BYTES = 64 * 1024,	 /* of what a guest wrote lately */
	CONSOLE_TYPED_BYTES = 64 * 1024, /* not yet taken by the guest */
	CONSOLE_READ_BYTES = 16 * 1024,	 /* from the guest in one callback */
	CONSOLE_REPLY_BYTES = 32 * 1024,
	CONSOLE_GATHER_MS = 5,	     /* so that a line comes in one reply */
	CONSOLE_IDLE_MS = 30 * 1000, /* without a call, until it is given back */
	CONSOLE_REOPEN_MS = 300,     /* while a reader waits for the next domain */
	CONSOLE_ANSWER_MS = 10 * 1000,
	CONSOLE_WAIT_MAX_MS = 60 * 1000,
	CONSOLE_REPEATS = 16, /* requests remembered: what is sent twice is typed once */
	CONSOLE_POSITION_SIZE = 40,
};

struct console {
	struct list node;
	struct consoles *all;
	struct uuid vm;
	uint64_t life; /* drawn anew with each struct console */
	struct hyper_req req;
	struct hyper_domain_id id; /* of the domain that fd belongs to */
	struct io io;
	int fd; /* -1: not open */
	struct timer idle, reopen, gather, deadline;
	struct list readers; /* struct call, by `waiting` */
	uint64_t written;    /* by the guest, ever: the ring's end */
	uint8_t kept[CONSOLE_KEPT_BYTES];
	struct buf typed;
	struct uuid typed_for; /* the domain's handle: no other one may get it */
	struct uuid repeats[CONSOLE_REPEATS];
	size_t next_repeat;
};

struct consoles {
	struct daemon *daemon;
	struct list list; /* struct console */
	bool stopped;
};

static void console_open(struct console *k);

static const struct row *console_vm(const struct console *k)
{
	return db_row(pool_db(k->all->daemon->pool), CLASS_VM, k->vm);
}

/* --- reading --- */

static size_t console_behind(const struct console *k, uint64_t at)
{
	uint64_t behind = k->written - at;

	return behind < CONSOLE_KEPT_BYTES ? (size_t)behind : CONSOLE_KEPT_BYTES;
}

/* From the caller's position; one that is not of this life, or too old, is the oldest
 * byte that is kept. */
static uint64_t console_position(const struct console *k, const struct call *c)
{
	uint64_t oldest = k->written - console_behind(k, 0), life, at;

	if (sscanf(call_text(c, "position"), "%" SCNx64 ":%" SCNu64, &life, &at) != 2 ||
		life != k->life || at < oldest || at > k->written)
		return oldest;
	return at;
}

/* Ends the call with what there is from its position on. */
static void console_reply(struct console *k, struct call *c)
{
	uint64_t at = console_position(k, c);
	size_t len = console_behind(k, at), from = at % CONSOLE_KEPT_BYTES, first;
	char position[CONSOLE_POSITION_SIZE];
	msgpack_packer *pk;

	if (len > CONSOLE_REPLY_BYTES)
		len = CONSOLE_REPLY_BYTES;
	first = len < CONSOLE_KEPT_BYTES - from ? len : CONSOLE_KEPT_BYTES - from;
	snprintf(position, sizeof position, "%" PRIx64 ":%" PRIu64, k->life, at + len);
	list_remove(&c->waiting);
	timer_stop(&c->timer);
	pk = call_reply_begin(c);
	msgpack_pack_map(pk, 3);
	rpc_pack_key(pk, "bytes");
	msgpack_pack_bin(pk, len);
	msgpack_pack_bin_body(pk, k->kept + from, first);
	msgpack_pack_bin_body(pk, k->kept, len - first);
	rpc_pack_key(pk, "position");
	rpc_pack_key(pk, position);
	rpc_pack_key(pk, "open");
	k->fd >= 0 ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
	call_reply_end(c);
}

static void console_gathered(void *arg)
{
	struct console *k = arg;
	struct list ready;

	list_init(&ready);
	list_append_all(&ready, &k->readers);
	while (!list_empty(&ready)) {
		struct call *c = CONTAINER_OF(ready.next, struct call, waiting);

		list_remove(&c->waiting);
		list_push_back(&k->readers, &c->waiting);
		if (console_position(k, c) < k->written)
			console_reply(k, c);
	}
}

static void console_fail_readers(struct console *k, int code, const char *why)
{
	while (!list_empty(&k->readers)) {
		struct call *c = CONTAINER_OF(k->readers.next, struct call, waiting);

		list_remove(&c->waiting);
		timer_stop(&c->timer);
		call_failf(c, code, "%s", why);
	}
}

/* --- the descriptor --- */

static void console_close(struct console *k)
{
	if (k->fd < 0)
		return;
	io_fini(&k->io);
	close(k->fd);
	k->fd = -1;
	buf_fini(&k->typed);
}

static void console_want(struct console *k)
{
	io_want(&k->io, IO_READ | (buf_len(&k->typed) ? IO_WRITE : 0));
}

/* The guest's domain has ended, or somebody else took its console. Who waits gets the
 * next one's. */
static void console_lost(struct console *k)
{
	console_close(k);
	if (!list_empty(&k->readers))
		timer_start_ms(&k->reopen, CONSOLE_REOPEN_MS);
}

static void console_keep(struct console *k, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		k->kept[(k->written + i) % CONSOLE_KEPT_BYTES] = bytes[i];
	k->written += len;
	if (!timer_active(&k->gather))
		timer_start_ms(&k->gather, CONSOLE_GATHER_MS);
}

static void console_ready(void *arg, int events)
{
	struct console *k = arg;
	uint8_t bytes[CONSOLE_READ_BYTES];
	ssize_t r;

	if (events & IO_READ) {
		r = read(k->fd, bytes, sizeof bytes);
		if (r > 0)
			console_keep(k, bytes, (size_t)r);
		if (r == 0 || (r < 0 && errno != EAGAIN && errno != EINTR)) {
			console_lost(k);
			return;
		}
	}
	if ((events & IO_WRITE) && buf_len(&k->typed)) {
		r = write(k->fd, buf_data(&k->typed), buf_len(&k->typed));
		if (r > 0)
			buf_consume(&k->typed, (size_t)r);
		else if (r < 0 && errno != EAGAIN && errno != EINTR) {
			console_lost(k);
			return;
		}
	}
	console_want(k);
}

static void console_opened(void *arg, struct hyper_req *req)
{
	struct console *k = arg;

	timer_stop(&k->deadline);
	if (k->all->stopped) {
		if (req->rc == 0)
			close(req->fd);
		return;
	}
	if (req->rc) {
		log_info("daemon.console", "rc=%s msg=\"%s\"", rv_error_symbol(req->rc),
			req->error.detail);
		buf_fini(&k->typed);
		console_fail_readers(k, req->rc, req->error.detail);
		return;
	}
	if (!uuid_eq(&k->typed_for, &k->id.handle))
		buf_fini(&k->typed);
	k->fd = req->fd;
	if (io_init(&k->io, k->all->daemon->loop, "daemon.console", k->fd, console_ready,
		    k)) {
		close(k->fd);
		k->fd = -1;
		console_fail_readers(k, RV_ENOMEM, "no memory to watch the VM's console");
		return;
	}
	console_want(k);
}

static void console_late(void *arg)
{
	hyper_cancel(&((struct console *)arg)->req);
}

static void console_open(struct console *k)
{
	const struct row *vm = console_vm(k);
	struct uuid on = vm ? db_ref(vm, VM_RESIDENT_ON) : UUID_NONE;
	struct hyper_domain_id id;

	if (k->fd >= 0 || hyper_req_busy(&k->req) || timer_active(&k->reopen))
		return;

	if (!vm || !vm_recorded(vm, &id) || !uuid_eq(&on, &k->all->daemon->host)) {
		if (!list_empty(&k->readers))
			timer_start_ms(&k->reopen, CONSOLE_REOPEN_MS);
		return;
	}
	k->id = id;
	timer_start_ms(&k->deadline, CONSOLE_ANSWER_MS);
	hyper_console_open(k->all->daemon->hyper, &k->req, &id);
}

/* --- life --- */

static void console_free(struct console *k)
{
	console_close(k);
	timer_stop(&k->idle);
	timer_stop(&k->reopen);
	timer_stop(&k->gather);
	timer_stop(&k->deadline);
	buf_fini(&k->typed);
	list_remove(&k->node);
	free(k);
}

static void console_idle(void *arg)
{
	struct console *k = arg;

	if (!list_empty(&k->readers) || hyper_req_busy(&k->req))
		timer_start_ms(&k->idle, CONSOLE_IDLE_MS);
	else
		console_free(k);
}

static void console_reopen(void *arg)
{
	struct console *k = arg;

	if (!list_empty(&k->readers))
		console_open(k);
}

static struct console *console_find(struct consoles *cs, struct uuid vm)
{
	LIST_FOR_EACH (node, &cs->list) {
		struct console *k = CONTAINER_OF(node, struct console, node);

		if (uuid_eq(&k->vm, &vm))
			return k;
	}
	return NULL;
}

static struct console *console_new(struct consoles *cs, struct uuid vm)
{
	struct loop *l = cs->daemon->loop;
	struct console *k = calloc(1, sizeof *k);

	if (!k)
		return NULL;
	k->all = cs;
	k->vm = vm;
	k->fd = -1;
	k->life = prng_next(loop_prng(l));
	list_init(&k->readers);
	buf_init(&k->typed, CONSOLE_TYPED_BYTES);
	hyper_req_init(&k->req, console_opened, k);
	timer_init(&k->idle, l, "daemon.console.idle", console_idle, k);
	timer_init(&k->reopen, l, "daemon.console.reopen", console_reopen, k);
	timer_init(&k->gather, l, "daemon.console.gather", console_gathered, k);
	timer_init(&k->deadline, l, "daemon.console.deadline", console_late, k);
	list_push_back(&cs->list, &k->node);
	return k;
}

/* The console that the call names; NULL: the call has been failed. */
static struct console *console_of(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct row *vm = call_row(c, "self");
	struct hyper_domain_id id;
	struct console *k;
	struct uuid on;

	if (!vm)
		return NULL;
	on = db_ref(vm, VM_RESIDENT_ON);
	if (uuid_is_none(&on) || !vm_recorded(vm, &id)) {
		call_failf(c, RV_ESTATE,
			"VM %s is not running, so it has no console; start it first",
			db_string(vm, VM_NAME_LABEL));
		return NULL;
	}
	if (!uuid_eq(&on, &d->host)) {
		call_failf(c, RV_EAGAIN,
			"VM %s has moved to another host in this moment; ask again",
			db_string(vm, VM_NAME_LABEL));
		return NULL;
	}
	k = console_find(d->consoles, row_uuid(vm));
	if (!k)
		k = console_new(d->consoles, row_uuid(vm));
	if (!k) {
		call_failf(c, RV_ENOMEM, "no memory for a VM's console");
		return NULL;
	}
	timer_start_ms(&k->idle, CONSOLE_IDLE_MS);
	/* The domain is another one since: its console is, too. */
	if (k->fd >= 0 && !uuid_eq(&k->id.handle, &id.handle))
		console_close(k);
	return k;
}

/* --- methods --- */

static void read_over(void *arg)
{
	struct call *c = arg;
	struct console *k = console_find(c->daemon->consoles, call_ref(c, "self"));

	if (k) {
		console_reply(k, c);
		return;
	}
	list_remove(&c->waiting);
	call_failf(c, RV_EAGAIN, "the console was closed; ask again");
}

static void reader_gone(void *arg)
{
	struct call *c = arg;

	list_remove(&c->waiting);
	timer_stop(&c->timer);
	call_failf(c, RV_ECLOSED, "the client has gone");
}

void vm_console_read(struct call *c)
{
	int64_t timeout_ms = call_int(c, "timeout_ms", 0);
	struct console *k;

	if (timeout_ms < 0 || timeout_ms > CONSOLE_WAIT_MAX_MS) {
		call_failf(c, RV_EPARAM, "timeout_ms: 0 to %d", CONSOLE_WAIT_MAX_MS);
		return;
	}
	k = console_of(c);
	if (!k)
		return;
	list_push_back(&k->readers, &c->waiting);
	timer_init(&c->timer, c->daemon->loop, "daemon.console.read", read_over, c);
	console_open(k);
	if (timeout_ms == 0 || console_position(k, c) < k->written) {
		console_reply(k, c);
		return;
	}
	timer_start_ms(&c->timer, timeout_ms);
	call_on_gone(c, reader_gone);
}

static bool is_repeat(const struct console *k, const struct uuid *request)
{
	for (size_t i = 0; i < CONSOLE_REPEATS && !uuid_is_none(request); i++)
		if (uuid_eq(&k->repeats[i], request))
			return true;
	return false;
}

void vm_console_write(struct call *c)
{
	const char *text = call_text(c, "text");
	struct console *k = console_of(c);
	struct hyper_domain_id id;

	if (!k)
		return;
	if (is_repeat(k, &c->request)) {
		call_reply_nil(c);
		return;
	}
	console_open(k);
	if (buf_len(&k->typed) + strlen(text) > CONSOLE_TYPED_BYTES) {
		call_failf(c, RV_EAGAIN,
			"the guest does not take what is typed: %zu bytes wait for it",
			buf_len(&k->typed));
		return;
	}
	if (vm_recorded(console_vm(k), &id) && !uuid_eq(&k->typed_for, &id.handle)) {
		buf_fini(&k->typed);
		k->typed_for = id.handle;
	}
	if (buf_append(&k->typed, text, strlen(text))) {
		call_failf(c, RV_ENOMEM, "no memory for what was typed");
		return;
	}
	k->repeats[k->next_repeat++ % CONSOLE_REPEATS] = c->request;
	if (k->fd >= 0)
		console_want(k);
	call_reply_nil(c);
}

/* --- all of them --- */

int consoles_new(struct consoles **out, struct daemon *d)
{
	struct consoles *cs = calloc(1, sizeof *cs);

	*out = cs;
	if (!cs)
		return RV_ENOMEM;
	cs->daemon = d;
	list_init(&cs->list);
	return 0;
}

void consoles_stop(struct consoles *cs)
{
	if (!cs)
		return;
	cs->stopped = true;
	LIST_FOR_EACH (node, &cs->list) {
		struct console *k = CONTAINER_OF(node, struct console, node);

		console_fail_readers(
			k, RV_ECLOSED, "this host's daemon ends; ask another host");
		console_close(k);
		timer_stop(&k->idle);
		timer_stop(&k->reopen);
		timer_stop(&k->gather);
		timer_stop(&k->deadline);
	}
}

void consoles_free(struct consoles *cs)
{
	if (!cs)
		return;
	while (!list_empty(&cs->list))
		console_free(CONTAINER_OF(cs->list.next, struct console, node));
	free(cs);
}
