#include "migrate/settle.h"

#include <stdlib.h>

#include "base/log.h"
#include "migrate/migrate_internal.h"
#include "migrate/source.h"
#include "migrate/target.h"

struct settle_stale {
	struct hyper_domain_id id;
	struct uuid vm;
};

enum { SETTLE_STALE_MAX = 64 };

/* --- what is to be done --- */

enum settle_what settle_vm(const struct row *vm, const struct uuid *self)
{
	struct journal j;

	if (!journal_read(vm, &j))
		return SETTLE_NOTHING;
	if (uuid_eq(&j.source, self))
		return SETTLE_SOURCE;
	/* The owner here, or one that may become it by an entry still on its way. */
	if (uuid_eq(&j.target, self) && j.phase == VM_MIGRATION_PHASE_COMMITTED)
		return SETTLE_TARGET;
	return SETTLE_NOTHING;
}

enum settle_what settle_domain(
	const struct row *vm, const struct uuid *self, const struct hyper_domain *d)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON),
		    handle = db_ref(vm, VM_DOMAIN_HANDLE);
	struct journal j;

	/* A dying one is ended once more: who began to end it may have died over it. */
	if (d->state == HYPER_RUNNING || uuid_eq(&handle, &d->id.handle))
		return SETTLE_NOTHING;
	if (journal_read(vm, &j)) {
		/* The source keeps its own until RUNNING or RETURN is recorded. */
		if (uuid_eq(&j.domain.handle, &d->id.handle))
			return SETTLE_NOTHING;
		/* It might still be committed to: first that is ruled out. */
		if (uuid_eq(&j.target, self) && j.phase == VM_MIGRATION_PHASE_FINAL)
			return SETTLE_TARGET;
	}
	/* Resident here or nowhere: vm/'s reconciler knows better. */
	if (uuid_is_none(&on) || uuid_eq(&on, self))
		return SETTLE_NOTHING;
	return SETTLE_DESTROY;
}

/* --- doing it --- */

static void settle_run(struct migrate *m, const struct row *vm, enum settle_what what)
{
	struct rv_error e;
	int rc = 0;

	if (what == SETTLE_SOURCE)
		rc = source_recover(m, vm, &e);
	else if (what == SETTLE_TARGET)
		rc = target_recover(m, vm, &e);
	if (rc)
		log_warn("migrate.settle", "vm=%s msg=\"%s\"", row_name(vm), e.detail);
}

/* Nobody else would ask again. The call answers all the same, once it surely happened or
 * will not. */
static void settle_late(void *arg)
{
	struct migrate *m = arg;

	log_warn("migrate.settle", "msg=\"the hypervisor does not answer\"");
	hyper_cancel(&m->list_req);
	hyper_cancel(&m->destroy_req);
}

static void settle_next(struct migrate *m);

static void settle_destroyed(void *arg, struct hyper_req *req)
{
	struct migrate *m = arg;

	timer_stop(&m->answer);
	if (m->stopped)
		return;
	if (req->rc)
		log_warn("migrate.settle", "domid=%u rc=%s msg=\"%s\"", req->id.domid,
			rv_error_symbol(req->rc), req->error.detail);
	else
		vm_memory_gone(m->host->memory, &m->stale[m->stale_count].id);
	settle_next(m);
}

/* One after the other; each judged once more, for time has passed. */
static void settle_next(struct migrate *m)
{
	const struct db *db = pool_db(m->pool);

	while (m->stale_count > 0) {
		const struct settle_stale *x = &m->stale[--m->stale_count];
		const struct row *vm = db_row(db, CLASS_VM, x->vm);
		struct hyper_domain d = {.id = x->id, .state = HYPER_PAUSED};

		if (!vm || vm_op_of(m->vms, &x->vm) ||
			settle_domain(vm, &m->config.self, &d) != SETTLE_DESTROY)
			continue;
		log_info("migrate.settle", "vm=%s domid=%u msg=\"was left: destroyed\"",
			row_name(vm), x->id.domid);
		timer_start_ms(&m->answer, m->vms->config.answer_ms);
		hyper_destroy(m->host->hyper, &m->destroy_req, &x->id);
		return;
	}
	m->looking = false;
}

static void settle_listed(void *arg, struct hyper_req *req)
{
	struct migrate *m = arg;
	const struct db *db = pool_db(m->pool);

	timer_stop(&m->answer);
	if (m->stopped)
		return;
	if (req->rc)
		log_warn("migrate.settle", "rc=%s msg=\"%s\"", rv_error_symbol(req->rc),
			req->error.detail);
	m->stale_count = 0;
	for (size_t i = 0; req->rc == 0 && i < req->domain_count; i++) {
		const struct hyper_domain *d = &req->domains[i];
		const struct row *vm = db_row(db, CLASS_VM, d->vm);
		enum settle_what what;

		if (!vm || vm_op_of(m->vms, &d->vm))
			continue;
		what = settle_domain(vm, &m->config.self, d);
		if (what == SETTLE_DESTROY && m->stale_count < SETTLE_STALE_MAX)
			m->stale[m->stale_count++] =
				(struct settle_stale){.id = d->id, .vm = d->vm};
		else if (what != SETTLE_DESTROY)
			settle_run(m, vm, what);
	}
	settle_next(m);
}

static void settle_look(void *arg)
{
	struct migrate *m = arg;
	const struct db *db = pool_db(m->pool);

	timer_start_ms(&m->look, MIGRATE_LOOK_MS);
	if (!m->begun || m->looking || !vm_manager_ready(m->vms))
		return;
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));) {
		struct uuid uuid = row_uuid(vm);

		if (db_enum(vm, VM_INTENT) == VM_INTENT_MIGRATE &&
			!vm_op_of(m->vms, &uuid))
			settle_run(m, vm, settle_vm(vm, &m->config.self));
	}
	m->looking = true;
	timer_start_ms(&m->answer, m->vms->config.answer_ms);
	hyper_list(m->host->hyper, &m->list_req);
}

int settle_init(struct migrate *m)
{
	m->stale = calloc(SETTLE_STALE_MAX, sizeof *m->stale);
	if (!m->stale)
		return RV_ENOMEM;
	timer_init(&m->look, m->loop, "migrate.look", settle_look, m);
	timer_init(&m->answer, m->loop, "migrate.look.answer", settle_late, m);
	hyper_req_init(&m->list_req, settle_listed, m);
	hyper_req_init(&m->destroy_req, settle_destroyed, m);
	return 0;
}

void settle_soon(struct migrate *m)
{
	if (!m->stopped)
		timer_start_us(&m->look, 0);
}

void settle_stop(struct migrate *m)
{
	timer_stop(&m->look);
	timer_stop(&m->answer);
}
