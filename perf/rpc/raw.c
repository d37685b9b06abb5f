#include "perf/rpc/raw.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "perf/report.h"

enum { HELLO_BYTES = 8, FRONT_BYTES = 9 + 4, BUFFER_BYTES = 1 << 20 };

struct raw {
	struct raw_config config;
	int fd;
	unsigned char *batch; /* `outstanding` requests, one after the other */
	size_t frame_len;
	unsigned char *buffer; /* replies; a part of one may be left over */
	size_t have;
};

static void send_all(int fd, const unsigned char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

		if (n <= 0)
			report_die("raw client: send: %s", strerror(errno));
		bytes += n;
		len -= (size_t)n;
	}
}

static void greet(struct raw *r)
{
	static const unsigned char hello[HELLO_BYTES] = {0, 'S', 'P', 0, 0, 0x30};
	unsigned char theirs[HELLO_BYTES];

	send_all(r->fd, hello, sizeof hello);
	if (recv(r->fd, theirs, sizeof theirs, MSG_WAITALL) != HELLO_BYTES)
		report_die("raw client: no greeting");
}

static void make_batch(struct raw *r)
{
	const struct raw_config *c = &r->config;
	uint64_t body = htobe64(4 + c->request_len);
	uint32_t id = htonl(0x80000001u);

	r->frame_len = FRONT_BYTES + c->request_len;
	r->batch = malloc(r->frame_len * (size_t)c->outstanding);
	r->buffer = malloc(BUFFER_BYTES);
	if (!r->batch || !r->buffer)
		report_die("out of memory");
	for (int i = 0; i < c->outstanding; i++) {
		unsigned char *at = r->batch + (size_t)i * r->frame_len;

		at[0] = 1;
		memcpy(at + 1, &body, 8);
		memcpy(at + 9, &id, 4);
		memcpy(at + FRONT_BYTES, c->request, c->request_len);
	}
}

struct raw *raw_open(const struct raw_config *config)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct raw *r = calloc(1, sizeof *r);

	if (!r)
		report_die("out of memory");
	r->config = *config;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", config->path);
	r->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (r->fd < 0 || connect(r->fd, (struct sockaddr *)&address, sizeof address) != 0)
		report_die("raw client: %s: %s", config->path, strerror(errno));
	greet(r);
	make_batch(r);
	return r;
}

void raw_close(struct raw *r)
{
	close(r->fd);
	free(r->batch);
	free(r->buffer);
	free(r);
}

/* Receives something; the number of replies that are now whole. */
static int receive(struct raw *r)
{
	const struct raw_config *c = &r->config;
	ssize_t n = recv(r->fd, r->buffer + r->have, BUFFER_BYTES - r->have, 0);
	size_t at = 0;
	int replies = 0;

	if (n <= 0)
		report_die("raw client: the connection has ended");
	r->have += (size_t)n;
	while (r->have - at >= FRONT_BYTES + c->reply_start_len) {
		uint64_t body;

		memcpy(&body, r->buffer + at + 1, 8);
		body = be64toh(body);
		if (r->buffer[at] != 1 || body > BUFFER_BYTES / 2 ||
			memcmp(r->buffer + at + FRONT_BYTES, c->reply_start,
				c->reply_start_len) != 0)
			report_die("raw client: a wrong reply");
		if (r->have - at < 9 + body)
			break;
		at += 9 + body;
		replies++;
	}
	r->have -= at;
	memmove(r->buffer, r->buffer + at, r->have);
	return replies;
}

double raw_run(struct raw *r, double seconds)
{
	double begun = report_now_s(), until = begun + seconds;
	unsigned long count = 0;
	int open = r->config.outstanding;

	send_all(r->fd, r->batch, r->frame_len * (size_t)open);
	while (open > 0) {
		int replies = receive(r);

		count += (unsigned long)replies;
		if (report_now_s() < until)
			send_all(r->fd, r->batch, r->frame_len * (size_t)replies);
		else
			open -= replies;
	}
	return (double)count / (report_now_s() - begun);
}
