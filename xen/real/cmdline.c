#include "xen/real/cmdline.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A size as parse_size_and_unit() of Xen reads it: KiB when no unit is given. Shares of
 * the host's memory ("1G+10%") give 0: they are not fixed until they are worked out. */
static uint64_t parse_size(const char *text, size_t len)
{
	unsigned long long value;
	char *end;

	if (len == 0 || *text < '0' || *text > '9')
		return 0;
	value = strtoull(text, &end, 0);
	switch (*end) {
	case 'T':
	case 't':
		value <<= 40;
		end++;
		break;
	case 'G':
	case 'g':
		value <<= 30;
		end++;
		break;
	case 'M':
	case 'm':
		value <<= 20;
		end++;
		break;
	case 'K':
	case 'k':
		value <<= 10;
		end++;
		break;
	case 'B':
	case 'b':
		end++;
		break;
	default:
		value <<= 10;
	}
	return end == text + len ? value : 0;
}

static bool is_fixed(const char *value, size_t len)
{
	const char *end = value + len;
	uint64_t size = 0, max = 0;

	while (value < end) {
		const char *comma = memchr(value, ',', (size_t)(end - value));
		const char *stop = comma != NULL ? comma : end;

		if (strncmp(value, "max:", 4) == 0)
			max = parse_size(value + 4, (size_t)(stop - value - 4));
		else if (strncmp(value, "min:", 4) != 0)
			size = parse_size(value, (size_t)(stop - value));
		value = stop + 1;
	}
	return size > 0 && size == max;
}

bool xen_cmdline_dom0_fixed(const char *cmdline)
{
	static const char key[] = "dom0_mem=";
	bool fixed = false;

	while (*cmdline != '\0') {
		size_t len = strcspn(cmdline, " \t\n");

		if (strncmp(cmdline, key, sizeof key - 1) == 0)
			fixed = is_fixed(
				cmdline + sizeof key - 1, len - (sizeof key - 1));
		cmdline += len;
		cmdline += strspn(cmdline, " \t\n");
	}
	return fixed;
}
