/* One end of a stream in a test: collects what arrives and what is told. */
#ifndef REEVE_TESTS_REACTOR_ENDS_H
#define REEVE_TESTS_REACTOR_ENDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/stream.h"

struct end {
	struct loop *loop;
	struct stream *stream;
	struct stream_config config;
	struct buf got;
	size_t got_total, data_calls, drained_calls;
	uint64_t hash;	     /* of all that arrived */
	bool keep;	     /* keep the bytes in `got`, not only their hash */
	bool echo;	     /* write back what arrives */
	bool refuse;	     /* consume nothing */
	size_t consume_only; /* at most so many a call; 0: all */
	int ready, closed, rc;
	char detail[256];
	/* Stops the loop as soon as one of these holds. */
	size_t stop_at_bytes;
	size_t pause_at_bytes; /* pauses itself, once */
	bool stop_at_ready, stop_at_closed, stop_at_drained;
	bool free_in_data, close_in_data, free_in_closed;
	size_t to_send, sent; /* pump: pattern bytes to write, and written so far */
	struct end *feed;     /* pump it whenever this end reads */
};

static inline uint64_t end_hash(uint64_t hash, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static inline void end_write(struct end *end, const char *text)
{
	struct iovec piece = {(void *)text, strlen(text)};

	assert_int_equal(stream_write(end->stream, &piece, 1), 0);
}

static inline uint8_t end_pattern(size_t at)
{
	return (uint8_t)(at * 7 + (at >> 8) * 13 + (at >> 16) * 31);
}

/* Writes the pattern until all is sent or the stream says RV_EAGAIN. */
static inline void end_pump(struct end *end)
{
	static uint8_t chunk[100000];

	while (end->sent < end->to_send) {
		size_t len = end->to_send - end->sent;
		struct iovec pieces[2];

		if (len > sizeof chunk)
			len = sizeof chunk;
		if (end->sent % 3 == 0 && len > 1000)
			len = 1000;
		for (size_t i = 0; i < len; i++)
			chunk[i] = end_pattern(end->sent + i);
		pieces[0] = (struct iovec){chunk, len / 2};
		pieces[1] = (struct iovec){chunk + len / 2, len - len / 2};
		if (stream_write(end->stream, pieces, 2) != 0)
			return;
		end->sent += len;
	}
}

static inline uint64_t end_pattern_hash(size_t len)
{
	uint64_t hash = 1;

	for (size_t i = 0; i < len; i++) {
		uint8_t byte = end_pattern(i);

		hash = end_hash(hash, &byte, 1);
	}
	return hash;
}

static inline size_t end_data(void *arg, const uint8_t *data, size_t len)
{
	struct end *end = arg;

	end->data_calls++;
	if (end->refuse)
		return 0;
	if (end->consume_only && len > end->consume_only)
		len = end->consume_only;
	end->got_total += len;
	end->hash = end_hash(end->hash, data, len);
	if (end->keep)
		assert_int_equal(buf_append(&end->got, data, len), 0);
	if (end->echo) {
		struct iovec piece = {(void *)data, len};

		assert_int_equal(stream_write(end->stream, &piece, 1), 0);
	}
	if (end->feed)
		end_pump(end->feed);
	if (end->stop_at_bytes && end->got_total >= end->stop_at_bytes)
		loop_stop(end->loop);
	if (end->pause_at_bytes && end->got_total >= end->pause_at_bytes) {
		end->pause_at_bytes = 0;
		stream_pause(end->stream);
	}
	if (end->close_in_data)
		stream_close_after_flush(end->stream);
	if (end->free_in_data) {
		stream_free(end->stream);
		end->stream = NULL;
	}
	return len;
}

static inline void end_drained(void *arg)
{
	struct end *end = arg;

	end->drained_calls++;
	end_pump(end);
	if (end->stop_at_drained)
		loop_stop(end->loop);
}

static inline void end_ready(void *arg)
{
	struct end *end = arg;

	end->ready++;
	end_pump(end);
	if (end->stop_at_ready)
		loop_stop(end->loop);
}

static inline void end_closed(void *arg, int rc, const char *detail)
{
	struct end *end = arg;

	end->closed++;
	end->rc = rc;
	snprintf(end->detail, sizeof end->detail, "%s", detail);
	if (end->free_in_closed) {
		stream_free(end->stream);
		end->stream = NULL;
	}
	if (end->stop_at_closed)
		loop_stop(end->loop);
}

static const struct stream_events end_events = {
	.data = end_data,
	.drained = end_drained,
	.ready = end_ready,
	.closed = end_closed,
};

static inline void end_init(struct end *end, struct loop *l)
{
	*end = (struct end){.loop = l, .keep = true, .hash = 1};
	end->config = (struct stream_config){
		.events = &end_events, .arg = end, .name = "test.stream"};
	buf_init(&end->got, SIZE_MAX);
}

static inline void end_fini(struct end *end)
{
	stream_free(end->stream);
	end->stream = NULL;
	buf_fini(&end->got);
}

static inline void end_assert_got(struct end *end, const char *text)
{
	assert_int_equal(buf_len(&end->got), strlen(text));
	assert_memory_equal(buf_data(&end->got), text, strlen(text));
}

/* Opens both over a socket pair; `b` is the server. */
static inline void ends_open(struct end *a, struct end *b)
{
	struct rv_error e = {0};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(
		stream_open(&a->stream, a->loop, fds[0], false, &a->config, &e), 0);
	assert_int_equal(
		stream_open(&b->stream, b->loop, fds[1], true, &b->config, &e), 0);
}

#endif
