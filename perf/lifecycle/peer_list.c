/*
 * The 80 clients of `start_under_80_clients`, as a process of their own: each lists all
 * VMs, again and again, until SIGTERM; then it says how many lists it got in a second.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "perf/host.h"
#include "perf/load.h"
#include "perf/report.h"

static void on_terminate(int signal)
{
	(void)signal; /* it ends pause() */
}

int main(int argc, char **argv)
{
	struct load_config config = {
		.outstanding = 1,
		.reply_start = host_reply_start,
		.reply_start_len = sizeof host_reply_start,
	};
	struct sched_param none = {0};
	struct load *load;
	double begun;
	FILE *ready;

	if (argc != 4) {
		fprintf(stderr, "usage: peer_list URL CLIENTS READY-FILE\n");
		return 2;
	}
	/* Clients sit on other machines: these may use what is left of this one. */
	sched_setscheduler(0, SCHED_IDLE, &none);
	config.url = argv[1];
	config.sockets = atoi(argv[2]);
	config.request =
		host_request(&config.request_len, "VM.get_all_records", (char *)NULL);
	signal(SIGTERM, on_terminate);
	load = load_open(&config);
	begun = report_now_s();
	load_begin(load);
	sleep(1); /* until all are at it */
	ready = fopen(argv[3], "w");
	if (!ready || fclose(ready) != 0) {
		perror(argv[3]);
		return 1;
	}
	pause();
	ready = fopen(argv[3], "w");
	if (ready)
		fprintf(ready, "%.1f\n",
			(double)load_end(load) / (report_now_s() - begun));
	return ready && fclose(ready) == 0 ? 0 : 1;
}
