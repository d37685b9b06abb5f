/*
 * Runs seeds of the simulated pool, each in a process of its own so that whatever it dies
 * of names the seed, and prints what all of them did.
 *
 *	pool_sim [--seeds N] [--seconds S] [--first S] [--corpus FILE] [--complete]
 *		 [--all] [--fresh TREE [--skip SKIP]] [--jobs N]
 *	pool_sim --seed S [--verbose]      one, replayed; with every line
 *
 * --complete: a fault or operation that never happened is a failure. --all: goes on after
 * a seed that failed. --fresh: the first seed follows from what is committed in TREE (its
 * contents, not its history), so that each state of the code is judged by seeds of its
 * own, and always by the same; SKIP seeds on, for another part of them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

enum {
	JOBS = 2,
	MAX_CORPUS = 200,
	SEED_SECONDS = 100,
	TWICE_EVERY = 10,
	TELL_MS = 30 * 1000,
	FRESH_FIRST = 1000000, /* beyond those that people count to */
};

struct options {
	uint64_t first, seeds, seed, skip;
	int64_t seconds;
	int jobs; /* at once; JOBS at most */
	bool one, verbose, complete, all;
	const char *corpus, *self;
};

struct run {
	pid_t pid;
	uint64_t seed;
	struct ring_totals *totals; /* shared with the child */
};

struct batch {
	struct options o;
	struct run jobs[JOBS];
	int running;
	int64_t since_ms, told_ms;
	uint64_t twice, failures;
	struct ring_totals totals;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static void seed_run(uint64_t seed, bool twice, struct ring_totals *totals)
{
	struct ring_totals aside = {0};
	uint64_t hash = ring_run_seed(seed, false, totals), again;

	if (!twice)
		return;
	again = ring_run_seed(seed, false, &aside);
	if (hash != again) {
		printf("\nFAILED: seed %llu gave the trace %016llx, then %016llx\n",
			(unsigned long long)seed, (unsigned long long)hash,
			(unsigned long long)again);
		fflush(stdout);
		_Exit(1);
	}
}

/* Of the processor: a busy machine gives little of that in a second. */
static void limit_cpu(void)
{
	struct itimerval limit = {.it_value.tv_sec = SEED_SECONDS};

	if (setitimer(ITIMER_PROF, &limit, NULL))
		abort();
}

static void job_start(struct batch *b, struct run *j, uint64_t seed)
{
	bool twice = seed % TWICE_EVERY == 1;

	if (!j->totals)
		j->totals = mmap(NULL, sizeof *j->totals, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (j->totals == MAP_FAILED)
		abort();
	memset(j->totals, 0, sizeof *j->totals);
	j->seed = seed;
	b->twice += twice;
	fflush(NULL);
	j->pid = fork();
	if (j->pid == 0) {
		limit_cpu();
		seed_run(seed, twice, j->totals);
		exit(0); /* with a look for leaks */
	}
	b->running++;
}

static bool job_reap(struct batch *b)
{
	uint64_t *sum = (uint64_t *)&b->totals;
	int status = 0;
	pid_t pid = wait(&status);

	for (int i = 0; i < JOBS; i++) {
		struct run *j = &b->jobs[i];

		if (j->pid != pid || pid <= 0)
			continue;
		j->pid = 0;
		b->running--;
		for (size_t k = 0; k < sizeof b->totals / sizeof *sum; k++)
			sum[k] += ((uint64_t *)j->totals)[k];
		if (status == 0)
			return true;
		printf("FAILED: seed %llu (status %x)\nreplay: %s --seed %llu "
		       "--verbose\n",
			(unsigned long long)j->seed, (unsigned)status, b->o.self,
			(unsigned long long)j->seed);
		fflush(stdout);
		b->failures++;
		return b->o.all;
	}
	return true;
}

static bool batch_seed(struct batch *b, uint64_t seed)
{
	if (b->running == b->o.jobs && !job_reap(b))
		return false;
	for (int i = 0; i < JOBS; i++)
		if (!b->jobs[i].pid) {
			job_start(b, &b->jobs[i], seed);
			return true;
		}
	return true;
}

static int lacks(
	uint64_t count, bool say, const char *kind, const char *what, const char *where)
{
	if (count == 0 && say)
		printf("never: %s %s%s%s\n", kind, what, *where ? " / " : "", where);
	return count == 0;
}

static int totals_missing(const struct ring_totals *t, bool say)
{
	int n = 0;

	for (int i = 0; i < RING_FAULT_COUNT; i++)
		n += lacks(t->faults[i], say, "fault",
			ring_fault_name((enum ring_fault)i), "");
	for (int i = 0; i <= RING_HA_RESTARTED; i++)
		n += lacks(
			t->ha[i], say, "of leases:", ring_ha_name((enum ring_ha)i), "");
	for (int i = 0; i < RING_ACTION_COUNT; i++)
		n += lacks(t->succeeded[i], say, "success of",
			ring_action_name((enum ring_action)i), "");
	for (int p = 0; p < RING_PHASE_COUNT; p++)
		for (int f = 0; f < RING_FAILURE_COUNT; f++)
			n += lacks(t->rows[p][f], say,
				"migration:", ring_failure_name((enum ring_failure)f),
				ring_phase_name((enum ring_phase)p));
	for (int i = 0; i < RING_POINT_COUNT; i++)
		n += lacks(t->crashed[i], say, "death at", ring_point_name(i), "");
	for (int i = VOTERS_ADD; i < VOTERS_HAND_OVER; i++)
		n += lacks(t->places[i], say,
			"change of places:", voters_kind_name((enum voters_kind)i), "");
	for (int s = 0; s < RING_STAGE_COUNT; s++)
		for (int b = 0; b < RING_BLOW_COUNT; b++)
			n += lacks(t->blows[s][b], say,
				"learner:", ring_blow_name((enum ring_blow)b),
				ring_stage_name((enum ring_stage)s));
	return n;
}

static bool batch_corpus(struct batch *b)
{
	FILE *f = fopen(b->o.corpus, "r");
	uint64_t seeds[MAX_CORPUS];
	char line[256];
	size_t n = 0;

	if (!f) {
		perror(b->o.corpus);
		exit(2);
	}
	while (n < MAX_CORPUS && fgets(line, sizeof line, f))
		if (line[0] >= '0' && line[0] <= '9')
			seeds[n++] = strtoull(line, NULL, 10);
	fclose(f);
	for (size_t i = 0; i < n; i++)
		if (!batch_seed(b, seeds[i]))
			return false;
	return true;
}

/* What is rare is given as much time again to happen. */
static bool batch_enough(const struct batch *b, uint64_t done, int64_t since)
{
	int64_t spent = now_ms() - since, s = b->o.seconds * 1000;

	if (b->o.seeds && done >= b->o.seeds)
		return true;
	return s && spent >= s &&
	       (!b->o.complete || totals_missing(&b->totals, false) == 0 ||
		       spent >= 2 * s);
}

/* So that nobody takes a long run for a stuck one. */
static void batch_tell(struct batch *b)
{
	int64_t now = now_ms();

	if (now - b->told_ms < TELL_MS)
		return;
	b->told_ms = now;
	printf("%llu seeds, %llu events in %lld s; %llu failed\n",
		(unsigned long long)b->totals.seeds, (unsigned long long)b->totals.events,
		(long long)(now - b->since_ms) / 1000, (unsigned long long)b->failures);
	fflush(stdout);
}

static bool batch_run(struct batch *b)
{
	b->since_ms = b->told_ms = now_ms();
	if (b->o.corpus && !batch_corpus(b))
		return false;
	for (uint64_t i = 0; !batch_enough(b, i, b->since_ms); i++) {
		batch_tell(b);
		if (!batch_seed(b, b->o.first + i))
			return false;
	}
	while (b->running > 0)
		if (!job_reap(b))
			return false;
	return true;
}

static void print_points(const struct ring_totals *t)
{
	printf("deaths at points (of which power) of passes\n");
	for (int i = 0; i < RING_POINT_COUNT; i++)
		printf("  %-28s %8llu (%llu) of %llu\n", ring_point_name(i),
			(unsigned long long)t->crashed[i],
			(unsigned long long)t->powered[i],
			(unsigned long long)t->passed[i]);
}

/* The table of docs/migration.md: how often each cell took place. */
static void print_rows(const struct ring_totals *t)
{
	printf("migrations struck%11s", "");
	for (int p = 0; p < RING_PHASE_COUNT; p++)
		printf(" %9s", ring_phase_name((enum ring_phase)p));
	for (int f = 0; f < RING_FAILURE_COUNT; f++) {
		printf("\n  %-26s", ring_failure_name((enum ring_failure)f));
		for (int p = 0; p < RING_PHASE_COUNT; p++)
			printf(" %9llu", (unsigned long long)t->rows[p][f]);
	}
	printf("\n");
}

static void print_learners(const struct ring_totals *t)
{
	printf("learners struck%13s", "");
	for (int s = 0; s < RING_STAGE_COUNT; s++)
		printf(" %8s", ring_stage_name((enum ring_stage)s));
	for (int b = 0; b < RING_BLOW_COUNT; b++) {
		printf("\n  %-26s", ring_blow_name((enum ring_blow)b));
		for (int s = 0; s < RING_STAGE_COUNT; s++)
			printf(" %8llu", (unsigned long long)t->blows[s][b]);
	}
	printf("\nhosts:");
	for (int i = 1; i <= RING_HOSTS; i++)
		printf(" %d in %llu", i, (unsigned long long)t->hosts[i]);
	printf(" seeds; changes of places:");
	for (int i = VOTERS_ADD; i < VOTERS_HAND_OVER; i++)
		printf(" %s %llu", voters_kind_name((enum voters_kind)i),
			(unsigned long long)t->places[i]);
	printf("; %llu became another, %llu snapshots were taken in\n",
		(unsigned long long)t->became, (unsigned long long)t->installed);
}

static void print_totals(const struct batch *b)
{
	const struct ring_totals *t = &b->totals;

	printf("faults\n");
	for (int i = 0; i < RING_FAULT_COUNT; i++)
		printf("  %-28s %8llu\n", ring_fault_name((enum ring_fault)i),
			(unsigned long long)t->faults[i]);
	printf("leases and protection\n");
	for (int i = 0; i < RING_HA_COUNT; i++)
		printf("  %-36s %8llu\n", ring_ha_name((enum ring_ha)i),
			(unsigned long long)t->ha[i]);
	printf("operations (succeeded of accepted)\n");
	for (int i = 0; i < RING_ACTION_COUNT; i++)
		printf("  %-28s %8llu of %llu\n", ring_action_name((enum ring_action)i),
			(unsigned long long)t->succeeded[i],
			(unsigned long long)t->actions[i]);
	print_points(t);
	print_rows(t);
	print_learners(t);
	printf("voters: 1 in %llu seeds, 3 in %llu, 5 in %llu; %llu masters, %llu terms, "
	       "%llu answers of registers\n",
		(unsigned long long)t->voters[1], (unsigned long long)t->voters[3],
		(unsigned long long)t->voters[5], (unsigned long long)t->masters,
		(unsigned long long)t->terms, (unsigned long long)t->registers);
	printf("%llu seeds from %llu (%llu twice), %llu events, %llu virtual s, %llu "
	       "lives, %llu tasks (%llu failed), %llu commits (%llu unknown)\n",
		(unsigned long long)t->seeds, (unsigned long long)b->o.first,
		(unsigned long long)b->twice, (unsigned long long)t->events,
		(unsigned long long)t->virtual_s, (unsigned long long)t->lives,
		(unsigned long long)t->tasks, (unsigned long long)t->failed,
		(unsigned long long)t->commits, (unsigned long long)t->unknown);
}

/* From the tree that is committed: a merge of the same contents, or the same contents in
 * another clone, gives the same seeds. Where TREE is no git repository (a release's
 * archive) they are the same ones each time. */
static uint64_t seed_of_tree(const char *tree)
{
	char command[4200], id[13] = "";
	uint64_t first = FRESH_FIRST;
	FILE *git;

	snprintf(command, sizeof command,
		"git -c safe.directory='*' -C '%.4000s' rev-parse 'HEAD^{tree}' "
		"2>/dev/null",
		tree);
	git = popen(command, "r");
	if (git && !fgets(id, sizeof id, git))
		id[0] = '\0';
	if (git)
		pclose(git);
	if (strlen(id) == 12)
		first += strtoull(id, NULL, 16);
	printf("tree %s\n", *id ? id : "unknown: not in git");
	return first;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text ? text : "", &end, 10);

	if (!text || end == text || *end) {
		fprintf(stderr, "pool_sim: '%s' is no number\n", text ? text : "");
		exit(2);
	}
	return n;
}

static void parse(struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(word, "--verbose")) {
			o->verbose = true;
			continue;
		}
		if (!strcmp(word, "--all")) {
			o->all = true;
			continue;
		}
		if (!strcmp(word, "--complete")) {
			o->complete = true;
			continue;
		}
		i++;
		if (!strcmp(word, "--corpus") && next) {
			o->corpus = next;
		} else if (!strcmp(word, "--fresh") && next) {
			o->first = seed_of_tree(next);
		} else if (!strcmp(word, "--skip")) {
			o->skip = number(next);
		} else if (!strcmp(word, "--seeds")) {
			o->seeds = number(next);
		} else if (!strcmp(word, "--seconds")) {
			o->seconds = (int64_t)number(next);
		} else if (!strcmp(word, "--first")) {
			o->first = number(next);
		} else if (!strcmp(word, "--jobs")) {
			o->jobs = number(next) == 1 ? 1 : JOBS;
		} else if (!strcmp(word, "--seed")) {
			o->seed = number(next);
			o->one = true;
		} else {
			fprintf(stderr, "pool_sim: unknown option %s\n", word);
			exit(2);
		}
	}
	o->first += o->skip;
	if (!o->seeds && !o->seconds)
		o->seeds = 20;
}

static int run_one(const struct options *o)
{
	struct ring_totals totals = {0};
	uint64_t hash = ring_run_seed(o->seed, o->verbose, &totals);

	printf("seed %llu: %llu events, %llu tasks, trace %016llx\n",
		(unsigned long long)o->seed, (unsigned long long)totals.events,
		(unsigned long long)totals.tasks, (unsigned long long)hash);
	return 0;
}

int main(int argc, char **argv)
{
	struct batch b = {.o = {.first = (uint64_t)time(NULL) * 1000,
				  .jobs = JOBS,
				  .self = argv[0]}};
	int missing;
	bool ok;

	parse(&b.o, argc, argv);
	if (b.o.one)
		return run_one(&b.o);
	printf("seeds from %llu\n", (unsigned long long)b.o.first);
	ok = batch_run(&b) && b.failures == 0;
	for (int i = 0; i < JOBS; i++)
		if (b.jobs[i].pid > 0)
			kill(b.jobs[i].pid, SIGKILL);
	print_totals(&b);
	missing = b.o.complete ? totals_missing(&b.totals, true) : 0;
	if (missing)
		printf("FAILED: %d of these never happened\n", missing);
	return ok && !missing ? 0 : 1;
}
