/*
 * pool_commit on one voter: each commit sets one field of one of as many objects as are
 * outstanding, is applied, and answered when it is on disk. A process of its own for each
 * round, as its peer is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "perf/report.h"
#include "pool/pool.h"

struct bench {
	struct loop *loop;
	struct pool *pool;
	struct timer begin, end;
	struct slot *slots;
	int outstanding;
	double seconds, begun;
	bool stopping;
	size_t entry_bytes;
	unsigned long count;
};

struct slot {
	struct bench *bench;
	struct pool_commit commit;
	struct uuid vm;
	int64_t number;
};

static void must(int rc, const struct rv_error *e)
{
	if (rc)
		report_die("pool: %s", e->detail);
}

static void slot_commit(struct slot *s, bool create);

static void on_committed(struct pool_commit *c)
{
	struct slot *s = CONTAINER_OF(c, struct slot, commit);

	must(c->rc, &c->error);
	s->bench->count++;
	if (!s->bench->stopping)
		slot_commit(s, false);
}

static void slot_commit(struct slot *s, bool create)
{
	struct bench *b = s->bench;
	struct rv_error e = {0};
	const uint8_t *entry;
	struct txn t;

	txn_init(&t, pool_db(b->pool), loop_wall_ms(b->loop));
	if (create)
		txn_create(&t, CLASS_VM, s->vm);
	txn_set_int(&t, s->vm, VM_ORDER, s->number++);
	if (b->entry_bytes == 0 && !create)
		must(txn_finish(&t, &entry, &b->entry_bytes, &e), &e);
	must(pool_commit(b->pool, &s->commit, &t, on_committed, &e), &e);
}

static void on_begin(void *arg)
{
	struct bench *b = arg;

	b->begun = report_now_s();
	b->count = 0;
	timer_start_ms(&b->end, (int64_t)(b->seconds * 1e3));
}

static void on_end(void *arg)
{
	struct bench *b = arg;

	printf("%.1f %zu\n", (double)b->count / (report_now_s() - b->begun),
		b->entry_bytes);
	fflush(stdout);
	b->stopping = true;
	pool_close(b->pool);
}

static void start_slots(struct bench *b)
{
	for (int i = 0; i < b->outstanding; i++) {
		b->slots[i].bench = b;
		b->slots[i].vm = uuid_random(loop_prng(b->loop));
		slot_commit(&b->slots[i], true);
	}
	timer_start_ms(&b->begin, 200);
}

static void on_opened(void *arg, int rc, const struct rv_error *e)
{
	(void)arg;
	must(rc, e);
}

static void on_changed(void *arg)
{
	struct bench *b = arg;

	if (pool_is_master(b->pool) && !b->slots[0].bench)
		start_slots(b);
}

static void on_closed(void *arg)
{
	struct bench *b = arg;

	loop_stop(b->loop);
}

int main(int argc, char **argv)
{
	static const struct pool_events events = {on_opened, on_changed, on_closed};
	struct pool_config config = {.log = {.id = 1, .bootstrap_count = 1}};
	static struct bench b;
	struct disk *disk;
	struct rv_error e = {0};

	if (argc != 4) {
		fprintf(stderr, "usage: peer_pool DIR OUTSTANDING SECONDS\n");
		return 2;
	}
	log_set_level(LOG_WARN);
	b.outstanding = atoi(argv[2]);
	b.seconds = atof(argv[3]);
	b.slots = calloc((size_t)b.outstanding, sizeof *b.slots);
	if (!b.slots)
		report_die("out of memory");
	must(loop_new(&b.loop, &e), &e);
	must(disk_open_dir(&disk, b.loop, argv[1], &e), &e);
	snprintf(config.log.address, sizeof config.log.address, "local");
	config.log.bootstrap[0] = (struct rlog_server){.id = 1, .voter = true};
	snprintf(config.log.bootstrap[0].address, sizeof config.log.bootstrap[0].address,
		"local");
	timer_init(&b.begin, b.loop, "perf.begin", on_begin, &b);
	timer_init(&b.end, b.loop, "perf.end", on_end, &b);
	must(pool_open(&b.pool, b.loop, disk, &config, &events, &b, &e), &e);
	on_changed(&b);
	loop_run(b.loop);
	pool_free(b.pool);
	disk_free(disk);
	loop_free(b.loop);
	free(b.slots);
	return 0;
}
