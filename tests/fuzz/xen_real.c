/* links: reeve_xen_real reeve_xen reeve_base */
/* CPU policies that peers send; labels, numbers, names, paths and consoles as xenstore
 * holds them, where guests write too; Xen's command line. */
#include <stdlib.h>
#include <string.h>

#include "xen/real/cmdline.h"
#include "xen/real/cpu_policy.h"
#include "xen/real/label.h"
#include "xen/real/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What can be read can be written, and comes back the same; it fits itself. */
static void try_policy(const uint8_t *data, size_t size)
{
	static uint8_t blob[HYPER_MAX_CPU_POLICY], again[HYPER_MAX_CPU_POLICY];
	static struct xen_cpu_policy p, q;
	struct rv_error e;
	size_t len;

	if (xen_cpu_policy_parse(&p, data, size, &e) != 0)
		return;
	len = xen_cpu_policy_write(&p, blob);
	if (xen_cpu_policy_parse(&q, blob, len, &e) != 0 ||
		xen_cpu_policy_write(&q, again) != len || memcmp(blob, again, len) != 0)
		__builtin_trap();
	if (xen_cpu_policy_check(&p, &p, &e) != 0 ||
		xen_cpu_policy_common(&p, &p, &q, &e) != 0 ||
		xen_cpu_policy_write(&q, again) != len || memcmp(blob, again, len) != 0)
		__builtin_trap();
}

static void try_label(const char *text, size_t size)
{
	char once[XEN_LABEL_TEXT_SIZE], twice[XEN_LABEL_TEXT_SIZE];
	struct xen_label a, b;
	struct rv_error e;
	size_t len;

	if (xen_label_parse(&a, text, size, &e) != 0)
		return;
	len = xen_label_format(&a, once);
	if (len >= sizeof once || xen_label_parse(&b, once, len, &e) != 0 ||
		xen_label_format(&b, twice) != len || memcmp(once, twice, len) != 0)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char name[HYPER_NAME_SIZE], path[32];
	char *text = malloc(size + 1);
	const char *rest;
	enum hyper_type type;
	uint64_t number;
	uint32_t domid;

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	try_policy(data, size);
	try_label(text, size);
	xen_value_name(name, text, size);
	for (const char *c = name; *c != '\0'; c++)
		if (*c < ' ' || *c > '~' || *c == '"')
			__builtin_trap();
	if (xen_value_tty(text, size, path, sizeof path) == 0 &&
		(strncmp(path, "/dev/pts/", 9) != 0 || strchr(path + 9, '/') != NULL))
		__builtin_trap();
	if (xen_value_u64(text, size, &number) != 0 &&
		xen_value_type(text, size, &type) != 0 &&
		xen_value_domain_path(text, &domid, &rest) != 0)
		(void)xen_cmdline_dom0_fixed(text);
	free(text);
	return 0;
}
