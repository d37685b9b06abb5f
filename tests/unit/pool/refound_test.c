/* A log whose other voters are gone for good goes on with one server and all it holds. */
#include "pool/rlog.h"

#include "rig.h"

static int drop(struct rlog_transport *t, uint64_t to_id, const char *to_address,
	const uint8_t *bytes, size_t len)
{
	(void)t;
	(void)to_id;
	(void)to_address;
	(void)bytes;
	(void)len;
	return RV_ECLOSED;
}

static void hear_nobody(
	struct rlog_transport *t, rlog_transport_deliver_fn *fn, void *arg)
{
	(void)t;
	(void)fn;
	(void)arg;
}

static const struct rlog_transport_ops nobody_ops = {
	.send = drop, .set_receiver = hear_nobody};
static struct rlog_transport nobody = {&nobody_ops};

/* As rig_open, among servers of which none answers; runs for so long. */
static void begin(struct rig *rig, bool refound, int64_t ms)
{
	struct rv_error e;

	memset(&rig->machine, 0, sizeof rig->machine);
	rig->opened = rig->stopped = false;
	rig->open_rc = 0;
	rig->config.refound = refound;
	assert_int_equal(disk_new_sim(&rig->disk, rig->loop, rig->medium), 0);
	assert_int_equal(rlog_open(&rig->log, rig->loop, rig->disk, &nobody, &rig->config,
				 &rig_fsm, &rig_events, rig, &e),
		0);
	rig_run_ms(rig, ms);
}

static bool leads(struct rig *rig)
{
	for (int i = 0; i < 20000 && !rlog_is_leader(rig->log); i++)
		rig_run_ms(rig, 1);
	return rlog_is_leader(rig->log);
}

static struct rig *lonely(uint64_t seed)
{
	struct rig *rig = rig_new(seed);

	for (int i = 1; i < 3; i++) {
		struct rlog_server *s = &rig->config.bootstrap[i];

		*s = (struct rlog_server){.id = (uint64_t)i + 1, .voter = true};
		snprintf(s->address, sizeof s->address, "other%d", i);
	}
	rig->config.bootstrap_count = 3;
	return rig;
}

static void test_goes_on_alone(void **state)
{
	struct rig *rig = lonely(11);
	struct rlog_status s;
	uint64_t last;

	(void)state;
	begin(rig, false, 5000);
	assert_true(rig->opened && rig->open_rc == 0);
	assert_false(rlog_is_leader(rig->log));
	rig_crash(rig);
	begin(rig, true, 0);
	assert_true(leads(rig));
	rlog_status(rig->log, &s);
	assert_int_equal(s.voters, 1);
	assert_int_equal(s.servers, 1);
	assert_int_equal(s.last_term, s.term);
	rig_write_all(rig, 40, 7, 30);
	/* Said twice, it changes nothing; nor need it be said again. */
	for (int life = 0; life < 2; life++) {
		rlog_status(rig->log, &s);
		last = s.last_index;
		rig_crash(rig);
		begin(rig, life == 0, 0);
		assert_true(leads(rig));
		assert_int_equal(rig->machine.count, 40);
		rlog_status(rig->log, &s);
		assert_int_equal(s.voters, 1);
		assert_true(s.last_index <= last + 1); /* the new term's barrier */
	}
	rig_stop(rig);
	rig_free(rig);
}

static void test_cut_short(void **state)
{
	(void)state;
	for (int64_t ms = 0; ms < 40; ms++) {
		struct rig *rig = lonely(100 + (uint64_t)ms);

		begin(rig, false, 3000);
		rig_crash(rig);
		begin(rig, true, ms);
		rig_crash(rig);
		begin(rig, true, 0);
		assert_true(leads(rig));
		rig_write_all(rig, 5, 7, 30);
		rig_stop(rig);
		rig_free(rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_on_alone),
		cmocka_unit_test(test_cut_short),
	};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
