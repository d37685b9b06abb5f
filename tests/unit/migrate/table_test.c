/*
 * docs/migration.md, row by row: each phase of a migration meets each failure, at moments
 * drawn by the seed. After every event world_check, at rest world_check_end; the number
 * of times that each row took place is printed, and none may be zero.
 *
 * One seed again: unit_migrate_table_test SEED. More seeds: REEVE_SEEDS=5000.
 */
#include "world.h"

enum phase { PREPARE, STREAM, SUSPEND, HAND_OVER, OWNED, LEAVE, PHASES };

enum failure {
	SOURCE_CRASH,
	TARGET_CRASH,
	SOURCE_POWER,
	TARGET_POWER,
	LINK_CUT,
	LINK_RESET,
	DISK_FULL,
	HYPERVISOR,
	CANCEL,
	TIME_OUT,
	GUEST_ENDS,
	FAILURES
};

static const char *const phase_names[PHASES] = {
	"prepare", "stream", "suspend", "hand-over", "owned", "leave"};
static const char *const failure_names[FAILURES] = {"source daemon", "target daemon",
	"source power", "target power", "link cut", "link reset", "disk full",
	"hypervisor", "cancel", "time-out", "guest ends"};

/* Where each phase can be met; NULL: some time after the one before. */
static const char *const points[PHASES][5] = {
	[PREPARE] = {"migrate.looked", "target.checked", "target.reserved", "target.nics",
		"migrate.prepared"},
	[STREAM] = {"migrate.begun", "+", "+", "+", "+"},
	[SUSPEND] = {"migrate.suspended", "migrate.saved", "target.restored",
		"migrate.closed", "migrate.saved"},
	[HAND_OVER] = {"migrate.final", "target.whole", "target.committed",
		"migrate.final", "target.whole"},
	[OWNED] = {"target.owner", "target.disks", "target.attached", "target.unpaused",
		"migrate.waiting"},
	[LEAVE] = {"migrate.leaving", "migrate.leaving", "migrate.leaving",
		"migrate.leaving", "migrate.leaving"},
};

struct row_test {
	struct world *w;
	enum phase phase;
	enum failure failure;
	const char *point;
	bool due, happened;
	int64_t at_us; /* STREAM: when */
	int64_t heal_us;
};

static struct row_test current;
static unsigned counts[PHASES][FAILURES];

static int64_t later_us(struct world *w, int64_t min_ms, int64_t max_ms)
{
	return loop_now_us(w->loop) + prng_range(&w->prng, min_ms, max_ms) * 1000;
}

static struct world_host *victim(struct world *w)
{
	switch (current.failure) {
	case SOURCE_CRASH:
	case SOURCE_POWER:
		return &w->hosts[0];
	case TARGET_CRASH:
	case TARGET_POWER:
		return &w->hosts[1];
	default:
		return NULL;
	}
}

static void doom(struct world *w, struct world_host *h)
{
	struct uuid on = db_ref(world_vm(w), VM_RESIDENT_ON);

	h->doomed = true;
	/* Sometimes the other one takes long to be done, so that this one comes back in
	 * the middle of it. */
	if (prng_below(&w->prng, 2) == 0) {
		storage_sim_set_hung(w->bytes, w->sr, w->hosts[h == w->hosts].uuid, true);
		current.heal_us = later_us(w, 1000, 90000);
	}
	h->power = current.failure == SOURCE_POWER || current.failure == TARGET_POWER;
	h->back_us = later_us(w, 100, 40000);
	/* COMMIT on its way may still make a target without power the owner. */
	if (h->power && (uuid_eq(&on, &h->uuid) ||
				(h == &w->hosts[1] && current.phase >= SUSPEND)))
		w->may_die = true;
}

static bool at_point(struct world *w, struct world_host *h, const char *point)
{
	if (current.happened || current.due || strcmp(point, current.point) != 0)
		return false;
	if (current.phase == STREAM && current.at_us == 0) {
		current.at_us = later_us(w, 0, 350);
		return false;
	}
	current.due = true;
	if (h != victim(w))
		return false;
	current.happened = true;
	doom(w, h);
	return true;
}

static void inject_hypervisor(struct world *w)
{
	enum hyper_sim_fault fault = (enum hyper_sim_fault)prng_range(
		&w->prng, HYPER_SIM_FAULT_ERROR, HYPER_SIM_FAULT_CRASH);
	static const enum hyper_call calls[] = {HYPER_CALL_NONE, HYPER_CALL_SAVE,
		HYPER_CALL_RESTORE, HYPER_CALL_RESUME, HYPER_CALL_UNPAUSE,
		HYPER_CALL_ATTACH_VBD, HYPER_CALL_DESTROY};

	for (int i = 0; i < WORLD_HOSTS; i++)
		hyper_sim_inject(w->hosts[i].hyper, calls[prng_below(&w->prng, 7)], fault,
			(uint32_t)prng_range(&w->prng, 1, 6),
			prng_range(&w->prng, 1, 8000) * 1000);
	/* And what it should be undone with, more often than it is tried at once. */
	if (prng_below(&w->prng, 2))
		hyper_sim_inject(w->hosts[1].hyper, HYPER_CALL_DESTROY,
			HYPER_SIM_FAULT_ERROR, (uint32_t)prng_range(&w->prng, 1, 20), 0);
}

/* A disk that does not answer for a while, or a link that crawls. */
static void delay(struct world *w)
{
	if (prng_below(&w->prng, 2) == 0)
		storage_sim_set_hung(w->bytes, w->sr,
			w->hosts[prng_below(&w->prng, WORLD_HOSTS)].uuid, true);
	else if (w->link)
		stream_sim_set(w->link, 20000000, 40000000, 1000);
}

static void end_guest(struct world *w)
{
	enum hyper_reason reason =
		prng_below(&w->prng, 2) ? HYPER_REASON_POWEROFF : HYPER_REASON_REBOOT;

	w->may_die = true;
	/* Suspended, it can't: that is the row's meaning there. */
	for (int i = 0; i < WORLD_HOSTS; i++)
		if (w->hosts[i].alive &&
			hyper_sim_end_guest(w->hosts[i].hyper, &w->vm, reason) == 0)
			return;
	w->may_die = false;
}

static void strike(struct world *w)
{
	struct rv_error e;

	current.due = false;
	current.happened = true;
	switch (current.failure) {
	case SOURCE_CRASH:
	case TARGET_CRASH:
	case SOURCE_POWER:
	case TARGET_POWER:
		doom(w, victim(w));
		break;
	case LINK_CUT:
		w->cut = true;
		if (w->link)
			stream_sim_cut(w->link, prng_below(&w->prng, 3) > 0,
				prng_below(&w->prng, 3) > 0);
		break;
	case LINK_RESET:
		if (w->link)
			stream_sim_reset(w->link);
		break;
	case DISK_FULL:
		disk_sim_set_capacity(w->medium, disk_sim_used(w->medium));
		current.heal_us = later_us(w, 10, 30000);
		break;
	case HYPERVISOR:
		inject_hypervisor(w);
		current.heal_us = later_us(w, 1000, 60000);
		break;
	case CANCEL:
		if (w->hosts[0].mgr && vm_op_cancel(w->hosts[0].mgr, &w->task, &e) == 0 &&
			current.phase > STREAM)
			world_break(w, "cancelled after the suspension");
		break;
	case TIME_OUT:
		delay(w);
		current.heal_us = later_us(w, 10, 150000);
		break;
	default:
		end_guest(w);
	}
}

static void heal(struct world *w)
{
	current.heal_us = 0;
	if (current.failure == DISK_FULL) {
		disk_sim_set_capacity(w->medium, UINT64_MAX);
		return;
	}
	for (int i = 0; i < WORLD_HOSTS && current.failure == HYPERVISOR; i++)
		for (int call = 0; call < HYPER_CALL_COUNT; call++)
			hyper_sim_inject(w->hosts[i].hyper, (enum hyper_call)call,
				HYPER_SIM_FAULT_NONE, 0, 0);
	for (int i = 0; i < WORLD_HOSTS; i++)
		storage_sim_set_hung(w->bytes, w->sr, w->hosts[i].uuid, false);
}

static void between_events(struct world *w)
{
	if (current.at_us && !current.happened && loop_now_us(w->loop) >= current.at_us)
		current.due = true;
	if (current.due && !current.happened)
		strike(w);
	if (current.heal_us && loop_now_us(w->loop) >= current.heal_us)
		heal(w);
}

static bool settle(struct world *w)
{
	int64_t until = loop_now_us(w->loop) + 900 * INT64_C(1000000);
	int64_t since = loop_now_us(w->loop);

	while (loop_now_us(w->loop) < until && !w->broken[0]) {
		between_events(w);
		if (!world_step(w))
			return false;
		if (!world_idle(w) || current.heal_us)
			since = loop_now_us(w->loop);
		else if (loop_now_us(w->loop) - since > 25 * 1000000)
			return true;
	}
	return false;
}

static void run(uint64_t seed, bool loud)
{
	enum phase phase = (enum phase)(seed % PHASES);
	enum failure failure = (enum failure)(seed / PHASES % FAILURES);
	struct world *w = world_new(seed, 4000, VM_DOMAIN_TYPE_PVH);
	int rc;

	current = (struct row_test){.w = w, .phase = phase, .failure = failure};
	current.point = points[phase][prng_below(&w->prng, 5)];
	if (current.point[0] == '+')
		current.point = "migrate.begun";
	w->quiet = true;
	w->point = at_point;
	w->live = prng_below(&w->prng, 4) != 0;
	w->accept = true;
	rc = world_migrate(w, 1);
	if (rc)
		fail_msg("seed %llu: %s", (unsigned long long)seed, w->error.detail);
	if (!settle(w) && !w->broken[0])
		world_break(w, "does not come to rest");
	if (!w->broken[0])
		world_check_end(w);
	if (loud || w->broken[0])
		print_message("seed %llu: %s, %s at %s: %s, status %d, on %d, moved %d: "
			      "%s%s\n",
			(unsigned long long)seed, phase_names[phase],
			failure_names[failure], current.point,
			current.happened ? "happened" : "did not happen", world_status(w),
			world_where(w), w->moved, world_why(w), world_result(w));
	if (w->broken[0])
		fail_msg("seed %llu: %s", (unsigned long long)seed, w->broken);
	counts[phase][failure] += current.happened;
	world_free(w);
}

static uint64_t only;

static void test_table(void **state)
{
	const char *text = getenv("REEVE_SEEDS");
	uint64_t seeds = text ? strtoull(text, NULL, 10) : 8 * PHASES * FAILURES;

	(void)state;
	if (only) {
		log_setup(LOG_DEBUG, NULL, NULL);
		run(only, true);
		return;
	}
	for (uint64_t seed = 1; seed <= seeds; seed++)
		run(seed, false);
	print_message("%-14s", "");
	for (int p = 0; p < PHASES; p++)
		print_message("%10s", phase_names[p]);
	print_message("\n");
	for (int f = 0; f < FAILURES; f++) {
		print_message("%-14s", failure_names[f]);
		for (int p = 0; p < PHASES; p++)
			print_message("%10u", counts[p][f]);
		print_message("\n");
	}
	for (int f = 0; f < FAILURES; f++)
		for (int p = 0; p < PHASES; p++)
			if (seeds >= PHASES * FAILURES * 4 && counts[p][f] == 0)
				fail_msg("%s in %s never took place", failure_names[f],
					phase_names[p]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
	};

	if (argc > 1)
		only = strtoull(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
