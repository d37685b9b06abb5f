#include "rpc/client.h"

#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "rpc/client_dial.h"
#include "rpc/message.h"

enum { SESSION_PARAM_MAX = 128 };

struct rpc_client {
	nng_socket socket;
	char *url;
	char session[SESSION_PARAM_MAX];
	uint64_t id;
	struct buf out;
	msgpack_packer packer;
	nng_msg *reply; /* owned until the next begin: results point into it */
	msgpack_zone zone;
	struct rpc_message message;
	bool retryable;
	bool overflow; /* what is being packed is too large */
	int64_t slow_ms;
	void (*on_slow)(void *arg);
	void *slow_arg;
};

struct rpc_subscription {
	nng_socket socket;
	char *url;
	nng_msg *last;
	msgpack_zone zone;
	struct rpc_message message;
	char method[RPC_MAX_METHOD_BYTES + 1];
};

/* Options that both kinds of socket want. */
static int socket_setup(nng_socket socket)
{
	return nng_socket_set_size(
		socket, NNG_OPT_RECVMAXSZ, RV_MAX_RPC_MESSAGE_BYTES + 4096);
}

static int client_pack(void *client, const char *data, size_t len)
{
	struct rpc_client *c = client;

	if (rpc_pack_to_buf(&c->out, data, len) != 0)
		c->overflow = true;
	return c->overflow ? -1 : 0;
}

/* --- calls --- */

int rpc_client_open(struct rpc_client **out, const struct rpc_client_config *config,
	struct rv_error *e)
{
	struct rpc_client *c = calloc(1, sizeof *c);
	int r, rc;

	*out = NULL;
	if (!c || !(c->url = strdup(config->url)) ||
		!msgpack_zone_init(&c->zone, MSGPACK_ZONE_CHUNK_SIZE)) {
		if (c)
			free(c->url);
		free(c);
		return rv_error_set(e, RV_ENOMEM, "RPC client: out of memory");
	}
	buf_init(&c->out, RV_MAX_RPC_MESSAGE_BYTES);
	msgpack_packer_init(&c->packer, c, client_pack);
	r = nng_req0_open(&c->socket);
	if (!r)
		r = socket_setup(c->socket);
	/* The server answers when it is ready: asking twice helps nobody. But a broken
	 * connection must make the socket ask again, which it would not for ever
	 * (NNG_DURATION_INFINITE): then libnng ends the call with NNG_ECONNRESET. */
	if (!r)
		r = nng_socket_set_ms(c->socket, NNG_OPT_REQ_RESENDTIME, INT32_MAX);
	rc = r ? client_error(e, r, c->url, "connect")
	       : client_dial(c->socket, config, e);
	if (rc) {
		rpc_client_close(c);
		return rc;
	}
	*out = c;
	return 0;
}

void rpc_client_close(struct rpc_client *c)
{
	if (!c)
		return;
	nng_close(c->socket);
	nng_msg_free(c->reply);
	msgpack_zone_destroy(&c->zone);
	buf_fini(&c->out);
	free(c->url);
	free(c);
}

int rpc_client_set_session(struct rpc_client *c, const char *token)
{
	size_t len = token ? strlen(token) : 0;

	if (len >= sizeof c->session)
		return RV_EINVAL;
	memcpy(c->session, token ? token : "", len + 1);
	return 0;
}

void rpc_client_share_session(struct rpc_client *c, const struct rpc_client *other)
{
	memcpy(c->session, other->session, sizeof c->session);
}

static void client_forget(struct rpc_client *c)
{
	nng_msg_free(c->reply);
	c->reply = NULL;
	msgpack_zone_clear(&c->zone);
	buf_consume(&c->out, buf_len(&c->out));
	c->overflow = false;
}

msgpack_packer *rpc_client_begin(
	struct rpc_client *c, const char *method, uint32_t entries)
{
	client_forget(c);
	rpc_pack_request(&c->packer, ++c->id, method, strlen(method));
	msgpack_pack_map(&c->packer, entries + (c->session[0] != '\0'));
	if (c->session[0]) {
		rpc_pack_key(&c->packer, "session");
		rpc_pack_key(&c->packer, c->session);
	}
	return &c->packer;
}

static nng_duration client_timeout(int64_t timeout_ms)
{
	return timeout_ms > 0 && timeout_ms < INT32_MAX ? (nng_duration)timeout_ms
							: NNG_DURATION_INFINITE;
}

/* Takes no message twice: nng_sendmsg owns it on success only. */
static int client_send(struct rpc_client *c, int64_t timeout_ms, struct rv_error *e)
{
	nng_duration timeout = client_timeout(timeout_ms);
	nng_msg *m = NULL;
	int r = nng_msg_alloc(&m, 0);

	if (!r)
		r = nng_msg_append(m, buf_data(&c->out), buf_len(&c->out));
	if (!r)
		r = nng_socket_set_ms(c->socket, NNG_OPT_SENDTIMEO, timeout);
	if (!r)
		r = nng_socket_set_ms(c->socket, NNG_OPT_RECVTIMEO, timeout);
	if (!r)
		r = nng_sendmsg(c->socket, m, 0);
	if (!r)
		return 0;
	nng_msg_free(m);
	return client_error(e, r, c->url, "call");
}

/* --- an answer that is long in coming --- */

/* A receive that is ended by its timeout ends the request too, so the wait for it is
 * another one. */
struct arrival {
	nng_aio *aio;
	nng_mtx *mtx;
	nng_cv *cv;
	bool done;
};

static void arrival_come(void *arg)
{
	struct arrival *a = arg;

	nng_mtx_lock(a->mtx);
	a->done = true;
	nng_cv_wake(a->cv);
	nng_mtx_unlock(a->mtx);
}

static bool arrival_within(struct arrival *a, int64_t ms)
{
	nng_time until = nng_clock() + (nng_time)ms;
	bool done;

	nng_mtx_lock(a->mtx);
	while (!a->done && nng_cv_until(a->cv, until) != NNG_ETIMEDOUT)
		;
	done = a->done;
	nng_mtx_unlock(a->mtx);
	return done;
}

static int receive_slowly(struct rpc_client *c, int64_t timeout_ms)
{
	struct arrival a = {.done = false};
	int r = nng_mtx_alloc(&a.mtx);

	if (!r)
		r = nng_cv_alloc(&a.cv, a.mtx);
	if (!r)
		r = nng_aio_alloc(&a.aio, arrival_come, &a);
	if (!r) {
		nng_aio_set_timeout(a.aio, client_timeout(timeout_ms));
		nng_recv_aio(c->socket, a.aio);
		if (!arrival_within(&a, c->slow_ms))
			c->on_slow(c->slow_arg);
		nng_aio_wait(a.aio);
		r = nng_aio_result(a.aio);
		if (!r)
			c->reply = nng_aio_get_msg(a.aio);
	}
	nng_aio_free(a.aio);
	nng_cv_free(a.cv);
	nng_mtx_free(a.mtx);
	return r;
}

void rpc_client_on_slow(
	struct rpc_client *c, int64_t after_ms, void (*fn)(void *arg), void *arg)
{
	c->slow_ms = after_ms;
	c->on_slow = fn;
	c->slow_arg = arg;
}

static int client_receive(struct rpc_client *c, int64_t timeout_ms)
{
	if (c->on_slow && (timeout_ms <= 0 || timeout_ms > c->slow_ms))
		return receive_slowly(c, timeout_ms);
	return nng_recvmsg(c->socket, &c->reply, 0);
}

int rpc_client_end(struct rpc_client *c, int64_t timeout_ms,
	const msgpack_object **result, struct rv_error *e)
{
	struct rv_error remote = {0};
	int r, rc;

	c->retryable = false;
	if (c->overflow)
		return rv_error_set(
			e, RV_ETOOBIG, "the call is larger than one message (16 MiB)");
	rc = client_send(c, timeout_ms, e);
	if (rc)
		return rc;
	r = client_receive(c, timeout_ms);
	if (r) {
		c->reply = NULL;
		return client_error(e, r, c->url, "call");
	}
	rc = rpc_message_decode(&c->message, RPC_RESPONSE, nng_msg_body(c->reply),
		nng_msg_len(c->reply), &c->zone, &remote, e);
	if (rc) {
		rv_error_prefix(e, "%s answered what is no reply", c->url);
		return rc;
	}
	if (c->message.error) {
		c->retryable = c->message.retryable;
		if (e)
			*e = remote;
		return remote.code;
	}
	if (c->message.id != c->id)
		return rv_error_set(e, RV_EPROTO,
			"%s answered another call (%llu, not %llu)", c->url,
			(unsigned long long)c->message.id, (unsigned long long)c->id);
	if (result)
		*result = &c->message.result;
	return 0;
}

/* Splits a packed map into its count and its entries; false if it is none. */
static bool split_map(const uint8_t *map, size_t len, uint32_t *count, size_t *header)
{
	if (len >= 1 && (map[0] & 0xf0) == 0x80) {
		*count = map[0] & 0x0f;
		*header = 1;
	} else if (len >= 3 && map[0] == 0xde) {
		*count = (uint32_t)map[1] << 8 | map[2];
		*header = 3;
	} else if (len >= 5 && map[0] == 0xdf) {
		*count = (uint32_t)map[1] << 24 | (uint32_t)map[2] << 16 |
			 (uint32_t)map[3] << 8 | map[4];
		*header = 5;
	} else {
		return false;
	}
	return true;
}

int rpc_client_call(struct rpc_client *c, const char *method, const void *params,
	size_t len, int64_t timeout_ms, const msgpack_object **result, struct rv_error *e)
{
	uint32_t count = 0;
	size_t header = 0;

	if (params && !split_map(params, len, &count, &header))
		return rv_error_set(e, RV_EINVAL, "%s: params must be a map", method);
	rpc_client_begin(c, method, count);
	if (params)
		client_pack(c, (const char *)params + header, len - header);
	return rpc_client_end(c, timeout_ms, result, e);
}

bool rpc_client_retryable(const struct rpc_client *c)
{
	return c->retryable;
}

int rpc_client_login(struct rpc_client *c, const char *user, const char *password,
	int64_t timeout_ms, struct rv_error *e)
{
	const msgpack_object *result, *token;
	char text[SESSION_PARAM_MAX];
	msgpack_packer *pk;
	int rc;

	c->session[0] = '\0';
	pk = rpc_client_begin(c, "session.login_with_password", 2);
	rpc_pack_key(pk, "uname");
	rpc_pack_text(pk, user);
	rpc_pack_key(pk, "pwd");
	rpc_pack_text(pk, password);
	rc = rpc_client_end(c, timeout_ms, &result, e);
	if (rc)
		return rc;
	token = result->type == MSGPACK_OBJECT_MAP ? rpc_map_get(result, "value") : NULL;
	if (!token || token->type != MSGPACK_OBJECT_STR ||
		token->via.str.size >= sizeof text)
		return rv_error_set(
			e, RV_EPROTO, "%s answered a login without a session", c->url);
	snprintf(text, sizeof text, "%.*s", (int)token->via.str.size, token->via.str.ptr);
	return rpc_client_set_session(c, text);
}

/* --- notifications --- */

static int subscribe(nng_socket socket, const char *method)
{
	struct buf topic;
	int r;

	buf_init(&topic, 256);
	r = method && rpc_notification_topic(&topic, method) ? NNG_ENOMEM : 0;
	if (!r)
		r = nng_socket_set(socket, NNG_OPT_SUB_SUBSCRIBE,
			topic.base ? (const void *)buf_data(&topic) : "",
			buf_len(&topic));
	buf_fini(&topic);
	return r;
}

int rpc_subscription_open(struct rpc_subscription **out,
	const struct rpc_client_config *config, const char *method, struct rv_error *e)
{
	struct rpc_subscription *s = calloc(1, sizeof *s);
	int r, rc;

	*out = NULL;
	if (!s || !(s->url = strdup(config->url)) ||
		!msgpack_zone_init(&s->zone, MSGPACK_ZONE_CHUNK_SIZE)) {
		if (s)
			free(s->url);
		free(s);
		return rv_error_set(e, RV_ENOMEM, "subscription: out of memory");
	}
	r = nng_sub0_open(&s->socket);
	if (!r)
		r = socket_setup(s->socket);
	if (!r)
		r = subscribe(s->socket, method);
	rc = r ? client_error(e, r, s->url, "subscribe")
	       : client_dial(s->socket, config, e);
	if (rc) {
		rpc_subscription_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void rpc_subscription_close(struct rpc_subscription *s)
{
	if (!s)
		return;
	nng_close(s->socket);
	nng_msg_free(s->last);
	msgpack_zone_destroy(&s->zone);
	free(s->url);
	free(s);
}

int rpc_subscription_next(struct rpc_subscription *s, int64_t timeout_ms,
	const char **method, const msgpack_object **params, struct rv_error *e)
{
	int r, rc;

	nng_msg_free(s->last);
	s->last = NULL;
	msgpack_zone_clear(&s->zone);
	r = nng_socket_set_ms(s->socket, NNG_OPT_RECVTIMEO, client_timeout(timeout_ms));
	if (!r)
		r = nng_recvmsg(s->socket, &s->last, 0);
	if (r) {
		s->last = NULL;
		return client_error(e, r, s->url, "subscription");
	}
	rc = rpc_message_decode(&s->message, RPC_NOTIFICATION, nng_msg_body(s->last),
		nng_msg_len(s->last), &s->zone, NULL, e);
	if (rc)
		return rc;
	memcpy(s->method, s->message.method, s->message.method_len);
	s->method[s->message.method_len] = '\0';
	*method = s->method;
	*params = &s->message.params;
	return 0;
}
