/*
 * What is missing on a host to be a good member of a pool: looks at the files of dom0 and
 * at what the hypervisor said, and tells the line that mends it. Reads small files and
 * may block: for the worker.
 */
#ifndef REEVE_DAEMON_HOST_CHECK_H
#define REEVE_DAEMON_HOST_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "xen/detect.h"

enum { HOST_CHECK_MAX = 16, HOST_CHECK_TEXT = 256 };

enum host_check_grade {
	HOST_CHECK_OK,
	HOST_CHECK_ADVICE, /* works without, but will be missed */
	HOST_CHECK_WRONG,  /* must be mended before VMs are trusted to this host */
};

struct host_finding {
	const char *check; /* "dom0-memory": literal */
	enum host_check_grade grade;
	char words[HOST_CHECK_TEXT];
	char fix[HOST_CHECK_TEXT]; /* a line to type; empty when all is well */
};

/* What is known without files. */
struct host_check_facts {
	bool is_simulated;
	bool dom0_fixed;	 /* hyper_host's */
	bool clock_synchronised; /* the kernel's word (adjtimex) */
};

/* `root` is put before every path: "" but in tests. Returns how many findings there are;
 * each check gives one, in a fixed order. */
size_t host_check_run(const char *root, const struct host_check_facts *facts,
	struct host_finding out[static HOST_CHECK_MAX]);

/* Whether a time daemon keeps the kernel's clock. */
bool host_check_clock(void);

const char *host_check_grade_name(enum host_check_grade grade); /* "wrong" */

#endif
