/*
 * One RPC call, from the request's arrival to its reply.
 *
 * A call is identified, checked against the schema (method, role, arguments), made to
 * wait for the database it asks for (min_seq, consistent), and handed to the function of
 * its method. That function replies, now or later, exactly once.
 *
 * Every argument that the schema lists is in `args`, in the schema's order and type, and
 * VALUE_NULL where the caller left an optional one out. Arguments of record type stay
 * msgpack, borrowed from the request, which is then kept until the reply.
 */
#ifndef REEVE_DAEMON_CALL_H
#define REEVE_DAEMON_CALL_H

#include "pool/db/schema.h"
#include "pool/db/txn.h"
#include "pool/pool.h"
#include "rpc/server.h"
#include "rpc/session.h"

struct daemon;

enum { CALL_MAX_ARGS = 24 };

struct call;

/* What serves one method. */
typedef void call_fn(struct call *c);

/* Where a call came from, and so where its reply goes: a client of this host
 * (daemon/call.c), or another host that forwards one of its clients' (daemon/forward.c).
 */
struct call_port {
	/* Pack exactly one object, the result, between the two. `end` ends the call. */
	msgpack_packer *(*begin)(struct call *c);
	void (*end)(struct call *c);
	void (*fail)(struct call *c, const struct rv_error *e);
	/* Makes params, which may move, last until the reply. */
	int (*keep)(struct call *c);
	/* fn(c) once, if nobody waits for the reply any more; NULL: no more. */
	void (*on_gone)(struct call *c, timer_fn *fn);
};

struct call {
	struct list node; /* daemon's calls, or its free ones */
	struct daemon *daemon;
	const struct call_port *port; /* NULL once replied */
	void *source;		      /* the port's: a struct rpc_request, ... */
	const msgpack_object *params; /* a map */
	const char *origin; /* for the task and the log; lives until the reply */
	const struct schema_method *method;
	struct session_identity who;
	struct uuid request; /* none: the caller gave none */
	bool async, consistent;
	bool kept;	       /* call_keep was called */
	bool sent;	       /* it was at another host: it may have been begun */
	int64_t park_until_us; /* daemon/forward.c; 0: it never waited */
	bool forwarded;	       /* by another host: it is for this one to do */
	uint64_t min_seq;
	char arguments_hash[17]; /* "" until daemon/tasks.c needs it */
	int busy_ms; /* waited for a VM's former operation, see daemon/vm_methods.h */

	struct pool_wait wait;
	struct value result; /* of call_commit, given once it is committed */
	call_fn *committed;  /* may be NULL: runs before that reply, must not end the call
			      */
	/* May be NULL: runs in place of a refusal because something changed just before
	 * (RV_ECONFLICT), to look anew. Its records must be kept. */
	call_fn *again;

	struct uuid
		placed; /* VM.start: the host that the scheduler chose; none: not asked */

	uint64_t raft_id; /* pool.eject: of the host that goes */

	struct read_slices *slices; /* read.c: of many records, some at a time */
	uint64_t seq;		    /* of the reply; 0: the database's of that moment */

	/* For calls that wait for a task or a change; daemon/tasks.c, daemon/events.c. */
	struct uuid task;
	double progress_seen;
	struct timer timer;
	struct list waiting;

	/* Large, so zeroed by who uses them only: of these so many as the method has. */
	struct value args[CALL_MAX_ARGS];
	const msgpack_object *records[CALL_MAX_ARGS];
	struct pool_barrier barrier;
	struct pool_commit commit;
};

/* The RPC server's handler; arg is the daemon. */
void call_begin(void *arg, struct rpc_request *req);

/* A call that another host forwards for `who`. `method` and `params` are borrowed until
 * port->keep or the reply. RV_ELIMIT beyond RV_MAX_CALLS, RV_ENOMEM: not begun, no reply
 * follows. */
int call_begin_forwarded(struct daemon *d, const struct call_port *port, void *source,
	const struct session_identity *who, const char *method, size_t method_len,
	const msgpack_object *params) RV_MUST_CHECK;

/* fn(c) once, if nobody waits for the reply any more. A reply is still due. With NULL
 * nothing is called any more: so it must be wherever a call that waited goes on to be
 * worked on by what can't be told to leave it. */
void call_on_gone(struct call *c, timer_fn *fn);

/* Frees the calls kept for reuse; when the daemon ends. */
void calls_free(struct daemon *d);

/* Begins again where the arguments were known to be right; they must have been kept. For
 * daemon/forward.c. */
void call_again(struct call *c);

/* Keeps the record arguments beyond the method's function. RV_ENOMEM. */
int call_keep(struct call *c) RV_MUST_CHECK;

/* --- arguments: by the schema's name; the name must be one of the method's --- */

const struct value *call_arg(const struct call *c, const char *name); /* NULL: left out */
struct uuid call_ref(const struct call *c, const char *name);  /* UUID_NONE: left out */
const char *call_text(const struct call *c, const char *name); /* "": left out */
int64_t call_int(const struct call *c, const char *name, int64_t missing);
bool call_bool(const struct call *c, const char *name, bool missing);
const msgpack_object *call_record(
	const struct call *c, const char *name); /* NULL: left out */

/* The row that a ref argument names. On NULL the call has been failed, naming it. */
const struct row *call_row(struct call *c, const char *name);

/* --- replying: each ends the call --- */

void call_reply_nil(struct call *c);
void call_reply(struct call *c, const struct value *v);
/* Pack exactly one object, the `value`, between the two. */
msgpack_packer *call_reply_begin(struct call *c);
void call_reply_end(struct call *c);

void call_fail(struct call *c, const struct rv_error *e);
void call_failf(struct call *c, int code, const char *fmt, ...) RV_PRINTF(3, 4);

/* --- changing --- */

/* Commits the transaction (taken) and replies with `result` (taken; VALUE_NULL: nil).
 * Where the caller gave a request UUID, a task that has already succeeded goes into the
 * same entry, so that a repeat finds it. `subject` is the object it is about. */
void call_commit(struct call *c, struct txn *t, struct value result, struct uuid subject);

/* What may be a name_label: no control characters, not too long, and where an object of
 * the class needs one, neither empty, nor invisible, nor "<...>", nor what reads as a
 * UUID. RV_EPARAM. */
int call_name_check(
	enum schema_class_id cls, const char *name, struct rv_error *e) RV_MUST_CHECK;

/* Reads a record argument into `t` as fields of the object `uuid` of class `cls`, each
 * checked: known, writable by clients (also at creation with `creating`), right type, ref
 * to something that exists. False: the call has been failed, naming the field. */
bool call_fields_to_txn(struct call *c, struct txn *t, const msgpack_object *record,
	enum schema_class_id cls, struct uuid uuid, bool creating);

#endif
