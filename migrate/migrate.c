#include "migrate/migrate.h"

#include <assert.h>
#include <stdlib.h>

#include "migrate/migrate_internal.h"
#include "migrate/source.h"

/* --- looking again when the database changes --- */

static void migrate_changed(struct pool_subscriber *sub, const struct db_result *r)
{
	struct migrate *m = CONTAINER_OF(sub, struct migrate, subscriber);

	(void)r;
	LIST_FOR_EACH (node, &m->ops)
		op_kick(CONTAINER_OF(node, struct migrate_watch, node)->op);
}

void migrate_watch_add(struct migrate *m, struct migrate_watch *w, struct op *op)
{
	w->op = op;
	list_push_back(&m->ops, &w->node);
}

void migrate_watch_remove(struct migrate_watch *w)
{
	if (w->op)
		list_remove(&w->node);
	w->op = NULL;
}

/* --- devices and answers --- */

int migrate_load_devices(struct vm_devices *d, const struct db *db, const struct row *vm,
	enum vm_device_kind kind, struct rv_error *e)
{
	int rc = vm_devices_load(d, db, vm, UUID_NONE, e);
	size_t n = 0;

	for (size_t i = 0; rc == 0 && i < d->count; i++)
		if (d->list[i].kind == kind)
			d->list[n++] = d->list[i];
	d->count = n;
	return rc;
}

bool migrate_is_refusal(int rc)
{
	switch (rc) {
	case RV_EINVAL:
	case RV_EEXIST:
	case RV_ESTATE:
	case RV_EBUSY:
	case RV_EMEMORY:
	case RV_ECPU:
	case RV_ELIMIT:
	case RV_EUNSUPPORTED:
		return true;
	default:
		return false;
	}
}

/* --- life --- */

int migrate_new(
	struct migrate **out, const struct migrate_config *config, struct rv_error *e)
{
	struct migrate *m = calloc(1, sizeof *m);

	*out = NULL;
	if (!m)
		return rv_error_set(e, RV_ENOMEM, "no memory for migrations");
	m->config = *config;
	m->loop = config->loop;
	m->pool = config->pool;
	m->vms = config->vms;
	m->host = vm_host_find(config->vms, &config->self);
	assert(m->host && config->dial);
	list_init(&m->incoming);
	list_init(&m->ops);
	list_init(&m->closing);
	if (settle_init(m)) {
		free(m);
		return rv_error_set(e, RV_ENOMEM, "no memory for migrations");
	}
	pool_subscribe(m->pool, &m->subscriber, migrate_changed);
	*out = m;
	return 0;
}

void migrate_begin(struct migrate *m)
{
	m->begun = true;
	settle_soon(m);
}

void migrate_stop(struct migrate *m)
{
	if (m->stopped)
		return;
	m->stopped = true;
	pool_unsubscribe(&m->subscriber);
	settle_stop(m);
	incoming_free_all(m);
	wire_free_all(&m->closing);
}

void migrate_free(struct migrate *m)
{
	if (!m)
		return;
	assert(m->stopped);
	wire_free_all(&m->closing);
	free(m->stale);
	free(m);
}

int migrate_start(struct migrate *m, const struct uuid *vm,
	const struct migrate_args *args, struct uuid task, vm_accepted_fn *accepted,
	void *arg, struct rv_error *e)
{
	struct source_start start = {.migrate = m, .args = args};
	struct vm_op_args op = {
		.vm = *vm, .on = args->host, .user = args->user, .origin = args->origin};

	if (m->stopped || !m->begun)
		return rv_error_set(e, RV_EAGAIN,
			"still comparing the database with what runs; try again soon");
	return vm_op_start_verb(
		m->vms, &source_verb, VM_OP_MIGRATE, &op, &start, task, accepted, arg, e);
}

size_t migrate_incoming_count(const struct migrate *m)
{
	return m->incoming_count;
}
