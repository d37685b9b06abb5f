/*
 * Is this machine a Xen host, and are we its control domain? Looks only; which driver the
 * daemon takes, and how loudly it says so, is the daemon's.
 */
#ifndef REEVE_XEN_DETECT_H
#define REEVE_XEN_DETECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hyper_here {
	HYPER_HERE_NOTHING, /* no Xen below us */
	HYPER_HERE_GUEST,   /* Xen below us, but this is one of its guests */
	HYPER_HERE_DOM0,    /* the control domain */
};

struct hyper_detection {
	enum hyper_here here;
	uint32_t version_major, version_minor; /* 0: not told */
	char version[64];		       /* "4.17.5-pre", or empty */
	/* For the log and the user: what was found and, where it isn't a Xen host, what a
	 * simulating daemon must say and how to get a real one. */
	char text[512];
};

/* `root` is put before /proc and /sys: "" but in tests. Reads a few small files of the
 * kernel: for the daemon's start, not for callbacks. */
void hyper_detect(const char *root, struct hyper_detection *out);

#endif
