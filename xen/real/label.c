#include "xen/real/label.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "xen/real/value.h"

static const char *const type_names[] = {
	[HYPER_PV] = "pv", [HYPER_PVH] = "pvh", [HYPER_HVM] = "hvm"};

char *xen_label_path(const struct uuid *handle, char path[static XEN_LABEL_PATH_SIZE])
{
	char text[UUID_TEXT_SIZE];

	snprintf(path, XEN_LABEL_PATH_SIZE, XEN_LABEL_ROOT "/%s",
		uuid_format(handle, text));
	return path;
}

size_t xen_label_format(const struct xen_label *l, char text[static XEN_LABEL_TEXT_SIZE])
{
	char vm[UUID_TEXT_SIZE];

	return (size_t)snprintf(text, XEN_LABEL_TEXT_SIZE,
		"vm=%s generation=%" PRIu64
		" made=%d type=%s vcpus=%u static-max=%" PRIu64 " extra=%" PRIu64
		" overhead=%" PRIu64,
		uuid_format(&l->vm, vm), l->generation, l->made, type_names[l->type],
		l->vcpus_max, l->static_max_kib, l->extra_kib, l->overhead_kib);
}

static bool is_word(const char *name, size_t len, const char *expected)
{
	return strlen(expected) == len && memcmp(name, expected, len) == 0;
}

static int parse_word(struct xen_label *l, const char *name, size_t name_len,
	const char *value, size_t len)
{
	uint64_t number = 0;
	int rc;

	if (is_word(name, name_len, "vm"))
		return uuid_parse(&l->vm, value, len);
	if (is_word(name, name_len, "type"))
		return xen_value_type(value, len, &l->type);
	rc = xen_value_u64(value, len, &number);
	if (is_word(name, name_len, "generation"))
		l->generation = number;
	else if (is_word(name, name_len, "made"))
		l->made = number == 1;
	else if (is_word(name, name_len, "vcpus"))
		l->vcpus_max = number <= HYPER_MAX_VCPUS ? (uint32_t)number : 0;
	else if (is_word(name, name_len, "static-max"))
		l->static_max_kib = number;
	else if (is_word(name, name_len, "extra"))
		l->extra_kib = number;
	else if (is_word(name, name_len, "overhead"))
		l->overhead_kib = number;
	else
		rc = 0; /* of a later version */
	return rc;
}

int xen_label_parse(
	struct xen_label *out, const char *text, size_t len, struct rv_error *e)
{
	const char *end = text + len;

	memset(out, 0, sizeof *out);
	while (text < end) {
		const char *stop = memchr(text, ' ', (size_t)(end - text));
		const char *equals;

		if (stop == NULL)
			stop = end;
		equals = memchr(text, '=', (size_t)(stop - text));
		if (equals == NULL || parse_word(out, text, (size_t)(equals - text),
					      equals + 1, (size_t)(stop - equals - 1)))
			return rv_error_set(e, RV_ECORRUPT,
				"the label of a domain (" XEN_LABEL_ROOT
				" in xenstore) has an unreadable word '%.*s'",
				(int)(stop - text < 64 ? stop - text : 64), text);
		text = stop < end ? stop + 1 : end;
	}
	if (uuid_is_none(&out->vm))
		return rv_error_set(e, RV_ECORRUPT,
			"the label of a domain (" XEN_LABEL_ROOT
			" in xenstore) names no VM");
	return 0;
}
