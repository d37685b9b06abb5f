#include "cli/connect.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/limits.h"
#include "rpc/client.h"
#include "rpc/message.h"

enum { TIMEOUT_DEFAULT_MS = 60000, NOT_READY_MS = 10000, CA_MAX_BYTES = 256 << 10 };

/* --- params --- */

void params_init(struct params *p)
{
	p->count = 0;
	buf_init(&p->bytes, RV_MAX_RPC_MESSAGE_BYTES);
	msgpack_packer_init(&p->pk, &p->bytes, rpc_pack_to_buf);
}

void params_fini(struct params *p)
{
	buf_fini(&p->bytes);
}

void params_key(struct params *p, const char *key)
{
	p->count++;
	rpc_pack_key(&p->pk, key);
}

void params_text(struct params *p, const char *key, const char *text)
{
	params_key(p, key);
	rpc_pack_text(&p->pk, text);
}

void params_uuid(struct params *p, const char *key, const struct uuid *uuid)
{
	char text[UUID_TEXT_SIZE];

	params_text(p, key, uuid_format(uuid, text));
}

void params_value(struct params *p, const char *key, const struct value *v)
{
	params_key(p, key);
	value_pack(v, &p->pk, VALUE_WIRE_RPC);
}

/* --- the connection --- */

void connect_init(struct connect *c)
{
	uint64_t seed;

	*c = (struct connect){.timeout_ms = TIMEOUT_DEFAULT_MS};
	if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
		struct timespec now;

		clock_gettime(CLOCK_REALTIME, &now);
		seed = (uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec ^
		       (uint64_t)(uintptr_t)c;
	}
	prng_seed(&c->prng, seed);
}

void connect_close(struct connect *c)
{
	rpc_client_close(c->client);
	c->client = NULL;
	explicit_bzero(c->target.password, sizeof c->target.password);
}

struct uuid connect_request(struct connect *c)
{
	return uuid_random(&c->prng);
}

/* The PEM file's text, NUL-terminated; the caller frees it. */
static int read_ca(const char *path, char **out, struct rv_error *e)
{
	FILE *f = fopen(path, "re");
	size_t n;

	*out = NULL;
	if (!f)
		return rv_error_set(e, RV_EINVAL, "--ca: %s: %s", path, strerror(errno));
	*out = malloc(CA_MAX_BYTES);
	if (!*out) {
		fclose(f);
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	}
	n = fread(*out, 1, CA_MAX_BYTES - 1, f);
	(*out)[n] = '\0';
	fclose(f);
	return 0;
}

static int connect_login(struct connect *c, int64_t limit_ms, struct rv_error *e)
{
	if (!c->target.user[0])
		return 0;
	return rpc_client_login(c->client, c->target.user, c->target.password,
		limit_ms ? limit_ms : c->timeout_ms, e);
}

int connect_open(struct connect *c, int64_t limit_ms, struct rv_error *e)
{
	struct connect_target *t = &c->target;
	struct rpc_client_config config = {
		.url = t->url,
		.fingerprint = t->fingerprint[0] ? t->fingerprint : NULL,
		.connect_timeout_ms = limit_ms,
	};
	char *ca = NULL;
	int rc = 0;

	c->remote = false;
	if (c->client)
		return 0;
	if (t->ca[0])
		rc = read_ca(t->ca, &ca, e);
	config.ca_pem = ca;
	if (!rc)
		rc = rpc_client_open(&c->client, &config, e);
	free(ca);
	if (rc)
		return rc;
	rc = connect_login(c, limit_ms, e);
	if (rc)
		c->remote = rc != RV_ECLOSED && rc != RV_ETIMEDOUT;
	return rc;
}

int connect_beside(struct connect *beside, const struct connect *c, int64_t limit_ms,
	struct rv_error *e)
{
	int rc;

	connect_init(beside);
	beside->target = c->target;
	beside->target.user[0] = '\0';
	explicit_bzero(beside->target.password, sizeof beside->target.password);
	rc = connect_open(beside, limit_ms, e);
	if (!rc)
		rpc_client_share_session(beside->client, c->client);
	return rc;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Remembers how old what was answered may be. */
static void note_age(struct connect *c, const msgpack_object *result)
{
	const msgpack_object *stale = rpc_map_get(result, "stale");
	const msgpack_object *age = rpc_map_get(result, "age_ms");

	c->last_age_ms = 0;
	if (!stale || stale->type != MSGPACK_OBJECT_BOOLEAN || !stale->via.boolean)
		return;
	c->last_age_ms = -1;
	if (age && age->type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
		age->via.u64 <= INT64_MAX)
		c->last_age_ms = (int64_t)age->via.u64;
	if (!c->stale || c->last_age_ms < 0 ||
		(c->age_ms >= 0 && c->last_age_ms > c->age_ms))
		c->age_ms = c->last_age_ms;
	c->stale = true;
}

static int call_once(struct connect *c, const char *method, const struct params *p,
	int64_t timeout_ms, const msgpack_object **value, struct rv_error *e)
{
	static const msgpack_object nil = {.type = MSGPACK_OBJECT_NIL};
	const msgpack_object *result = NULL;
	msgpack_packer *pk = rpc_client_begin(c->client, method, p ? p->count : 0);
	int rc;

	if (p && buf_len(&p->bytes))
		pk->callback(
			pk->data, (const char *)buf_data(&p->bytes), buf_len(&p->bytes));
	rc = rpc_client_end(c->client, timeout_ms, &result, e);
	if (rc) {
		/* Both codes can also be the server's words, which are then marked as
		 * worth a repeat; the library's own never are. */
		c->remote = (rc != RV_ECLOSED && rc != RV_ETIMEDOUT && rc != RV_EPROTO) ||
			    rpc_client_retryable(c->client);
		return rc;
	}
	*value = NULL;
	if (result->type == MSGPACK_OBJECT_MAP) {
		*value = rpc_map_get(result, "value");
		note_age(c, result);
	}
	if (!*value)
		*value = &nil;
	return 0;
}

int connect_call(struct connect *c, const char *method, const struct params *p,
	int64_t timeout_ms, const msgpack_object **value, struct rv_error *e)
{
	int64_t limit = timeout_ms ? timeout_ms : c->timeout_ms;
	int64_t patience = limit < NOT_READY_MS ? limit : NOT_READY_MS;
	int64_t begun = now_ms();
	bool again = c->target.user[0] != '\0';
	const msgpack_object *ignored;
	int rc;

	c->remote = false;
	for (;;) {
		const struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};

		rc = call_once(c, method, p, limit, value ? value : &ignored, e);
		if (rc == RV_EAUTH && c->remote && again) {
			/* Sessions end with the daemon that gave them. */
			again = false;
			rc = connect_login(c, limit, e);
			if (rc == 0)
				continue;
		}
		if ((rc != RV_EAGAIN && rc != RV_ENOTMASTER) ||
			now_ms() - begun > patience)
			return rc;
		nanosleep(&pause, NULL);
	}
}

/* --- profiles --- */

struct profile {
	struct connect_target *target;
	const char *section;
	char unknown_key[64], twice[64];
	bool found;
	unsigned seen; /* a bit for each key */
};

static int profile_pair(
	void *arg, const char *section, const char *name, const char *value)
{
	struct profile *p = arg;
	struct connect_target *t = p->target;
	const struct {
		const char *name;
		char *text;
	} keys[] = {{"url", t->url}, {"user", t->user}, {"ca", t->ca},
		{"fingerprint", t->fingerprint}};

	if (strcmp(section, p->section) != 0)
		return 1;
	p->found = true;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		if (strcmp(name, keys[i].name) != 0)
			continue;
		/* An option or the environment may have set it; but not a line before. */
		if (p->seen & 1U << i) {
			snprintf(p->twice, sizeof p->twice, "%s", name);
			return 0;
		}
		p->seen |= 1U << i;
		if (!keys[i].text[0])
			snprintf(keys[i].text, CONNECT_TEXT_MAX, "%s", value);
		return 1;
	}
	snprintf(p->unknown_key, sizeof p->unknown_key, "%s", name);
	return 0;
}

int connect_profile(struct connect_target *t, const char *path, const char *profile,
	struct rv_error *e)
{
	struct profile p = {.target = t, .section = profile};
	int r = ini_parse(path, profile_pair, &p);

	if (r == -1)
		return rv_error_set(
			e, RV_ENOENT, "%s can't be read: %s", path, strerror(errno));
	if (r != 0 && p.unknown_key[0])
		return rv_error_set(e, RV_EINVAL,
			"%s:%d: unknown key '%s'; url, user, ca and fingerprint are "
			"known",
			path, r, p.unknown_key);
	if (r != 0 && p.twice[0])
		return rv_error_set(e, RV_EINVAL,
			"%s:%d: [%s] has '%s' twice, and one alone is used: take one "
			"away, or give it a profile of its own",
			path, r, profile, p.twice);
	if (r != 0)
		return rv_error_set(
			e, RV_EINVAL, "%s:%d: this is no key = value", path, r);
	if (!p.found)
		return rv_error_set(
			e, RV_ENOENT, "%s has no profile [%s]", path, profile);
	return 0;
}
