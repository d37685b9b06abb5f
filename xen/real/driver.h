/*
 * The inside of the driver for real Xen, shared by its files: driver.c (requests),
 * domains.c (what is there, events), calls.c (calls of one step), make.c (create,
 * restore), jobs.c (other calls of the helper), query.c (host, metrics, CPU policies),
 * console.c.
 *
 * Three sources, each with its own pace. Hypercalls are immediate: every call begins by
 * looking what is there (real_rescan). xenstored answers later, or never: what it knows
 * of a domain (label, name, targets) is read once and kept, so that lists and checks of
 * identity don't wait for it. Helper processes do what blocks, one per call.
 *
 *	submit -> defer: begin -+- identity not read yet: WAIT -> begin again
 *				+- answered at once
 *				+- STORED: xenstored writes -> answer
 *				+- LABEL -> JOB -> FIT -> answer	create, restore
 *				|	     +-> UNDO -> answer
 *				+- JOB -> GONE -> answer		destroy
 *				+- JOB -> answer			the others
 */
#ifndef REEVE_XEN_REAL_DRIVER_H
#define REEVE_XEN_REAL_DRIVER_H

#include "xen/real.h"
#include "xen/real/hypercall.h"
#include "xen/real/job.h"
#include "xen/real/label.h"
#include "xen/real/process.h"
#include "xen/real/staged.h"
#include "xen/real/stored.h"

struct real;
struct real_console;
struct real_load;

enum {
	REAL_PAGE_KIB = 4,
	REAL_LOOK_MS = 2000,	  /* hypercalls tell what no watch told */
	REAL_LOOK_OFTEN_MS = 100, /* while a balloon moves */
	REAL_MOVING_US = 3000000, /* it may move for so long after a sign of it */
	REAL_RELOAD_MS = 200,	  /* a guest's writes are looked at no oftener */
	REAL_WATCH_BURST = 200,	  /* of one domain in a second: more are muted */
	REAL_MUTE_US = 10000000,  /* for so long */
	REAL_GONE_MS = 20,	  /* a dying domain is looked at so often */
	REAL_UNDO_TRIES = 3,
	REAL_UNDO_MS = 120 * 1000,
	REAL_EXTRA_MAX_KIB = 16384,   /* more than that is no special page */
	REAL_FIRST_RESERVED = 0x7ff0, /* Xen's own domains begin here */
};

struct real_domain {
	struct list node; /* by domid */
	struct real *real;
	struct xen_dominfo info; /* as of the last look */
	/* From xenstore, valid once `loaded`. */
	bool loaded, labelled, in_store, can_balloon, is_up;
	struct xen_label label;
	enum hyper_type type;
	char name[HYPER_NAME_SIZE];
	uint64_t target_kib, static_max_kib;
	uint64_t pod_kib;

	bool introduced, ended;	  /* told as events */
	bool old;		  /* was there before the driver: nothing to tell */
	struct real_call *holder; /* create, restore, save, destroy at work on it */
	struct real_load *load;	  /* reading xenstore; NULL: not */
	bool dirty;		  /* read again, soon */
	uint32_t watch_count;
	int64_t watch_since_us, muted_until_us; /* 0: not muted */
	int64_t moving_until_us;
	int64_t metrics_cpu_ns;
	struct real_console *console;
};

enum real_phase {
	REAL_BEGIN,
	REAL_WAIT,   /* for a domain's identity */
	REAL_STORED, /* for xenstored */
	REAL_LABEL,
	REAL_JOB,
	REAL_FIT,
	REAL_GONE,
	REAL_UNDO,
};

struct real_call {
	struct list node;
	struct real *real;
	struct hyper_req *req;
	struct real_domain *domain; /* NULL: none, or gone */
	enum real_phase phase;
	bool cancelled;
	bool waits_stored; /* a callback of stored.h is to come */
	struct defer begin;
	struct timer timer;
	struct xen_job *job;
	struct real_staged staged;
	struct xen_label label; /* create, restore */
	uint64_t boot_kib, made_kib;
	uint32_t tries;
	struct rv_error undone; /* create, restore: why it is being undone */
};

/* The helper's runner (job.h), or a test's imitation of it. */
struct real_jobs {
	int (*start)(struct xen_job **out, struct loop *l,
		const struct xen_job_spec *spec, xen_job_done_fn *done, void *arg,
		struct rv_error *e);
	void (*cancel)(struct xen_job *j);
	void (*kick)(struct xen_job *j);
	void (*abandon)(struct xen_job *j);
};

/* What a driver stands on. `calls` is taken: closed with the driver, or when it can't
 * be made; the rest is borrowed for the call but for `jobs`. */
struct real_parts {
	const struct xen_hypercalls *calls;
	void *calls_arg;
	const struct real_jobs *jobs;
	const struct hyper_real_config *config; /* with the helper's path worked out */
	const struct hyper_detection *found;
	const char *driver; /* "xen-4.17" */
};

struct real {
	struct hyper hyper; /* first */
	const struct xen_hypercalls *calls;
	void *calls_arg;
	const struct real_jobs *jobs;
	char helper[HYPER_TEXT_SIZE], scripts[HYPER_TEXT_SIZE];
	struct xen_helpers helpers;
	struct stored *stored;
	struct uuid boot_id;
	struct list domains, at_work;
	size_t domain_count;
	/* Once: the domains that were there before us are known; labels were swept. */
	bool scanned, swept;
	bool lost; /* STORED_LOST was told */
	struct timer look, reload;
	struct xen_dominfo *infos; /* HYPER_MAX_DOMAINS + 1 */
	struct hyper_domain *list;
	struct hyper_domain_metrics *metrics_list;
	struct hyper_metrics metrics;
	int64_t metrics_at_us, dom0_cpu_ns, dom0_metrics_ns;
	uint64_t dom0_pages;
	struct hyper_host host;
	struct xen_cpu_policy cpu;
};

static inline struct real *real_of(const struct hyper *h)
{
	return (struct real *)h;
}

#define REAL_FOR_EACH(type, name, head)                                                  \
	for (struct type *name = CONTAINER_OF((head)->next, struct type, node);          \
		&name->node != (head);                                                   \
		name = CONTAINER_OF(name->node.next, struct type, node))

/* Returned owned (hyper_free). */
int real_new(struct hyper **out, struct loop *l, const struct real_parts *parts,
	struct rv_error *e) RV_MUST_CHECK;

/* --- driver.c: requests --- */

/* Answers, and the call is gone. rc != 0: req->error has its words, or gets the code's.
 */
void real_end(struct real_call *call, int rc);
/* Waits for the domain to be known, then begins again. */
void real_wait(struct real_call *call);
/* Some domain became known, or xenstored was lost: those that wait look again. */
void real_wake(struct real *r);
/* By identity, all four. RV_ENOENT, RV_ESTALE with words; RV_EAGAIN: not known yet, the
 * caller waits. */
int real_find(struct real *r, const struct hyper_domain_id *id, struct real_domain **out,
	struct rv_error *e) RV_MUST_CHECK;
/* RV_EBUSY with words when xenstored is lost; RV_EAGAIN: not reached yet, the caller
 * waits. */
int real_need_stored(struct real *r, const char *what, struct rv_error *e) RV_MUST_CHECK;
/* RV_EBUSY with words when another call holds it. */
int real_need_idle(const struct real_domain *d, struct rv_error *e) RV_MUST_CHECK;
/* RV_ESTATE with words. */
int real_wrong_state(const struct real_domain *d, const char *what, struct rv_error *e);
/* A create or restore of that handle at work; NULL: none. */
struct real_call *real_maker(struct real *r, const struct uuid *handle);
/* What a call of stored.h answered, as the port's code with words. */
int real_stored_error(struct real_call *call, int rc, const char *data);
/* The call holds its domain from now on. */
void real_hold(struct real_call *call, struct real_domain *d);

/* --- domains.c --- */

/* Looks what Xen has; events follow from inside. An error leaves everything as known. */
int real_rescan(struct real *r, struct rv_error *e) RV_MUST_CHECK;
struct real_domain *real_by_handle(struct real *r, const struct uuid *handle);
struct real_domain *real_by_domid(struct real *r, uint32_t domid);
void real_describe(const struct real_domain *d, struct hyper_domain *out);
struct hyper_domain_id real_id(const struct real_domain *d);
enum hyper_state real_state(const struct real_domain *d);
void real_emit(struct real_domain *d, enum hyper_event_kind kind);
/* Complete and known: INTRODUCED is told, unless it was. */
void real_introduce(struct real_domain *d);
/* Its memory may move from now on: look often. */
void real_moving(struct real_domain *d);
/* Frees it without events; for the driver's end. */
void real_domain_free(struct real_domain *d);
/* stored_events of the driver. */
extern const struct stored_events real_stored_events;
void real_look(void *arg);
void real_reload(void *arg);

/* --- calls.c, make.c, jobs.c, query.c, console.c --- */

void real_short_begin(struct real_call *call);
void real_make_begin(struct real_call *call);
void real_job_begin(struct real_call *call);
void real_destroy_begin(struct real_call *call);
/* A destroy's job for a domain that a failed create left. */
int real_destroy_job(
	struct real_call *call, xen_job_done_fn *done, struct rv_error *e) RV_MUST_CHECK;
void real_query_begin(struct real_call *call);
void real_console_begin(struct real_call *call);
void real_console_close(struct real_domain *d); /* harmless without one */

/* Fills what never changes in r->host and r->cpu. */
int real_host_init(
	struct real *r, const struct real_parts *parts, struct rv_error *e) RV_MUST_CHECK;
int real_cpu_check(const struct hyper *h, const uint8_t *offered, size_t offered_len,
	const uint8_t *needed, size_t needed_len, struct rv_error *e) RV_MUST_CHECK;
int real_cpu_common(const struct hyper *h, const uint8_t *a, size_t a_len,
	const uint8_t *b, size_t b_len, uint8_t *out, size_t *out_len,
	struct rv_error *e) RV_MUST_CHECK;

#endif
