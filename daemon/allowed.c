#include "daemon/allowed.h"

#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"

enum { ALLOWED_BATCH = 256 };

/* The set of names for a set of bits. */
static int allowed_value(uint32_t bits, struct value *out)
{
	*out = value_zero(VALUE_STRING_SET);
	for (int op = 0; op < VM_OP_COUNT; op++) {
		const char *name = vm_operation_name((enum vm_operation)op);

		if ((bits & (1u << op)) && value_set_add(out, name, strlen(name))) {
			value_fini(out);
			return RV_ENOMEM;
		}
	}
	return 0;
}

/* The walk must not change what it walks over: it only collects. */
static int allowed_collect(void *arg, const struct change *c)
{
	return c->row ? buf_append(arg, &c->uuid, sizeof c->uuid) : 0;
}

static void allowed_one(struct daemon *d, struct uuid uuid)
{
	const struct row *vm = db_row(pool_db(d->pool), CLASS_VM, uuid);
	struct rv_error e = {0};
	struct value v;

	if (!vm || allowed_value(vm_allowed_now(d->vms, vm), &v))
		return;
	/* Setting what it is already is no change, so this comes to rest. */
	if (pool_set_live(d->pool, uuid, VM_ALLOWED_OPERATIONS, &v, &e))
		log_warn("daemon.allowed", "vm=%s error=\"%s\"", row_name(vm), e.detail);
	value_fini(&v);
}

void allowed_look(struct daemon *d)
{
	enum changes_status status;
	struct buf changed;
	int rc;

	buf_init(&changed, RV_MAX_OBJECTS * sizeof(struct uuid));
	do
		rc = changes_since(pool_db(d->pool), &d->allowed_token,
			CHANGES_CLASS(CLASS_VM), ALLOWED_BATCH, allowed_collect, &changed,
			&status);
	while (!rc && (status == CHANGES_SOME || status == CHANGES_FRESH));
	if (rc)
		log_warn("daemon.allowed", "error=%s", rv_error_symbol(rc));
	for (size_t at = 0; at < buf_len(&changed); at += sizeof(struct uuid)) {
		struct uuid uuid;

		memcpy(&uuid, buf_data(&changed) + at, sizeof uuid);
		allowed_one(d, uuid);
	}
	buf_fini(&changed);
}
