/*
 * The 80 clients of `start_under_80_clients`, as a process of their own: each lists all
 * VMs, again and again, until the process is ended.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "perf/host.h"
#include "perf/load.h"

int main(int argc, char **argv)
{
	struct load_config config = {
		.outstanding = 1,
		.reply_start = host_reply_start,
		.reply_start_len = sizeof host_reply_start,
	};
	struct sched_param none = {0};
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
	load_begin(load_open(&config));
	sleep(1); /* until all are at it */
	ready = fopen(argv[3], "w");
	if (!ready || fclose(ready) != 0) {
		perror(argv[3]);
		return 1;
	}
	pause();
	return 0;
}
