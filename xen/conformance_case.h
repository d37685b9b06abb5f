/* What the files of the conformance suite share. */
#ifndef REEVE_XEN_CONFORMANCE_CASE_H
#define REEVE_XEN_CONFORMANCE_CASE_H

#include "base/buf.h"
#include "xen/conformance.h"

/* A request that is waited for. */
struct cf_call {
	struct hyper_conformance *c;
	struct hyper_req req;
	bool answered;
	uint32_t answers;
};

void cf_call_init(struct cf_call *call, struct hyper_conformance *c);
/* Runs the loop until `*flag`, or limit_ms: RV_ETIMEDOUT. */
int cf_wait(struct hyper_conformance *c, const bool *flag, struct rv_error *e);
/* The answer's rc; 0 and RV_ETIMEDOUT, which no driver may answer, aside. */
int cf_answer(struct cf_call *call, struct rv_error *e) RV_MUST_CHECK;
/* Lets so much time pass. */
void cf_sleep(struct hyper_conformance *c, int64_t ms);

/* A domain made for a case, watched, destroyed at its end. */
struct cf_vm {
	struct hyper_conformance *c;
	struct hyper_domain_spec spec;
	char name[64];
	struct hyper_domain_id id;
	bool there;
	struct hyper_listener listener;
	uint32_t introduced, shutdowns, released, moved;
	enum hyper_reason reason;
	bool ended, gone; /* set by events; for cf_wait */
};

void cf_vm_init(struct cf_vm *vm, struct hyper_conformance *c, const char *name);
int cf_vm_create(struct cf_vm *vm, struct rv_error *e) RV_MUST_CHECK;
/* Created, unpaused, and booted. */
int cf_vm_boot(struct cf_vm *vm, struct rv_error *e) RV_MUST_CHECK;
int cf_vm_info(
	struct cf_vm *vm, struct hyper_domain *out, struct rv_error *e) RV_MUST_CHECK;
/* Calls of one domain and nothing else: pause, unpause, resume, destroy. */
typedef void cf_call_fn(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id);
int cf_vm_call(struct cf_vm *vm, cf_call_fn *fn, struct rv_error *e) RV_MUST_CHECK;
int cf_vm_state(struct cf_vm *vm, enum hyper_state state, enum hyper_reason reason,
	struct rv_error *e) RV_MUST_CHECK;
/* Destroys what is left and stops listening; gives back `rc`, or the clean-up's if 0. */
int cf_vm_fini(struct cf_vm *vm, int rc, struct rv_error *e);
/* The driver was restarted: listens to the new one. */
void cf_vm_listen_again(struct cf_vm *vm);

int cf_free_kib(
	struct hyper_conformance *c, uint64_t *kib, struct rv_error *e) RV_MUST_CHECK;

/* Nothing of that memory is missing, but for slack_kib. */
bool cf_same_kib(
	const struct hyper_conformance *c, uint64_t before_kib, uint64_t after_kib);

/* Fails the case: `what` was expected. */
#define CF_CHECK(e, condition, ...)                                                      \
	do {                                                                             \
		if (!(condition)) {                                                      \
			rc = rv_error_set(e, RV_EINTERNAL, __VA_ARGS__);                 \
			goto out;                                                        \
		}                                                                        \
	} while (0)
#define CF_TRY(call)                                                                     \
	do {                                                                             \
		rc = (call);                                                             \
		if (rc != 0)                                                             \
			goto out;                                                        \
	} while (0)
/* The call must fail, with this code. */
#define CF_REFUSED(e, code, call)                                                        \
	do {                                                                             \
		rc = (call);                                                             \
		CF_CHECK(e, rc == (code), "%s: expected %s, got %d", #call, #code, rc);  \
		rc = 0;                                                                  \
	} while (0)

/* The cases, by file. */
int cf_lifecycle(struct hyper_conformance *c, struct rv_error *e);
int cf_refusals(struct hyper_conformance *c, struct rv_error *e);
int cf_create_again(struct hyper_conformance *c, struct rv_error *e);
int cf_destroy_again(struct hyper_conformance *c, struct rv_error *e);
int cf_create_cancelled(struct hyper_conformance *c, struct rv_error *e);
int cf_shutdown_reasons(struct hyper_conformance *c, struct rv_error *e);
int cf_guest_ends(struct hyper_conformance *c, struct rv_error *e);
int cf_killed_in_create(struct hyper_conformance *c, struct rv_error *e);
int cf_survives_restart(struct hyper_conformance *c, struct rv_error *e);
int cf_relabel(struct hyper_conformance *c, struct rv_error *e);
int cf_host(struct hyper_conformance *c, struct rv_error *e);
int cf_memory_refused(struct hyper_conformance *c, struct rv_error *e);
int cf_balloon(struct hyper_conformance *c, struct rv_error *e);
int cf_maxmem(struct hyper_conformance *c, struct rv_error *e);
int cf_save_restore(struct hyper_conformance *c, struct rv_error *e);
int cf_save_cancelled(struct hyper_conformance *c, struct rv_error *e);
int cf_save_deaf(struct hyper_conformance *c, struct rv_error *e);
int cf_resume_after_save(struct hyper_conformance *c, struct rv_error *e);
int cf_live_save(struct hyper_conformance *c, struct rv_error *e);
int cf_live_abort(struct hyper_conformance *c, struct rv_error *e);
int cf_restore_damaged(struct hyper_conformance *c, struct rv_error *e);
int cf_killed_in_save(struct hyper_conformance *c, struct rv_error *e);

#endif
