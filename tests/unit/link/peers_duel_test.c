/* One host against a peer whose every frame the test writes: of several connections of a
 * pair one counts, and which, both sides agree on. */
#include "link/peers.h"

#include "base/log.h"
#include "link/frame.h"
#include "peers_net.h"

/* One host and a peer (host 1, which never starts) with two connections. */
struct duel {
	struct pool *pool;
	struct host *host;
	struct stream *ends[2];
	uint8_t got[2][512];
	size_t got_len[2];
	bool over[2];
};

struct duel_end {
	struct duel *duel;
	int index;
};

static size_t duel_data(void *arg, const uint8_t *data, size_t len)
{
	struct duel_end *end = arg;
	struct duel *d = end->duel;
	size_t room = sizeof d->got[0] - d->got_len[end->index],
	       n = len < room ? len : room;

	memcpy(d->got[end->index] + d->got_len[end->index], data, n);
	d->got_len[end->index] += n;
	return len;
}

static void duel_closed(void *arg, int rc, const char *detail)
{
	struct duel_end *end = arg;

	(void)rc;
	(void)detail;
	end->duel->over[end->index] = true;
}

static const struct stream_events duel_events = {
	.data = duel_data, .closed = duel_closed};

/* The number in the SELECT that came, or 0. */
static uint64_t duel_selected(const struct duel *d, int i)
{
	struct link_frame f;
	struct rv_error e;
	size_t at = 0, used;

	while (link_frame_decode(&f, d->got[i] + at, d->got_len[i] - at, &used, &e) ==
		0) {
		if (f.kind == LINK_SELECT)
			return link_get64(f.payload);
		at += used;
	}
	return 0;
}

static void duel_write(struct duel *d, int i, const uint8_t *bytes, size_t len)
{
	struct iovec piece = {(void *)bytes, len};

	(void)!stream_write(d->ends[i], &piece, 1);
}

static void duel_open(struct duel *d, struct duel_end *end)
{
	struct pool *p = d->pool;
	struct stream_config a = {.events = &duel_events, .arg = end};
	struct stream *other;

	connect_hosts(p, 1, 0, &a, &d->ends[end->index], &other);
	port_sim_accept(d->host->port, other);
}

static void duel_hello(struct duel *d, int i, uint64_t selected)
{
	struct link_hello hello = {1, 1, d->pool->hosts[1].uuid, 77, selected};
	uint8_t frame[LINK_FRAME_HEAD + LINK_HELLO_SIZE];

	link_frame_head(frame, LINK_HELLO, 0, 0, LINK_HELLO_SIZE);
	link_hello_encode(frame + LINK_FRAME_HEAD, &hello);
	duel_write(d, i, frame, sizeof frame);
}

static void duel_answer(void *arg, struct stream *stream)
{
	struct duel_end *end = arg;
	struct stream_config config = {.events = &duel_events, .arg = end};

	if (end->duel->ends[end->index]) { /* it dials again: refused, in a way */
		stream_free(stream);
		return;
	}
	end->duel->ends[end->index] = stream;
	stream_take_over(stream, &config);
}

static void duel_message(struct duel *d, int i, uint64_t number)
{
	uint8_t frame[LINK_FRAME_HEAD + LINK_START_SIZE + 16] = {0};
	uint64_t life = 1;

	link_frame_head(
		frame, LINK_DATA, LINK_RPC, LINK_FIRST | LINK_LAST, LINK_START_SIZE + 16);
	link_put16(frame + 8, 1);
	link_put32(frame + 10, 16);
	memcpy(frame + 14, &life, 8);
	memcpy(frame + 22, &number, 8);
	duel_write(d, i, frame, sizeof frame);
}

static void duel_select(struct duel *d, int i, uint64_t number)
{
	uint8_t frame[LINK_FRAME_HEAD + LINK_SELECT_SIZE];

	link_frame_head(frame, LINK_SELECT, 0, 0, LINK_SELECT_SIZE);
	link_put64(frame + 8, number);
	duel_write(d, i, frame, sizeof frame);
}

/* `arbiter`: the tested host is the pair's. */
static void duel(bool arbiter, bool late_hello)
{
	struct tally t = {0};
	struct pool *p = pool_new(11, &t);
	struct duel d = {.pool = p, .host = &p->hosts[0]};
	struct duel_end ends[2] = {{&d, 0}, {&d, 1}};
	struct view *v = &d.host->views[1];

	for (int i = 0; i < p->count; i++)
		host_stop(&p->hosts[i]);
	p->count = 2;
	p->hosts[0].uuid.b[0] = arbiter ? 1 : 200;
	p->hosts[1].uuid.b[0] = 100;
	host_start(d.host);
	duel_open(&d, &ends[0]);
	duel_hello(&d, 0, 0);
	run_ms(p, 50);
	if (!arbiter) {
		assert_int_equal(duel_selected(&d, 0), 0);
		duel_select(&d, 0, 5);
	}
	duel_message(&d, 0, 1);
	run_ms(p, 50);
	assert_true(v->up);
	assert_int_equal(v->got, 1);
	/* The second connection: of a peer that has seen the first go, or (late) not. */
	duel_open(&d, &ends[1]);
	duel_hello(&d, 1, !arbiter ? 5 : late_hello ? 0 : duel_selected(&d, 0));
	run_ms(p, 50);
	if (arbiter)
		assert_int_equal(
			duel_selected(&d, 1) > duel_selected(&d, 0), !late_hello);
	else
		duel_select(&d, 1, 6);
	run_ms(p, 50);
	assert_true(v->up);
	assert_int_equal(v->ups, late_hello ? 1 : 2);
	assert_true(d.over[late_hello ? 1 : 0]);
	assert_false(d.over[late_hello ? 0 : 1]);
	/* Only the chosen one delivers. */
	duel_message(&d, late_hello ? 1 : 0, 2);
	run_ms(p, 50);
	assert_int_equal(v->got, 1);
	duel_message(&d, late_hello ? 0 : 1, 3);
	run_ms(p, 50);
	assert_int_equal(v->got, 2);
	host_stop(d.host);
	stream_free(d.ends[0]);
	stream_free(d.ends[1]);
	pool_free(p);
}

static void test_replaced_links_are_silent(void **state)
{
	(void)state;
	duel(true, false);
	duel(false, false);
	duel(true, true);
}

/* The arbiter dials while the peer's connection is there already: its own wins, if it
 * comes to something in time. */
static void crossing(bool answers)
{
	struct tally t = {0};
	struct pool *p = pool_new(12, &t);
	struct duel d = {.pool = p, .host = &p->hosts[0]};
	struct duel_end ends[2] = {{&d, 0}, {&d, 1}};
	struct peer_status status;

	for (int i = 0; i < p->count; i++)
		host_stop(&p->hosts[i]);
	p->count = 2;
	p->hosts[0].uuid.b[0] = 1;
	p->hosts[1].uuid.b[0] = 100;
	p->answer = duel_answer;
	p->answer_arg = &ends[0];
	host_start(d.host);
	while (!d.ends[0])
		run_ms(p, 1);
	duel_open(&d, &ends[1]);
	duel_hello(&d, 1, 0);
	run_ms(p, 300);
	assert_int_equal(duel_selected(&d, 0) | duel_selected(&d, 1), 0);
	if (answers)
		duel_hello(&d, 0, 0);
	run_ms(p, 290);
	assert_true(duel_selected(&d, answers ? 0 : 1) > 0);
	assert_true(duel_selected(&d, answers ? 1 : 0) == 0);
	assert_true(d.over[answers ? 1 : 0]);
	assert_int_equal(peers_status(d.host->peers, &p->hosts[1].uuid, &status), 0);
	assert_int_equal(status.dialled, answers);
	host_stop(d.host);
	stream_free(d.ends[0]);
	stream_free(d.ends[1]);
	pool_free(p);
}

static void test_crossing_connections(void **state)
{
	(void)state;
	crossing(true);
	crossing(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replaced_links_are_silent),
		cmocka_unit_test(test_crossing_connections),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
