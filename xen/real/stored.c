#include "xen/real/stored.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <xen/io/xs_wire.h>

#include "base/buf.h"
#include "base/log.h"
#include "reactor/io.h"

enum {
	DIAL_MS = 1000,
	READ_BYTES = 64 * 1024,
	MESSAGES_AT_ONCE = 256, /* a guest that writes without end gets no more of us */
	OUT_CAP = 8 << 20,
};

struct request {
	struct list node;
	uint32_t id, type;
	stored_done_fn *done; /* NULL: nobody asks, or it was answered as lost */
	void *arg;
	int64_t since_us;
	bool refused; /* never sent */
};

struct stored {
	struct loop *loop;
	const struct stored_events *events;
	void *arg;
	char path[STORED_PATH_MAX];
	bool given; /* the path is the caller's */
	int64_t patience_us;
	int fd;
	struct io io;
	bool up, told_lost;
	struct buf in, out;
	struct list requests; /* oldest first */
	size_t count;
	uint32_t next_id;
	struct timer pulse, dial;
	struct defer refusals, rest;
	struct list refused;
};

bool stored_is_up(const struct stored *s)
{
	return s->up;
}

bool stored_is_lost(const struct stored *s)
{
	return s->told_lost;
}

/* --- endings --- */

static bool changes(uint32_t type)
{
	return type == XS_WRITE || type == XS_RM;
}

static void answer(struct request *q, int rc, const char *data, size_t len)
{
	stored_done_fn *done = q->done;

	q->done = NULL;
	if (done != NULL)
		done(q->arg, rc, data, len);
}

static void request_free(struct stored *s, struct request *q)
{
	list_remove(&q->node);
	s->count--;
	free(q);
}

/* Every request that waits ends now. With a connection that still stands they are kept,
 * answered, for their late replies. */
static void requests_end(struct stored *s, bool keep)
{
	struct list ended;

	list_init(&ended);
	if (keep) {
		LIST_FOR_EACH_SAFE (node, &s->requests) {
			struct request *q = CONTAINER_OF(node, struct request, node);

			answer(q, changes(q->type) ? RV_EOUTCOME : RV_EAGAIN, "", 0);
		}
		return;
	}
	while (!list_empty(&s->requests)) {
		struct list *node = s->requests.next;

		list_remove(node);
		list_push_back(&ended, node);
	}
	while (!list_empty(&ended)) {
		struct request *q = CONTAINER_OF(ended.next, struct request, node);

		answer(q, changes(q->type) ? RV_EOUTCOME : RV_EAGAIN, "", 0);
		request_free(s, q);
	}
}

static void lose(struct stored *s, const char *why, bool keep)
{
	bool tell = s->up || !s->told_lost;

	s->up = false;
	s->told_lost = true;
	if (tell)
		log_error("xen.stored", "socket=\"%s\" msg=\"xenstored is lost: %s\"",
			s->path, why);
	requests_end(s, keep);
	if (tell)
		s->events->lost(s->arg, why);
}

static void disconnect(struct stored *s, const char *why)
{
	if (s->fd >= 0) {
		io_fini(&s->io);
		close(s->fd);
		s->fd = -1;
	}
	buf_consume(&s->in, buf_len(&s->in));
	buf_consume(&s->out, buf_len(&s->out));
	timer_start_ms(&s->dial, DIAL_MS);
	lose(s, why, false);
}

/* --- requests --- */

static void refusals_run(void *arg)
{
	struct stored *s = arg;
	struct list now;

	list_init(&now);
	while (!list_empty(&s->refused)) {
		struct list *node = s->refused.next;

		list_remove(node);
		list_push_back(&now, node);
	}
	while (!list_empty(&now)) {
		struct request *q = CONTAINER_OF(now.next, struct request, node);

		answer(q, RV_EAGAIN, "", 0);
		request_free(s, q);
	}
}

static void flush(struct stored *s)
{
	while (buf_len(&s->out) > 0) {
		ssize_t r = write(s->fd, buf_data(&s->out), buf_len(&s->out));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break; /* full, or gone: reading tells */
		buf_consume(&s->out, (size_t)r);
	}
	io_want(&s->io, buf_len(&s->out) > 0 ? IO_READ | IO_WRITE : IO_READ);
}

static int enqueue(struct stored *s, struct request *q, const void *data, size_t len)
{
	struct xsd_sockmsg head = {
		.type = q->type, .req_id = q->id, .tx_id = 0, .len = (uint32_t)len};
	int rc;

	if (len > XENSTORE_PAYLOAD_MAX || s->count > STORED_MAX_REQUESTS)
		return RV_ELIMIT;
	rc = buf_append(&s->out, &head, sizeof head);
	if (rc == 0)
		rc = buf_append(&s->out, data, len);
	return rc;
}

/* `ping` goes out even while it is lost: its answer brings it back. */
static void submit(struct stored *s, uint32_t type, const void *data, size_t len,
	stored_done_fn *done, void *arg, bool ping)
{
	struct request *q = calloc(1, sizeof *q);

	if (q == NULL) {
		log_error("xen.stored", "msg=\"no memory for a request\"");
		abort();
	}
	q->type = type;
	q->id = ++s->next_id;
	q->done = done;
	q->arg = arg;
	q->since_us = loop_now_us(s->loop);
	s->count++;
	if (s->fd < 0 || (!s->up && !ping) || enqueue(s, q, data, len) != 0) {
		list_push_back(&s->refused, &q->node);
		defer_start(&s->refusals);
		return;
	}
	list_push_back(&s->requests, &q->node);
	flush(s);
}

static void submit_path(struct stored *s, uint32_t type, const char *path,
	stored_done_fn *done, void *arg)
{
	submit(s, type, path, strlen(path) + 1, done, arg, false);
}

void stored_read(struct stored *s, const char *path, stored_done_fn *done, void *arg)
{
	submit_path(s, XS_READ, path, done, arg);
}

void stored_remove(struct stored *s, const char *path, stored_done_fn *done, void *arg)
{
	submit_path(s, XS_RM, path, done, arg);
}

void stored_list(struct stored *s, const char *path, stored_done_fn *done, void *arg)
{
	submit_path(s, XS_DIRECTORY, path, done, arg);
}

void stored_write(struct stored *s, const char *path, const void *data, size_t len,
	stored_done_fn *done, void *arg)
{
	char payload[XENSTORE_PAYLOAD_MAX + 1];
	size_t path_len = strlen(path) + 1;

	if (path_len + len > XENSTORE_PAYLOAD_MAX)
		len = XENSTORE_PAYLOAD_MAX + 1 - path_len; /* and is refused */
	memcpy(payload, path, path_len);
	memcpy(payload + path_len, data, len);
	submit(s, XS_WRITE, payload, path_len + len, done, arg, false);
}

void stored_is_introduced(
	struct stored *s, uint32_t domid, stored_done_fn *done, void *arg)
{
	char text[16];

	snprintf(text, sizeof text, "%u", domid);
	submit_path(s, XS_IS_DOMAIN_INTRODUCED, text, done, arg);
}

static void submit_watch(
	struct stored *s, uint32_t type, const char *path, const char *token)
{
	char payload[STORED_PATH_MAX];
	int len = snprintf(payload, sizeof payload, "%s%c%s", path, '\0', token);

	submit(s, type, payload, (size_t)len + 1, NULL, NULL, false);
}

void stored_watch(struct stored *s, const char *path, const char *token)
{
	submit_watch(s, XS_WATCH, path, token);
}

void stored_unwatch(struct stored *s, const char *path, const char *token)
{
	submit_watch(s, XS_UNWATCH, path, token);
}

/* --- what comes in --- */

static int error_code(const char *name)
{
	static const struct {
		const char *name;
		int rc;
	} codes[] = {
		{"ENOENT", RV_ENOENT},
		{"EACCES", RV_EPERM},
		{"EPERM", RV_EPERM},
		{"EEXIST", RV_EEXIST},
		{"EINVAL", RV_EINVAL},
	};

	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (strcmp(codes[i].name, name) == 0)
			return codes[i].rc;
	return RV_EHYPERVISOR;
}

static void on_watch(struct stored *s, const char *data, size_t len)
{
	const char *middle = memchr(data, '\0', len);
	const char *end = middle != NULL ? memchr(middle + 1, '\0',
						   len - (size_t)(middle + 1 - data))
					 : NULL;

	if (end != NULL)
		s->events->watch(s->arg, data, middle + 1);
}

static void on_reply(
	struct stored *s, const struct xsd_sockmsg *head, const char *data, size_t len)
{
	struct request *q = NULL;

	LIST_FOR_EACH (node, &s->requests) {
		q = CONTAINER_OF(node, struct request, node);
		if (q->id == head->req_id)
			break;
		q = NULL;
	}
	if (q == NULL)
		return;
	list_remove(&q->node);
	answer(q, head->type == XS_ERROR ? error_code(data) : 0, data, len);
	request_free(s, q);
}

static void come_back(struct stored *s)
{
	s->up = true;
	s->told_lost = false;
	/* Those that were answered as lost get their replies late; it isn't again for
	 * that. */
	LIST_FOR_EACH (node, &s->requests)
		CONTAINER_OF(node, struct request, node)->since_us = loop_now_us(s->loop);
	log_info("xen.stored", "socket=\"%s\" msg=\"xenstored answers\"", s->path);
	s->events->back(s->arg);
}

/* One message, if it is whole. RV_EPROTO: there is no sense in what comes. */
static int take_message(struct stored *s, bool *taken)
{
	struct xsd_sockmsg head;
	char data[XENSTORE_PAYLOAD_MAX + 1];

	*taken = false;
	if (buf_len(&s->in) < sizeof head)
		return 0;
	memcpy(&head, buf_data(&s->in), sizeof head);
	if (head.len > XENSTORE_PAYLOAD_MAX)
		return RV_EPROTO;
	if (buf_len(&s->in) < sizeof head + head.len)
		return 0;
	memcpy(data, buf_data(&s->in) + sizeof head, head.len);
	data[head.len] = '\0';
	buf_consume(&s->in, sizeof head + head.len);
	*taken = true;
	if (!s->up)
		come_back(s);
	if (head.type == XS_WATCH_EVENT)
		on_watch(s, data, head.len);
	else
		on_reply(s, &head, data, head.len);
	return 0;
}

static void take_messages(void *arg)
{
	struct stored *s = arg;
	bool more = s->fd >= 0;

	for (int i = 0; more && i < MESSAGES_AT_ONCE; i++)
		if (take_message(s, &more) != 0) {
			disconnect(s, "it sent what is no xenstore message");
			return;
		}
	if (more)
		defer_start(&s->rest);
}

static void on_io(void *arg, int events)
{
	struct stored *s = arg;
	uint8_t *room;
	ssize_t r;

	if (events & IO_WRITE)
		flush(s);
	/* No room: messages are left from the last time, and come first. */
	if (!(events & IO_READ) || buf_reserve(&s->in, READ_BYTES, &room) != 0)
		return;
	r = read(s->fd, room, READ_BYTES);
	if (r == 0 || (r < 0 && errno != EAGAIN && errno != EINTR)) {
		disconnect(s, r == 0 ? "it closed the connection" : strerror(errno));
		return;
	}
	if (r > 0)
		buf_commit(&s->in, (size_t)r);
	take_messages(s);
}

/* --- the connection --- */

static int connect_socket(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof to.sun_path)
		return -1;
	memcpy(to.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int open_connection(struct stored *s)
{
	static const char device[] = "/dev/xen/xenbus";
	const char *set = getenv("XENSTORED_PATH");
	int fd;

	if (!s->given)
		snprintf(s->path, sizeof s->path, "%s",
			set != NULL ? set : "/run/xenstored/socket");
	if (strncmp(s->path, "/dev/", 5) == 0)
		return open(s->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	fd = connect_socket(s->path);
	if (fd < 0 && !s->given && set == NULL) {
		fd = open(device, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			snprintf(s->path, sizeof s->path, "%s", device);
	}
	return fd;
}

static void ping(struct stored *s)
{
	submit(s, XS_GET_DOMAIN_PATH, "0", 2, NULL, NULL, true);
}

static void on_dial(void *arg)
{
	struct stored *s = arg;
	int rc;

	s->fd = open_connection(s);
	if (s->fd < 0) {
		timer_start_ms(&s->dial, DIAL_MS);
		lose(s, strerror(errno), false);
		return;
	}
	rc = io_init(&s->io, s->loop, "xen.stored", s->fd, on_io, s);
	if (rc != 0) {
		close(s->fd);
		s->fd = -1;
		timer_start_ms(&s->dial, DIAL_MS);
		return;
	}
	io_want(&s->io, IO_READ);
	ping(s);
}

/* Looks how long the oldest request waits; asks something when none does. */
static void on_pulse(void *arg)
{
	struct stored *s = arg;

	timer_start_us(&s->pulse, s->patience_us / 4);
	if (s->fd < 0)
		return;
	if (list_empty(&s->requests)) {
		ping(s);
		return;
	}
	if (loop_now_us(s->loop) -
			CONTAINER_OF(s->requests.next, struct request, node)->since_us >
		s->patience_us)
		lose(s, "it does not answer", true);
}

int stored_new(struct stored **out, struct loop *l, const char *path, int64_t patience_ms,
	const struct stored_events *events, void *arg)
{
	struct stored *s = calloc(1, sizeof *s);

	*out = NULL;
	if (s == NULL)
		return RV_ENOMEM;
	s->loop = l;
	s->events = events;
	s->arg = arg;
	s->given = path != NULL && path[0] != '\0';
	if (s->given)
		snprintf(s->path, sizeof s->path, "%s", path);
	s->patience_us = (patience_ms > 0 ? patience_ms : STORED_PATIENCE_MS) * 1000;
	s->fd = -1;
	buf_init(&s->in, READ_BYTES * 2);
	buf_init(&s->out, OUT_CAP);
	list_init(&s->requests);
	list_init(&s->refused);
	timer_init(&s->pulse, l, "xen.stored.pulse", on_pulse, s);
	timer_init(&s->dial, l, "xen.stored.dial", on_dial, s);
	defer_init(&s->refusals, l, "xen.stored.refusals", refusals_run, s);
	defer_init(&s->rest, l, "xen.stored.rest", take_messages, s);
	timer_start_us(&s->pulse, s->patience_us / 4);
	timer_start_ms(&s->dial, 0);
	*out = s;
	return 0;
}

void stored_free(struct stored *s)
{
	if (s == NULL)
		return;
	timer_stop(&s->pulse);
	timer_stop(&s->dial);
	defer_stop(&s->refusals);
	defer_stop(&s->rest);
	if (s->fd >= 0) {
		io_fini(&s->io);
		close(s->fd);
	}
	while (!list_empty(&s->requests))
		request_free(s, CONTAINER_OF(s->requests.next, struct request, node));
	while (!list_empty(&s->refused))
		request_free(s, CONTAINER_OF(s->refused.next, struct request, node));
	buf_fini(&s->in);
	buf_fini(&s->out);
	free(s);
}
