/*
 * Connections that came in: PREPARE is looked up in the database, and only what is found
 * there becomes an operation.
 *
 *	accepted ─► PREPARE ─► database as new as the source's ─► this host is ready
 *	    ╰─ 10 s of nothing, or another message: closed              │
 *	                                  target_verb ◄─ checks ◄───────╯
 *	                                       REFUSE ◄─╯
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "migrate/target.h"

static void incoming_free(struct incoming *in)
{
	in->migrate->incoming_count--;
	list_remove(&in->node);
	timer_stop(&in->deadline);
	timer_stop(&in->again);
	if (in->following)
		pool_wait_cancel(&in->wait);
	wire_close(in->wire, &in->migrate->closing);
	free(in);
}

void incoming_free_all(struct migrate *m)
{
	LIST_FOR_EACH_SAFE (node, &m->incoming)
		incoming_free(CONTAINER_OF(node, struct incoming, node));
}

static void incoming_refuse(struct incoming *in, const struct rv_error *e)
{
	log_warn("migrate.target", "rc=%s msg=\"refused: %s\"", rv_error_symbol(e->code),
		e->detail);
	wire_send_reason(in->wire, MIGRATE_REFUSE, e->code, e->detail);
	/* Not inside the wire's own call. */
	in->over = true;
	timer_start_us(&in->deadline, 0);
}

static bool host_is_ready(const struct migrate *m)
{
	return vm_manager_ready(m->vms) && m->begun;
}

/* The database is the truth; PREPARE only says where to look. */
static int incoming_check(const struct incoming *in, const struct row **vm,
	struct journal *j, struct rv_error *e)
{
	const struct migrate *m = in->migrate;
	const struct migrate_prepare *p = &in->prepare;
	const struct tls_peer *peer = stream_tls_peer(in->wire->stream);
	struct uuid on;
	char text[UUID_TEXT_SIZE];

	*vm = db_row(pool_db(m->pool), CLASS_VM, p->vm);
	if (!*vm || !journal_read(*vm, j) || !uuid_eq(&j->migration, &p->migration) ||
		!uuid_eq(&j->task, &p->task) || j->generation != p->generation ||
		j->phase != VM_MIGRATION_PHASE_PREPARE)
		return rv_error_set(e, RV_ECONFLICT,
			"the database knows of no such migration: it was ended, or is "
			"another one");
	on = db_ref(*vm, VM_RESIDENT_ON);
	if (!uuid_eq(&j->target, &m->config.self) || !uuid_eq(&j->source, &p->source) ||
		!uuid_eq(&on, &j->source) ||
		(uint64_t)db_int(*vm, VM_OWNER_GENERATION) != j->generation)
		return rv_error_set(e, RV_ECONFLICT,
			"VM %s does not go from that host to this one", row_name(*vm));
	if (peer && strcmp(peer->uuid, uuid_format(&j->source, text)) != 0)
		return rv_error_set(e, RV_EPERM,
			"VM %s belongs to another host than the one that sends it",
			row_name(*vm));
	if (p->version_min > MIGRATE_VERSION || p->version_max < MIGRATE_VERSION)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"VM %s: this host speaks version %d of migrations, the other one "
			"%u to %u; update the older host",
			row_name(*vm), MIGRATE_VERSION, p->version_min, p->version_max);
	if (!host_is_ready(m))
		return rv_error_set(e, RV_EAGAIN,
			"VM %s: the host it should go to is still starting; try again",
			row_name(*vm));
	if (m->config.check)
		return m->config.check(m->config.arg, p, e);
	return 0;
}

static void incoming_begin(struct incoming *in)
{
	struct migrate *m = in->migrate;
	const struct row *vm;
	struct target *s;
	struct journal j;
	struct rv_error e;

	if (incoming_check(in, &vm, &j, &e) || target_new(m, vm, &j, &s, &e)) {
		incoming_refuse(in, &e);
		return;
	}
	s->target_kib = in->prepare.target_kib;
	s->actual_kib = in->prepare.actual_kib;
	s->prepare_at_us = in->prepare_at_us;
	s->xen_major = in->prepare.xen_major;
	s->xen_minor = in->prepare.xen_minor;
	s->cpu_policy_len = in->prepare.cpu_policy_len;
	s->cpu_policy = malloc(s->cpu_policy_len ? s->cpu_policy_len : 1);
	s->wire = in->wire;
	in->wire = NULL;
	wire_set_events(s->wire, &target_events, s);
	vm_op_go(&s->vm);
	if (s->cpu_policy)
		memcpy(s->cpu_policy, in->cpu_policy, s->cpu_policy_len);
	else
		op_fail(&s->vm.op, RV_ENOMEM, "VM %s: no memory for its migration",
			s->vm.name);
	if (s->wire->over)
		target_events.lost(s, s->wire->rc, s->wire->why);
	in->over = true;
	timer_start_us(&in->deadline, 0);
}

/* A host that has just started, or joined, first compares what runs with the database; as
 * a start, a migration waits for that. */
static void incoming_when_ready(void *arg)
{
	struct incoming *in = arg;
	struct migrate *m = in->migrate;
	int64_t now_us = loop_now_us(m->loop);

	if (in->over)
		return;
	if (!in->patient_until_us)
		in->patient_until_us = now_us + MIGRATE_READY_AT_MS * INT64_C(1000);
	if (host_is_ready(m) || now_us >= in->patient_until_us)
		incoming_begin(in);
	else
		timer_start_ms(&in->again, MIGRATE_READY_LOOK_MS);
}

static void incoming_followed(struct pool_wait *wait, int rc)
{
	struct incoming *in = CONTAINER_OF(wait, struct incoming, wait);
	struct rv_error e;

	in->following = false;
	if (in->over)
		return;
	if (rc == 0) {
		incoming_when_ready(in);
		return;
	}
	rv_error_set(&e, rc,
		"the host it should go to is behind with the pool's database; try again "
		"soon");
	incoming_refuse(in, &e);
}

static void incoming_message(void *arg, const struct migrate_message *m)
{
	struct incoming *in = arg;
	struct rv_error e;

	if (in->over || in->asked)
		return;
	if (m->type != MIGRATE_PREPARE) {
		rv_error_set(&e, RV_EPROTO,
			"a migration begins with PREPARE, not with %s",
			migrate_type_name(m->type));
		incoming_refuse(in, &e);
		return;
	}
	in->prepare = m->as.prepare;
	in->prepare_at_us = loop_now_us(in->migrate->loop);
	memcpy(in->cpu_policy, m->as.prepare.cpu_policy, m->as.prepare.cpu_policy_len);
	in->prepare.cpu_policy = in->cpu_policy;
	in->asked = in->following = true;
	wire_watch(in->wire);
	timer_stop(&in->deadline);
	pool_wait_seq(in->migrate->pool, &in->wait, in->prepare.seq, MIGRATE_SEQ_MS,
		incoming_followed);
}

static void incoming_lost(void *arg, int rc, const char *why)
{
	struct incoming *in = arg;

	log_info("migrate.target", "rc=%s msg=\"%s\"", rv_error_symbol(rc), why);
	in->over = true;
	timer_start_us(&in->deadline, 0);
}

static const struct wire_events incoming_events = {
	.message = incoming_message,
	.lost = incoming_lost,
};

/* Nothing was said in time, or all is said. */
static void incoming_deadline(void *arg)
{
	incoming_free(arg);
}

void migrate_accept(struct migrate *m, struct stream *stream)
{
	struct incoming *in = NULL;
	struct stream_config config;

	if (!m->stopped && m->incoming_count < MIGRATE_MAX_INCOMING)
		in = calloc(1, sizeof *in);
	if (!in) {
		log_warn("migrate.target", "msg=\"too many connections at once\"");
		stream_free(stream);
		return;
	}
	if (wire_new(&in->wire, m->loop, &incoming_events, in)) {
		free(in);
		stream_free(stream);
		return;
	}
	in->migrate = m;
	list_push_back(&m->incoming, &in->node);
	m->incoming_count++;
	timer_init(&in->deadline, m->loop, "migrate.hello", incoming_deadline, in);
	timer_init(&in->again, m->loop, "migrate.ready", incoming_when_ready, in);
	timer_start_ms(&in->deadline, MIGRATE_HELLO_MS);
	wire_stream_config(in->wire, &config);
	stream_take_over(stream, &config);
	wire_attach(in->wire, stream);
}
