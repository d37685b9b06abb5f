#include "xen/real/value.h"

#include <string.h>

int xen_value_u64(const char *text, size_t len, uint64_t *out)
{
	uint64_t value = 0;

	if (len > 0 && text[len - 1] == '\0')
		len--;
	if (len == 0)
		return RV_EINVAL;
	for (size_t i = 0; i < len; i++) {
		uint64_t digit = (uint64_t)(text[i] - '0');

		if (text[i] < '0' || text[i] > '9' || value > (UINT64_MAX - digit) / 10)
			return RV_EINVAL;
		value = value * 10 + digit;
	}
	*out = value;
	return 0;
}

int xen_value_type(const char *text, size_t len, enum hyper_type *out)
{
	if (len == 2 && memcmp(text, "pv", 2) == 0)
		*out = HYPER_PV;
	else if (len == 3 && memcmp(text, "pvh", 3) == 0)
		*out = HYPER_PVH;
	else if (len == 3 && memcmp(text, "hvm", 3) == 0)
		*out = HYPER_HVM;
	else
		return RV_EINVAL;
	return 0;
}

void xen_value_name(char out[static HYPER_NAME_SIZE], const char *text, size_t len)
{
	size_t n = 0;

	for (; n < len && n < HYPER_NAME_SIZE - 1 && text[n] != '\0'; n++)
		out[n] = text[n] < ' ' || text[n] > '~' || text[n] == '"' ? '?' : text[n];
	out[n] = '\0';
}

int xen_value_tty(const char *text, size_t len, char *path, size_t size)
{
	static const char folder[] = "/dev/pts/";
	size_t prefix = sizeof folder - 1;
	uint64_t number;

	if (len > 0 && text[len - 1] == '\0')
		len--;
	if (len <= prefix || len > prefix + 6 || len >= size ||
		memcmp(text, folder, prefix) != 0 ||
		xen_value_u64(text + prefix, len - prefix, &number) != 0)
		return RV_EINVAL;
	memcpy(path, text, len);
	path[len] = '\0';
	return 0;
}

int xen_value_domain_path(const char *path, uint32_t *domid, const char **rest)
{
	static const char folder[] = "/local/domain/";
	uint64_t number;
	size_t len;

	if (strncmp(path, folder, sizeof folder - 1) != 0)
		return RV_EINVAL;
	path += sizeof folder - 1;
	len = strcspn(path, "/");
	if (len > 5 || xen_value_u64(path, len, &number) != 0)
		return RV_EINVAL;
	*domid = (uint32_t)number;
	*rest = path[len] == '/' ? path + len + 1 : path + len;
	return 0;
}
