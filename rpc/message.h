/*
 * RPC messages: msgpack-rpc with named parameters.
 *
 *	request		[0, id, method, params]		params: map (or nil: none)
 *	response	[1, id, error, result]		error: nil, or the map below
 *	notification	[2, method, params]		on PUB sockets
 *	error		{code: "HANDLE_INVALID", number: 3, symbol: "ENOENT",
 *			 message: "…", retryable: false}
 *
 * Every byte from outside passes base/mpcheck before msgpack-c sees it. Decoding copies
 * nothing: method, strings and raw params point into the caller's bytes, maps and arrays
 * into the caller's zone.
 */
#ifndef REEVE_RPC_MESSAGE_H
#define REEVE_RPC_MESSAGE_H

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum rpc_message_type {
	RPC_REQUEST = 0,
	RPC_RESPONSE = 1,
	RPC_NOTIFICATION = 2,
};

enum { RPC_MAX_METHOD_BYTES = 128 };

struct rpc_message {
	enum rpc_message_type type;
	uint64_t id;	    /* set even when decoding failed, once it was read; else 0 */
	const char *method; /* not NUL-terminated */
	size_t method_len;
	msgpack_object params; /* always a map: nil is read as the empty map */
	const uint8_t *raw;    /* the packed params (or result) */
	size_t raw_len;
	struct rv_error *error; /* response: NULL, or the caller's, filled in */
	bool retryable;		/* of that error, as the server says */
	msgpack_object result;	/* response without error */
};

/* Decodes one whole message of the wanted type. `zone` is the caller's: cleared by the
 * caller when the message is no longer used. `remote` takes a response's error and may be
 * NULL for other types. RV_EPROTO, RV_ETOOBIG or RV_ENOMEM with words in `e`. */
int rpc_message_decode(struct rpc_message *m, enum rpc_message_type wanted,
	const uint8_t *data, size_t len, msgpack_zone *zone, struct rv_error *remote,
	struct rv_error *e) RV_MUST_CHECK;

/* The value of a key in a msgpack map, or NULL. Of doubled keys the first counts. */
const msgpack_object *rpc_map_get(const msgpack_object *map, const char *key);

/* msgpack-c's write callback for a packer over a struct buf: fails (-1) beyond its cap.
 */
int rpc_pack_to_buf(void *buf, const char *data, size_t len);

/* Each write of a packer costs more than a small value does: what precedes every result
 * is put together by hand. The shortest encoding of the number; returns the end. */
enum { RPC_UINT_BYTES = 9 };
uint8_t *rpc_put_uint(uint8_t *at, uint64_t number);

/* Packs a NUL-terminated string; invalid UTF-8 becomes '?'. The packers' own errors come
 * from their buffer: check that once at the end, by buf_len or the reply's outcome. */
void rpc_pack_text(msgpack_packer *pk, const char *text);
void rpc_pack_key(msgpack_packer *pk, const char *key); /* known to be good UTF-8 */

/* The fronts of messages; what is missing (params, result) is packed by the caller. */
void rpc_pack_request(
	msgpack_packer *pk, uint64_t id, const char *method, size_t method_len);
void rpc_pack_response(msgpack_packer *pk, uint64_t id); /* error nil; result follows */
void rpc_pack_notification(msgpack_packer *pk, const char *method);
/* A whole error response. */
void rpc_pack_error(
	msgpack_packer *pk, uint64_t id, int code, const char *detail, bool retryable);

/* The bytes that every notification of this method begins with: a topic for sub0. */
int rpc_notification_topic(struct buf *b, const char *method) RV_MUST_CHECK;

#endif
