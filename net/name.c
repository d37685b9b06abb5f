#include "net/net.h"

#include <stdio.h>
#include <string.h>

int net_name_check(const char *name, const char *what, struct rv_error *e)
{
	if (!name || !*name)
		return rv_error_set(e, RV_EINVAL, "%s: no name given", what);
	size_t len = strlen(name);
	if (len >= NET_NAME_SIZE)
		return rv_error_set(e, RV_EINVAL,
			"%s '%.32s' has %zu characters; an interface's name has 15 at "
			"most",
			what, name, len);
	for (const char *p = name; *p; p++) {
		bool fine = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			    (*p >= '0' && *p <= '9') ||
			    (p > name && (*p == '.' || *p == '-')) || *p == '_';
		if (!fine)
			return rv_error_set(e, RV_EINVAL,
				"%s '%.32s': a name has letters, digits, '_', and after "
				"the "
				"first also '.' and '-'",
				what, name);
	}
	/* Directories of /proc/sys/net/ipv4/conf. */
	if (strcmp(name, "all") == 0 || strcmp(name, "default") == 0)
		return rv_error_set(
			e, RV_EINVAL, "%s '%s': the kernel keeps that name", what, name);
	return 0;
}

char *net_bridge_name(const struct uuid *network, char name[static NET_NAME_SIZE])
{
	snprintf(name, NET_NAME_SIZE, "rv%02x%02x%02x%02x%02x%02x", network->b[0],
		network->b[1], network->b[2], network->b[3], network->b[4],
		network->b[5]);
	return name;
}

char *net_vlan_name(const char *device, int vlan, char name[static NET_NAME_SIZE])
{
	if (snprintf(name, NET_NAME_SIZE, "%s.%d", device, vlan) < NET_NAME_SIZE)
		return name;
	/* FNV-1a of the whole name. */
	uint32_t hash = 0x811c9dc5;
	for (const char *p = device; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x01000193;
	snprintf(name, NET_NAME_SIZE, "vl%08x.%d", hash, vlan);
	return name;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static char *mac_format(const uint8_t b[6], char mac[static NET_MAC_SIZE])
{
	snprintf(mac, NET_MAC_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2],
		b[3], b[4], b[5]);
	return mac;
}

int net_mac_parse(const char *text, char mac[static NET_MAC_SIZE], struct rv_error *e)
{
	uint8_t b[6], any = 0;
	bool good = text && strlen(text) == NET_MAC_SIZE - 1;
	for (int i = 0; good && i < 6; i++) {
		int high = hex(text[3 * i]), low = hex(text[3 * i + 1]);
		good = high >= 0 && low >= 0 && (i == 5 || text[3 * i + 2] == ':');
		b[i] = (uint8_t)(high * 16 + low);
		any |= b[i];
	}
	if (!good)
		return rv_error_set(e, RV_EINVAL,
			"'%.32s' is no MAC address: give six pairs like "
			"02:16:3e:01:02:03",
			text ? text : "");
	if (!any || (b[0] & 1))
		return rv_error_set(e, RV_EINVAL,
			"MAC address %s is %s: give one whose first pair is even", text,
			any ? "a multicast address" : "zero");
	mac_format(b, mac);
	return 0;
}

char *net_mac_random(struct prng *prng, char mac[static NET_MAC_SIZE])
{
	uint8_t b[6];
	uint64_t r = prng_next(prng);
	for (int i = 0; i < 6; i++)
		b[i] = (uint8_t)(r >> (8 * i));
	b[0] = (uint8_t)((b[0] | 2) & ~1);
	/* fe: is what Linux gives to the host's ends of VIFs. */
	if (b[0] == 0xfe)
		b[0] = 0xfa;
	return mac_format(b, mac);
}
