#include "rpc/sp.h"

#include <string.h>

static uint64_t get_be(const uint8_t *p, size_t n)
{
	uint64_t value = 0;

	for (size_t i = 0; i < n; i++)
		value = value << 8 | p[i];
	return value;
}

static void put_be(uint8_t *p, size_t n, uint64_t value)
{
	for (size_t i = n; i-- > 0; value >>= 8)
		p[i] = (uint8_t)value;
}

enum sp_protocol sp_peer_of(enum sp_protocol self)
{
	return (enum sp_protocol)(self ^ 1);
}

const char *sp_protocol_name(int protocol)
{
	switch (protocol) {
	case SP_PUB:
		return "pub";
	case SP_SUB:
		return "sub";
	case SP_REQ:
		return "req";
	case SP_REP:
		return "rep";
	default:
		return "unknown";
	}
}

void sp_hello_encode(uint8_t out[static SP_HELLO_BYTES], enum sp_protocol self)
{
	memcpy(out, "\0SP\0\0\0\0\0", SP_HELLO_BYTES);
	put_be(out + 4, 2, self);
}

int sp_hello_decode(const uint8_t in[static SP_HELLO_BYTES], enum sp_protocol wanted,
	struct rv_error *e)
{
	int announced = (int)get_be(in + 4, 2);

	if (memcmp(in, "\0SP\0", 4) != 0 || in[6] != 0 || in[7] != 0)
		return rv_error_set(e, RV_EPROTO,
			"the peer does not speak NNG (no SP header in its first 8 "
			"bytes)");
	if (announced != (int)wanted)
		return rv_error_set(e, RV_EPROTO,
			"the peer opened an NNG socket of kind %s (%d); a %s socket is "
			"wanted here",
			sp_protocol_name(announced), announced, sp_protocol_name(wanted));
	return 0;
}

size_t sp_frame_encode(enum sp_framing framing, uint8_t out[static SP_MAX_HEADER_BYTES],
	uint64_t body_bytes)
{
	size_t at = 0;

	if (framing == SP_FRAMING_IPC)
		out[at++] = 1;
	put_be(out + at, 8, body_bytes);
	return at + 8;
}

int sp_frame_decode(enum sp_framing framing, const uint8_t *data, size_t len,
	uint64_t max_body, size_t *header_bytes, size_t *body_bytes, struct rv_error *e)
{
	size_t header = sp_frame_header_bytes(framing);
	uint64_t body;

	/* The type is told at once: junk need not be nine bytes long to be junk. */
	if (framing == SP_FRAMING_IPC && len > 0 && data[0] != 1)
		return rv_error_set(
			e, RV_EPROTO, "a frame of type %u; only 1 is known", data[0]);
	if (len < header)
		return RV_EAGAIN;
	body = get_be(data + header - 8, 8);
	if (body > max_body)
		return rv_error_set(e, RV_ETOOBIG,
			"a message of %llu bytes; at most %llu are taken",
			(unsigned long long)body, (unsigned long long)max_body);
	*header_bytes = header;
	*body_bytes = (size_t)body;
	return 0;
}

int sp_backtrace_decode(
	const uint8_t *body, size_t len, size_t *backtrace_bytes, struct rv_error *e)
{
	for (size_t at = 0; at < SP_MAX_BACKTRACE_BYTES; at += 4) {
		if (len - at < 4)
			return rv_error_set(e, RV_EPROTO,
				"a message of %zu bytes without a request id", len);
		if (body[at] & 0x80) {
			*backtrace_bytes = at + 4;
			return 0;
		}
	}
	return rv_error_set(
		e, RV_ELIMIT, "a request that passed more than %d hops", SP_MAX_HOPS);
}
