/* reeve-fenced against what reeved, or somebody else, may send, on a hypervisor of the
 * test's. */
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/log.h"
#include "fence/serve.h"

struct fake {
	struct fence_port port;
	struct fence_found domains[8]; /* by domid */
	unsigned destroyed, paused, quiet, off;
	uint32_t last;
	bool fails;
	bool hangs; /* destroy, until `go` */
	sem_t go;
};

static int fake_find(
	struct fence_port *p, uint32_t domid, struct fence_found *out, struct rv_error *e)
{
	(void)e;
	*out = ((struct fake *)p)->domains[domid];
	return 0;
}

static int fake_pause(struct fence_port *p, uint32_t domid, struct rv_error *e)
{
	struct fake *x = (struct fake *)p;

	x->paused++;
	if (x->fails)
		return rv_error_set(e, RV_EHYPERVISOR, "no");
	x->domains[domid].stopped = true;
	return 0;
}

/* On the other thread. */
static int fake_destroy(
	struct fence_port *p, const struct fence_domain *d, struct rv_error *e)
{
	struct fake *x = (struct fake *)p;

	(void)e;
	if (x->hangs)
		while (sem_wait(&x->go))
			continue;
	if (!fence_found_it(&x->domains[d->domid], d))
		return 0;
	x->destroyed++;
	x->last = d->domid;
	x->domains[d->domid].there = false;
	return 0;
}

static int fake_quiet(struct fence_port *p, struct rv_error *e)
{
	struct fake *x = (struct fake *)p;

	x->quiet++;
	return x->fails ? rv_error_set(e, RV_EHYPERVISOR, "no watchdog here") : 0;
}

static int fake_off(struct fence_port *p, struct rv_error *e)
{
	(void)e;
	((struct fake *)p)->off++;
	return 0;
}

static const struct fence_port_ops fake_ops = {.name = "fake",
	.find = fake_find,
	.pause = fake_pause,
	.destroy = fake_destroy,
	.quiet = fake_quiet,
	.off = fake_off};

static struct fake fake;
static struct fence_ender *ender;
static struct fenced fenced;
static struct fence_message message;

static int set_up(void **state)
{
	struct rv_error e;

	(void)state;
	memset(&fake, 0, sizeof fake);
	sem_init(&fake.go, 0, 0);
	fake.port.ops = &fake_ops;
	assert_int_equal(fence_ender_new(&ender, &fake.port, &e), 0);
	fenced_init(&fenced, &fake.port, ender, -1, -1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	fence_ender_free(ender);
	sem_destroy(&fake.go);
	return 0;
}

/* Until nothing is being destroyed any more. */
static void settle(void)
{
	while (fenced.ending_ms) {
		struct pollfd p = {.fd = fence_ender_fd(ender), .events = POLLIN};

		assert_int_equal(poll(&p, 1, 60000), 1);
		(void)fenced_act(&fenced);
	}
}

static bool say(const struct fence_message *m)
{
	uint8_t bytes[FENCE_MESSAGE_BYTES];

	return fenced_take(&fenced, bytes, fence_encode(m, bytes), fenced_now_ms());
}

static bool hello(void)
{
	return say(
		&(struct fence_message){.type = FENCE_HELLO, .version = FENCE_VERSION});
}

static bool lease(int64_t left_ms)
{
	return say(&(struct fence_message){
		.type = FENCE_LEASE, .until_ms = fenced_now_ms() + left_ms});
}

/* Domains 1 to n, running. */
static bool guard(uint32_t n)
{
	message = (struct fence_message){.type = FENCE_GUARD, .seq = 3, .count = n};
	for (uint32_t i = 0; i < n; i++) {
		message.domains[i] = (struct fence_domain){
			.domid = i + 1, .handle = {{(uint8_t)(i + 1), 7}}};
		fake.domains[i + 1] = (struct fence_found){
			.there = true, .handle = message.domains[i].handle};
	}
	return say(&message);
}

static void test_ends_what_it_guards(void **state)
{
	(void)state;
	assert_true(hello());
	assert_true(lease(60000));
	assert_true(guard(2));
	assert_int_equal(fake.quiet, 1);
	assert_int_equal(fenced.book.count, 2);
	assert_true(lease(0)); /* it is over */
	settle();
	assert_int_equal(fake.paused, 2);
	assert_int_equal(fake.destroyed, 2);
	assert_int_equal(fake.quiet, 1);
	assert_int_equal(fake.off, 1);
	assert_int_equal(fenced.book.count, 0);
}

/* reeved was away meanwhile: it hears which domains were ended when it is back. */
static void test_tells_a_new_client(void **state)
{
	uint8_t bytes[FENCE_MESSAGE_BYTES];
	struct rv_error e;
	int ends[2];

	(void)state;
	assert_true(hello());
	assert_true(lease(60000));
	assert_true(guard(2));
	assert_true(lease(0));
	settle();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
	fenced.client = ends[0];
	assert_true(hello());
	for (int i = 0; i < 3; i++) {
		ssize_t r = recv(ends[1], bytes, sizeof bytes, 0);

		assert_true(r > 0);
		assert_int_equal(fence_decode(&message, bytes, (size_t)r, &e), 0);
		assert_int_equal(message.type, i ? FENCE_ENDED : FENCE_STATE);
		if (i)
			assert_true(
				message.domain.domid == 1 || message.domain.domid == 2);
	}
	assert_int_equal(recv(ends[1], bytes, sizeof bytes, 0), -1);
	fenced.client = -1;
	close(ends[0]);
	close(ends[1]);
}

/* The guest has ended meanwhile, and its domid is somebody else's by now. */
static void test_reused_domid(void **state)
{
	(void)state;
	assert_true(hello());
	assert_true(lease(60000));
	assert_true(guard(3));
	fake.domains[1].handle.b[9] = 1;
	fake.domains[3].there = false;
	assert_true(lease(0));
	settle();
	assert_int_equal(fake.paused, 1);
	assert_int_equal(fake.destroyed, 1);
	assert_int_equal(fake.last, 2);
	assert_true(fake.domains[1].there && !fake.domains[1].stopped);
	assert_int_equal(fenced.book.count, 0);
}

/* Its save may fail, and who saved it would let it go on. */
static void test_suspended(void **state)
{
	(void)state;
	assert_true(hello());
	assert_true(lease(60000));
	assert_true(guard(1));
	fake.domains[1].stopped = true;
	assert_true(lease(0));
	settle();
	assert_int_equal(fake.paused, 1);
	assert_int_equal(fake.destroyed, 1);
}

/* Giving a large guest's memory back takes its time: neither does the watchdog bite
 * meanwhile, nor do others run on. */
static void test_destroy_hangs(void **state)
{
	(void)state;
	assert_true(hello());
	assert_true(lease(60000));
	assert_true(guard(1));
	fake.hangs = true;
	assert_true(lease(0));
	assert_int_equal(fake.paused, 1);
	assert_int_equal(fake.off, 1);
	assert_true(lease(60000)); /* the host has a lease again, and another VM */
	message.domains[1] = (struct fence_domain){.domid = 2, .handle = {{2, 7}}};
	fake.domains[2] =
		(struct fence_found){.there = true, .handle = message.domains[1].handle};
	message.count = 2;
	message.seq++;
	assert_true(say(&message));
	assert_int_equal(fenced.book.count, 2);
	assert_int_equal(fake.quiet, 2);
	fenced.book.quiet_ms -= GUARD_QUIET_MS; /* a while later */
	(void)fenced_act(&fenced);
	assert_int_equal(fake.quiet, 3);
	assert_true(lease(0));
	assert_int_equal(fake.paused, 2);
	assert_int_equal(fake.off, 2);
	assert_true(fenced.ending_ms > 0);
	sem_post(&fake.go);
	sem_post(&fake.go);
	settle();
	assert_int_equal(fake.destroyed, 2);
	assert_int_equal(fenced.book.count, 0);
}

static void test_does_not_stop(void **state)
{
	(void)state;
	assert_true(hello());
	assert_true(lease(60000));
	assert_true(guard(1));
	fake.fails = true;
	assert_true(lease(0));
	assert_int_equal(fake.destroyed, 0);
	assert_int_equal(fake.off, 0); /* the watchdog is what is left */
	assert_int_equal(fake.quiet, 1);
	assert_int_equal(fenced.book.count, 1);
}

static void test_no_watchdog(void **state)
{
	(void)state;
	fake.fails = true;
	assert_true(hello());
	assert_true(lease(60000));
	assert_true(guard(1));
	assert_false(fenced.able);
	assert_string_equal(fenced.trouble, "no watchdog here");
}

static void count_lines(void *arg, enum log_level level, const char *line, size_t len)
{
	(void)len;
	if (strstr(line, "fence.client"))
		((unsigned *)arg)[level]++;
}

/* What is refused with each renewal is in the log once, and so is its end. */
static void test_refused_list(void **state)
{
	unsigned lines[LOG_ERROR + 1] = {0};

	(void)state;
	assert_true(hello());
	log_setup(LOG_INFO, count_lines, lines);
	for (int i = 0; i < 5; i++)
		assert_true(guard(1)); /* there is no lease */
	assert_int_equal(lines[LOG_WARN], 1);
	assert_int_equal(lines[LOG_INFO], 0);
	assert_true(lease(60000));
	for (int i = 0; i < 5; i++)
		assert_true(guard(1));
	log_setup(LOG_ERROR + 1, NULL, NULL);
	assert_int_equal(lines[LOG_WARN], 1);
	assert_int_equal(lines[LOG_INFO], 1);
}

static void test_strangers(void **state)
{
	struct fence_message m = {.type = FENCE_HELLO, .version = 99};

	(void)state;
	assert_false(lease(60000)); /* before HELLO */
	assert_false(say(&m));
	assert_true(hello());
	m = (struct fence_message){.type = FENCE_STATE};
	assert_false(say(&m));
	m = (struct fence_message){
		.type = FENCE_ENDED, .domain = {.domid = 1, .handle = {{1}}}};
	assert_false(say(&m));
	assert_false(lease(3600 * 1000));
	assert_int_equal(fenced.book.until_ms, 0);
	assert_true(guard(1)); /* without a lease: not taken, but told so */
	assert_int_equal(fenced.book.count, 0);
	assert_int_equal(fenced.book.seq, 0);
}

/* --- messages --- */

static int decode(const uint8_t *bytes, size_t len)
{
	struct rv_error e;

	return fence_decode(&message, bytes, len, &e);
}

static void test_round_trip(void **state)
{
	static uint8_t bytes[FENCE_MESSAGE_BYTES];
	struct fence_message m = {.type = FENCE_STATE,
		.version = 1,
		.until_ms = 123456789012,
		.seq = 9,
		.guarded = 4,
		.able = true,
		.words = "a\nb"};

	(void)state;
	assert_int_equal(decode(bytes, fence_encode(&m, bytes)), 0);
	assert_int_equal(message.until_ms, m.until_ms);
	assert_int_equal(message.seq, 9);
	assert_int_equal(message.guarded, 4);
	assert_true(message.able);
	assert_string_equal(message.words, "a?b");
	m = (struct fence_message){
		.type = FENCE_GUARD, .seq = 1, .count = FENCE_MAX_DOMAINS};
	for (uint32_t i = 0; i < m.count; i++)
		m.domains[i] = (struct fence_domain){i + 1, {{1, (uint8_t)i}}};
	assert_int_equal(fence_encode(&m, bytes), sizeof bytes);
	assert_int_equal(decode(bytes, sizeof bytes), 0);
	assert_memory_equal(message.domains, m.domains, sizeof m.domains);
}

static void test_malformed(void **state)
{
	static uint8_t bytes[FENCE_MESSAGE_BYTES], copy[FENCE_MESSAGE_BYTES];
	struct fence_message m = {.type = FENCE_GUARD, .seq = 1, .count = 2};
	size_t len;

	(void)state;
	m.domains[0] = (struct fence_domain){5, {{1}}};
	m.domains[1] = (struct fence_domain){6, {{2}}};
	len = fence_encode(&m, bytes);
	assert_int_equal(decode(bytes, len), 0);
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(decode(bytes, cut), RV_EPROTO);
	memcpy(copy, bytes, len);
	bytes_put_le32(copy + FENCE_HEAD_BYTES + 8, UINT32_MAX);
	assert_int_equal(decode(copy, len), RV_EPROTO);
	bytes_put_le32(copy + FENCE_HEAD_BYTES + 8, 1);
	assert_int_equal(decode(copy, len), RV_EPROTO);
	m.domains[1].domid = 5; /* twice */
	assert_int_equal(decode(copy, fence_encode(&m, copy)), RV_EPROTO);
	m.domains[1].domid = 0; /* dom0 */
	assert_int_equal(decode(copy, fence_encode(&m, copy)), RV_EPROTO);
	m.domains[1].domid = 0x7ff4; /* Xen's own */
	assert_int_equal(decode(copy, fence_encode(&m, copy)), RV_EPROTO);
	m.domains[1] = (struct fence_domain){.domid = 6};
	assert_int_equal(decode(copy, fence_encode(&m, copy)), RV_EPROTO);
	m.domains[1].handle.b[0] = 1;
	m.seq = 0;
	assert_int_equal(decode(copy, fence_encode(&m, copy)), RV_EPROTO);
	copy[0] ^= 1;
	assert_int_equal(decode(copy, len), RV_EPROTO);
	copy[0] ^= 1;
	copy[4] = 77;
	assert_int_equal(decode(copy, len), RV_EPROTO);
}

#define WITH_THREAD(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_THREAD(test_ends_what_it_guards),
		WITH_THREAD(test_tells_a_new_client),
		WITH_THREAD(test_reused_domid),
		WITH_THREAD(test_suspended),
		WITH_THREAD(test_destroy_hangs),
		WITH_THREAD(test_does_not_stop),
		WITH_THREAD(test_no_watchdog),
		WITH_THREAD(test_refused_list),
		WITH_THREAD(test_strangers),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
