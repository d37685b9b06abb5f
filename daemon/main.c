/* reeved: the daemon of one host. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/descriptors.h"

#define DEFAULT_CONFIG "/etc/reeve/reeved.conf"

enum { MAX_SETS = 64 };

static void usage(FILE *out)
{
	fputs("usage: reeved [--config FILE] [--set SECTION.KEY=VALUE]... [--witness]\n"
	      "       reeved --help-config | --version\n"
	      "\n"
	      "The daemon of one host of a Reeve pool. Without --config it "
	      "reads\n" DEFAULT_CONFIG
	      " where that exists. It stays in the foreground and logs to stderr;\n"
	      "SIGTERM ends it in order; VMs keep running.\n"
	      "\n"
	      "With --witness this machine, on which no VM runs, votes in a pool and\n"
	      "keeps its database: of two hosts either may then be lost.\n",
		out);
}

/* Buffers of busy streams come and go many times a second; handing their pages back to
 * the kernel each time costs more than the work done on them. */
static void keep_freed_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	mallopt(M_TRIM_THRESHOLD, 32 << 20);
}

/* Reads the command line. Returns -1 to go on, or the exit status. */
static int read_arguments(int argc, char **argv, struct config *c)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
		{"set", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'},
		{"help-config", no_argument, NULL, 'H'},
		{"version", no_argument, NULL, 'V'}, {"witness", no_argument, NULL, 'w'},
		{0}};
	/* One that is there but can't be read is told when it is tried. */
	bool has_default = access(DEFAULT_CONFIG, F_OK) == 0 ||
			   (errno != ENOENT && errno != ENOTDIR);
	const char *path = has_default ? DEFAULT_CONFIG : NULL;
	const char *sets[MAX_SETS];
	struct rv_error e = {0};
	int option, count = 0, rc = 0;

	while ((option = getopt_long(argc, argv, "c:s:h", options, NULL)) != -1) {
		if (option == 'c') {
			path = optarg;
		} else if (option == 's' && count < MAX_SETS) {
			sets[count++] = optarg;
		} else if (option == 'w' && count < MAX_SETS) {
			sets[count++] = "host.witness=true";
		} else if (option == 's' || option == 'w') {
			fprintf(stderr,
				"reeved: --set %s: at most %d can be given; write the "
				"settings into a file for --config\n",
				option == 's' ? optarg : "host.witness=true", MAX_SETS);
			return 2;
		} else if (option == 'h') {
			usage(stdout);
			return EXIT_SUCCESS;
		} else if (option == 'H') {
			config_print_help(stdout);
			return EXIT_SUCCESS;
		} else if (option == 'V') {
			puts("reeved " REEVE_VERSION);
			return EXIT_SUCCESS;
		} else {
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "reeved: unknown argument '%s'\n", argv[optind]);
		usage(stderr);
		return 2;
	}
	if (path)
		rc = config_read(c, path, &e);
	for (int i = 0; i < count && !rc; i++)
		rc = config_set(c, sets[i], &e);
	if (!rc)
		rc = config_check(c, &e);
	if (!rc)
		return -1;
	fprintf(stderr, "reeved: %s\n", e.detail);
	return 2;
}

static void on_terminate(void *arg)
{
	daemon_stop(arg);
}

static enum log_level level_of(const char *name)
{
	enum log_level level = LOG_DEBUG;

	while (level < LOG_ERROR && strcmp(log_level_name(level), name) != 0)
		level++;
	return level;
}

int main(int argc, char **argv)
{
	static struct daemon daemon; /* large, and lives as long as the process */
	struct config config;
	struct rv_error e = {0};
	struct loop *loop;
	bool restart;
	int status;

	config_defaults(&config);
	status = read_arguments(argc, argv, &config);
	if (status >= 0)
		return status;
	log_set_level(level_of(config.log_level));
	keep_freed_memory();
	(void)descriptors_raise();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a full quota is an error to report, not the end */
	if (loop_new(&loop, &e)) {
		fprintf(stderr, "reeved: %s\n", e.detail);
		return EXIT_FAILURE;
	}
	status = EXIT_SUCCESS;
	if (loop_on_signal(loop, SIGTERM, on_terminate, &daemon) ||
		loop_on_signal(loop, SIGINT, on_terminate, &daemon)) {
		fputs("reeved: signals can't be handled\n", stderr);
		return EXIT_FAILURE;
	}
	do { /* again after joining a pool, as its member */
		if (daemon_start(&daemon, loop, &config, &status, &e)) {
			fprintf(stderr, "reeved: %s\n", e.detail);
			status = EXIT_FAILURE;
		} else {
			loop_run(loop);
		}
		restart = daemon_starts_again(&daemon);
		daemon_fini(&daemon);
	} while (restart && status == EXIT_SUCCESS);
	loop_free(loop);
	return status;
}
