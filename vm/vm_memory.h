/*
 * The memory of one host: the shell around memctl's controller.
 *
 * It feeds the controller from the hypervisor's events, carries its actions out (targets,
 * maxmem), and hands out reservations: memory that one operation may build a domain with,
 * promised to nobody else. Users: the operations of vm/ and migrate/, through the host
 * they run on.
 *
 * Free memory is booked, not polled: a domain that was built or is gone changes the book
 * at once; the hypervisor's own figure is taken over whenever nothing is being built, so
 * that a build in progress is never counted both as reserved and as used.
 */
#ifndef REEVE_VM_MEMORY_H
#define REEVE_VM_MEMORY_H

#include "base/map.h"
#include "memctl/memctl.h"
#include "reactor/loop.h"
#include "xen/hyper.h"

struct vm_memory;

/* The controller found out something about a guest's driver: MEMCTL_DECLARE_*. */
typedef void vm_memory_notify_fn(void *arg, const struct memctl_action *action);

/* Another tool (`xl mem-set`) has changed a domain's target or maxmem: what it was found
 * at, and what it is set to again. At most once an hour and domain. */
struct vm_memory_foreign {
	uint32_t domid;
	struct uuid vm;
	uint64_t found_target_kib, found_maxmem_kib;
	uint64_t set_target_kib, set_maxmem_kib;
};
typedef void vm_memory_foreign_fn(void *arg, const struct vm_memory_foreign *foreign);

/* `loop` and `hyper` are borrowed. Returned owned. Grants nothing before the first
 * vm_memory_sync. */
int vm_memory_new(struct vm_memory **out, struct loop *l, struct hyper *hyper,
	const struct memctl_config *config, vm_memory_notify_fn *notify,
	void *arg) RV_MUST_CHECK;
void vm_memory_on_foreign(struct vm_memory *m, vm_memory_foreign_fn *foreign);
/* Asks and answers nothing more. Before hyper_free; reservations get no answer. */
void vm_memory_stop(struct vm_memory *m);
void vm_memory_free(struct vm_memory *m); /* after hyper_free, or when idle; NULL-safe */

/* What the hypervisor said at start; domains are added one by one after it. */
void vm_memory_sync(struct vm_memory *m, const struct hyper_host *host);
bool vm_memory_ready(const struct vm_memory *m);

/* --- reservations --- */

struct vm_reservation;
/* rc 0: granted. RV_EMEMORY: can't be freed, short_kib are missing. From the loop. */
typedef void vm_reserved_fn(void *arg, uint64_t token, int rc, uint64_t short_kib);

/* Embed it, zeroed. */
struct vm_reservation {
	struct uuid owner; /* of the operation: its task */
	uint64_t kib;
	bool held; /* in the controller's books, waiting or granted */
	bool granted;
	bool building; /* between vm_memory_build and _add or _release */
	bool answer_due;
	int rc; /* of the answer */
	uint64_t short_kib;
	vm_reserved_fn *fn;
	void *arg;
	uint64_t token;
	struct vm_memory *memory;
	struct defer answer;
};

/* Asks for memory, overhead included. fn follows, unless it is released before. One
 * answer per call. RV_ELIMIT, RV_EPARAM (nothing), RV_ENOMEM. */
int vm_memory_reserve(struct vm_memory *m, struct vm_reservation *r,
	const struct uuid *owner, uint64_t kib, vm_reserved_fn *fn, void *arg,
	uint64_t token, struct rv_error *e) RV_MUST_CHECK;

/* Gives it up, in whatever state; no answer follows. Idempotent, also on a zeroed one. */
void vm_memory_release(struct vm_reservation *r);

/* As vm_memory_release, of a build whose domain could not be removed: what it was to hold
 * counts as used until the hypervisor was asked. */
void vm_memory_abandon(struct vm_reservation *r);

/* A domain is about to be built with it. */
void vm_memory_build(struct vm_reservation *r);

/* The domain is there, built with `r` (which is then used up), or found at start (r
 * NULL; known already: nothing). overhead_kib is what the hypervisor holds beside
 * d->actual_kib. */
int vm_memory_add(struct vm_memory *m, const struct hyper_domain_id *id,
	const struct memctl_domain *d, uint64_t overhead_kib, struct vm_reservation *r,
	struct rv_error *e) RV_MUST_CHECK;

/* After _add, of one that was restored: it was booked with its target, and may hold less
 * and grow up to that. Asks the hypervisor what it holds; the book stays on the safe side
 * until that is known. */
void vm_memory_restored(struct vm_memory *m, const struct hyper_domain_id *id);

/* A domain is surely gone (hyper_destroy said so), earlier than its event: books its
 * memory as free. Unknown, or another domain of that domid by now: nothing; so for the
 * others below. */
void vm_memory_gone(struct vm_memory *m, const struct hyper_domain_id *id);

/* Its domain will be destroyed and have a successor: what it holds stays promised until
 * vm_memory_succeed, or vm_memory_gone. Unknown: nothing. */
void vm_memory_keep(struct vm_memory *m, const struct hyper_domain_id *id);

/* As vm_memory_gone, and reserves `kib` with what it held in one step, so that nobody
 * gets between a domain and its successor (reboot). As vm_memory_reserve otherwise. */
int vm_memory_succeed(struct vm_memory *m, const struct hyper_domain_id *id,
	struct vm_reservation *r, const struct uuid *owner, uint64_t kib,
	vm_reserved_fn *fn, void *arg, uint64_t token, struct rv_error *e) RV_MUST_CHECK;

/* What a domain is doing. */
void vm_memory_mode(
	struct vm_memory *m, const struct hyper_domain_id *id, enum memctl_mode mode);

/* What a domain that is frozen may still come to hold by orders given before: the greater
 * of its target and one that the hypervisor has not answered, or has failed. Unknown: 0.
 */
uint64_t vm_memory_ordered_kib(
	const struct vm_memory *m, const struct hyper_domain_id *id);

/* Its guest's drivers are there: a balloon that was not tried out yet is tried now. */
void vm_memory_up(struct vm_memory *m, const struct hyper_domain_id *id);

/* New dynamic limits from an admin. As memctl_domain_range; RV_ENOENT. */
int vm_memory_range(struct vm_memory *m, const struct hyper_domain_id *id,
	uint64_t dynamic_min_kib, uint64_t dynamic_max_kib,
	struct rv_error *e) RV_MUST_CHECK;

/* A domain as a look has just seen it: if somebody else has changed its target or maxmem,
 * they are set again, and told. Frozen or being built: at the next look. */
void vm_memory_seen(struct vm_memory *m, const struct hyper_domain *now);

/* --- looking --- */

struct memctl_totals vm_memory_totals(const struct vm_memory *m);
uint64_t vm_memory_total_kib(const struct vm_memory *m); /* of the host, dom0 included */
/* For metrics and invariants; borrowed. */
const struct memctl *vm_memory_controller(const struct vm_memory *m);

#endif
