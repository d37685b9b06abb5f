/*
 * Worked examples of placement: NAME.script beside NAME.trace. With REEVE_GOLDEN_WRITE=1
 * the traces are written anew, to be read before they are committed.
 *
 *     host NAME key=value ...      adds or replaces; keys as in read_host
 *     place POLICY key=value ...   decides, explains, and charges the chosen host
 *     explain POLICY key=value ... the same without charging
 */
#include "sched/sched.h"
#include "tests/golden/trace.h"

enum { MAX_NAMES = 64 };

struct world {
	struct sched *s;
	char names[MAX_NAMES][32];
	unsigned n_names;
};

/* cmocka's tests take no argument that a script could be run with. */
static struct world world;

static struct uuid named(const char *name)
{
	struct uuid u = {.b = {1}};
	unsigned i = 0;

	while (i < world.n_names && strcmp(world.names[i], name) != 0)
		i++;
	assert_true(i < MAX_NAMES);
	if (i == world.n_names)
		snprintf(world.names[world.n_names++], 32, "%s", name);
	u.b[15] = (uint8_t)i;
	return u;
}

static const char *name_of(void *arg, const struct uuid *u)
{
	(void)arg;
	return u->b[15] < world.n_names ? world.names[u->b[15]] : NULL;
}

static size_t read_list(char *text, struct uuid *list)
{
	size_t n = 0;
	char *save;

	for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save))
		list[n++] = named(w);
	return n;
}

static void read_load(struct sched_load *l, const char *key, const char *value)
{
	uint32_t number = (uint32_t)strtoul(value, NULL, 10);

	if (strcmp(key, "total") == 0)
		l->memory_total_kib = kib(value);
	else if (strcmp(key, "free") == 0)
		l->memory_free_kib = kib(value);
	else if (strcmp(key, "promised") == 0)
		l->memory_promised_kib = kib(value);
	else if (strcmp(key, "squeezable") == 0)
		l->memory_squeezable_kib = kib(value);
	else if (strcmp(key, "load") == 0)
		l->cpu_load_ppm = number * 10000;
	else if (strcmp(key, "vcpus") == 0)
		l->vcpus = number;
	else if (strcmp(key, "vms") == 0)
		l->vms = number;
	else if (strcmp(key, "age") == 0)
		l->oldest_vm_s = l->mean_vm_s = l->in_use_s = number;
	else if (strcmp(key, "stale") == 0)
		l->stale = number;
	else
		fail_msg("unknown key %s", key);
}

static void read_host(char *rest)
{
	struct uuid lists[2][8];
	struct sched_host h = {
		.enabled = true, .live = true, .clock_ok = true, .pcpus = 16};
	struct rv_error e = {0};
	char *save, *word = strtok_r(rest, " ", &save);

	h.uuid = named(word);
	h.load.memory_total_kib = h.load.memory_free_kib = 64 * GIB / KIB;
	while ((word = strtok_r(NULL, " ", &save))) {
		char *value = strchr(word, '=');

		assert_non_null(value);
		*value++ = '\0';
		if (strcmp(word, "srs") == 0) {
			h.n_srs = read_list(value, lists[0]);
			h.srs = lists[0];
		} else if (strcmp(word, "networks") == 0) {
			h.n_networks = read_list(value, lists[1]);
			h.networks = lists[1];
		} else if (strcmp(word, "enabled") == 0) {
			h.enabled = *value == '1';
		} else if (strcmp(word, "pcpus") == 0) {
			h.pcpus = (uint32_t)strtoul(value, NULL, 10);
		} else if (strcmp(word, "limit") == 0) {
			h.vcpus_limit = (uint32_t)strtoul(value, NULL, 10);
		} else {
			read_load(&h.load, word, value);
		}
	}
	assert_int_equal(sched_host_set(world.s, &h, &e), 0);
}

static void show(const struct sched_reason *why, size_t n, FILE *out)
{
	for (size_t i = 0; i < n; i++) {
		char text[SCHED_REASON_MAX];

		fprintf(out, "  %s\n",
			sched_format_reason(&why[i], name_of, NULL, text, sizeof text));
	}
}

static void decide(char *rest, bool charge, FILE *out)
{
	struct uuid lists[2][8];
	struct sched_request r = {.vcpus = 1};
	struct sched_reason why[MAX_NAMES];
	struct sched_decision d;
	struct rv_error e = {0};
	char *save, *word = strtok_r(rest, " ", &save);
	const struct reeve_sched_policy *p = sched_builtin(word);
	size_t n;

	assert_non_null(p);
	while ((word = strtok_r(NULL, " ", &save))) {
		char *value = strchr(word, '=');

		assert_non_null(value);
		*value++ = '\0';
		if (strcmp(word, "memory") == 0)
			r.memory_min_kib = kib(value);
		else if (strcmp(word, "vcpus") == 0)
			r.vcpus = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(word, "on") == 0)
			r.on = named(value);
		else if (strcmp(word, "affinity") == 0)
			r.affinity = named(value);
		else if (strcmp(word, "srs") == 0)
			r.n_srs = read_list(value, lists[0]), r.srs = lists[0];
		else if (strcmp(word, "networks") == 0)
			r.n_networks = read_list(value, lists[1]), r.networks = lists[1];
		else
			fail_msg("unknown key %s", word);
	}
	if (sched_explain(world.s, &r, p, 1, &d, why, MAX_NAMES, &n, NULL) != 0) {
		int rc = sched_refuse(why, n, name_of, NULL, &e);

		fprintf(out, "%s: %s\n", rv_error_xenapi(rc), e.detail);
		return;
	}
	fprintf(out, "%s, %llu MiB to be squeezed\n", name_of(NULL, &d.host),
		(unsigned long long)d.squeeze_kib / 1024);
	show(why, n, out);
	if (charge)
		assert_int_equal(sched_host_charge(world.s, &d.host,
					 (int64_t)r.memory_min_kib, (int32_t)r.vcpus, 1),
			0);
}

static void do_line(char *line, FILE *out)
{
	char *rest = strchr(line, ' ');

	assert_non_null(rest);
	*rest++ = '\0';
	if (strcmp(line, "host") == 0)
		read_host(rest);
	else if (strcmp(line, "place") == 0)
		decide(rest, true, out);
	else if (strcmp(line, "explain") == 0)
		decide(rest, false, out);
	else
		fail_msg("unknown verb %s", line);
}

static void run_begin(void)
{
	world.s = sched_new(MAX_NAMES);
	world.n_names = 0;
	assert_non_null(world.s);
}

static void run_end(void)
{
	sched_free(world.s);
}

static const struct trace script = {run_begin, do_line, run_end};

static void spread(void **state)
{
	(void)state;
	trace_script(TRACE_DIR, "spread", &script);
}

static void pack(void **state)
{
	(void)state;
	trace_script(TRACE_DIR, "pack", &script);
}

static void refuse(void **state)
{
	(void)state;
	trace_script(TRACE_DIR, "refuse", &script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spread),
		cmocka_unit_test(pack),
		cmocka_unit_test(refuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
