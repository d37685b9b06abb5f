/*
 * The limit of a single-threaded libev server: finds the SP frames in what arrives and
 * sends the same prepared reply to each, one write per read. No message is looked into.
 */
#include <endian.h>
#include <errno.h>
#include <ev.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HELLO_BYTES = 8, FRONT_BYTES = 9 + 4, IN_BYTES = 65536, OUT_BYTES = 8 << 20 };

struct bare {
	unsigned char *reply; /* a whole frame */
	size_t reply_len;
};

struct connection {
	ev_io readable, writable;
	struct bare *bare;
	int greeted;
	size_t in_len, out_at, out_len;
	unsigned char in[IN_BYTES], out[OUT_BYTES];
};

static void finish(EV_P_ struct connection *c)
{
	ev_io_stop(EV_A_ & c->readable);
	ev_io_stop(EV_A_ & c->writable);
	close(c->readable.fd);
	free(c);
}

/* False: the connection is over. */
static int flush(EV_P_ struct connection *c)
{
	while (c->out_at < c->out_len) {
		ssize_t n = send(c->readable.fd, c->out + c->out_at,
			c->out_len - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			ev_io_start(EV_A_ & c->writable);
			ev_io_stop(EV_A_ & c->readable);
			return 1;
		}
		if (n <= 0)
			return 0;
		c->out_at += (size_t)n;
	}
	c->out_at = c->out_len = 0;
	return 1;
}

static void on_writable(EV_P_ ev_io *w, int events)
{
	struct connection *c = w->data;

	(void)events;
	if (!flush(EV_A_ c)) {
		finish(EV_A_ c);
	} else if (c->out_len == 0) {
		ev_io_stop(EV_A_ & c->writable);
		ev_io_start(EV_A_ & c->readable);
	}
}

static void answer_frames(struct connection *c)
{
	size_t at = 0;

	if (!c->greeted) {
		if (c->in_len < HELLO_BYTES)
			return;
		c->greeted = 1;
		at = HELLO_BYTES;
	}
	while (c->in_len - at >= FRONT_BYTES) {
		unsigned char *reply = c->out + c->out_len;
		uint64_t body;

		memcpy(&body, c->in + at + 1, 8);
		body = be64toh(body);
		if (c->in_len - at < 9 + body ||
			c->out_len + c->bare->reply_len > OUT_BYTES)
			break;
		memcpy(reply, c->bare->reply, c->bare->reply_len);
		memcpy(reply + 9, c->in + at + 9, 4); /* the request's id */
		c->out_len += c->bare->reply_len;
		at += 9 + body;
	}
	c->in_len -= at;
	memmove(c->in, c->in + at, c->in_len);
}

static void on_readable(EV_P_ ev_io *w, int events)
{
	struct connection *c = w->data;
	ssize_t n = recv(w->fd, c->in + c->in_len, IN_BYTES - c->in_len, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0) {
		c->in_len += (size_t)n;
		answer_frames(c);
	}
	if (n <= 0 || !flush(EV_A_ c))
		finish(EV_A_ c);
}

static void on_connection(EV_P_ ev_io *w, int events)
{
	static const unsigned char hello[HELLO_BYTES] = {0, 'S', 'P', 0, 0, 0x31};
	int fd = accept(w->fd, NULL, NULL);
	struct connection *c = malloc(sizeof *c);

	(void)events;
	if (fd < 0 || !c) {
		free(c);
		return;
	}
	c->bare = w->data;
	c->greeted = 0;
	c->in_len = c->out_at = c->out_len = 0;
	c->readable.data = c->writable.data = c;
	ev_io_init(&c->readable, on_readable, fd, EV_READ);
	ev_io_init(&c->writable, on_writable, fd, EV_WRITE);
	ev_io_start(EV_A_ & c->readable);
	if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != HELLO_BYTES)
		finish(EV_A_ c);
}

static void make_reply(struct bare *b, const char *bytes, const char *start)
{
	size_t len = strtoul(bytes, NULL, 10);
	uint64_t body = htobe64(4 + len);

	b->reply_len = FRONT_BYTES + len;
	b->reply = calloc(1, b->reply_len + 64);
	if (!b->reply)
		exit(1);
	b->reply[0] = 1;
	memcpy(b->reply + 1, &body, 8);
	for (size_t i = 0; start[2 * i]; i++) /* hex */
		sscanf(start + 2 * i, "%2hhx", b->reply + FRONT_BYTES + i);
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ev_loop *loop = ev_default_loop(EVFLAG_NOENV | EVBACKEND_EPOLL);
	struct bare bare;
	ev_io listener;
	int fd;

	if (argc != 4) {
		fprintf(stderr, "usage: peer_bare SOCKET BYTES START\n");
		return 2;
	}
	make_reply(&bare, argv[2], argv[3]);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
		listen(fd, 64) != 0) {
		perror(argv[1]);
		return 1;
	}
	ev_io_init(&listener, on_connection, fd, EV_READ);
	listener.data = &bare;
	ev_io_start(loop, &listener);
	ev_run(loop, 0);
	return 0;
}
