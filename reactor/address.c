#include "reactor/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum { ADDRESS_TEXT_MAX = 64 };

static int address_parse_unix(struct address *a, const char *path, struct rv_error *e)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&a->sa;
	size_t len = strlen(path);

	if (len == 0)
		return rv_error_set(e, RV_EINVAL, "address unix: has no path");
	if (len >= sizeof un->sun_path)
		return rv_error_set(e, RV_EINVAL,
			"address unix:%s: a socket's path has at most %zu bytes", path,
			sizeof un->sun_path - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

static bool parse_port(const char *text, uint16_t *port)
{
	char *end;
	unsigned long value;

	if (*text < '0' || *text > '9')
		return false;
	value = strtoul(text, &end, 10);
	*port = htons((uint16_t)value);
	return *end == '\0' && value <= 65535;
}

static int address_parse_tcp(struct address *a, const char *text, struct rv_error *e)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)&a->sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a->sa;
	const char *colon = strrchr(text, ':');
	char host[ADDRESS_TEXT_MAX];
	size_t len = colon ? (size_t)(colon - text) : 0;
	uint16_t port;

	if (len == 0 || len >= sizeof host || !parse_port(colon + 1, &port))
		goto malformed;
	if (text[0] == '[' && text[len - 1] == ']') {
		memcpy(host, text + 1, len - 2);
		host[len - 2] = '\0';
		if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
			goto malformed;
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
		a->len = sizeof *in6;
		return 0;
	}
	memcpy(host, text, len);
	host[len] = '\0';
	if (inet_pton(AF_INET, host, &in4->sin_addr) != 1)
		goto malformed;
	in4->sin_family = AF_INET;
	in4->sin_port = port;
	a->len = sizeof *in4;
	return 0;
malformed:
	return rv_error_set(e, RV_EINVAL,
		"address tcp:%s: write tcp:ADDRESS:PORT with a numeric address, "
		"e.g. tcp:192.0.2.1:4711 or tcp:[::1]:4711",
		text);
}

int address_parse(struct address *a, const char *text, struct rv_error *e)
{
	memset(a, 0, sizeof *a);
	if (strncmp(text, "unix:", 5) == 0)
		return address_parse_unix(a, text + 5, e);
	if (strncmp(text, "tcp:", 4) == 0)
		return address_parse_tcp(a, text + 4, e);
	return rv_error_set(
		e, RV_EINVAL, "address %s: write unix:PATH or tcp:ADDRESS:PORT", text);
}

int address_family(const struct address *a)
{
	return a->sa.ss_family;
}

int address_port(const struct address *a)
{
	switch (a->sa.ss_family) {
	case AF_INET:
		return ntohs(((const struct sockaddr_in *)&a->sa)->sin_port);
	case AF_INET6:
		return ntohs(((const struct sockaddr_in6 *)&a->sa)->sin6_port);
	default:
		return 0;
	}
}

const char *address_path(const struct address *a)
{
	assert(a->sa.ss_family == AF_UNIX);
	return ((const struct sockaddr_un *)&a->sa)->sun_path;
}

char *address_format(const struct address *a, char *text, size_t size)
{
	const struct sockaddr_in *in4 = (const struct sockaddr_in *)&a->sa;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->sa;
	char host[INET6_ADDRSTRLEN] = "?";

	switch (a->sa.ss_family) {
	case AF_INET:
		inet_ntop(AF_INET, &in4->sin_addr, host, sizeof host);
		snprintf(text, size, "tcp:%s:%d", host, address_port(a));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
		snprintf(text, size, "tcp:[%s]:%d", host, address_port(a));
		break;
	case AF_UNIX:
		snprintf(text, size, "unix:%s", address_path(a));
		break;
	default:
		snprintf(text, size, "socket");
	}
	return text;
}
