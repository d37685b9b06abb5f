/*
 * One storage request that is repeated when it fails in a way that may pass. For requests
 * without data that say what shall be: deleting, closing, creating.
 */
#ifndef REEVE_VM_VM_REQUEST_H
#define REEVE_VM_VM_REQUEST_H

#include "reactor/loop.h"
#include "vm/vm_ports.h"

/* rc and words are in the request. */
typedef void vm_request_fn(void *arg, uint64_t token, int rc);

/* Embed it, zeroed. */
struct vm_request {
	struct loop *loop;
	struct storage *storage;
	struct storage_call call;
	int tries;
	bool busy, cancelled, stopped;
	int rc;
	struct rv_error error;
	struct storage_request *request;
	storage_progress_fn *progress; /* of the owner; with its arg */
	vm_request_fn *fn;
	void *arg;
	uint64_t token;
	struct timer timer;
};

/* `call`: verb and what it takes; the rest is filled in here. At most `tries` times. fn
 * follows, from the loop. */
void vm_request_start(struct vm_request *r, struct loop *l, struct storage *st,
	const struct storage_call *call, int tries, vm_request_fn *fn,
	storage_progress_fn *progress, void *arg, uint64_t token);

/* Ends it early, where it can be; fn follows all the same. */
void vm_request_cancel(struct vm_request *r);
void vm_request_stop(struct vm_request *r); /* no callback follows; harmless on zeroes */

#endif
