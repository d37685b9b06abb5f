/*
 * Bare libraft with its own libuv backend: one voter, a state machine that does nothing,
 * so many proposals outstanding. What a log on libraft could reach at best.
 */
#include <raft.h>
#include <raft/uv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "perf/report.h"

enum { SNAPSHOT_ENTRIES = 16384, SNAPSHOT_TRAILING = 1024 };

struct bare {
	struct uv_loop_s loop;
	struct raft_uv_transport transport;
	struct raft_io io;
	struct raft_fsm fsm;
	struct raft raft;
	struct uv_timer_s begin, end;
	size_t entry_bytes;
	int outstanding;
	bool stopping;
	unsigned long count;
};

struct slot {
	struct raft_apply request; /* first */
	struct bare *bare;
};

static void must(int r, const char *what)
{
	if (r)
		report_die("libraft: %s: %s", what, raft_strerror(r));
}

static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	(void)fsm;
	(void)buf;
	*result = NULL;
	return 0;
}

static int on_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *count)
{
	(void)fsm;
	*bufs = raft_malloc(sizeof **bufs);
	*count = 1;
	if (!*bufs)
		return RAFT_NOMEM;
	(*bufs)[0].len = 8;
	(*bufs)[0].base = raft_calloc(1, 8);
	return (*bufs)[0].base ? 0 : RAFT_NOMEM;
}

static int on_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	(void)fsm;
	raft_free(buf->base);
	return 0;
}

static void propose(struct slot *s);

static void on_committed(struct raft_apply *request, int status, void *result)
{
	struct slot *s = (struct slot *)request;

	(void)result;
	must(status, "proposal");
	s->bare->count++;
	if (!s->bare->stopping)
		propose(s);
}

static void propose(struct slot *s)
{
	struct raft_buffer buf = {.len = s->bare->entry_bytes};

	buf.base = raft_malloc(buf.len);
	if (!buf.base)
		report_die("no memory for an entry of %zu bytes", buf.len);
	memset(buf.base, 'x', buf.len);
	must(raft_apply(&s->bare->raft, &s->request, &buf, 1, on_committed), "propose");
}

static void on_begin(uv_timer_t *timer)
{
	struct bare *b = timer->data;
	struct slot *slots = calloc((size_t)b->outstanding, sizeof *slots);

	if (!slots || raft_state(&b->raft) != RAFT_LEADER)
		report_die("libraft: no leader");
	for (int i = 0; i < b->outstanding; i++) {
		slots[i].bare = b;
		propose(&slots[i]);
	}
}

static void on_end(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

static void start(struct bare *b, const char *dir)
{
	struct raft_configuration configuration;

	must(uv_loop_init(&b->loop), "loop");
	must(raft_uv_tcp_init(&b->transport, &b->loop), "transport");
	must(raft_uv_init(&b->io, &b->loop, dir, &b->transport), "I/O");
	b->fsm = (struct raft_fsm){.version = 1,
		.data = b,
		.apply = on_apply,
		.snapshot = on_snapshot,
		.restore = on_restore};
	must(raft_init(&b->raft, &b->io, &b->fsm, 1, "127.0.0.1:0"), "raft");
	raft_set_snapshot_threshold(&b->raft, SNAPSHOT_ENTRIES);
	raft_set_snapshot_trailing(&b->raft, SNAPSHOT_TRAILING);
	raft_configuration_init(&configuration);
	must(raft_configuration_add(&configuration, 1, "127.0.0.1:0", RAFT_VOTER),
		"configuration");
	must(raft_bootstrap(&b->raft, &configuration), "bootstrap");
	raft_configuration_close(&configuration);
	must(raft_start(&b->raft), "start");
}

int main(int argc, char **argv)
{
	static struct bare b;
	double seconds, begun;

	if (argc != 5) {
		fprintf(stderr, "usage: peer_uv DIR OUTSTANDING SECONDS ENTRY-BYTES\n");
		return 2;
	}
	b.outstanding = atoi(argv[2]);
	seconds = atof(argv[3]);
	b.entry_bytes = strtoul(argv[4], NULL, 10) / 8 * 8 + 8;
	if (mkdir(argv[1], 0700) != 0)
		report_die("%s: can't be made", argv[1]);
	start(&b, argv[1]);
	uv_timer_init(&b.loop, &b.begin);
	uv_timer_init(&b.loop, &b.end);
	b.begin.data = &b;
	uv_timer_start(&b.begin, on_begin, 200, 0); /* elected, first segments made */
	uv_timer_start(&b.end, on_end, 200 + (uint64_t)(seconds * 1e3), 0);
	begun = report_now_s() + 0.2;
	uv_run(&b.loop, UV_RUN_DEFAULT);
	printf("%.1f\n", (double)b.count / (report_now_s() - begun));
	return 0; /* the process's end is end enough for what lies in DIR */
}
