/*
 * The inside of the simulated driver, shared by its files: sim.c (life of driver
 * and domains), sim_jobs.c (requests at work), sim_calls.c (calls of one step),
 * sim_save.c (streams), sim_hand.c (what tests do to it).
 */
#ifndef REEVE_XEN_SIM_DRIVER_H
#define REEVE_XEN_SIM_DRIVER_H

#include "xen/sim_guest.h"
#include "xen/sim_stream.h"

struct sim;
struct sim_console;

/* A domain that is there, and its record, kept in step by sim_domain_store. */
struct sim_domain {
	struct list node; /* by domid */
	struct sim *sim;
	struct sim_record r;
	uint32_t slot;
	struct timer life; /* the next thing it does by itself */
	/* The create, restore, save or destroy at work on it; others are refused. */
	struct sim_job *holder;
	int64_t metrics_cpu_ns;
	bool condemned; /* destroyed behind our back: by its life timer, from the loop */
	bool starved;	/* its balloon wants memory that the host has not */
	struct sim_console *console;
};

enum sim_phase {
	SIM_JOB_REFUSED, /* the answer is in req already */
	SIM_JOB_BEGIN,
	SIM_JOB_EFFECT,
	SIM_JOB_STREAM,
	SIM_JOB_LOST, /* done, and nobody tells */
};

enum sim_save_stage {
	SIM_SAVE_HEAD,
	SIM_SAVE_ROUND,
	SIM_SAVE_SUSPENDING,
	SIM_SAVE_LAST,
	SIM_SAVE_STATE,
	SIM_SAVE_END,
};

/* A save or restore at work. */
struct sim_transfer {
	enum sim_save_stage stage;
	struct sim_encoder encoder;
	struct sim_decoder decoder;
	int64_t round_at_us;
	uint64_t round_at_bytes, round_at_writes;
	int64_t pace_at_us; /* from then on so many bytes went */
	uint64_t pace_bytes;
	uint64_t crash_at; /* FAULT_CRASH: after so many bytes */
};

struct sim_job {
	struct list node;
	struct sim *sim;
	struct hyper_req *req;
	struct timer timer;
	enum sim_phase phase;
	bool cancelled, parked;
	enum hyper_sim_fault fault;
	int64_t late_us;
	struct sim_record staged; /* create, restore: from the spec */
	uint64_t boot_kib;	  /* create: what it boots with */
	struct sim_device device; /* attach */
	struct sim_domain *domain;
	struct sim_transfer *transfer; /* owned */
};

struct sim_injection {
	enum hyper_sim_fault fault;
	uint32_t count;
	int64_t late_us;
};

struct sim_fenced {
	struct list node;
	struct hyper_domain domain;
};

/* A guest model set by hyper_sim_set_guest. */
struct sim_override {
	struct list node;
	struct uuid vm;
	struct hyper_sim_guest guest;
};

struct sim {
	struct hyper hyper; /* first */
	struct hyper_sim_config config;
	struct hyper_sim_machine *machine;
	bool owns_machine, stored_down;
	struct prng prng; /* continues from the machine's */
	struct list jobs, domains, overrides;
	struct sim_domain *slots[HYPER_MAX_DOMAINS];
	uint32_t domain_count;
	struct timer balloons, stored, tell;
	struct list fenced; /* struct sim_fenced: gone, and not told of */
	struct sim_injection injections[HYPER_CALL_COUNT];
	uint64_t faults_fired[HYPER_SIM_FAULT_COUNT];
	int64_t metrics_at_us; /* 0: never asked */
	uint8_t *block;	       /* page contents; owned */
	/* Answers, borrowed by callbacks. */
	struct hyper_domain *list;
	struct hyper_domain_metrics *metrics_list;
	struct hyper_metrics metrics;
	struct hyper_host host;
};

static inline struct sim *sim_of(const struct hyper *h)
{
	return (struct sim *)h;
}

#define SIM_FOR_EACH_DOMAIN(d, s)                                                        \
	for (struct sim_domain *d =                                                      \
			CONTAINER_OF((s)->domains.next, struct sim_domain, node);        \
		&d->node != &(s)->domains;                                               \
		d = CONTAINER_OF(d->node.next, struct sim_domain, node))

/* --- sim.c: domains --- */

/* Enters a domain with this record under a new domid; RV_ELIMIT, RV_ENOMEM. */
int sim_domain_add(struct sim *s, const struct sim_record *r, struct sim_domain **out,
	struct rv_error *e) RV_MUST_CHECK;
void sim_domain_remove(struct sim_domain *d);
/* It was ended from outside, now; the loop tells. */
void sim_domain_fence(struct sim_domain *d);
void sim_domain_store(struct sim_domain *d);
/* Brings it up to now: an ending that is due happens, with its event. */
void sim_domain_touch(struct sim_domain *d);
/* Sets its life timer and, if its balloon may move, the balloons'. */
void sim_domain_schedule(struct sim_domain *d);
void sim_domain_describe(const struct sim_domain *d, struct hyper_domain *out);
void sim_domain_emit(struct sim_domain *d, enum hyper_event_kind kind);

/* By identity; touches it. RV_ENOENT, RV_ESTALE with words. */
int sim_find(struct sim *s, const struct hyper_domain_id *id, struct sim_domain **out,
	struct rv_error *e) RV_MUST_CHECK;
struct sim_domain *sim_find_handle(struct sim *s, const struct uuid *handle);
struct sim_domain *sim_find_vm(struct sim *s, const struct uuid *vm);
struct hyper_domain_id sim_id(const struct sim_domain *d);

/* Free memory of the host, and how much of it is claimed, as of the last balloon look. */
uint64_t sim_free_kib(const struct sim *s);
uint64_t sim_claimed_kib(const struct sim *s);
/* Moves every balloon to where it is by now, with events, and plans the next look. */
void sim_balloons_run(struct sim *s);

/* --- sim_jobs.c --- */

void sim_submit(struct hyper *h, struct hyper_req *req);
void sim_cancel(struct hyper *h, struct hyper_req *req);
void sim_kick(struct hyper *h, struct hyper_req *req);
/* Without an answer. */
void sim_job_free(struct sim_job *job);
int64_t sim_latency_us(const struct sim_job *job);
/* Answers; the job is gone. rc != 0: req->error has its words, or gets the code's. */
void sim_job_end(struct sim_job *job, int rc);
/* The effect took place: answers, unless the fault says otherwise. */
void sim_job_done(struct sim_job *job, int error_code);
void sim_job_wake(struct sim_job *job, int64_t after_us);

/* --- sim_calls.c --- */

/* Copies and checks a request's borrowed words. */
int sim_stage(struct sim_job *job, struct rv_error *e) RV_MUST_CHECK;
void sim_create_run(struct sim_job *job);
void sim_destroy_run(struct sim_job *job);
/* The calls of one step. */
int sim_effect(struct sim_job *job, struct rv_error *e) RV_MUST_CHECK;

/* --- sim_query.c --- */

int sim_query(struct sim_job *job, struct rv_error *e) RV_MUST_CHECK;
int sim_cpu_check(const struct hyper *h, const uint8_t *offered, size_t offered_len,
	const uint8_t *needed, size_t needed_len, struct rv_error *e) RV_MUST_CHECK;
int sim_cpu_common(const struct hyper *h, const uint8_t *a, size_t a_len,
	const uint8_t *b, size_t b_len, uint8_t *out, size_t *out_len,
	struct rv_error *e) RV_MUST_CHECK;
size_t sim_cpu_policy(uint32_t features, uint8_t *out);

/* --- sim_save.c --- */

void sim_save_run(struct sim_job *job);
void sim_restore_run(struct sim_job *job);
/* Undoes what a cancelled transfer can still undo. */
void sim_transfer_undo(struct sim_job *job);

/* --- sim_console.c --- */

/* Opens the domain's console; an open one ends. *fd is returned owned. */
int sim_console_open(struct sim_domain *d, int *fd, struct rv_error *e) RV_MUST_CHECK;
void sim_console_close(struct sim_domain *d); /* harmless without one */

#endif
