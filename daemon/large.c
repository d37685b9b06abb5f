#include "daemon/large.h"

#include "daemon/daemon.h"
#include "daemon/methods.h"

enum {
	LARGE_READ_OBJECTS = 64, /* more than these are many */
	LARGE_READ_PAUSE_MS = 1, /* between two, while operations are at work */
};

/* A timer that is started anew waits for the loop's next round: sockets come first. */
static void large_reads_go_on(struct daemon *d)
{
	bool at_work = op_next(d->loop, NULL) != NULL;

	if (!list_empty(&d->large_reads) && !timer_active(&d->large_read))
		timer_start_ms(&d->large_read, at_work ? LARGE_READ_PAUSE_MS : 0);
}

static void large_read_run(void *arg)
{
	struct daemon *d = arg;
	struct call *c = CONTAINER_OF(d->large_reads.next, struct call, waiting);

	list_remove(&c->waiting);
	if (c->method->kind != METHOD_KIND_GET_ALL_RECORDS) {
		methods_find(c->method->id)(c);
	} else if (!read_all_records_some(c)) {
		list_push_front(&d->large_reads, &c->waiting);
		timer_start_ms(&d->large_read, 0);
		return;
	}
	large_reads_go_on(d);
}

void large_reads_init(struct daemon *d)
{
	list_init(&d->large_reads);
	timer_init(&d->large_read, d->loop, "rpc.large_read", large_read_run, d);
}

void large_reads_stop(struct daemon *d)
{
	timer_stop(&d->large_read);
}

bool large_read_is(const struct call *c)
{
	return (c->method->kind == METHOD_KIND_GET_ALL ||
		       c->method->kind == METHOD_KIND_GET_ALL_RECORDS) &&
	       db_count(pool_db(c->daemon->pool), c->method->cls) > LARGE_READ_OBJECTS;
}

void large_read_later(struct call *c)
{
	if (call_keep(c)) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	list_push_back(&c->daemon->large_reads, &c->waiting);
	large_reads_go_on(c->daemon);
}
