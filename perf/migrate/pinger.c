#include "perf/migrate/pinger.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "perf/report.h"
#include "rpc/message.h"

enum { PAUSE_US = 2000, TIMEOUT_MS = 30000, ANSWERS_MAX = 100000 };

struct pinger {
	pthread_t thread;
	atomic_bool stop;
	struct rpc_client *client;
	const char *vm; /* borrowed */
	size_t count;
	double ms[ANSWERS_MAX];
};

static void *pinger_run(void *arg)
{
	struct pinger *p = arg;
	struct rv_error e;

	while (!atomic_load(&p->stop) && p->count < ANSWERS_MAX) {
		double began_s = report_now_s();
		msgpack_packer *pk = rpc_client_begin(p->client, "VM.get_record", 1);

		rpc_pack_key(pk, "self");
		rpc_pack_text(pk, p->vm);
		if (rpc_client_end(p->client, TIMEOUT_MS, NULL, &e))
			report_die("VM.get_record: %s", e.detail);
		p->ms[p->count++] = (report_now_s() - began_s) * 1e3;
		usleep(PAUSE_US);
	}
	return NULL;
}

struct pinger *pinger_start(const struct host *h, const char *vm)
{
	struct rpc_client_config config = {.url = h->ipc};
	struct pinger *p = calloc(1, sizeof *p);
	struct rv_error e;

	if (!p)
		report_die("out of memory");
	p->vm = vm;
	if (rpc_client_open(&p->client, &config, &e))
		report_die("%s", e.detail);
	if (pthread_create(&p->thread, NULL, pinger_run, p) != 0)
		report_die("no thread");
	return p;
}

double pinger_stop(struct pinger *p, size_t *count)
{
	double p99;

	atomic_store(&p->stop, true);
	pthread_join(p->thread, NULL);
	rpc_client_close(p->client);
	*count = p->count;
	p99 = p->count ? report_percentile(p->ms, p->count, 0.99) : 0;
	free(p);
	return p99;
}
