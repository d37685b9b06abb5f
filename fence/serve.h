/*
 * reeve-fenced's loop: one client, one book, one hypervisor.
 */
#ifndef REEVE_FENCE_SERVE_H
#define REEVE_FENCE_SERVE_H

#include "fence/ender.h"
#include "fence/guard.h"
#include "fence/port.h"

enum { FENCED_ENDED = 64 };

struct fenced {
	struct fence_port *port;   /* borrowed */
	struct fence_ender *ender; /* borrowed */
	int64_t ending_ms;	   /* since when a domain is being destroyed; 0: none */
	bool ending_told;	   /* that it takes long */
	struct guard_book book;
	int listener, client, signals; /* -1: none */
	/* The last ones that were destroyed: a client that was away is told, too. */
	struct fence_domain ended[FENCED_ENDED];
	unsigned ended_count;
	bool greeted; /* the client said a version that we know */
	bool able;
	int list_rc;		   /* why the last list was not taken; 0: it was */
	char trouble[FENCE_WORDS]; /* what failed last, for STATE and the log */
	struct fence_message in, out;
	uint8_t bytes[FENCE_MESSAGE_BYTES + 1]; /* so that a longer one is seen */
};

/* Takes the socket (a listening one), and a signalfd or -1. */
void fenced_init(struct fenced *f, struct fence_port *port, struct fence_ender *ender,
	int listener, int signals);

/* Until a signal ends it, which it does only while nothing is guarded. */
void fenced_run(struct fenced *f);

/* One message of the client's, as it came; what is due is done. False: the client is to
 * be dropped. For the loop and tests. */
bool fenced_take(struct fenced *f, const uint8_t *bytes, size_t len, int64_t now_ms);

/* Does what is due now; when to come again, INT64_MAX: when something comes. */
int64_t fenced_act(struct fenced *f);

int64_t fenced_now_ms(void); /* CLOCK_BOOTTIME */

#endif
