/*
 * Runs seeds of the simulation, each in a process of its own so that whatever it dies of
 * names the seed, and prints what all of them did.
 *
 *	host_sim [--seeds N] [--seconds S] [--first S] [--jobs J] [--corpus FILE]
 *	         [--complete]              many; the first failure is shown and ends it
 *	host_sim --seed S [--verbose]      one, replayed; with every line
 *
 * --complete: a fault, crash point or operation that never happened is a failure.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "trail.h"
#include "world.h"

enum { MAX_JOBS = 16, MAX_CORPUS = 1000, SEED_SECONDS = 120, TWICE_EVERY = 20 };

struct options {
	uint64_t first, seeds, seed;
	int64_t seconds;
	int jobs;
	bool one, verbose, complete;
	const char *corpus;
};

struct run {
	pid_t pid;
	uint64_t seed;
	struct trail *trail;
};

struct batch {
	struct options *o;
	struct run jobs[MAX_JOBS];
	int running;
	struct sim_totals totals;
	uint64_t twice;
	const char *self;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static struct trail *trail_new(void)
{
	void *p = mmap(NULL, sizeof(struct trail), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

/* --- one seed --- */

/* Of the processor: a busy machine gives little of that in a second. */
static void limit_cpu(void)
{
	struct itimerval limit = {.it_value.tv_sec = SEED_SECONDS};

	if (setitimer(ITIMER_PROF, &limit, NULL))
		abort();
}

static pid_t seed_fork(struct trail *t, uint64_t seed, bool on, bool verbose, bool twice)
{
	pid_t pid;

	memset(t, 0, sizeof *t);
	t->on = on;
	t->verbose = verbose;
	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	limit_cpu();
	trail_set(t, NULL);
	t->hash = world_run_seed(seed);
	if (twice) {
		uint64_t hash = world_run_seed(seed);

		if (hash != t->hash)
			sim_fail("the same seed gave the trace %016llx, then %016llx",
				(unsigned long long)t->hash, (unsigned long long)hash);
	}
	_Exit(0);
}

static int seed_wait(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void print_why(const struct trail *t, uint64_t seed, int status)
{
	printf("\nFAILED: seed %llu at %.6f s: ", (unsigned long long)seed,
		(double)t->now_us / 1e6);
	if (t->failed)
		printf("%s\n", t->why);
	else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF)
		printf("not done after %d s of processor time\n", SEED_SECONDS);
	else if (WIFSIGNALED(status))
		printf("signal %s\n", strsignal(WTERMSIG(status)));
	else
		printf("exit status %d (see above)\n", WEXITSTATUS(status));
}

/* Runs it again with lines, and shows the last ones. */
static void show_failure(struct batch *b, uint64_t seed, int status, struct trail *first)
{
	struct trail *t = trail_new();
	uint64_t from;

	print_why(first, seed, status);
	seed_wait(seed_fork(t, seed, true, false, false));
	from = t->next > TRAIL_LINES ? t->next - TRAIL_LINES : 0;
	printf("\nthe last %d lines of it:\n", TRAIL_LINES);
	for (uint64_t i = from; i < t->next; i++)
		printf("%s\n", t->lines[i % TRAIL_LINES]);
	printf("\nreplay: %s --seed %llu --verbose\n", b->self, (unsigned long long)seed);
	munmap(t, sizeof *t);
}

static int run_one(struct batch *b)
{
	struct options *o = b->o;
	struct trail *t = trail_new();
	int status = seed_wait(seed_fork(t, o->seed, o->verbose, o->verbose, false));

	if (status == 0) {
		printf("seed %llu: %llu events, trace %016llx\n",
			(unsigned long long)o->seed, (unsigned long long)t->totals.events,
			(unsigned long long)t->hash);
		return 0;
	}
	if (o->verbose)
		print_why(t, o->seed, status);
	else
		show_failure(b, o->seed, status, t);
	return 1;
}

/* --- totals --- */

static int totals_missing(const struct sim_totals *t)
{
	int n = 0;

	for (int i = 0; i < SIM_FAULT_COUNT; i++)
		n += t->faults[i] == 0;
	for (int i = 0; i < SIM_POINT_COUNT; i++)
		n += t->points[i] == 0;
	for (int i = 0; i < SIM_ACTION_COUNT; i++)
		n += t->actions[i] == 0 ||
		     (i >= SIM_ACTION_START && t->succeeded[i] == 0);
	return n;
}

static void print_count(const char *name, uint64_t n, uint64_t of)
{
	if (of)
		printf("  %-28s %8llu of %llu\n", name, (unsigned long long)n,
			(unsigned long long)of);
	else
		printf("  %-28s %8llu\n", name, (unsigned long long)n);
}

static void print_totals(const struct batch *b)
{
	const struct sim_totals *t = &b->totals;

	printf("faults\n");
	for (int i = 0; i < SIM_FAULT_COUNT; i++)
		print_count(sim_fault_name((enum sim_fault)i), t->faults[i], 0);
	printf("crashes at points (of times passed)\n");
	for (int i = 0; i < SIM_POINT_COUNT; i++)
		print_count(sim_point_name(i), t->points[i], t->passed[i]);
	printf("operations (succeeded of accepted)\n");
	for (int i = 0; i < SIM_ACTION_COUNT; i++)
		if (i < SIM_ACTION_START)
			print_count(
				sim_action_name((enum sim_action)i), t->actions[i], 0);
		else
			print_count(sim_action_name((enum sim_action)i), t->succeeded[i],
				t->actions[i]);
	printf("%llu seeds from %llu (%llu of them twice), %llu events, %llu virtual "
	       "hours, %llu daemon lives, %llu tasks (%llu failed, %llu cancelled)\n",
		(unsigned long long)t->seeds, (unsigned long long)b->o->first,
		(unsigned long long)b->twice, (unsigned long long)t->events,
		(unsigned long long)t->virtual_s / 3600, (unsigned long long)t->lives,
		(unsigned long long)t->tasks, (unsigned long long)t->failed,
		(unsigned long long)t->cancelled);
}

/* --- many --- */

static void totals_add(struct sim_totals *sum, const struct sim_totals *t)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)t;

	for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
		to[i] += from[i];
}

static void batch_start(struct batch *b, uint64_t seed)
{
	for (int i = 0; i < b->o->jobs; i++) {
		struct run *j = &b->jobs[i];
		bool twice = seed % TWICE_EVERY == 0;

		if (j->pid)
			continue;
		if (!j->trail)
			j->trail = trail_new();
		j->seed = seed;
		j->pid = seed_fork(j->trail, seed, false, false, twice);
		b->twice += twice;
		b->running++;
		return;
	}
}

/* Waits for one; false: it failed. */
static bool batch_reap(struct batch *b)
{
	int status;
	pid_t pid = wait(&status);

	for (int i = 0; i < b->o->jobs; i++) {
		struct run *j = &b->jobs[i];

		if (j->pid != pid)
			continue;
		j->pid = 0;
		b->running--;
		totals_add(&b->totals, &j->trail->totals);
		if (status == 0)
			return true;
		show_failure(b, j->seed, status, j->trail);
		return false;
	}
	return true;
}

static bool batch_seed(struct batch *b, uint64_t seed)
{
	if (b->running == b->o->jobs && !batch_reap(b))
		return false;
	batch_start(b, seed);
	return true;
}

static void batch_end(struct batch *b)
{
	for (int i = 0; i < b->o->jobs; i++)
		if (b->jobs[i].pid) {
			kill(b->jobs[i].pid, SIGKILL);
			seed_wait(b->jobs[i].pid);
		}
}

static size_t corpus_read(const char *path, uint64_t *seeds)
{
	FILE *f = fopen(path, "r");
	char line[256];
	size_t n = 0;

	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof line, f) && n < MAX_CORPUS)
		if (line[0] >= '0' && line[0] <= '9')
			seeds[n++] = strtoull(line, NULL, 10);
	fclose(f);
	return n;
}

static bool run_all(struct batch *b)
{
	uint64_t corpus[MAX_CORPUS];
	size_t count = b->o->corpus ? corpus_read(b->o->corpus, corpus) : 0;
	int64_t until = now_ms() + b->o->seconds * 1000;

	for (size_t i = 0; i < count; i++)
		if (!batch_seed(b, corpus[i]))
			return false;
	for (uint64_t i = 0; b->o->seeds == 0 || i < b->o->seeds; i++) {
		/* What is rare is given as much time again to happen. */
		if (b->o->seconds && now_ms() >= until &&
			(!b->o->complete || totals_missing(&b->totals) == 0 ||
				now_ms() >= until + b->o->seconds * 1000))
			break;
		if (!batch_seed(b, b->o->first + i))
			return false;
	}
	while (b->running > 0)
		if (!batch_reap(b))
			return false;
	return true;
}

/* --- the command line --- */

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text ? text : "", &end, 10);

	if (!text || end == text || *end) {
		fprintf(stderr, "host_sim: '%s' is no number\n", text ? text : "");
		exit(2);
	}
	return n;
}

static void parse(struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seeds") == 0) {
			o->seeds = number(argv[++i]);
		} else if (strcmp(argv[i], "--seconds") == 0) {
			o->seconds = (int64_t)number(argv[++i]);
		} else if (strcmp(argv[i], "--first") == 0) {
			o->first = number(argv[++i]);
		} else if (strcmp(argv[i], "--jobs") == 0) {
			o->jobs = (int)number(argv[++i]);
		} else if (strcmp(argv[i], "--corpus") == 0) {
			o->corpus = argv[++i];
		} else if (strcmp(argv[i], "--seed") == 0) {
			o->seed = number(argv[++i]);
			o->one = true;
		} else if (strcmp(argv[i], "--verbose") == 0) {
			o->verbose = true;
		} else if (strcmp(argv[i], "--complete") == 0) {
			o->complete = true;
		} else {
			fprintf(stderr, "host_sim: unknown option %s\n", argv[i]);
			exit(2);
		}
	}
	if (o->jobs < 1 || o->jobs > MAX_JOBS)
		o->jobs = 2;
	if (!o->seeds && !o->seconds)
		o->seeds = 20;
}

int main(int argc, char **argv)
{
	/* Fresh seeds each time; what fails is printed, and joins the corpus. */
	struct options o = {.first = (uint64_t)time(NULL) * 1000, .jobs = 2};
	struct batch b = {.o = &o, .self = argv[0]};
	bool ok;

	parse(&o, argc, argv);
	if (o.one)
		return run_one(&b);
	printf("seeds from %llu\n", (unsigned long long)o.first);
	ok = run_all(&b);
	batch_end(&b);
	if (!ok)
		return 1;
	print_totals(&b);
	if (o.complete && totals_missing(&b.totals)) {
		printf("FAILED: %d of these never happened\n", totals_missing(&b.totals));
		return 1;
	}
	return 0;
}
