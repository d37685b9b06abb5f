/*
 * Every bound on what a peer, client, guest or disk can make this daemon hold.
 * A full queue or table has a defined refusal (RV_ELIMIT), never growth without end.
 */
#ifndef REEVE_BASE_LIMITS_H
#define REEVE_BASE_LIMITS_H

enum {
	/* rpc: one request or reply, connections, requests of one client in flight. */
	RV_MAX_RPC_MESSAGE_BYTES = 16 << 20,
	RV_MAX_RPC_CONNECTIONS = 16384,
	RV_MAX_RPC_PIPELINE = 1024,
	RV_MAX_CALLS = 32768, /* of all clients, begun and not yet answered */
	RV_MAX_RPC_QUEUED_BYTES = 32 << 20, /* unsent replies of one connection */

	/* msgpack: nesting, and elements in all in one message. */
	RV_MAX_MSGPACK_DEPTH = 16,
	RV_MAX_MSGPACK_ELEMENTS = 4 << 20,

	/* database: one log entry, one string, elements of one set or map, objects. */
	RV_MAX_ENTRY_BYTES = 4 << 20,
	RV_MAX_STRING_BYTES = 64 << 10,
	RV_MAX_SET_ELEMENTS = 4096,
	RV_MAX_OBJECTS = 1 << 20,
	RV_MAX_NAME_BYTES = 255,

	/* pool: commits waiting for the quorum; changes kept for event.from. */
	RV_MAX_COMMITS_QUEUED = 4096,
	RV_MAX_CHANGE_HISTORY = 65536,

	/* operations at work at once, and tasks kept after they ended. */
	RV_MAX_OPS = 4096,
	RV_MAX_TASKS = 65536,

	/* messages kept; the oldest go first. As many as XenServer keeps. */
	RV_MAX_MESSAGES = 10000,

	/* reactor: thread CPU time of one callback before the watchdog names it. */
	RV_CALLBACK_BUDGET_US = 5000,
	RV_MAX_CHILD_OUTPUT_BYTES = 64 << 10,
	RV_MAX_WORKER_JOBS = 4096,
};

#endif
