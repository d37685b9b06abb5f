#include "base/mpcheck.h"

#include <stdbool.h>
#include <string.h>

#include "base/limits.h"

struct scan {
	const uint8_t *data;
	size_t len, at;
	size_t elements;
	struct rv_error *e;
};

static int scan_fail(struct scan *s, int code, const char *what)
{
	return rv_error_set(
		s->e, code, "msgpack: %s at byte %zu of %zu", what, s->at, s->len);
}

/* Reads a big-endian number of `n` bytes. */
static int scan_number(struct scan *s, size_t n, uint64_t *out)
{
	uint64_t value = 0;

	if (n > s->len - s->at)
		return scan_fail(s, RV_EPROTO, "truncated");
	for (size_t i = 0; i < n; i++)
		value = value << 8 | s->data[s->at++];
	*out = value;
	return 0;
}

static int scan_skip(struct scan *s, uint64_t n)
{
	if (n > s->len - s->at)
		return scan_fail(s, RV_EPROTO, "longer than the message");
	s->at += n;
	return 0;
}

/* Length of the UTF-8 sequence at p, or 0 where there is none (RFC 3629). */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
	uint32_t point;
	size_t n;

	if (p[0] == 0)
		return 0;
	if (p[0] < 0x80)
		return 1;
	n = p[0] >= 0xf0 && p[0] < 0xf5	  ? 4
	    : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
	    : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
					  : 0;
	if (n == 0 || n > left)
		return 0;
	point = p[0] & (0xffu >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (p[i] & 0x3f);
	}
	if ((n == 3 && (point < 0x800 || (point >= 0xd800 && point < 0xe000))) ||
		(n == 4 && (point < 0x10000 || point > 0x10ffff)))
		return 0;
	return n;
}

/* Whether all eight bytes are ASCII and none is NUL. */
static bool ascii_word(const uint8_t *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof word);
	/* A NUL borrows into its top bit; where none is set, nothing else can. */
	return ((word | (word - UINT64_C(0x0101010101010101))) &
		       UINT64_C(0x8080808080808080)) == 0;
}

/* What is left of a text when less than a word is, looked at in one piece. */
static bool ascii_rest(const uint8_t *p, size_t left)
{
	uint8_t word[8] = {1, 1, 1, 1, 1, 1, 1, 1};

	switch (left) { /* constant sizes: no call of memcpy */
	case 7:
		word[6] = p[6]; /* fall through */
	case 6:
		word[5] = p[5]; /* fall through */
	case 5:
		word[4] = p[4]; /* fall through */
	case 4:
		memcpy(word, p, 4);
		break;
	case 3:
		word[2] = p[2]; /* fall through */
	case 2:
		word[1] = p[1]; /* fall through */
	default:
		word[0] = p[0];
	}
	return ascii_word(word);
}

size_t mpcheck_utf8(const uint8_t *text, size_t len)
{
	size_t at = 0;

	while (at < len) {
		size_t sequence;

		if (len - at >= 8 && ascii_word(text + at)) {
			at += 8;
			continue;
		}
		if (len - at < 8 && ascii_rest(text + at, len - at))
			return len;
		sequence = utf8_sequence(text + at, len - at);
		if (sequence == 0)
			break;
		at += sequence;
	}
	return at;
}

static int scan_string(struct scan *s, uint64_t n)
{
	size_t start = s->at, good;
	int rc = scan_skip(s, n);

	if (rc)
		return rc;
	good = mpcheck_utf8(s->data + start, n);
	if (good == n)
		return 0;
	s->at = start + good;
	return scan_fail(s, RV_EPROTO, "string is not UTF-8 or holds NUL");
}

enum body { BODY_BYTES, BODY_STRING, BODY_ITEMS };

/* A header with a length field of `width` bytes, `extra` bytes before the body, and
 * `factor` items for each count. */
static int scan_counted(
	struct scan *s, size_t width, enum body body, uint64_t factor, uint64_t *items)
{
	uint64_t n = 0;
	int rc = scan_number(s, width, &n);

	if (rc)
		return rc;
	switch (body) {
	case BODY_BYTES:
		return scan_skip(s, n + factor);
	case BODY_STRING:
		return scan_string(s, n);
	case BODY_ITEMS:
		*items = n * factor;
	}
	return 0;
}

/* Reads one header and its scalar body; *items is how many objects follow inside it. */
static int scan_object(struct scan *s, uint64_t *items)
{
	uint8_t head;

	*items = 0;
	if (s->at == s->len)
		return scan_fail(s, RV_EPROTO, "truncated");
	head = s->data[s->at++];
	if (head <= 0x7f || head >= 0xe0)
		return 0;
	if (head <= 0x8f) {
		*items = (head & 0x0f) * 2;
		return 0;
	}
	if (head <= 0x9f) {
		*items = head & 0x0f;
		return 0;
	}
	if (head <= 0xbf)
		return scan_string(s, head & 0x1f);
	switch (head) {
	case 0xc0: /* nil, false, true */
	case 0xc2:
	case 0xc3:
		return 0;
	case 0xc4: /* bin */
	case 0xc5:
	case 0xc6:
		return scan_counted(s, (size_t)1 << (head - 0xc4), BODY_BYTES, 0, items);
	case 0xc7: /* ext: one more byte, the type */
	case 0xc8:
	case 0xc9:
		return scan_counted(s, (size_t)1 << (head - 0xc7), BODY_BYTES, 1, items);
	case 0xca: /* float, double */
	case 0xcb:
		return scan_skip(s, (size_t)4 << (head - 0xca));
	case 0xcc: /* uint 8..64 */
	case 0xcd:
	case 0xce:
	case 0xcf:
		return scan_skip(s, (size_t)1 << (head - 0xcc));
	case 0xd0: /* int 8..64 */
	case 0xd1:
	case 0xd2:
	case 0xd3:
		return scan_skip(s, (size_t)1 << (head - 0xd0));
	case 0xd4: /* fixext 1..16 */
	case 0xd5:
	case 0xd6:
	case 0xd7:
	case 0xd8:
		return scan_skip(s, ((size_t)1 << (head - 0xd4)) + 1);
	case 0xd9: /* str */
	case 0xda:
	case 0xdb:
		return scan_counted(s, (size_t)1 << (head - 0xd9), BODY_STRING, 0, items);
	case 0xdc: /* array */
	case 0xdd:
		return scan_counted(s, (size_t)2 << (head - 0xdc), BODY_ITEMS, 1, items);
	case 0xde: /* map */
	case 0xdf:
		return scan_counted(s, (size_t)2 << (head - 0xde), BODY_ITEMS, 2, items);
	default: /* 0xc1 is never used */
		s->at--;
		return scan_fail(s, RV_EPROTO, "byte 0xc1");
	}
}

int mpcheck_prefix(const uint8_t *data, size_t len, size_t *used, struct rv_error *e)
{
	struct scan s = {.data = data, .len = len, .e = e};
	uint64_t left[RV_MAX_MSGPACK_DEPTH + 1]; /* objects still due at each depth */
	int depth = 0;

	left[0] = 1;
	for (;;) {
		uint64_t items;
		int rc;

		while (left[depth] == 0) {
			if (depth == 0) {
				*used = s.at;
				return 0;
			}
			depth--;
		}
		left[depth]--;
		if (++s.elements > RV_MAX_MSGPACK_ELEMENTS)
			return scan_fail(&s, RV_ETOOBIG, "too many elements");
		rc = scan_object(&s, &items);
		if (rc)
			return rc;
		if (items == 0)
			continue;
		if (items > s.len - s.at) /* each item takes a byte at least */
			return scan_fail(
				&s, RV_EPROTO, "more elements claimed than bytes left");
		if (depth == RV_MAX_MSGPACK_DEPTH)
			return scan_fail(&s, RV_ETOOBIG, "nested too deep");
		left[++depth] = items;
	}
}

int mpcheck(const uint8_t *data, size_t len, struct rv_error *e)
{
	size_t used;
	int rc = mpcheck_prefix(data, len, &used, e);

	if (rc)
		return rc;
	if (used != len)
		return rv_error_set(e, RV_EPROTO,
			"msgpack: %zu bytes left over after the object", len - used);
	return 0;
}

void mpcheck_mend_utf8(char *text)
{
	size_t len = strlen(text), at = 0;

	while ((at += mpcheck_utf8((const uint8_t *)text + at, len - at)) < len)
		text[at++] = '?';
}
