#include "rpc/message.h"

#include <string.h>

#include "base/mpcheck.h"

/* A cursor over bytes that mpcheck has passed: bounds hold by that check, but the kind of
 * each object must still be looked at. */
struct reader {
	const uint8_t *at, *end;
};

static bool read_array(struct reader *r, uint32_t *count)
{
	uint8_t head = r->at < r->end ? *r->at : 0;

	if ((head & 0xf0) != 0x90)
		return false; /* longer arrays are no message: four elements at most */
	r->at++;
	*count = head & 0x0f;
	return true;
}

static bool read_uint(struct reader *r, uint64_t *out)
{
	uint8_t head = r->at < r->end ? *r->at : 0xc0;
	size_t width;

	if (head <= 0x7f) {
		r->at++;
		*out = head;
		return true;
	}
	if (head >= 0xcc && head <= 0xcf)
		width = (size_t)1 << (head - 0xcc);
	else if (head >= 0xd0 && head <= 0xd3 && !(r->at[1] & 0x80))
		width = (size_t)1 << (head - 0xd0);
	else
		return false;
	r->at++;
	*out = 0;
	while (width-- > 0)
		*out = *out << 8 | *r->at++;
	return true;
}

static bool read_str(struct reader *r, const char **out, size_t *len)
{
	uint8_t head = r->at < r->end ? *r->at : 0xc0;

	if ((head & 0xe0) == 0xa0) {
		*len = head & 0x1f;
		r->at++;
	} else if (head == 0xd9) {
		*len = r->at[1];
		r->at += 2;
	} else {
		return false; /* longer than any method's name */
	}
	*out = (const char *)r->at;
	r->at += *len;
	return true;
}

static int unpack(const struct reader *r, msgpack_zone *zone, msgpack_object *out,
	struct rv_error *e)
{
	size_t at = 0;
	msgpack_unpack_return got = msgpack_unpack(
		(const char *)r->at, (size_t)(r->end - r->at), &at, zone, out);

	if (got == MSGPACK_UNPACK_SUCCESS)
		return 0;
	if (got == MSGPACK_UNPACK_NOMEM_ERROR)
		return rv_error_set(e, RV_ENOMEM, "out of memory for a message");
	return rv_error_set(e, RV_EPROTO, "msgpack: the message can't be unpacked");
}

static int decode_method(
	struct rpc_message *m, struct reader *r, msgpack_zone *zone, struct rv_error *e)
{
	int rc;

	if (!read_str(r, &m->method, &m->method_len) || m->method_len == 0 ||
		m->method_len > RPC_MAX_METHOD_BYTES)
		return rv_error_set(e, RV_EPROTO,
			"the method's name must be a string of 1 to %d bytes, such as "
			"\"VM.get_record\"",
			RPC_MAX_METHOD_BYTES);
	m->raw = r->at;
	m->raw_len = (size_t)(r->end - r->at);
	if (r->at[0] == 0xc0) { /* nil for no params, as a convenience */
		static const uint8_t empty_map = 0x80;

		m->raw = &empty_map;
		m->raw_len = 1;
		m->params.type = MSGPACK_OBJECT_MAP;
		m->params.via.map.size = 0;
		m->params.via.map.ptr = NULL;
		return 0;
	}
	rc = unpack(r, zone, &m->params, e);
	if (rc)
		return rc;
	if (m->params.type != MSGPACK_OBJECT_MAP)
		return rv_error_set(e, RV_EPROTO,
			"params must be a map of names to values; %.*s got something "
			"else",
			(int)m->method_len, m->method);
	return 0;
}

/* The code of a wire number that this program may not know. */
static int code_of_number(int64_t number)
{
	int code = number > 0 && number < 100000 ? -(int)number : RV_EINTERNAL;

	return strcmp(rv_error_symbol(code), rv_error_symbol(RV_EINTERNAL)) == 0
		       ? RV_EINTERNAL
		       : code;
}

static int decode_error(
	const msgpack_object *o, struct rv_error *remote, struct rv_error *e)
{
	const msgpack_object *number, *text;

	if (o->type != MSGPACK_OBJECT_MAP)
		return rv_error_set(e, RV_EPROTO, "a response's error must be a map");
	number = rpc_map_get(o, "number");
	text = rpc_map_get(o, "message");
	if (!number || number->type != MSGPACK_OBJECT_POSITIVE_INTEGER || !text ||
		text->type != MSGPACK_OBJECT_STR)
		return rv_error_set(e, RV_EPROTO,
			"a response's error must have a number and a message");
	rv_error_set(remote,
		code_of_number(
			number->via.u64 > INT32_MAX ? 0 : (int64_t)number->via.u64),
		"%.*s", (int)(text->via.str.size & 0xffff), text->via.str.ptr);
	return 0;
}

static int decode_response(struct rpc_message *m, struct reader *r, msgpack_zone *zone,
	struct rv_error *remote, struct rv_error *e)
{
	size_t used;
	int rc = mpcheck_prefix(r->at, (size_t)(r->end - r->at), &used, e);

	if (rc)
		return rc;
	m->raw = r->at + used;
	m->raw_len = (size_t)(r->end - m->raw);
	if (r->at[0] != 0xc0) {
		struct reader part = {r->at, r->at + used};

		rc = unpack(&part, zone, &m->result, e);
		if (!rc)
			rc = decode_error(&m->result, remote, e);
		m->error = remote;
		m->retryable = false;
		if (!rc) {
			const msgpack_object *o = rpc_map_get(&m->result, "retryable");

			m->retryable =
				o && o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
		}
		return rc;
	}
	r->at += used;
	return unpack(r, zone, &m->result, e);
}

int rpc_message_decode(struct rpc_message *m, enum rpc_message_type wanted,
	const uint8_t *data, size_t len, msgpack_zone *zone, struct rv_error *remote,
	struct rv_error *e)
{
	struct reader r = {data, data + len};
	uint32_t count;
	uint64_t type;
	int rc;

	memset(m, 0, sizeof *m);
	rc = mpcheck(data, len, e);
	if (rc)
		return rc;
	if (!read_array(&r, &count) || !read_uint(&r, &type))
		return rv_error_set(e, RV_EPROTO,
			"an RPC message is an array [%d, ...]; see docs/protocol.md",
			wanted);
	if (type != wanted || count != (wanted == RPC_NOTIFICATION ? 3 : 4))
		return rv_error_set(e, RV_EPROTO,
			"an RPC message [%llu, ...] of %u elements; wanted is %s",
			(unsigned long long)type, count,
			wanted == RPC_REQUEST	 ? "[0, id, method, params]"
			: wanted == RPC_RESPONSE ? "[1, id, error, result]"
						 : "[2, method, params]");
	m->type = wanted;
	if (wanted != RPC_NOTIFICATION && !read_uint(&r, &m->id))
		return rv_error_set(
			e, RV_EPROTO, "a message's id must be an unsigned integer");
	if (wanted == RPC_RESPONSE)
		return decode_response(m, &r, zone, remote, e);
	return decode_method(m, &r, zone, e);
}

const msgpack_object *rpc_map_get(const msgpack_object *map, const char *key)
{
	size_t len = strlen(key);

	for (uint32_t i = 0; i < map->via.map.size; i++) {
		const msgpack_object *k = &map->via.map.ptr[i].key;

		if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == len &&
			memcmp(k->via.str.ptr, key, len) == 0)
			return &map->via.map.ptr[i].val;
	}
	return NULL;
}

/* --- packing --- */

uint8_t *rpc_put_uint(uint8_t *at, uint64_t number)
{
	unsigned width = number > UINT32_MAX   ? 3
			 : number > UINT16_MAX ? 2
			 : number > UINT8_MAX  ? 1
					       : 0;

	if (number < 0x80) {
		*at = (uint8_t)number;
		return at + 1;
	}
	*at++ = (uint8_t)(0xcc + width);
	for (unsigned i = 1u << width; i-- > 0;)
		*at++ = (uint8_t)(number >> 8 * i);
	return at;
}

int rpc_pack_to_buf(void *buf, const char *data, size_t len)
{
	return buf_append(buf, data, len) ? -1 : 0;
}

void rpc_pack_key(msgpack_packer *pk, const char *key)
{
	size_t len = strlen(key);

	msgpack_pack_str(pk, len);
	msgpack_pack_str_body(pk, key, len);
}

/* Length of the good UTF-8 sequence at p, 0 if it is none. NUL ends the string before. */
static size_t sequence_len(const unsigned char *p)
{
	size_t n = p[0] < 0x80			  ? 1
		   : p[0] >= 0xc2 && p[0] <= 0xdf ? 2
		   : p[0] >= 0xe0 && p[0] <= 0xef ? 3
		   : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
						  : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
		(p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

void rpc_pack_text(msgpack_packer *pk, const char *text)
{
	size_t len = strlen(text);
	const unsigned char *p = (const unsigned char *)text;

	msgpack_pack_str(pk, len);
	while (*p) {
		const unsigned char *start = p;
		size_t n;

		while (*p && (n = sequence_len(p)) > 0)
			p += n;
		msgpack_pack_str_body(pk, start, (size_t)(p - start));
		if (*p) {
			msgpack_pack_str_body(pk, "?", 1);
			p++;
		}
	}
}

void rpc_pack_request(
	msgpack_packer *pk, uint64_t id, const char *method, size_t method_len)
{
	msgpack_pack_array(pk, 4);
	msgpack_pack_uint8(pk, RPC_REQUEST);
	msgpack_pack_uint64(pk, id);
	msgpack_pack_str(pk, method_len);
	msgpack_pack_str_body(pk, method, method_len);
}

void rpc_pack_response(msgpack_packer *pk, uint64_t id)
{
	uint8_t head[3 + RPC_UINT_BYTES] = {0x94, RPC_RESPONSE}, *at;

	at = rpc_put_uint(head + 2, id);
	*at++ = 0xc0;
	pk->callback(pk->data, (const char *)head, (size_t)(at - head));
}

void rpc_pack_notification(msgpack_packer *pk, const char *method)
{
	msgpack_pack_array(pk, 3);
	msgpack_pack_uint8(pk, RPC_NOTIFICATION);
	rpc_pack_key(pk, method);
}

void rpc_pack_error(
	msgpack_packer *pk, uint64_t id, int code, const char *detail, bool retryable)
{
	msgpack_pack_array(pk, 4);
	msgpack_pack_uint8(pk, RPC_RESPONSE);
	msgpack_pack_uint64(pk, id);
	msgpack_pack_map(pk, 5);
	rpc_pack_key(pk, "code");
	rpc_pack_key(pk, rv_error_xenapi(code));
	rpc_pack_key(pk, "number");
	msgpack_pack_int(pk, code < 0 ? -code : -RV_EINTERNAL);
	rpc_pack_key(pk, "symbol");
	rpc_pack_key(pk, rv_error_symbol(code));
	rpc_pack_key(pk, "message");
	rpc_pack_text(pk, detail);
	rpc_pack_key(pk, "retryable");
	if (retryable)
		msgpack_pack_true(pk);
	else
		msgpack_pack_false(pk);
	msgpack_pack_nil(pk);
}

int rpc_notification_topic(struct buf *b, const char *method)
{
	size_t before = buf_len(b);
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, rpc_pack_to_buf);
	rpc_pack_notification(&pk, method);
	return buf_len(b) > before ? 0 : RV_ENOMEM;
}
