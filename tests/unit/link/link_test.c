/* One link on a simulated pair: order, priorities, windows, keepalive, hostile peers. */
#include "link/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"

#define UUID_A "11111111-2222-4333-8444-555555555555"
#define UUID_B "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

enum { KEEP = 4096 };

/* One end: a link, and what it told. */
struct side {
	struct loop *loop;
	struct link *link;
	struct stream *raw; /* instead of a link: a peer that behaves as the test says */
	int up, closed, rc, rooms;
	char reason[256];
	uint64_t messages[LINK_CHANNELS], bytes[LINK_CHANNELS];
	uint16_t next[LINK_CHANNELS]; /* type of the message that must come next */
	bool numbered;
	int64_t last_us[LINK_CHANNELS], worst_us;
	uint8_t got[KEEP];
	size_t got_len;
	bool close_in_message, free_in_message, resume_bulk_in_message;
};

struct pair {
	struct loop *loop;
	struct side a, b;
	struct stream_sim_link *wire;
};

static void on_up(void *arg, uint64_t number)
{
	struct side *s = arg;

	assert_true(number > 0);
	assert_int_equal(s->closed, 0);
	s->up++;
}

static void on_message(void *arg, enum link_channel channel, uint16_t type,
	const uint8_t *data, size_t len)
{
	struct side *s = arg;
	int64_t sent_us;

	assert_int_equal(s->up, 1);
	assert_int_equal(s->closed, 0);
	s->messages[channel]++;
	s->bytes[channel] += len;
	s->last_us[channel] = loop_now_us(s->loop);
	if (s->numbered)
		assert_int_equal(type, s->next[channel]++);
	for (size_t i = 8; i < len; i += 97)
		assert_int_equal(data[i], (uint8_t)(type + i * 31));
	if (channel == LINK_HEARTBEAT && len >= 8) {
		memcpy(&sent_us, data, sizeof sent_us);
		if (loop_now_us(s->loop) - sent_us > s->worst_us)
			s->worst_us = loop_now_us(s->loop) - sent_us;
	}
	if (s->resume_bulk_in_message && channel == LINK_RPC)
		link_resume(s->link, LINK_BULK);
	if (s->close_in_message)
		link_close(s->link, RV_ECANCELLED, "enough");
	if (s->free_in_message) {
		link_free(s->link);
		s->link = NULL;
	}
}

static void on_room(void *arg, enum link_channel channel)
{
	struct side *s = arg;

	(void)channel;
	s->rooms++;
}

static void on_closed(void *arg, int rc, const char *reason)
{
	struct side *s = arg;

	s->closed++;
	s->rc = rc;
	snprintf(s->reason, sizeof s->reason, "%s", reason);
	link_free(s->link);
	s->link = NULL;
}

static const struct link_events events = {
	.up = on_up,
	.message = on_message,
	.room = on_room,
	.closed = on_closed,
};

static size_t raw_data(void *arg, const uint8_t *data, size_t len)
{
	struct side *s = arg;
	size_t n = len < sizeof s->got - s->got_len ? len : sizeof s->got - s->got_len;

	memcpy(s->got + s->got_len, data, n);
	s->got_len += n;
	return len;
}

static void raw_closed(void *arg, int rc, const char *detail)
{
	struct side *s = arg;

	(void)detail;
	s->closed++;
	s->rc = rc;
	stream_free(s->raw);
	s->raw = NULL;
}

static const struct stream_events raw_events = {.data = raw_data, .closed = raw_closed};

static void certify(struct stream *end, const char *uuid)
{
	struct tls_peer peer = {.has_certificate = true};

	snprintf(peer.uuid, sizeof peer.uuid, "%s", uuid);
	assert_int_equal(stream_sim_set_tls_peer(end, &peer), 0);
}

static struct link_config config_of(struct side *s, const char *self, const char *peer)
{
	struct link_config c = {.events = &events, .arg = s};

	assert_int_equal(uuid_parse(&c.self.host, self, UUID_TEXT_LEN), 0);
	assert_int_equal(uuid_parse(&c.peer, peer, UUID_TEXT_LEN), 0);
	c.self.incarnation = 7;
	return c;
}

static void open_side(struct side *s, struct stream *stream, const char *self,
	const char *peer, const size_t *queue_max)
{
	struct link_config c = config_of(s, self, peer);
	struct rv_error e = {0};

	if (queue_max)
		memcpy(c.queue_max, queue_max, sizeof c.queue_max);
	certify(stream, peer);
	assert_int_equal(link_open(&s->link, s->loop, stream, false, &c, &e), 0);
}

static void pair_streams(struct pair *p, struct stream **a, struct stream **b)
{
	struct stream_config ca = {.events = &raw_events, .arg = &p->a},
			     cb = {.events = &raw_events, .arg = &p->b};

	assert_int_equal(stream_sim_pair(p->loop, &ca, &cb, a, b, &p->wire), 0);
}

static void pair_open(struct pair *p, const size_t *queue_max)
{
	struct stream *a, *b;

	pair_streams(p, &a, &b);
	open_side(&p->a, a, UUID_A, UUID_B, queue_max);
	open_side(&p->b, b, UUID_B, UUID_A, queue_max);
}

static void run_ms(struct pair *p, int64_t ms)
{
	loop_sim_run_until(p->loop, loop_now_us(p->loop) + ms * 1000);
}

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof *p);

	log_set_level(LOG_ERROR);
	*state = p;
	if (loop_new_sim(&p->loop, 42) != 0)
		return -1;
	p->a.loop = p->b.loop = p->loop;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	link_free(p->a.link);
	link_free(p->b.link);
	stream_free(p->a.raw);
	stream_free(p->b.raw);
	stream_sim_link_free(p->wire);
	loop_free(p->loop);
	free(p);
	return 0;
}

static int send_pattern(
	struct side *s, enum link_channel channel, uint16_t type, size_t len)
{
	static uint8_t data[20 << 20];
	int64_t now_us = loop_now_us(s->loop);
	struct iovec pieces[2] = {{data, len / 3}, {data + len / 3, len - len / 3}};

	for (size_t i = 8; i < len; i++)
		data[i] = (uint8_t)(type + i * 31);
	memcpy(data, &now_us, sizeof now_us);
	return link_send(s->link, channel, type, pieces, 2);
}

static void test_messages_of_all_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, 8, 100, LINK_CHUNK_MAX - 1, LINK_CHUNK_MAX,
		LINK_CHUNK_MAX + 1, 2 * LINK_CHUNK_MAX, 256 << 10};
	struct pair *p = *state;
	uint64_t total = 0;
	uint16_t n = 0;

	pair_open(p, NULL);
	stream_sim_set(p->wire, 50, 400, 0);
	assert_int_equal(send_pattern(&p->a, LINK_RPC, 0, 10), RV_ECLOSED);
	run_ms(p, 10);
	assert_int_equal(p->a.up, 1);
	assert_int_equal(p->b.up, 1);
	assert_true(link_is_arbiter(p->a.link) && !link_is_arbiter(p->b.link));
	p->b.numbered = true;
	for (int ch = 0; ch < LINK_CHANNELS; ch++)
		for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++, n++) {
			p->b.next[ch] = ch == 0 || i ? p->b.next[ch] : n;
			assert_int_equal(
				send_pattern(&p->a, (enum link_channel)ch, n, sizes[i]),
				0);
			total += sizes[i];
		}
	run_ms(p, 500);
	for (int ch = 0; ch < LINK_CHANNELS; ch++) {
		assert_int_equal(p->b.messages[ch], sizeof sizes / sizeof sizes[0]);
		total -= p->b.bytes[ch];
	}
	assert_int_equal(total, 0);
	assert_int_equal(
		send_pattern(&p->a, LINK_HEARTBEAT, 0, (256 << 10) + 1), RV_ETOOBIG);
}

static void test_large_message(void **state)
{
	struct pair *p = *state;

	pair_open(p, NULL);
	stream_sim_set(p->wire, 100, 100, 0);
	run_ms(p, 10);
	assert_int_equal(send_pattern(&p->b, LINK_RPC, 3, 16 << 20), 0);
	run_ms(p, 2000);
	assert_int_equal(p->a.bytes[LINK_RPC], 16 << 20);
}

/* A flood of bulk on a slow wire: heartbeats wait for one flush and the windows, calls
 * get their share, bulk goes on. */
static void test_priorities(void **state)
{
	struct pair *p = *state;
	struct link_stats stats;

	pair_open(p, NULL);
	stream_sim_set(p->wire, 100, 200, 50 << 20);
	run_ms(p, 10);
	for (int i = 0; i < 200; i++) {
		while (send_pattern(&p->a, LINK_BULK, 1, 300000) == 0)
			;
		while (send_pattern(&p->a, LINK_RPC, 2, 100000) == 0)
			;
		assert_int_equal(send_pattern(&p->a, LINK_HEARTBEAT, 3, 200), 0);
		run_ms(p, 10);
	}
	assert_true(p->b.messages[LINK_HEARTBEAT] >= 195);
	/* The windows of both are 1.5 MiB, 30 ms of this wire. */
	if (p->b.worst_us > 45000)
		fail_msg("a heartbeat took %lld us", (long long)p->b.worst_us);
	/* 2 s of 50 MiB/s, shared 4 to 1. */
	assert_in_range(p->b.bytes[LINK_BULK], 12 << 20, 40 << 20);
	assert_in_range(p->b.bytes[LINK_RPC], 50 << 20, 90 << 20);
	assert_int_equal(p->a.closed + p->b.closed, 0);
	link_stats(p->a.link, &stats);
	assert_true(stats.refused > 0 && stats.queued_bytes[LINK_BULK] > 0);
	assert_true(stats.queued_bytes[LINK_BULK] <= 8 << 20);
	assert_int_equal(p->a.rooms, 0);
	run_ms(p, 2000);
	assert_int_equal(p->a.rooms, 2);
}

/* A paused channel holds back its sender alone, within the window. */
static void test_pause(void **state)
{
	const size_t queue_max[LINK_CHANNELS] = {0, 0, 0, 1 << 20};
	struct pair *p = *state;
	uint16_t n = 0;
	int sent;

	pair_open(p, queue_max);
	stream_sim_set(p->wire, 100, 100, 0);
	run_ms(p, 10);
	p->b.numbered = true;
	link_pause(p->b.link, LINK_BULK);
	for (int i = 0; i < 100; i++) {
		if (send_pattern(&p->a, LINK_BULK, n, 40000) == 0)
			n++;
		assert_int_equal(send_pattern(&p->a, LINK_RPC, (uint16_t)i, 1000), 0);
		run_ms(p, 20);
	}
	sent = n;
	assert_int_equal(p->b.messages[LINK_RPC], 100);
	assert_int_equal(p->b.messages[LINK_BULK], 0);
	/* a queue of 1 MiB, a window of 512 KiB, and no more */
	assert_in_range(sent, 26, 42);
	assert_int_equal(p->a.rooms, 0);
	link_resume(p->b.link, LINK_BULK);
	run_ms(p, 100);
	assert_int_equal(p->b.messages[LINK_BULK], sent);
	assert_int_equal(p->a.rooms, 1);
	/* Pausing and resuming inside a large message. */
	assert_int_equal(send_pattern(&p->a, LINK_BULK, n, 8 << 20), 0);
	for (int i = 0; i < 50; i++) {
		link_pause(p->b.link, LINK_BULK);
		run_ms(p, 1);
		link_resume(p->b.link, LINK_BULK);
		run_ms(p, 2);
	}
	run_ms(p, 500);
	assert_int_equal(p->b.messages[LINK_BULK], sent + 1);
	assert_int_equal(p->a.closed + p->b.closed, 0);
}

/* Resumed while more of it is at hand: what was held back still comes first. */
static void test_resume_keeps_order(void **state)
{
	struct pair *p = *state;

	pair_open(p, NULL);
	stream_sim_set(p->wire, 100, 100, 0);
	run_ms(p, 10);
	p->b.numbered = p->b.resume_bulk_in_message = true;
	link_pause(p->b.link, LINK_BULK);
	for (uint16_t i = 0; i < 3; i++)
		assert_int_equal(send_pattern(&p->a, LINK_BULK, i, 100), 0);
	run_ms(p, 10);
	assert_int_equal(p->b.messages[LINK_BULK], 0);
	assert_int_equal(send_pattern(&p->a, LINK_RPC, 0, 100), 0);
	for (uint16_t i = 3; i < 6; i++)
		assert_int_equal(send_pattern(&p->a, LINK_BULK, i, 100), 0);
	run_ms(p, 10);
	assert_int_equal(p->b.messages[LINK_BULK], 6);
}

static void test_clock_and_rtt(void **state)
{
	struct pair *p = *state;
	struct link_stats stats;

	pair_open(p, NULL);
	stream_sim_set(p->wire, 2000, 2000, 0);
	run_ms(p, 3000);
	link_stats(p->a.link, &stats);
	assert_true(stats.clock.known);
	assert_in_range(stats.clock.rtt_us, 4000, 4200);
	assert_in_range(stats.clock.offset_us + 1000, 0, 2000);
	assert_in_range(stats.clock.error_us, 3000, 3200);
	assert_int_equal(p->a.closed + p->b.closed, 0);
}

/* A cut, both ways or one way: both sides know within their time. */
static void test_cuts(void **state)
{
	for (int way = 1; way < 4; way++) {
		struct pair *p;

		teardown(state);
		setup(state);
		p = *state;
		pair_open(p, NULL);
		stream_sim_set(p->wire, 200, 300, 0);
		run_ms(p, 1000);
		stream_sim_cut(p->wire, way & 1, way & 2);
		run_ms(p, 900);
		assert_int_equal(p->a.closed + p->b.closed, 0);
		run_ms(p, 400);
		/* Who hears nothing knows first; the other may see its end. */
		assert_int_equal(p->a.closed, way & 2 ? 1 : p->a.closed);
		assert_int_equal(p->b.closed, way & 1 ? 1 : p->b.closed);
		run_ms(p, 4000);
		assert_int_equal(p->a.closed, 1);
		assert_int_equal(p->b.closed, 1);
		assert_int_equal(way & 2 ? p->a.rc : p->b.rc, RV_ETIMEDOUT);
	}
}

/* Of two idle sides one asks; the other one, which hears that, asks once a second only.
 */
static void test_idle_is_cheap(void **state)
{
	enum { SECONDS = 20, PROBE = LINK_FRAME_HEAD + LINK_PROBE_SIZE };
	enum { ANSWER = LINK_FRAME_HEAD + LINK_ECHO_SIZE };
	struct pair *p = *state;
	struct link_stats a, b;

	pair_open(p, NULL);
	run_ms(p, SECONDS * 1000);
	link_stats(p->a.link, &a);
	link_stats(p->b.link, &b);
	assert_in_range(a.sent_bytes + b.sent_bytes, SECONDS * 4 * (PROBE + ANSWER),
		SECONDS * 6 * (PROBE + ANSWER));
	assert_int_equal(p->a.closed + p->b.closed, 0);
}

/* A link that was kept calmly becomes one whose end is to be known at once, and back. */
static void test_calm_and_strict(void **state)
{
	const struct link_timing calm = {.probe_ms = 4000, .silence_ms = 16000};
	const struct link_timing strict = {.probe_ms = 250, .silence_ms = 1000};
	struct pair *p = *state;

	pair_open(p, NULL);
	run_ms(p, 1000);
	link_set_timing(p->a.link, &calm);
	link_set_timing(p->b.link, &calm);
	run_ms(p, 3900); /* silent for longer than the strict one bears */
	link_set_timing(p->a.link, &strict);
	run_ms(p, 3000);
	assert_int_equal(p->a.closed + p->b.closed, 0);
	stream_sim_cut(p->wire, true, true);
	run_ms(p, 1400);
	assert_int_equal(p->a.closed, 1);
	assert_int_equal(p->b.closed, 0);
}

/* Hears, but is not heard, and the deaf side never ends its connection: only unanswered
 * probes tell. */
static void test_deaf_peer(void **state)
{
	struct pair *p = *state;
	struct stream *a, *b;
	uint8_t frame[64];
	struct link_hello hello = {1, 1, {{0xff}}, 5, 0};
	struct iovec piece = {frame, LINK_FRAME_HEAD + LINK_HELLO_SIZE};

	pair_streams(p, &a, &b);
	open_side(&p->a, a, UUID_A, UUID_B, NULL);
	p->b.raw = b;
	assert_int_equal(uuid_parse(&hello.host, UUID_B, UUID_TEXT_LEN), 0);
	link_frame_head(frame, LINK_HELLO, 0, 0, LINK_HELLO_SIZE);
	link_hello_encode(frame + LINK_FRAME_HEAD, &hello);
	assert_int_equal(stream_write(b, &piece, 1), 0);
	piece.iov_len = LINK_FRAME_HEAD;
	for (int i = 0; i < 60 && !p->a.closed; i++) {
		link_frame_head(frame, 100, 0, LINK_IGNORABLE, 0);
		if (p->b.raw)
			assert_int_equal(stream_write(p->b.raw, &piece, 1), 0);
		run_ms(p, 100);
	}
	assert_int_equal(p->a.up, 1);
	assert_int_equal(p->a.rc, RV_ETIMEDOUT);
	assert_non_null(strstr(p->a.reason, "answers no probe"));
}

static void test_reset_and_end(void **state)
{
	struct pair *p = *state;

	pair_open(p, NULL);
	run_ms(p, 10);
	stream_sim_reset(p->wire);
	run_ms(p, 10);
	assert_int_equal(p->a.rc, RV_ECLOSED);
	assert_int_equal(p->b.rc, RV_ECLOSED);
	teardown(state);
	setup(state);
	p = *state;
	pair_open(p, NULL);
	run_ms(p, 10);
	link_free(p->a.link);
	p->a.link = NULL;
	run_ms(p, 10);
	assert_int_equal(p->a.closed, 0);
	assert_int_equal(p->b.rc, RV_ECLOSED);
}

static void test_close_says_why(void **state)
{
	struct pair *p = *state;

	pair_open(p, NULL);
	stream_sim_set(p->wire, 100, 100, 0);
	run_ms(p, 10);
	link_close(p->b.link, RV_EPERM, "no longer a\nmember");
	link_close(p->b.link, RV_EIO, "second");
	assert_int_equal(p->b.closed, 0);
	assert_int_equal(send_pattern(&p->b, LINK_RPC, 0, 3), RV_ECLOSED);
	run_ms(p, 10);
	assert_int_equal(p->b.closed, 1);
	assert_int_equal(p->b.rc, RV_EPERM);
	assert_int_equal(p->a.rc, RV_EPERM);
	assert_non_null(strstr(p->a.reason, "no longer a?member"));
}

/* The owner ends the link, or frees it, in the middle of what arrived together. */
static void test_end_inside_message(void **state)
{
	for (int how = 0; how < 2; how++) {
		struct pair *p;

		teardown(state);
		setup(state);
		p = *state;
		pair_open(p, NULL);
		run_ms(p, 10);
		p->b.close_in_message = how == 0;
		p->b.free_in_message = how == 1;
		for (int i = 0; i < 10; i++)
			assert_int_equal(send_pattern(&p->a, LINK_RPC, 1, 100), 0);
		run_ms(p, 10);
		assert_int_equal(p->b.messages[LINK_RPC], 1);
		assert_int_equal(p->a.closed, 1);
		assert_int_equal(p->b.closed, how == 0);
	}
}

static void wrong_names(void **state, const char *certified, const char *expected,
	const char *said, int rc)
{
	struct pair *p;
	struct stream *a, *b;
	struct link_config c;
	struct rv_error e = {0};

	teardown(state);
	setup(state);
	p = *state;
	pair_streams(p, &a, &b);
	c = config_of(&p->a, UUID_A, expected);
	if (certified)
		certify(a, certified);
	assert_int_equal(link_open(&p->a.link, p->loop, a, false, &c, &e), 0);
	open_side(&p->b, b, said, UUID_A, NULL);
	run_ms(p, 100);
	assert_int_equal(p->a.up, 0);
	assert_int_equal(p->b.up, 0);
	assert_int_equal(p->a.rc, rc);
	assert_int_equal(p->b.closed, 1);
}

static void test_names_are_checked(void **state)
{
	const char *third = "99999999-bbbb-4ccc-8ddd-eeeeeeeeeeee";

	wrong_names(state, third, UUID_B, UUID_B, RV_EAUTH);
	wrong_names(state, third, UUID_B, third, RV_EAUTH);
	wrong_names(state, NULL, UUID_B, UUID_B, RV_EAUTH);
	wrong_names(state, UUID_A, UUID_A, UUID_A, RV_EAUTH);
}

/* --- a peer that does not speak as it should --- */

/* Says HELLO as B, then `len` bytes of the test's, `step` at a time every `every_ms`. */
static void hostile(void **state, bool hello_first, const void *bytes, size_t len,
	size_t step, int64_t every_ms, int64_t total_ms)
{
	struct pair *p;
	struct stream *a, *b;
	uint8_t frame[64];
	struct link_hello hello = {1, 1, {{0}}, 5, 0};
	struct iovec piece = {frame, LINK_FRAME_HEAD + LINK_HELLO_SIZE};

	teardown(state);
	setup(state);
	p = *state;
	pair_streams(p, &a, &b);
	open_side(&p->a, a, UUID_A, UUID_B, NULL);
	p->b.raw = b;
	if (hello_first) {
		assert_int_equal(uuid_parse(&hello.host, UUID_B, UUID_TEXT_LEN), 0);
		link_frame_head(frame, LINK_HELLO, 0, 0, LINK_HELLO_SIZE);
		link_hello_encode(frame + LINK_FRAME_HEAD, &hello);
		assert_int_equal(stream_write(b, &piece, 1), 0);
		run_ms(p, 1);
		assert_int_equal(p->a.up, 1);
	}
	for (size_t at = 0; at < len && p->b.raw; at += step) {
		piece.iov_base = (uint8_t *)bytes + at;
		piece.iov_len = len - at < step ? len - at : step;
		assert_int_equal(stream_write(p->b.raw, &piece, 1), 0);
		run_ms(p, every_ms);
		total_ms -= every_ms;
	}
	if (total_ms > 0)
		run_ms(p, total_ms);
	assert_int_equal(p->a.closed, 1);
}

static void test_garbage(void **state)
{
	struct pair *p;
	uint8_t noise[3000];
	struct prng prng;

	prng_seed(&prng, 3);
	for (int i = 0; i < 50; i++) {
		for (size_t j = 0; j < sizeof noise; j++)
			noise[j] = (uint8_t)prng_next(&prng);
		hostile(state, i & 1, noise, sizeof noise, 100, 1, 10);
		p = *state;
		assert_int_equal(p->a.rc, RV_EPROTO);
		assert_int_equal(p->a.messages[0], 0);
	}
	hostile(state, false, "GET / HTTP/1.0\r\n\r\n", 18, 18, 1, 10);
	p = *state;
	assert_non_null(strstr(p->a.reason, "version byte"));
}

static void test_half_a_frame_for_ever(void **state)
{
	uint8_t bytes[2000] = {0};
	struct pair *p;

	link_frame_head(bytes, LINK_DATA, LINK_RPC, LINK_FIRST, 15000);
	hostile(state, true, bytes, sizeof bytes, 10, 100, 0);
	p = *state;
	assert_int_equal(p->a.rc, RV_ETIMEDOUT);
	assert_non_null(strstr(p->a.reason, "nothing whole"));
	hostile(state, false, "", 0, 1, 1, 1500);
	p = *state;
	assert_int_equal(p->a.rc, RV_ETIMEDOUT);
	/* HELLO alone: no other host could use the link, but it is not ours to wait. */
	hostile(state, true, "", 0, 1, 1, 1500);
	p = *state;
	assert_int_equal(p->a.rc, RV_ETIMEDOUT);
}

static size_t data_frame(
	uint8_t *out, unsigned channel, unsigned flags, uint32_t total, size_t here)
{
	size_t head = flags & LINK_FIRST ? LINK_START_SIZE : 0;

	link_frame_head(out, LINK_DATA, channel, flags, (uint32_t)(head + here));
	if (head) {
		link_put16(out + 8, 1);
		link_put32(out + 10, total);
	}
	memset(out + 8 + head, 0, here);
	return LINK_FRAME_HEAD + head + here;
}

static void refused(void **state, const uint8_t *bytes, size_t len, const char *words)
{
	struct pair *p;
	struct link_frame f;
	struct rv_error e;
	size_t at = 0, used;
	bool goodbye = false;

	hostile(state, true, bytes, len, len, 10, 20);
	p = *state;
	assert_int_equal(p->a.rc, RV_EPROTO);
	if (!strstr(p->a.reason, words))
		fail_msg("'%s' says nothing of '%s'", p->a.reason, words);
	/* It was told why. */
	while (link_frame_decode(&f, p->b.got + at, p->b.got_len - at, &used, &e) == 0) {
		goodbye = f.kind == LINK_GOODBYE;
		at += used;
	}
	assert_true(goodbye);
}

static void test_broken_rules(void **state)
{
	static uint8_t bytes[2 << 20];
	size_t n = 0;

	n = data_frame(bytes, LINK_RPC, 0, 0, 10);
	refused(state, bytes, n, "no message");
	n = data_frame(bytes, LINK_RPC, LINK_FIRST, 100, 10);
	n += data_frame(bytes + n, LINK_RPC, LINK_FIRST, 100, 10);
	refused(state, bytes, n, "before the last one");
	n = data_frame(bytes, LINK_RPC, LINK_FIRST, 30, 10);
	n += data_frame(bytes + n, LINK_RPC, 0, 0, 10);
	n += data_frame(bytes + n, LINK_RPC, LINK_LAST, 0, 11);
	refused(state, bytes, n, "another length");
	n = data_frame(bytes, LINK_RPC, LINK_FIRST, 30, 10);
	n += data_frame(bytes + n, LINK_RPC, LINK_LAST, 0, 10);
	refused(state, bytes, n, "another length");
	link_frame_head(bytes, LINK_WINDOW, LINK_RPC, 0, 4);
	link_put32(bytes + 8, 1);
	refused(state, bytes, 12, "gives back");
	link_frame_head(bytes, LINK_SELECT, 0, 0, 8);
	link_put64(bytes + 8, 1);
	refused(state, bytes, 16, "SELECT");
	link_frame_head(bytes, LINK_ECHO, 0, 0, LINK_ECHO_SIZE);
	memset(bytes + 8, 0xff, LINK_ECHO_SIZE);
	refused(state, bytes, 8 + LINK_ECHO_SIZE, "no probe");
	link_frame_head(bytes, LINK_JOIN_REQUEST, 0, 0, 1);
	refused(state, bytes, 9, "kind 16");
}

/* A peer that ignores the window of a paused channel. */
static void test_overrun(void **state)
{
	static uint8_t bytes[1 << 20];
	struct pair *p = *state;
	struct stream *a, *b;
	uint8_t frame[64];
	struct link_hello hello = {1, 1, {{0}}, 5, 0};
	struct iovec piece = {frame, LINK_FRAME_HEAD + LINK_HELLO_SIZE};
	size_t n = 0;

	pair_streams(p, &a, &b);
	open_side(&p->a, a, UUID_A, UUID_B, NULL);
	p->b.raw = b;
	assert_int_equal(uuid_parse(&hello.host, UUID_B, UUID_TEXT_LEN), 0);
	link_frame_head(frame, LINK_HELLO, 0, 0, LINK_HELLO_SIZE);
	link_hello_encode(frame + LINK_FRAME_HEAD, &hello);
	assert_int_equal(stream_write(b, &piece, 1), 0);
	run_ms(p, 1);
	link_pause(p->a.link, LINK_BULK);
	while (n + 20000 < 700000)
		n += data_frame(
			bytes + n, LINK_BULK, LINK_FIRST | LINK_LAST, 16000, 16000);
	piece = (struct iovec){bytes, n};
	assert_int_equal(stream_write(b, &piece, 1), 0);
	run_ms(p, 10);
	assert_int_equal(p->a.rc, RV_EPROTO);
	assert_non_null(strstr(p->a.reason, "overran"));
}

/* Takes nothing any more; our queues fill, refuse, and the link ends. */
static void test_peer_stops_reading(void **state)
{
	struct pair *p = *state;
	struct stream *a, *b;
	uint8_t frame[64];
	struct link_hello hello = {1, 1, {{0}}, 5, 0};
	struct iovec piece = {frame, LINK_FRAME_HEAD + LINK_HELLO_SIZE};
	int sent = 0;

	pair_streams(p, &a, &b);
	open_side(&p->a, a, UUID_A, UUID_B, NULL);
	p->b.raw = b;
	assert_int_equal(uuid_parse(&hello.host, UUID_B, UUID_TEXT_LEN), 0);
	link_frame_head(frame, LINK_HELLO, 0, 0, LINK_HELLO_SIZE);
	link_hello_encode(frame + LINK_FRAME_HEAD, &hello);
	assert_int_equal(stream_write(b, &piece, 1), 0);
	run_ms(p, 1);
	stream_pause(b);
	while (send_pattern(&p->a, LINK_RPC, 1, 100000) == 0)
		sent++;
	assert_in_range(sent, 300, 360);
	piece.iov_len = LINK_FRAME_HEAD;
	link_frame_head(frame, 100, 0, LINK_IGNORABLE, 0);
	for (int i = 0; i < 50 && !p->a.closed; i++) {
		assert_int_equal(stream_write(b, &piece, 1), 0);
		run_ms(p, 100);
	}
	assert_int_equal(p->a.rc, RV_ETIMEDOUT);
	assert_int_equal(p->a.closed, 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_messages_of_all_sizes),
		TEST(test_large_message),
		TEST(test_priorities),
		TEST(test_pause),
		TEST(test_resume_keeps_order),
		TEST(test_clock_and_rtt),
		TEST(test_cuts),
		TEST(test_idle_is_cheap),
		TEST(test_calm_and_strict),
		TEST(test_deaf_peer),
		TEST(test_reset_and_end),
		TEST(test_close_says_why),
		TEST(test_end_inside_message),
		TEST(test_names_are_checked),
		TEST(test_garbage),
		TEST(test_half_a_frame_for_ever),
		TEST(test_broken_rules),
		TEST(test_overrun),
		TEST(test_peer_stops_reading),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
