/*
 * What a storage driver provides, and what the front (storage/storage.c) does for it.
 *
 * The front owns requests, deadlines, order and callbacks. Per SR it starts requests in
 * order, several at a time, but never two that touch the same VDI, and those on the whole
 * SR (create, probe, attach, detach, destroy) alone. A driver gets a started request,
 * fills in r->result and calls storage_request_finish once, at any time, inside `start`
 * too.
 */
#ifndef REEVE_STORAGE_DRIVER_H
#define REEVE_STORAGE_DRIVER_H

#include "base/list.h"
#include "storage/storage.h"

enum {
	STORAGE_SR_RUNNING = 32,   /* requests at work in one SR */
	STORAGE_SR_LOOKAHEAD = 64, /* waiting ones examined behind the first */
};

/* One SR of this host: attached, or named by a request under way. */
struct storage_sr {
	struct storage *st;
	struct uuid uuid; /* none: of a probe */
	const struct storage_driver *driver;
	void *instance; /* the driver's own */
	void *data;	/* the driver's SR, from sr_open */
	bool attached;
	struct storage_config config[STORAGE_MAX_CONFIG]; /* owned copies */
	size_t config_count;
	struct list requests; /* in order; running ones among them */
	int running, settling;
	int borrowed; /* copies that read from here on behalf of another SR */
	int64_t settling_since_us;
	struct list node;
};

enum storage_request_state { REQUEST_WAITING, REQUEST_RUNNING, REQUEST_SETTLING };

struct storage_request {
	struct list node;
	struct storage_sr *sr;	      /* vdi_copy: the target's */
	struct storage_sr *source_sr; /* vdi_copy: the source's; else NULL */
	struct storage_call call;     /* type, config and data are cleared or owned */
	void *data;		      /* owned copy of call.data */
	enum storage_request_state state;
	bool cancelled; /* asked for; a driver looks between steps */
	bool reported;	/* done was called */
	struct storage_result result;
	struct timer deadline;
	struct defer report; /* of one that ended while waiting */
	void *task;	     /* the driver's */
	uint64_t created;    /* order over all SRs */
};

struct storage_driver {
	struct storage_type type;
	/* The driver's side of an SR, before its first request. RV_ENOMEM. */
	int (*sr_open)(struct storage_sr *sr, struct rv_error *e);
	/* No request is at work (or all are being dropped with storage_free: then they
	 * are still in sr->requests, to be given up without finish). */
	void (*sr_close)(struct storage_sr *sr);
	void (*start)(struct storage_request *r);
	/* r->cancelled was set, or the deadline passed: end early where possible. */
	void (*cancel)(struct storage_request *r);
	/* Of the instance, with storage_free. May be NULL. */
	void (*free)(void *instance);
};

/* For a driver's storage_NAME_add. The driver table is borrowed for good; the instance is
 * taken on success. RV_ELIMIT, RV_EEXIST. */
int storage_add(struct storage *st, const struct storage_driver *driver,
	void *instance) RV_MUST_CHECK;

struct loop *storage_loop(const struct storage *st);
struct uuid storage_host(const struct storage *st);

/* Ends a request: 0 or the code in r->result.error. r is gone afterwards. */
void storage_request_finish(struct storage_request *r);
/* Ends it with an error: copies it into the result. */
void storage_request_fail(struct storage_request *r, const struct rv_error *e);
/* Reports progress and begins the deadline anew. */
void storage_request_progress(struct storage_request *r, uint64_t bytes, uint64_t total);

/* The value, or NULL. */
const char *storage_sr_config(const struct storage_sr *sr, const char *key);

#endif
