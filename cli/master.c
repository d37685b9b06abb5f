#include "cli/master.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "rpc/client.h"
#include "rpc/message.h"

enum {
	SLOW_MS = 5000,	  /* a call without an answer for so long is looked into */
	STATUS_MS = 2000, /* to ask who has no master */
	WHY_MS = 5000,	  /* to ask why no answer came at all */
	WORDS_MAX = 600,
};

static const msgpack_object *map_get(const msgpack_object *map, const char *key)
{
	return map && map->type == MSGPACK_OBJECT_MAP ? rpc_map_get(map, key) : NULL;
}

static bool is_text(const msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_STR && o->via.str.size;
}

/* In words why the pool has no master; false: it has one, or nobody knows. */
static bool status_trouble(const msgpack_object *status, char out[static WORDS_MAX])
{
	const msgpack_object *quorum = map_get(status, "quorum");
	const msgpack_object *trouble = map_get(status, "trouble");

	if (!quorum || quorum->type != MSGPACK_OBJECT_BOOLEAN || quorum->via.boolean ||
		!is_text(trouble))
		return false;
	snprintf(out, WORDS_MAX, "%.*s",
		(int)(trouble->via.str.size < WORDS_MAX ? trouble->via.str.size
							: WORDS_MAX - 1),
		trouble->via.str.ptr);
	return true;
}

/* --- waiting --- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* The connection that waits is taken: another one asks. */
static void tell_why(struct cli *cli)
{
	const msgpack_object *status;
	char words[WORDS_MAX];
	struct rv_error ignored = {0};
	struct connect beside;

	if (cli->told_waiting)
		return;
	cli->looked_ms = now_ms();
	if (connect_beside(&beside, &cli->connect, STATUS_MS, &ignored) ||
		connect_call(
			&beside, "pool.status", NULL, STATUS_MS, &status, &ignored)) {
		cli->told_waiting = true;
		cli_note(cli,
			"no answer yet; the host does not tell why. Waiting for at most "
			"%lld s in all (--timeout=)",
			(long long)cli->connect.timeout_ms / 1000);
	} else if (status_trouble(status, words)) {
		cli->told_waiting = true;
		cli_note(cli, "waiting: %s", words);
	}
	connect_close(&beside);
}

static void on_slow(void *arg)
{
	tell_why(arg);
}

void master_watch(struct cli *cli)
{
	rpc_client_on_slow(cli->connect.client, SLOW_MS, on_slow, cli);
}

void master_unwatch(struct cli *cli)
{
	rpc_client_on_slow(cli->connect.client, 0, NULL, NULL);
}

bool master_may_wait(const struct cli *cli, int64_t silent_ms)
{
	const struct connect *c = &cli->connect;

	return !cli->told_waiting && now_ms() - cli->looked_ms >= SLOW_MS &&
	       (silent_ms >= SLOW_MS || c->last_age_ms < 0 || c->last_age_ms >= SLOW_MS);
}

void master_tell_waiting(struct cli *cli)
{
	tell_why(cli);
}

/* --- what was shown is old --- */

static void age_text(int64_t age_ms, char *out, size_t size)
{
	if (age_ms < 120 * 1000)
		snprintf(out, size, "%lld s", (long long)(age_ms + 500) / 1000);
	else
		snprintf(out, size, "%lld min", (long long)age_ms / 60000);
}

void master_warn_stale(struct cli *cli)
{
	struct connect *c = &cli->connect;
	const msgpack_object *status, *name = NULL;
	int64_t age_ms = c->age_ms;
	char host[160] = "the host that was asked", age[32];
	struct rv_error ignored = {0};

	if (!connect_call(c, "pool.status", NULL, STATUS_MS, &status, &ignored))
		name = map_get(map_get(status, "asked"), "name_label");
	if (is_text(name))
		snprintf(host, sizeof host, "host %.*s",
			(int)(name->via.str.size < 128 ? name->via.str.size : 128),
			name->via.str.ptr);
	if (age_ms < 0) {
		cli_note(cli,
			"%s has heard of no master since its daemon started: what is "
			"shown is what it knew before; `reeve pool-status` says more",
			host);
		return;
	}
	age_text(age_ms, age, sizeof age);
	cli_note(cli,
		"%s has heard of no master for %s: what is shown, also which hosts are "
		"live, may be that old; `reeve pool-status` says more",
		host, age);
}

/* --- no answer at all --- */

void master_explain_silence(struct cli *cli, struct rv_error *e)
{
	struct connect *c = &cli->connect;
	struct rv_error ignored = {0};
	const msgpack_object *status;
	char words[WORDS_MAX];
	size_t len;

	if (!c->client || connect_call(c, "pool.status", NULL, WHY_MS, &status, &ignored))
		return;
	/* So the host is up: it need not be looked at. */
	snprintf(e->detail, sizeof e->detail,
		"%s: the host answers, but this was not done in time; it may be done "
		"yet (`reeve task-list` shows what is at work)",
		cli->words.command ? cli->words.command : "reeve");
	len = strlen(e->detail);
	if (status_trouble(status, words))
		snprintf(e->detail + len, sizeof e->detail - len, ". %c%s",
			toupper((unsigned char)words[0]), words + 1);
}
