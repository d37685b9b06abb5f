/*
 * The life of virtual machines: operations, ownership, reconciliation.
 *
 * One `struct vm_manager` per daemon. It starts operations (only on the pool's master),
 * carries them out on its hosts through the ports, records each step in the database, and
 * brings database and hypervisor together again after a restart, a crash, or whatever an
 * admin did behind its back.
 *
 * An operation is a task. vm_op_start checks what can be checked at once, journals the
 * intent (task, VM.current_operations, VM.intent) in one entry, and only after it is
 * committed touches the world. A task ends exactly once: success, failure with the
 * reason and everything undone, or cancelled.
 *
 * The manager decides nothing about calls, sessions or roles: daemon/ does. It knows
 * nothing of migration: migrate/ uses vm_build and vm_teardown from here.
 */
#ifndef REEVE_VM_VM_H
#define REEVE_VM_VM_H

#include "pool/pool.h"
#include "reactor/op.h"
#include "sched/reeve-sched.h"
#include "vm/vm_allowed.h"

struct hyper;
struct hyper_domain_id;
struct storage;
struct net;
struct memctl_config;
struct vm_manager;
struct vm_memory;

/* VDI.intent as operations of VMs write it. Not whole yet, by one that has not ended: */
#define VM_VDI_MAKE "make"
/* To be deleted, by whichever host has its SR; nothing refers to it. */
#define VM_VDI_DISCARD "discard"

enum {
	VM_MAX_HOSTS = 64, /* driven by one manager; today the daemon drives its own */
	VM_SHUTDOWN_TIMEOUT_MS = 10 * 60 * 1000, /* how long a guest may take */
	/* Longer than it takes to find another master. */
	VM_MAY_RUN_MS = 15 * 1000,
};

/* One host's ports, all borrowed. */
struct vm_host_config {
	struct uuid uuid; /* its row in the database */
	struct hyper *hyper;
	struct storage *storage;
	struct net *net;
	const struct memctl_config *memory; /* NULL: defaults; copied */
};

/* For tests: called at named points ("start.created"); true: the daemon dies here, the
 * operation does nothing more. */
typedef bool vm_point_fn(void *arg, const char *point, const struct uuid *vm);

/* May this host let a domain run now? 0, or why not in words (RV_EAGAIN), e.g. because
 * its lease (pool/lease.h) has run out. */
typedef int vm_may_run_fn(void *arg, const struct uuid *host, struct rv_error *e);

/* Did reeve-fenced end this domain of that host? */
typedef bool vm_was_fenced_fn(
	void *arg, const struct uuid *host, const struct uuid *handle);

struct vm_manager_config {
	struct loop *loop; /* borrowed, as are pool and policy */
	struct pool *pool;
	struct uuid self; /* this host */
	/* Looks at the hypervisors and checks the invariants so often, besides at each
	 * event; 0: 10 s. */
	int64_t look_ms;
	int64_t answer_ms; /* how long a hypervisor call may take; 0: 60 s */
	/* Asked right before each domain is made, restored or unpaused, and before a
	 * protected guest goes on that was suspended for a save; others then go on
	 * without. NULL: it may. A start waits VM_MAY_RUN_MS for it, a guest as long as
	 * it takes. */
	vm_may_run_fn *may_run;
	void *may_run_arg;
	vm_was_fenced_fn *was_fenced; /* NULL: never */
	void *was_fenced_arg;
	vm_point_fn *point;
	void *point_arg;
};

/* Returned owned. */
int vm_manager_new(struct vm_manager **out, const struct vm_manager_config *config,
	struct rv_error *e) RV_MUST_CHECK;

/* Before vm_manager_start. RV_ELIMIT, RV_EEXIST, RV_ENOMEM. */
int vm_manager_add_host(struct vm_manager *m, const struct vm_host_config *host,
	struct rv_error *e) RV_MUST_CHECK;

/* The placement policy; `p` is borrowed. Default: greedy. With a plugin that errs the
 * built-in greedy is used, and a message raised. */
void vm_manager_set_policy(struct vm_manager *m, const struct reeve_sched_policy *p);

/* Compares database and hypervisors and settles what a former daemon left; call it with
 * SRs and networks plugged. `ready` is called once that
 * has been looked at (what has to be settled goes on as operations); operations are
 * accepted from then on. Once. */
typedef void vm_ready_fn(void *arg);
void vm_manager_start(struct vm_manager *m, vm_ready_fn *ready, void *arg);
/* This host has become the master: what a former one left of VMs that are on no host is
 * looked for now. Operations are accepted all the while. */
void vm_manager_take_over(struct vm_manager *m);
bool vm_manager_ready(const struct vm_manager *m);

/* The daemon ends: operations stop where they are, the next master's reconciler settles
 * them. Nothing is called back afterwards. Before the ports are freed. */
void vm_manager_stop(struct vm_manager *m);
/* After the ports and the pool were freed (their requests live in here). NULL-safe. */
void vm_manager_free(struct vm_manager *m);

/* --- operations --- */

/* Zero what is not used. Strings are borrowed for the call. */
struct vm_op_args {
	struct uuid vm;
	struct uuid on;	    /* start, resume: this host or none; none: the scheduler's */
	bool start_paused;  /* start, resume */
	int64_t timeout_ms; /* clean_*: how long the guest may take; 0: the default */
	bool with_disks;    /* destroy */
	struct uuid device; /* vbd_*, vif_*: the VBD or VIF; `vm` may be none */
	struct uuid sr;	    /* clone, provision: where disks go; none: see schema */
	const char *new_name;	   /* clone */
	const char *user, *origin; /* for the task */
};

/* The intent is committed (0), or was refused; `task` is then not there. */
typedef void vm_accepted_fn(void *arg, int rc, const struct rv_error *e);

/* Starts an operation as `task`, which is the request's UUID. 0: accepted follows, from
 * the loop, unless NULL. A task of that UUID that is there already, at work or ended, is
 * accepted and nothing is done. The end is seen in the task's row.
 *
 * Refused at once: RV_EAGAIN (reconciling), RV_ENOTMASTER, RV_ENOENT, RV_ESTATE,
 * RV_ENOTALLOWED, RV_EBUSY (naming the other operation), RV_ENOHOST (a reason per
 * host), RV_ELIMIT, RV_EPARAM. */
int vm_op_start(struct vm_manager *m, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid task, vm_accepted_fn *accepted,
	void *arg, struct rv_error *e) RV_MUST_CHECK;

/* Asks the operation to end early. RV_ENOENT: no such operation at work; RV_ENOTALLOWED:
 * it is past the point where it can be undone. */
int vm_op_cancel(
	struct vm_manager *m, const struct uuid *task, struct rv_error *e) RV_MUST_CHECK;

size_t vm_op_count(const struct vm_manager *m); /* at work */

/* The new VM's UUID in task.result for clone; nothing for the others. */

/* --- looking --- */

/* For VM.allowed_operations: bit 1 << enum vm_operation. */
uint32_t vm_allowed_now(const struct vm_manager *m, const struct row *vm);

/* NULL: no such host here. For metrics and `host-memory-show`. */
struct vm_memory *vm_host_memory(const struct vm_manager *m, const struct uuid *host);

/* The limits of a VM were changed in the database: tells the balloon controller. */
void vm_memory_changed(struct vm_manager *m, const struct uuid *vm);

/* One reason per host, for `vm-placement-explain` and refusals: RV_ENOHOST with words, or
 * 0 and the host that would be chosen. */
int vm_place_explain(struct vm_manager *m, const struct uuid *vm, const struct uuid *on,
	struct uuid *host, struct rv_error *e) RV_MUST_CHECK;

/* Looks at every host now rather than at the next interval, and checks the invariants. */
void vm_manager_look(struct vm_manager *m);

/* While `why` is not "" no VM is started, resumed or received on that host of ours; it
 * says why not and what to do. Copied. */
void vm_host_refuse(struct vm_manager *m, const struct uuid *host, const char *why);

/* Whether that domain of a host of ours was found unknown to the database. To adopt it is
 * one entry that records it as a VM's (as running or paused, of the next generation);
 * vm_manager_look after it has its label follow. */
bool vm_ghost_is(const struct vm_manager *m, const struct uuid *host,
	const struct hyper_domain_id *id);
/* How many such domains a host of ours has, and the names of the first few. */
size_t vm_ghosts_say(
	const struct vm_manager *m, const struct uuid *host, char *names, size_t size);
/* Whether a host of ours has one that bears the VM's mark. */
bool vm_ghost_of(
	const struct vm_manager *m, const struct uuid *host, const struct uuid *vm);
/* It was destroyed. */
void vm_ghost_gone(
	struct vm_manager *m, const struct uuid *host, const struct hyper_domain_id *id);
/* From now on the VM counts as having that domain, so that it can't be started beside it
 * here; none: no VM does. False: it is no ghost. */
bool vm_ghost_claim(struct vm_manager *m, const struct uuid *host,
	const struct hyper_domain_id *id, const struct uuid *vm);

/* The last broken invariant in words, or NULL: none was seen. */
const char *vm_manager_complaint(const struct vm_manager *m);

#endif
