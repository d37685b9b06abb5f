#include "daemon/join_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/call.h"
#include "daemon/witness.h"
#include "link/peers.h"
#include "rpc/message.h"

static const msgpack_object *fact(
	const msgpack_object *facts, const char *name, msgpack_object_type type)
{
	const msgpack_object *o = rpc_map_get(facts, name);

	return o && o->type == type ? o : NULL;
}

/* The clock was read as the request left: on a busy machine or a long line that is a
 * while ago, and no reason to refuse. What is wrong beyond that is found once it is a
 * member. */
static int clock_check(
	struct daemon *d, int64_t clock_ms, int64_t travel_max_ms, struct rv_error *e)
{
	int64_t limit = db_int(db_pool(pool_db(d->pool)), POOL_CLOCK_SKEW_LIMIT_MS);
	int64_t now = loop_wall_ms(d->loop), most = INT64_C(1) << 50;

	if (clock_ms < 0 || clock_ms > most) /* keeps the sums far from overflow */
		return rv_error_set(
			e, RV_EPROTO, "the joining host tells no time of day");
	if (clock_ms >= now - limit - travel_max_ms && clock_ms <= now + limit)
		return 0;
	return rv_error_set(e, RV_ECLOCK,
		"the joining host's clock is %lld ms %s the master's, more than the "
		"pool's limit of %lld ms; let chrony or another NTP service set it, then "
		"join again",
		llabs((long long)(clock_ms - now)),
		clock_ms > now ? "ahead of" : "behind", (long long)limit);
}

void join_text_of(const msgpack_object *o, char *text, size_t size)
{
	snprintf(text, size, "%.*s", (int)o->via.str.size, o->via.str.ptr);
}

/* Every member dials it: nothing else may be there that a stream can be made to. */
static int address_check(const msgpack_object *o, struct rv_error *e)
{
	char text[PEER_ADDRESS_MAX] = "";
	const char *port;

	if (o->via.str.size < sizeof text)
		join_text_of(o, text, sizeof text);
	port = strrchr(text, ':');
	if (strlen(text) == o->via.str.size && strncmp(text, "tcp:", 4) == 0 &&
		port - text > 4 && port[1] &&
		strspn(port + 1, "0123456789") == strlen(port + 1) &&
		strspn(text + 4, "0123456789abcdefABCDEF.:[]") == strlen(text + 4))
		return 0;
	return rv_error_set(e, RV_EINVAL,
		"the joining host's address is not like tcp:192.0.2.1:7473; set [pool] "
		"address in its configuration");
}

int join_facts_check(struct daemon *d, const struct join_request *r,
	const msgpack_object *facts, struct rv_error *e)
{
	const msgpack_object *level =
		fact(facts, "level", MSGPACK_OBJECT_POSITIVE_INTEGER);
	const msgpack_object *running =
		fact(facts, "running", MSGPACK_OBJECT_POSITIVE_INTEGER);
	const struct db *db = pool_db(d->pool);
	char name[256];

	if (!level || !running || !fact(facts, "name", MSGPACK_OBJECT_STR) ||
		!fact(facts, "address", MSGPACK_OBJECT_STR))
		return rv_error_set(
			e, RV_EPROTO, "the joining host does not say what it must");
	join_text_of(fact(facts, "name", MSGPACK_OBJECT_STR), name, sizeof name);
	if (call_name_check(CLASS_HOST, name, e))
		return rv_error_prefix(e, "the joining host's name");
	if (address_check(fact(facts, "address", MSGPACK_OBJECT_STR), e))
		return e->code;
	if (running->via.u64)
		return rv_error_set(e, RV_ENOTALLOWED,
			"VMs run on the joining host; shut them down first");
	if (level->via.u64 < db_level(db))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"the joining host's software is too old for this pool; update it "
			"first");
	return clock_check(d, r->clock_ms, r->travel_max_ms, e);
}

bool join_is_witness(const msgpack_object *facts)
{
	const msgpack_object *kind = fact(facts, "kind", MSGPACK_OBJECT_STR);

	return kind && kind->via.str.size == strlen("witness") &&
	       memcmp(kind->via.str.ptr, "witness", kind->via.str.size) == 0;
}

int join_hypervisor_check(struct daemon *d, const msgpack_object *facts,
	struct vm_cpu_level *level, struct rv_error *e)
{
	const msgpack_object *simulated =
		fact(facts, "simulated", MSGPACK_OBJECT_BOOLEAN);
	const msgpack_object *xen = fact(facts, "xen", MSGPACK_OBJECT_STR);
	const msgpack_object *cpu = fact(facts, "cpu", MSGPACK_OBJECT_BIN);
	struct cpu_level_joiner j = {.is_simulated = simulated && simulated->via.boolean};
	char version[64] = "";

	level->len = 0;
	if (join_is_witness(facts))
		return witness_may_join(pool_db(d->pool), e);
	if (witness_is_here(d))
		return rv_error_set(e, RV_EAGAIN,
			"the pool's witness leads for the moment, and can't tell whether "
			"the joining host's CPUs fit; join again in some seconds");
	if (simulated && xen && cpu) {
		snprintf(version, sizeof version, "%.*s", (int)xen->via.str.size,
			xen->via.str.ptr);
		j.policy = (const uint8_t *)cpu->via.bin.ptr;
		j.policy_len = cpu->via.bin.size;
	}
	j.xen = version;
	return cpu_level_join(d->hyper, pool_db(d->pool), &j, level, e);
}
