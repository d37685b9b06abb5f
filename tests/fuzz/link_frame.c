/* links: reeve_link reeve_reactor reeve_base */
/*
 * Frames from a peer: the decoder must be exact and consistent however the bytes are cut,
 * and a whole link on a simulated pair must survive whatever follows a right HELLO.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "link/link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The decoder alone. */
static void decode_all(const uint8_t *data, size_t size)
{
	struct rv_error e = {0};
	struct link_frame f;
	size_t at = 0, used;

	while (at < size) {
		int rc = link_frame_decode(&f, data + at, size - at, &used, &e), less;

		if (rc) {
			assert(rc == RV_EAGAIN || e.code == rc);
			return;
		}
		assert(used >= LINK_FRAME_HEAD && used <= size - at);
		assert(f.payload == data + at + LINK_FRAME_HEAD);
		assert(f.len == used - LINK_FRAME_HEAD);
		for (size_t n = 1; n < used && n < 64; n++) {
			size_t ignored;

			less = link_frame_decode(&f, data + at, n, &ignored, &e);
			assert(less == RV_EAGAIN);
		}
		at += used;
	}
}

struct peer {
	struct link *link;
	struct stream *raw;
	size_t bytes;
	bool up, closed;
};

static void on_up(void *arg, uint64_t number)
{
	struct peer *p = arg;

	assert(!p->up && number);
	p->up = true;
}

static void on_message(void *arg, enum link_channel channel, uint16_t type,
	const uint8_t *data, size_t len)
{
	struct peer *p = arg;
	struct iovec piece = {(void *)data, len};

	assert(p->up && !p->closed && len <= link_channel_max(channel));
	p->bytes += len;
	for (size_t i = 0; i < len; i += 31)
		p->bytes += data[i] & 1;
	if (type & 1)
		link_pause(p->link, channel);
	if (type & 2)
		link_resume(p->link, (enum link_channel)(channel ^ 1));
	if (type & 4)
		(void)!link_send(p->link, channel, type, &piece, 1);
	if (type == 0x6666)
		link_close(p->link, RV_ECANCELLED, "enough");
}

static void on_closed(void *arg, int rc, const char *reason)
{
	struct peer *p = arg;

	assert(!p->closed && rc < 0 && reason[0]);
	p->closed = true;
	link_free(p->link);
	p->link = NULL;
}

static const struct link_events events = {
	.up = on_up, .message = on_message, .closed = on_closed};

static size_t raw_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	decode_all(data, len);
	return len;
}

static void raw_closed(void *arg, int rc, const char *detail)
{
	struct peer *p = arg;

	(void)rc;
	(void)detail;
	stream_free(p->raw);
	p->raw = NULL;
}

static const struct stream_events raw_events = {.data = raw_data, .closed = raw_closed};

static void say_hello(struct stream *raw, const struct uuid *host)
{
	struct link_hello hello = {
		.oldest = 1, .newest = 1, .host = *host, .incarnation = 1};
	uint8_t frame[LINK_FRAME_HEAD + LINK_HELLO_SIZE];
	struct iovec piece = {frame, sizeof frame};

	link_frame_head(frame, LINK_HELLO, 0, 0, LINK_HELLO_SIZE);
	link_hello_encode(frame + LINK_FRAME_HEAD, &hello);
	(void)!stream_write(raw, &piece, 1);
}

static void whole_link(const uint8_t *data, size_t size)
{
	struct peer p = {.link = NULL};
	struct stream_config config = {.events = &raw_events, .arg = &p};
	struct link_config lc = {.events = &events, .arg = &p};
	struct tls_peer certificate = {.has_certificate = true};
	struct stream_sim_link *wire;
	struct uuid self = {{5}}, peer = {{data[0] & 1 ? 9 : 1}};
	struct stream *end;
	struct loop *l;
	int rc = loop_new_sim(&l, 1);

	assert(rc == 0);
	rc = stream_sim_pair(l, &config, &config, &end, &p.raw, &wire);
	assert(rc == 0);
	lc.self.host = self;
	lc.self.incarnation = 3;
	uuid_format(&peer, certificate.uuid);
	rc = stream_sim_set_tls_peer(end, &certificate);
	assert(rc == 0);
	rc = link_open(&p.link, l, end, false, &lc, NULL);
	assert(rc == 0);
	if (data[0] & 2)
		say_hello(p.raw, &peer);
	for (size_t at = 1; at < size && p.raw;) {
		size_t n = data[0] >> 2 ? data[0] >> 2 : 4096;
		struct iovec piece = {(void *)(data + at), n < size - at ? n : size - at};

		(void)!stream_write(p.raw, &piece, 1);
		at += piece.iov_len;
		loop_sim_run_until(l, loop_now_us(l) + 2000);
	}
	loop_sim_run_until(l, loop_now_us(l) + 10000000);
	assert(p.closed); /* nobody answers its probes */
	link_free(p.link);
	stream_free(p.raw);
	stream_sim_link_free(wire);
	loop_free(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	log_set_level(LOG_ERROR);
	if (size < 2)
		return 0;
	decode_all(data + 1, size - 1);
	whole_link(data, size);
	return 0;
}
