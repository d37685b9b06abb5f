/* Which calls without an answer are looked into, and how: by another connection, which
 * logs in as nobody. */
#include "cli/master.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/client.h"
#include "rpc/message.h"

/* A client whose server answers as late as it can be asked to (--wrap). */
struct rpc_client {
	char method[64];
	const char *session;
	int64_t slow_ms;
	void (*on_slow)(void *arg);
	void *slow_arg;
	msgpack_sbuffer asked, bytes;
	msgpack_packer pk;
	msgpack_unpacked answer;
};

static struct {
	int opened, closed, logins, polls, statuses;
	char session[16]; /* by which the status was asked for */
} seen;

static const char session[] = "ann's";

#define VM_UUID "11111111-2222-3333-4444-555555555555"

int __wrap_rpc_client_open(struct rpc_client **out,
	const struct rpc_client_config *config, struct rv_error *e);
void __wrap_rpc_client_close(struct rpc_client *c);
void __wrap_rpc_client_share_session(
	struct rpc_client *c, const struct rpc_client *other);
int __wrap_rpc_client_login(struct rpc_client *c, const char *user, const char *password,
	int64_t timeout_ms, struct rv_error *e);
void __wrap_rpc_client_on_slow(
	struct rpc_client *c, int64_t after_ms, void (*fn)(void *arg), void *arg);
bool __wrap_rpc_client_retryable(const struct rpc_client *c);
msgpack_packer *__wrap_rpc_client_begin(
	struct rpc_client *c, const char *method, uint32_t entries);
int __wrap_rpc_client_end(struct rpc_client *c, int64_t timeout_ms,
	const msgpack_object **result, struct rv_error *e);

int __wrap_rpc_client_open(struct rpc_client **out,
	const struct rpc_client_config *config, struct rv_error *e)
{
	struct rpc_client *c = calloc(1, sizeof *c);

	(void)config;
	(void)e;
	assert_non_null(c);
	c->session = "";
	msgpack_sbuffer_init(&c->asked);
	msgpack_sbuffer_init(&c->bytes);
	msgpack_unpacked_init(&c->answer);
	seen.opened++;
	*out = c;
	return 0;
}

void __wrap_rpc_client_close(struct rpc_client *c)
{
	if (!c)
		return;
	seen.closed++;
	msgpack_unpacked_destroy(&c->answer);
	msgpack_sbuffer_destroy(&c->asked);
	msgpack_sbuffer_destroy(&c->bytes);
	free(c);
}

void __wrap_rpc_client_share_session(struct rpc_client *c, const struct rpc_client *other)
{
	c->session = other->session;
}

int __wrap_rpc_client_login(struct rpc_client *c, const char *user, const char *password,
	int64_t timeout_ms, struct rv_error *e)
{
	(void)timeout_ms;
	(void)e;
	assert_string_equal(user, "ann");
	assert_string_equal(password, "secret");
	seen.logins++;
	c->session = session;
	return 0;
}

void __wrap_rpc_client_on_slow(
	struct rpc_client *c, int64_t after_ms, void (*fn)(void *arg), void *arg)
{
	c->slow_ms = after_ms;
	c->on_slow = fn;
	c->slow_arg = arg;
}

bool __wrap_rpc_client_retryable(const struct rpc_client *c)
{
	(void)c;
	return false;
}

msgpack_packer *__wrap_rpc_client_begin(
	struct rpc_client *c, const char *method, uint32_t entries)
{
	(void)entries;
	snprintf(c->method, sizeof c->method, "%s", method);
	msgpack_sbuffer_clear(&c->asked);
	msgpack_packer_init(&c->pk, &c->asked, msgpack_sbuffer_write);
	return &c->pk;
}

/* Packs the value that the method returns; RV_ECLOSED: there is no answer. */
static int answer(struct rpc_client *c, msgpack_packer *pk)
{
	if (strcmp(c->method, "event.from") == 0) {
		if (++seen.polls == 4)
			return RV_ECLOSED;
		msgpack_pack_map(pk, 2);
		rpc_pack_key(pk, "token");
		rpc_pack_text(pk, "t");
		rpc_pack_key(pk, "events");
		msgpack_pack_array(pk, 0);
	} else if (strcmp(c->method, "pool.status") == 0) {
		seen.statuses++;
		snprintf(seen.session, sizeof seen.session, "%s", c->session);
		msgpack_pack_map(pk, 2);
		rpc_pack_key(pk, "quorum");
		msgpack_pack_false(pk);
		rpc_pack_key(pk, "trouble");
		rpc_pack_text(pk, "two of three are silent");
	} else {
		rpc_pack_text(pk, "done");
	}
	return 0;
}

int __wrap_rpc_client_end(struct rpc_client *c, int64_t timeout_ms,
	const msgpack_object **result, struct rv_error *e)
{
	msgpack_packer pk;

	if (c->on_slow && timeout_ms > c->slow_ms)
		c->on_slow(c->slow_arg);
	msgpack_sbuffer_clear(&c->bytes);
	msgpack_packer_init(&pk, &c->bytes, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	rpc_pack_key(&pk, "value");
	if (answer(c, &pk))
		return rv_error_set(e, RV_ECLOSED, "it is gone");
	assert_int_equal(msgpack_unpack_next(
				 &c->answer, c->bytes.data, c->bytes.size, &(size_t){0}),
		MSGPACK_UNPACK_SUCCESS);
	if (result)
		*result = &c->answer.data;
	return 0;
}

/* --- commands --- */

/* As ann; what it says on standard error. The caller frees it. */
static char *run(int argc, char *const *argv)
{
	char *said[2];
	size_t size[2];
	struct cli cli = {.out = open_memstream(&said[0], &size[0]),
		.err = open_memstream(&said[1], &size[1]),
		.in = stdin};

	memset(&seen, 0, sizeof seen);
	cli_run(&cli, argc, argv);
	fclose(cli.out);
	fclose(cli.err);
	free(said[0]);
	assert_int_equal(seen.logins, 1);
	assert_int_equal(seen.closed, seen.opened);
	return said[1];
}

#define RUN(...)                                                                         \
	run(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *), (char *[]){__VA_ARGS__})

/* It waits for a master: that is told once, and asked by the session that is there. */
static void test_change(void **state)
{
	char *said = RUN("network-create", "name-label=x");

	(void)state;
	assert_string_equal(said, "reeve: waiting: two of three are silent\n");
	assert_int_equal(seen.statuses, 1);
	assert_int_equal(seen.opened, 2);
	assert_string_equal(seen.session, session);
	free(said);
}

/* Quiet is what it is there for. */
static void test_event_watch(void **state)
{
	char *said = RUN("event-watch");

	(void)state;
	assert_int_equal(seen.polls, 4);
	assert_null(strstr(said, "waiting"));
	assert_int_equal(seen.opened, 1);
	free(said);
}

static void test_long_poll(void **state)
{
	char *said = RUN("vm-console-read", "vm=" VM_UUID, "timeout-ms=60000");

	(void)state;
	assert_string_equal(said, "");
	assert_int_equal(seen.opened, 1);
	free(said);
}

static int as_ann(void **state)
{
	(void)state;
	setenv("REEVE_URL", "ipc:///nowhere", 1);
	setenv("REEVE_USER", "ann", 1);
	setenv("REEVE_PASSWORD", "secret", 1);
	setenv("XDG_CONFIG_HOME", "/nowhere", 1);
	return unsetenv("REEVE_PROFILE");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_event_watch),
		cmocka_unit_test(test_long_poll),
	};

	return cmocka_run_group_tests(tests, as_ann, NULL);
}
