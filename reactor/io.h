/* Readiness of a descriptor, on the real loop. Level-triggered. */
#ifndef REEVE_REACTOR_IO_H
#define REEVE_REACTOR_IO_H

#include "reactor/loop.h"

struct ev_io;

enum io_events { IO_READ = 1, IO_WRITE = 2 };
typedef void io_fn(void *arg, int events);

struct io {
	struct loop *loop;
	const char *name;
	io_fn *fn;
	void *arg;
	int fd; /* borrowed */
	struct ev_io *watcher;
};

/* RV_ENOMEM, or RV_EUNSUPPORTED on a simulated loop. Starts with no events asked for. */
int io_init(struct io *io, struct loop *l, const char *name, int fd, io_fn *fn,
	void *arg) RV_MUST_CHECK;
void io_want(struct io *io, int events); /* replaces the set; 0 stops */
void io_fini(struct io *io);		 /* idempotent; before the descriptor is closed */

#endif
