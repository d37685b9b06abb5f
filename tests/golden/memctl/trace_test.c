/*
 * Worked examples of memory control: NAME.script beside NAME.trace. With
 * REEVE_GOLDEN_WRITE=1 the traces are written anew, to be read before they are committed.
 *
 *     free SIZE
 *     domain ID DYNAMIC-MIN DYNAMIC-MAX ACTUAL [unproven]
 *     actual ID SIZE | range ID MIN MAX | mode ID NUMBER | found ID TARGET MAXMEM
 *     limited ID MAXMEM    an order for it was carried out
 *     reserve NAME SIZE MS | release NAME | build NAME ID SIZE
 *     at MS                the time now
 *     step MS              steps at that time and shows every action
 */
#include <inttypes.h>
#include "memctl/memctl.h"
#include "tests/golden/trace.h"

/* cmocka's tests take no argument that a script could be run with. */
static struct memctl *host;
static int64_t now;

/* A reservation's owner is its name, at most 15 letters. */
static struct uuid named(const char *name)
{
	struct uuid u = {.b = {0}};

	memcpy(u.b, name, strlen(name) < 15 ? strlen(name) : 15);
	return u;
}

static void domain(char *w[], const struct uuid *owner, bool proven)
{
	struct memctl_domain d = {.domid = (uint32_t)atoi(w[1]),
		.dynamic_min_kib = kib(w[2]),
		.dynamic_max_kib = kib(w[3]),
		.static_max_kib = kib(w[3]),
		.actual_kib = kib(w[4]),
		.target_kib = kib(w[4]),
		.maxmem_kib = kib(w[4]),
		.proven = proven,
		.mode = MEMCTL_RUNNING};
	struct rv_error e = {0};

	if (memctl_domain_add(host, &d, owner, &e) != 0)
		fail_msg("%s", e.detail);
}

static void show_time(FILE *out, int64_t us)
{
	if (us == MEMCTL_NEVER)
		fprintf(out, "  next never\n");
	else
		fprintf(out, "  next in %" PRId64 ".%03d ms\n", (us - now) / 1000,
			(int)((us - now) % 1000));
}

static void step(FILE *out)
{
	struct memctl_step s = memctl_step(host, now);
	struct memctl_totals t = memctl_totals(host);
	struct rv_error e = {0};

	for (size_t i = 0; i < s.count; i++) {
		const struct memctl_action *a = &s.actions[i];

		if (a->what >= MEMCTL_GRANT)
			fprintf(out, "  %s %s %" PRIu64 " KiB\n", memctl_do_name(a->what),
				(const char *)a->owner.b, a->kib);
		else
			fprintf(out, "  %s %u %" PRIu64 " KiB\n", memctl_do_name(a->what),
				a->domid, a->kib);
	}
	fprintf(out, "  unpromised %" PRId64 " KiB, reserved %" PRIu64 " KiB\n",
		t.unpromised_kib, t.reserved_kib);
	show_time(out, s.next_us);
	if (memctl_check(host, &e) != 0)
		fail_msg("%s", e.detail);
}

static void do_line(char *line, FILE *out)
{
	char *w[8] = {NULL}, *save;
	struct uuid owner;
	struct rv_error e = {0};
	int n = 0, rc = 0;

	for (char *t = strtok_r(line, " ", &save); t && n < 8;
		t = strtok_r(NULL, " ", &save))
		w[n++] = t;
	assert_true(n >= 2);
	owner = named(w[1]);
	if (strcmp(w[0], "free") == 0)
		memctl_host_free(host, kib(w[1]));
	else if (strcmp(w[0], "domain") == 0)
		domain(w, NULL, n < 6);
	else if (strcmp(w[0], "build") == 0)
		owner = named(w[5]), domain(w, &owner, true);
	else if (strcmp(w[0], "actual") == 0)
		rc = memctl_domain_actual(host, now, (uint32_t)atoi(w[1]), kib(w[2]));
	else if (strcmp(w[0], "range") == 0)
		rc = memctl_domain_range(
			host, (uint32_t)atoi(w[1]), kib(w[2]), kib(w[3]), &e);
	else if (strcmp(w[0], "mode") == 0)
		rc = memctl_domain_mode(
			host, now, (uint32_t)atoi(w[1]), (enum memctl_mode)atoi(w[2]));
	else if (strcmp(w[0], "found") == 0)
		rc = memctl_domain_found(
			host, (uint32_t)atoi(w[1]), kib(w[2]), kib(w[3]));
	else if (strcmp(w[0], "limited") == 0)
		rc = memctl_domain_limited(host, (uint32_t)atoi(w[1]), kib(w[2]));
	else if (strcmp(w[0], "reserve") == 0)
		rc = memctl_reserve(
			host, &owner, kib(w[2]), now + atoll(w[3]) * 1000, &e);
	else if (strcmp(w[0], "release") == 0)
		memctl_release(host, &owner);
	else if (strcmp(w[0], "at") == 0)
		now = atoll(w[1]) * 1000;
	else if (strcmp(w[0], "step") == 0)
		now = atoll(w[1]) * 1000, step(out);
	else
		fail_msg("unknown verb %s", w[0]);
	if (rc != 0)
		fprintf(out, "  %s %s\n", rv_error_symbol(rc), e.detail);
}

static void run_begin(void)
{
	host = memctl_new(NULL);
	assert_non_null(host);
	now = 0;
}

static void run_end(void)
{
	memctl_free(host);
}

static const struct trace script = {run_begin, do_line, run_end};

static void make_room(void **state)
{
	(void)state;
	trace_script(TRACE_DIR, "room", &script);
}

static void stuck(void **state)
{
	(void)state;
	trace_script(TRACE_DIR, "stuck", &script);
}

static void probe(void **state)
{
	(void)state;
	trace_script(TRACE_DIR, "probe", &script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(make_room),
		cmocka_unit_test(stuck),
		cmocka_unit_test(probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
