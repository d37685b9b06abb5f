#include "rpc/login_limit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/session.h"

struct source {
	char name[LOGIN_SOURCE_MAX];
	int failures;
	int64_t first_us; /* of the window; 0: the slot is free */
};

struct login_limit {
	struct source sources[LOGIN_SOURCES];
};

struct login_limit *login_limit_new(void)
{
	return calloc(1, sizeof(struct login_limit));
}

void login_limit_free(struct login_limit *l)
{
	free(l);
}

/* Writes the /64 of an IPv6 address. */
static void network_of(const char *address, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr a;

	if (inet_pton(AF_INET6, address, &a) != 1) {
		snprintf(out, size, "%s", address);
		return;
	}
	memset(a.s6_addr + 8, 0, 8);
	inet_ntop(AF_INET6, &a, text, sizeof text);
	snprintf(out, size, "%s/64", text);
}

void login_source(const struct rpc_peer *peer, char source[static LOGIN_SOURCE_MAX])
{
	const char *name = strchr(peer->name, ':'), *end;
	char address[LOGIN_SOURCE_MAX];

	if (peer->has_credentials) {
		snprintf(source, LOGIN_SOURCE_MAX, "uid:%u", peer->uid);
		return;
	}
	/* "tcp:127.0.0.1:4711", "tcp:[::1]:4711" */
	name = name ? name + 1 : peer->name;
	end = strrchr(name, ':');
	if (name[0] == '[') {
		name++;
		end = strchr(name, ']');
	}
	snprintf(address, sizeof address, "%.*s",
		(int)(end ? (size_t)(end - name) : strlen(name)), name);
	network_of(address, source, LOGIN_SOURCE_MAX);
}

static bool window_over(const struct source *s, int64_t now_us)
{
	return now_us - s->first_us > (int64_t)SESSION_FAILURE_WINDOW_MS * 1000;
}

static struct source *source_find(struct login_limit *l, const char *name, int64_t now_us)
{
	for (int i = 0; i < LOGIN_SOURCES; i++) {
		struct source *s = &l->sources[i];

		if (s->first_us && window_over(s, now_us))
			s->first_us = 0;
		if (s->first_us && strcmp(s->name, name) == 0)
			return s;
	}
	return NULL;
}

int login_limit_check(
	struct login_limit *l, const char *source, int64_t now_us, struct rv_error *e)
{
	struct source *s = source_find(l, source, now_us);
	int64_t left;

	if (!s || s->failures < SESSION_FAILURES)
		return 0;
	left = (int64_t)SESSION_FAILURE_WINDOW_MS * 1000 - (now_us - s->first_us);
	return rv_error_set(e, RV_ELIMIT, "%d failed logins from %s; try again in %lld s",
		s->failures, source, (long long)(left / 1000000 + 1));
}

/* A free slot, else the one whose window is oldest: a flood of sources forgets the
 * earliest, it does not stop counting. */
static struct source *source_take(struct login_limit *l)
{
	struct source *oldest = &l->sources[0];

	for (int i = 0; i < LOGIN_SOURCES; i++)
		if (l->sources[i].first_us < oldest->first_us)
			oldest = &l->sources[i];
	return oldest;
}

void login_limit_note(
	struct login_limit *l, const char *source, int64_t now_us, bool good)
{
	struct source *s = source_find(l, source, now_us);

	if (good) {
		if (s)
			s->first_us = 0;
		return;
	}
	if (!s) {
		s = source_take(l);
		snprintf(s->name, sizeof s->name, "%s", source);
		s->first_us = now_us;
		s->failures = 0;
	}
	s->failures++;
}
