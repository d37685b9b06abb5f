#include "daemon/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "daemon/call.h"
#include "daemon/cpu_level.h"
#include "daemon/daemon.h"
#include "daemon/join_facts.h"
#include "daemon/members.h"
#include "daemon/pool_ca.h"
#include "daemon/turnover.h"
#include "daemon/witness.h"
#include "link/join.h"
#include "link/port.h"
#include "rpc/message.h"

enum {
	JOIN_TTL_DEFAULT_MS = 3600 * 1000,
	JOIN_TTL_MAX_MS = 24 * 3600 * 1000,
	JOIN_RESTART_MS = 200, /* for the reply to leave */
	JOIN_LOOK_MS = 50,
	HEX_SIZE = 2 * 32 + 1,
};

/* One host asking, at the master. */
struct applicant {
	struct list node;
	struct joining *joining;
	struct join_acceptor *acceptor; /* NULL: gone */
	struct uuid host;
	struct pool_commit commit;
};

struct joining {
	struct daemon *daemon;
	struct join_desk *desk;
	struct list applicants;
	/* This host, joining another pool. */
	struct join_op op;
	struct call *call;
	char *csr_pem, *key_pem;
	struct timer restart, look; /* until this host knows its domains */
	bool busy;
};

/* --- tokens --- */

/* Those that have been of no use for so long that nobody asks why. */
static void prune(const struct row *pool, int64_t now_ms, struct txn *t)
{
	const struct value *tokens = row_value(pool, POOL_JOIN_TOKENS);

	for (size_t i = 0; i < value_count(tokens); i++)
		if (now_ms - strtoll(value_at(tokens, i), NULL, 10) > JOIN_TTL_MAX_MS)
			txn_map_remove(t, row_uuid(pool), POOL_JOIN_TOKENS,
				value_key_at(tokens, i));
}

void pool_issue_join_token(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct row *pool = db_pool(pool_db(d->pool));
	int64_t ttl_ms = call_int(c, "ttl_ms", JOIN_TTL_DEFAULT_MS);
	uint8_t fingerprint[CA_FINGERPRINT_SIZE], hash[TOKEN_HASH_SIZE];
	char text[TOKEN_TEXT_SIZE], key[HEX_SIZE], expiry[24];
	struct rv_error e = {0};
	struct value result;
	struct token token;
	struct txn t;

	if (!d->members) {
		call_failf(c, RV_ENOTALLOWED,
			"this host takes no links: set [pool] listen in its "
			"configuration");
		return;
	}
	if (witness_count_hosts(pool_db(d->pool)) == 0) {
		call_failf(c, RV_ENOTALLOWED,
			"this is a witness, and in no pool: a pool begins with a host; "
			"pool-join here with a token of that pool");
		return;
	}
	if (ttl_ms < 1000 || ttl_ms > JOIN_TTL_MAX_MS) {
		call_failf(c, RV_EINVAL, "ttl_ms: from a second to a day");
		return;
	}
	if (ca_fingerprint(db_string(pool, POOL_CA_CERTIFICATE), fingerprint, &e) ||
		token_new(&token, fingerprint, &e) ||
		value_from_cstr(&result, token_format(&token, text))) {
		call_fail(c, &e);
		return;
	}
	token_hash(token.secret, hash);
	snprintf(expiry, sizeof expiry, "%lld",
		(long long)(loop_wall_ms(d->loop) + ttl_ms));
	txn_init(&t, pool_db(d->pool), loop_wall_ms(d->loop));
	prune(pool, loop_wall_ms(d->loop), &t);
	txn_map_put(&t, row_uuid(pool), POOL_JOIN_TOKENS,
		bytes_hex(hash, sizeof hash, key), expiry);
	c->request = UUID_NONE; /* a repeat makes another token: this one is told once */
	call_commit(c, &t, result, row_uuid(pool));
}

/* --- the desk: tokens --- */

/* A token's value in the database: "EXPIRY", then, once used, " REQUEST HOST KEY". */
static int record_parse(struct token_record *r, const char *text)
{
	char request[UUID_TEXT_SIZE], host[UUID_TEXT_SIZE], key[HEX_SIZE];
	long long expiry;
	int n = sscanf(text, "%lld %36s %36s %64s", &expiry, request, host, key);

	if (n != 1 && n != 4)
		return RV_ECORRUPT;
	r->expires_ms = expiry;
	r->used = n == 4;
	if (n == 1)
		return 0;
	for (int i = 0; i < 32; i++) {
		unsigned byte;

		if (sscanf(key + 2 * i, "%2x", &byte) != 1)
			return RV_ECORRUPT;
		r->used_key[i] = (uint8_t)byte;
	}
	return uuid_parse(&r->used_by_request, request, strlen(request)) ||
			       uuid_parse(&r->used_by_host, host, strlen(host))
		       ? RV_ECORRUPT
		       : 0;
}

static int token_look(struct daemon *d, const struct join_request *r,
	struct token_use *use, enum token_verdict *verdict, char key[static HEX_SIZE],
	struct rv_error *e)
{
	const struct row *pool = db_pool(pool_db(d->pool));
	struct token_record record = {0};
	const char *text;
	int rc;

	token_hash(r->secret, record.hash);
	bytes_hex(record.hash, sizeof record.hash, key);
	text = db_map_get(pool, POOL_JOIN_TOKENS, key);
	if (!text || record_parse(&record, text))
		return rv_error_set(e, RV_EAUTH,
			"the token is not one of this pool's, or it was withdrawn; issue "
			"a new one");
	*use = (struct token_use){.request = r->request, .host = r->host};
	memcpy(use->secret, r->secret, sizeof use->secret);
	rc = ca_request_digest(r->csr_pem, use->key, e);
	return rc ? rc : token_judge(&record, use, loop_wall_ms(d->loop), verdict, e);
}

/* --- the desk: granting --- */

static int grant_members(struct daemon *d, struct buf *b)
{
	const struct db *db = pool_db(d->pool);
	const struct identity *id = members_identity(d->members);
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, rpc_pack_to_buf);
	msgpack_pack_map(&pk, 3);
	rpc_pack_key(&pk, "raft_id");
	msgpack_pack_uint64(&pk, 0); /* a learner, until the master makes it a voter */
	rpc_pack_key(&pk, "secret");
	msgpack_pack_bin(&pk, CA_SECRET_SIZE);
	msgpack_pack_bin_body(&pk, id->secret, CA_SECRET_SIZE);
	rpc_pack_key(&pk, "members");
	msgpack_pack_array(&pk, db_count(db, CLASS_HOST));
	for (const struct row *h = db_next(db, CLASS_HOST, NULL); h;
		h = db_next(db, CLASS_HOST, h)) {
		struct uuid uuid = row_uuid(h);
		char text[UUID_TEXT_SIZE];

		msgpack_pack_array(&pk, 2);
		rpc_pack_key(&pk, uuid_format(&uuid, text));
		rpc_pack_text(&pk, db_string(h, HOST_ADDRESS));
	}
	return buf_len(b) ? 0 : RV_ENOMEM;
}

static void applicant_free(struct applicant *a)
{
	list_remove(&a->node);
	free(a);
}

static void applicant_refuse(struct applicant *a, const struct rv_error *why)
{
	log_warn("join.refused", "reason=\"%s\"", why->detail);
	if (a->acceptor)
		join_refuse(a->acceptor, why);
	applicant_free(a);
}

static void applicant_grant(struct applicant *a)
{
	struct daemon *d = a->joining->daemon;
	const struct row *pool = db_pool(pool_db(d->pool));
	struct join_decision decision = {.pool = row_uuid(pool),
		.generation_id = db_ref(pool, POOL_GENERATION_ID),
		.generation = (uint64_t)db_int(pool, POOL_GENERATION_NUMBER),
		.ca_cert_pem = db_string(pool, POOL_CA_CERTIFICATE)};
	struct rv_error e = {0};
	char *key = NULL;
	struct buf members;

	buf_init(&members, JOIN_MEMBERS_MAX);
	if (!a->acceptor ||
		pool_ca_open(pool_db(d->pool), POOL_CA_NOW,
			members_identity(d->members)->secret, &key, &e) ||
		grant_members(d, &members)) {
		applicant_refuse(a, &e);
	} else {
		decision.ca_key_pem = key;
		decision.members = buf_data(&members);
		decision.members_len = buf_len(&members);
		if (join_grant_to(a->acceptor, &decision, &e))
			log_error("join.grant", "error=\"%s\"", e.detail);
		applicant_free(a);
	}
	ca_key_free(key);
	buf_fini(&members);
}

static void on_recorded(struct pool_commit *commit)
{
	struct applicant *a = CONTAINER_OF(commit, struct applicant, commit);
	struct rv_error e = commit->error;

	if (!commit->rc) {
		applicant_grant(a);
		return;
	}
	if (commit->rc == RV_ECONFLICT)
		rv_error_set(&e, RV_ECONFLICT,
			"another host has just used the token, or the pool changed "
			"meanwhile; join again, with a new token if this one is refused");
	applicant_refuse(a, &e);
}

/* So that the level is right before the host itself has said it. */
static void record_hypervisor(struct txn *t, struct uuid host,
	const msgpack_object *facts, char text[static VM_CPU_TEXT_SIZE])
{
	const msgpack_object *cpu = rpc_map_get(facts, "cpu");
	const msgpack_object *simulated = rpc_map_get(facts, "simulated");

	txn_set_string(t, host, HOST_CPU_POLICY,
		vm_cpu_format(
			(const uint8_t *)cpu->via.bin.ptr, cpu->via.bin.size, text));
	txn_set_enum(t, host, HOST_HYPERVISOR,
		simulated->via.boolean ? HOST_HYPERVISOR_SIMULATED : HOST_HYPERVISOR_XEN);
}

/* Two that join at once would both find none there. */
static void record_witness(
	struct txn *t, struct uuid pool, struct uuid host, const char *address)
{
	txn_expect_string(t, pool, POOL_WITNESS_ADDRESS, "");
	txn_set_string(t, pool, POOL_WITNESS_ADDRESS, address);
	txn_set_enum(t, host, HOST_KIND, HOST_KIND_WITNESS);
	txn_set_bool(t, host, HOST_ENABLED, false);
}

/* Records the host and that the token is spent, in one entry. */
static void applicant_record(struct applicant *a, const struct join_request *r,
	const struct token_use *use, const char *token, const msgpack_object *facts,
	const struct vm_cpu_level *level)
{
	struct daemon *d = a->joining->daemon;
	const struct db *db = pool_db(d->pool);
	const struct row *pool = db_pool(db);
	char name[256], address[PEER_ADDRESS_MAX], request[UUID_TEXT_SIZE],
		host[UUID_TEXT_SIZE];
	char key[HEX_SIZE], value[256];
	const char *old = db_map_get(pool, POOL_JOIN_TOKENS, token);
	char cpu[VM_CPU_TEXT_SIZE];
	struct rv_error e = {0};
	struct txn t;

	join_text_of(rpc_map_get(facts, "name"), name, sizeof name);
	join_text_of(rpc_map_get(facts, "address"), address, sizeof address);
	snprintf(value, sizeof value, "%lld %s %s %s", strtoll(old, NULL, 10),
		uuid_format(&r->request, request), uuid_format(&r->host, host),
		bytes_hex(use->key, sizeof use->key, key));
	txn_init(&t, db, loop_wall_ms(d->loop));
	txn_expect_key(&t, row_uuid(pool), POOL_JOIN_TOKENS, token, old);
	txn_expect_name_free(&t, CLASS_HOST, name);
	/* It is certified by this one, and must find the pool trusting it. */
	txn_expect_string(&t, row_uuid(pool), POOL_CA_CERTIFICATE,
		db_string(pool, POOL_CA_CERTIFICATE));
	/* Its software understands this one; it may not yet be raised without it. */
	txn_expect_int(&t, row_uuid(pool), POOL_LEVEL, db_int(pool, POOL_LEVEL));
	txn_map_put(&t, row_uuid(pool), POOL_JOIN_TOKENS, token, value);
	txn_create(&t, CLASS_HOST, a->host);
	txn_set_string(&t, a->host, HOST_NAME_LABEL, name);
	txn_set_string(&t, a->host, HOST_ADDRESS, address);
	txn_set_time(&t, a->host, HOST_JOINED, loop_wall_ms(d->loop));
	txn_set_enum(&t, a->host, HOST_RAFT_ROLE, HOST_RAFT_ROLE_LEARNER);
	txn_expect_string(
		&t, row_uuid(pool), POOL_CPU_POLICY, db_string(pool, POOL_CPU_POLICY));
	if (level->len)
		txn_set_string(&t, row_uuid(pool), POOL_CPU_POLICY,
			vm_cpu_format(level->policy, level->len, cpu));
	if (join_is_witness(facts))
		record_witness(&t, row_uuid(pool), a->host, address);
	else
		record_hypervisor(&t, a->host, facts, cpu);
	if (pool_commit(d->pool, &a->commit, &t, on_recorded, &e))
		applicant_refuse(a, &e);
}

/* The same request once more is good for as long as its answer may have been lost: until
 * the host has come up with what it was granted. Later, or after it was ejected, nobody
 * comes in by it, not even the host itself. */
static int repeat_check(struct daemon *d, struct uuid host, struct rv_error *e)
{
	const struct row *row = db_row(pool_db(d->pool), CLASS_HOST, host);

	if (row && !*db_string(row, HOST_CERTIFICATE))
		return 0;
	return rv_error_set(e, RV_ECONFLICT,
		"the token was used already, by a host that %s; each admits one host "
		"once: issue a new one",
		row ? "is a member" : "has left the pool since");
}

static int stranger_check(struct daemon *d, struct uuid host, struct rv_error *e)
{
	const struct row *row = db_row(pool_db(d->pool), CLASS_HOST, host);

	return row ? rv_error_set(e, RV_EEXIST, "host %s is a member of the pool already",
			     row_name(row))
		   : 0;
}

static void on_request(
	void *arg, struct join_acceptor *acceptor, const struct join_request *r)
{
	struct joining *j = arg;
	struct daemon *d = j->daemon;
	struct applicant *a = calloc(1, sizeof *a);
	enum token_verdict verdict;
	struct token_use use;
	struct vm_cpu_level level;
	struct rv_error e = {0};
	char token[HEX_SIZE];
	msgpack_object facts;
	msgpack_zone zone;
	size_t at = 0;

	if (!a || !msgpack_zone_init(&zone, 1024))
		abort(); /* the desk is bounded: 32 at once */
	list_push_back(&j->applicants, &a->node);
	a->joining = j;
	a->acceptor = acceptor;
	a->host = r->host;
	if (!pool_is_master(d->pool)) {
		const struct row *master =
			db_row(pool_db(d->pool), CLASS_HOST, pool_master(d->pool));

		rv_error_set(&e, RV_ENOTMASTER,
			"this host is not the pool's master; join with "
			"master-address=%.100s",
			master ? db_string(master, HOST_ADDRESS)
			       : "that of the master, once there is one (`reeve "
				 "host-list params=name-label,address`)");
	} else if (!token_look(d, r, &use, &verdict, token, &e)) {
		msgpack_unpack((const char *)r->facts, r->facts_len, &at, &zone, &facts);
		if (verdict == TOKEN_REPEAT && !repeat_check(d, r->host, &e)) {
			applicant_grant(a);
			a = NULL;
		} else if (verdict == TOKEN_FRESH && !stranger_check(d, r->host, &e) &&
			   !join_facts_check(d, r, &facts, &e) &&
			   !join_hypervisor_check(d, &facts, &level, &e)) {
			applicant_record(a, r, &use, token, &facts, &level);
			a = NULL;
		}
	}
	msgpack_zone_destroy(&zone);
	if (a)
		applicant_refuse(a, &e);
}

static void on_gone(void *arg, struct join_acceptor *acceptor)
{
	struct joining *j = arg;

	LIST_FOR_EACH (node, &j->applicants) {
		struct applicant *a = CONTAINER_OF(node, struct applicant, node);

		if (a->acceptor == acceptor)
			a->acceptor = NULL;
	}
}

static void on_closed(void *arg)
{
	struct joining *j = arg;

	members_closed(j->daemon->members, PORT_ALPN_JOIN);
}

/* --- joining another pool --- */

static int grant_read(struct joining *j, struct identity *id, struct rv_error *e)
{
	const struct join_grant *g = &j->op.grant;
	const msgpack_object *o, *list;
	msgpack_object members;
	msgpack_zone zone;
	size_t at = 0;
	int rc = RV_EPROTO;

	*id = (struct identity){.ca_pem = (char *)g->ca_pem,
		.cert_pem = (char *)g->cert_pem,
		.key_pem = j->key_pem};
	if (!msgpack_zone_init(&zone, 4096))
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	if (msgpack_unpack(
		    (const char *)g->members, g->members_len, &at, &zone, &members) < 0)
		goto out;
	o = rpc_map_get(&members, "raft_id");
	if (!o || o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		goto out;
	id->raft_id = o->via.u64;
	o = rpc_map_get(&members, "secret");
	if (!o || o->type != MSGPACK_OBJECT_BIN || o->via.bin.size != CA_SECRET_SIZE)
		goto out;
	memcpy(id->secret, o->via.bin.ptr, CA_SECRET_SIZE);
	list = rpc_map_get(&members, "members");
	if (!list || list->type != MSGPACK_OBJECT_ARRAY)
		goto out;
	for (uint32_t i = 0;
		i < list->via.array.size && id->seed_count < IDENTITY_MAX_SEEDS; i++) {
		const msgpack_object *pair = &list->via.array.ptr[i];
		struct peer_member *m = &id->seeds[id->seed_count];

		if (pair->type != MSGPACK_OBJECT_ARRAY || pair->via.array.size != 2 ||
			pair->via.array.ptr[0].type != MSGPACK_OBJECT_STR ||
			pair->via.array.ptr[1].type != MSGPACK_OBJECT_STR ||
			uuid_parse(&m->host, pair->via.array.ptr[0].via.str.ptr,
				pair->via.array.ptr[0].via.str.size))
			goto out;
		if (uuid_eq(&m->host, &j->daemon->host) ||
			!pair->via.array.ptr[1].via.str.size)
			continue;
		join_text_of(&pair->via.array.ptr[1], m->address, sizeof m->address);
		id->seed_count++;
	}
	rc = 0;
out:
	msgpack_zone_destroy(&zone);
	return rc ? rv_error_set(e, rc, "the master's answer makes no sense") : 0;
}

/* The new identity is complete on disk; the restart puts it in force, and keeps the
 * former database. */
static int change_pools(struct daemon *d, const struct identity *id, struct rv_error *e)
{
	int rc = identity_write_next(id, d->config->state_dir, e);

	return rc ? rc
		  : turnover_plan(d->config->state_dir, TURNOVER_JOIN,
			    loop_wall_ms(d->loop), "", e);
}

static void on_restart(void *arg)
{
	struct joining *j = arg;

	daemon_restart(j->daemon);
}

static void on_joined(struct op *op)
{
	struct joining *j = CONTAINER_OF(op, struct joining, op.op);
	struct identity id;
	struct rv_error e = op->error;

	if (!e.code && !grant_read(j, &id, &e) && !change_pools(j->daemon, &id, &e)) {
		log_info("join.done", "msg=\"this daemon starts again as a member\"");
		timer_start_ms(&j->restart, JOIN_RESTART_MS);
		call_reply_nil(j->call);
	} else {
		call_fail(j->call, &e);
		j->busy = false;
	}
	j->call = NULL;
	join_fini(&j->op);
	memset(&j->op, 0, sizeof j->op);
}

static uint64_t running_here(struct daemon *d)
{
	const struct db *db = pool_db(d->pool);
	uint64_t n = 0;

	for (const struct row *vm = db_next_ref(db, VM_RESIDENT_ON, d->host, NULL); vm;
		vm = db_next_ref(db, VM_RESIDENT_ON, d->host, vm))
		n++;
	return n;
}

static void facts_pack(struct daemon *d, struct buf *b)
{
	const struct row *host = db_row(pool_db(d->pool), CLASS_HOST, d->host);
	const struct hyper_host *h = &d->hyper_host;
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, rpc_pack_to_buf);
	msgpack_pack_map(&pk, 8);
	rpc_pack_key(&pk, "name");
	rpc_pack_text(&pk, row_name(host));
	rpc_pack_key(&pk, "kind");
	rpc_pack_key(&pk, witness_is_here(d) ? "witness" : "host");
	rpc_pack_key(&pk, "address");
	rpc_pack_text(&pk, members_address(d->members));
	rpc_pack_key(&pk, "level");
	msgpack_pack_int(&pk, SCHEMA_LEVEL);
	rpc_pack_key(&pk, "running");
	msgpack_pack_uint64(&pk, running_here(d));
	rpc_pack_key(&pk, "simulated");
	if (h->is_simulated)
		msgpack_pack_true(&pk);
	else
		msgpack_pack_false(&pk);
	rpc_pack_key(&pk, "xen");
	rpc_pack_text(&pk, h->version);
	rpc_pack_key(&pk, "cpu");
	msgpack_pack_bin(&pk, h->cpu_policy_len);
	msgpack_pack_bin_body(&pk, h->cpu_policy, h->cpu_policy_len);
}

/* Its domains that are nobody's VM would be nobody's in the pool, too. */
static bool has_strays(struct call *c)
{
	struct daemon *d = c->daemon;
	char names[256];

	if (witness_is_here(d) ||
		vm_ghosts_say(d->vms, &d->host, names, sizeof names) == 0)
		return false;
	call_failf(c, RV_ENOTALLOWED,
		"domains run on this host that are no VMs of it: %s; a pool must know "
		"all that runs on its hosts. End them ('xl shutdown NAME', or 'reeve "
		"host-ghost-destroy host=NAME domid=N'), or make them VMs ('reeve "
		"vm-adopt "
		"host=NAME domid=N') and shut those down, then join again",
		names);
	return true;
}

/* Whether this host may leave what it has for another pool. */
static bool may_join(struct call *c)
{
	struct daemon *d = c->daemon;

	if (!d->members)
		call_failf(c, RV_ENOTALLOWED,
			"this host takes no links: set [pool] listen in its "
			"configuration and restart reeved");
	else if (d->joining->busy)
		call_failf(c, RV_EBUSY, "this host is joining a pool already");
	else if (db_count(pool_db(d->pool), CLASS_HOST) > 1)
		call_failf(c, RV_ENOTALLOWED,
			"this host is in a pool with others; eject it from there first");
	else if (running_here(d))
		call_failf(
			c, RV_ENOTALLOWED, "VMs run on this host; shut them down first");
	else
		return !has_strays(c);
	return false;
}

static void on_look(void *arg)
{
	struct joining *j = arg;
	struct call *c = j->call;

	j->call = NULL;
	j->busy = false;
	pool_join(c);
}

void pool_join(struct call *c)
{
	struct daemon *d = c->daemon;
	struct joining *j = d->joining;
	const char *names[] = {NULL};
	struct join_spec spec = {.address = call_text(c, "master_address"),
		.token = call_text(c, "token"),
		.request = uuid_random(loop_prng(d->loop)),
		.host = d->host,
		.names = names};
	struct rv_error e = {0};
	struct buf facts;

	if (!may_join(c))
		return;
	if (!witness_is_here(d) && !vm_manager_ready(d->vms)) {
		j->busy = true;
		j->call = c;
		timer_start_ms(&j->look, JOIN_LOOK_MS);
		return;
	}
	free(j->csr_pem);
	ca_key_free(j->key_pem);
	j->csr_pem = j->key_pem = NULL;
	buf_init(&facts, JOIN_FACTS_MAX);
	facts_pack(d, &facts);
	spec.facts = buf_data(&facts);
	spec.facts_len = buf_len(&facts);
	if (ca_request_new(&d->host, &j->csr_pem, &j->key_pem, &e)) {
		call_fail(c, &e);
	} else {
		spec.csr_pem = j->csr_pem;
		spec.key_pem = j->key_pem;
		j->call = c;
		if (join_start(&j->op, d->loop, &spec, on_joined, &e))
			call_fail(c, &e);
		else
			j->busy = true;
	}
	buf_fini(&facts);
}

/* --- beginning and ending --- */

int joining_new(struct joining **out, struct daemon *d, struct rv_error *e)
{
	struct joining *j = calloc(1, sizeof *j);
	struct join_desk_config config = {
		.request = on_request, .gone = on_gone, .closed = on_closed, .arg = j};
	int rc;

	if (!j)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	j->daemon = d;
	list_init(&j->applicants);
	timer_init(&j->look, d->loop, "join.look", on_look, j);
	timer_init(&j->restart, d->loop, "join.restart", on_restart, j);
	rc = join_desk_new(&j->desk, d->loop, &config, e);
	if (!rc && members_register(
			   d->members, PORT_ALPN_JOIN, true, join_desk_accept, j->desk))
		rc = rv_error_set(e, RV_ELIMIT, "no place for joining hosts");
	*out = j;
	return rc;
}

void joining_free(struct joining *j)
{
	if (!j)
		return;
	timer_stop(&j->look);
	timer_stop(&j->restart);
	join_fini(&j->op);
	join_desk_free(j->desk);
	LIST_FOR_EACH_SAFE (node, &j->applicants)
		applicant_free(CONTAINER_OF(node, struct applicant, node));
	free(j->csr_pem);
	ca_key_free(j->key_pem);
	free(j);
}
