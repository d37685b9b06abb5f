/* Methods of hosts: taking part or not, and what the daemon is doing now. */
#include "daemon/methods.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/host_check.h"
#include "rpc/message.h"

static void host_set_enabled(struct call *c, bool enabled)
{
	const struct row *host = call_row(c, "self");
	struct txn t;

	if (!host)
		return;
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_set_bool(&t, row_uuid(host), HOST_ENABLED, enabled);
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(host));
}

void host_enable(struct call *c)
{
	host_set_enabled(c, true);
}

void host_disable(struct call *c)
{
	host_set_enabled(c, false);
}

/* What a host does now is known there alone. False: the call has been failed. */
static bool host_is_here(struct call *c)
{
	const struct row *host = call_row(c, "self");
	struct uuid uuid;

	if (!host)
		return false;
	uuid = row_uuid(host);
	if (uuid_eq(&uuid, &c->daemon->host))
		return true;
	call_failf(c, RV_ENOTALLOWED, "host %s is another machine; ask it there",
		row_name(host));
	return false;
}

void host_op_list(struct call *c)
{
	struct loop *loop = c->daemon->loop;
	char text[UUID_TEXT_SIZE];
	msgpack_packer *pk;
	size_t count = 0;

	if (!host_is_here(c))
		return;
	for (struct op *op = op_next(loop, NULL); op; op = op_next(loop, op))
		count++;
	pk = call_reply_begin(c);
	msgpack_pack_array(pk, count);
	for (struct op *op = op_next(loop, NULL); op; op = op_next(loop, op)) {
		msgpack_pack_map(pk, 6);
		rpc_pack_key(pk, "operation");
		rpc_pack_key(pk, op->table->name);
		rpc_pack_key(pk, "state");
		rpc_pack_key(pk, op_state_name(op));
		rpc_pack_key(pk, "subject");
		rpc_pack_text(pk, op->subject);
		rpc_pack_key(pk, "task");
		rpc_pack_key(pk, uuid_is_none(&op->id) ? "" : uuid_format(&op->id, text));
		rpc_pack_key(pk, "age_ms");
		msgpack_pack_int64(pk, (loop_now_us(loop) - op->started_us) / 1000);
		rpc_pack_key(pk, "state_age_ms");
		msgpack_pack_int64(pk, (loop_now_us(loop) - op->state_since_us) / 1000);
	}
	call_reply_end(c);
}

/* A host being looked at, for one call. */
struct checking {
	struct job job;
	struct call *call;
	struct host_check_facts facts;
	struct host_finding found[HOST_CHECK_MAX];
	size_t count;
};

static void checking_run(struct job *job)
{
	struct checking *k = CONTAINER_OF(job, struct checking, job);

	k->facts.clock_synchronised = host_check_clock();
	k->count = host_check_run("", &k->facts, k->found);
}

static void checking_done(struct job *job, int rc)
{
	struct checking *k = CONTAINER_OF(job, struct checking, job);
	msgpack_packer *pk;

	if (rc) {
		call_failf(k->call, rc, "the daemon ends");
		free(k);
		return;
	}
	pk = call_reply_begin(k->call);
	msgpack_pack_array(pk, k->count);
	for (size_t i = 0; i < k->count; i++) {
		msgpack_pack_map(pk, 4);
		rpc_pack_key(pk, "check");
		rpc_pack_key(pk, k->found[i].check);
		rpc_pack_key(pk, "grade");
		rpc_pack_key(pk, host_check_grade_name(k->found[i].grade));
		rpc_pack_key(pk, "words");
		rpc_pack_text(pk, k->found[i].words);
		rpc_pack_key(pk, "fix");
		rpc_pack_text(pk, k->found[i].fix);
	}
	call_reply_end(k->call);
	free(k);
}

void host_check(struct call *c)
{
	struct checking *k;

	if (!host_is_here(c))
		return;
	k = calloc(1, sizeof *k);
	if (!k) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	k->call = c;
	k->facts = (struct host_check_facts){
		.is_simulated = c->daemon->hyper_host.is_simulated,
		.dom0_fixed = c->daemon->hyper_host.dom0_fixed};
	k->job = (struct job){
		.run = checking_run, .done = checking_done, .name = "host.check"};
	if (!worker_submit(c->daemon->worker, &k->job))
		return;
	free(k);
	call_failf(c, RV_ELIMIT, "too much is being looked at; ask again later");
}

void host_loop_stats(struct call *c)
{
	struct loop_stat stats[LOOP_MAX_STATS];
	struct rpc_server_stats rpc;
	msgpack_packer *pk;
	size_t count;

	if (!host_is_here(c))
		return;
	count = loop_stats(c->daemon->loop, stats, LOOP_MAX_STATS);
	rpc_server_get_stats(c->daemon->rpc, &rpc);
	pk = call_reply_begin(c);
	msgpack_pack_map(pk, 3);
	rpc_pack_key(pk, "rpc_connections");
	msgpack_pack_uint64(pk, rpc.connections);
	rpc_pack_key(pk, "rpc_requests");
	msgpack_pack_uint64(pk, rpc.requests);
	rpc_pack_key(pk, "callbacks");
	msgpack_pack_array(pk, count);
	for (size_t i = 0; i < count; i++) {
		msgpack_pack_map(pk, 5);
		rpc_pack_key(pk, "name");
		rpc_pack_key(pk, stats[i].name);
		rpc_pack_key(pk, "calls");
		msgpack_pack_uint64(pk, stats[i].calls);
		rpc_pack_key(pk, "total_us");
		msgpack_pack_uint64(pk, stats[i].total_us);
		rpc_pack_key(pk, "max_us");
		msgpack_pack_uint64(pk, stats[i].max_us);
		rpc_pack_key(pk, "over_budget");
		msgpack_pack_uint64(pk, stats[i].over_budget);
	}
	call_reply_end(c);
}
