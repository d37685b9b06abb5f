#include "rpc/session.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "rpc/blame.h"
#include "rpc/login_limit.h"
#include "rpc/message.h"
#include "rpc/server.h"

enum { DIGEST_BYTES = 32 };

/* One password session. */
struct session {
	struct list node;	      /* sessions->all: least recently used first */
	uint8_t digest[DIGEST_BYTES]; /* SHA-256 of the token: the map's key */
	char user[RV_MAX_NAME_BYTES + 1];
	enum role role;
	int64_t used_us;
};

/* One password being verified. */
struct login {
	struct job job;
	struct list node;
	struct sessions *sessions; /* NULL once sessions_free ran */
	struct rpc_request *req;
	char user[RV_MAX_NAME_BYTES + 1];
	char source[LOGIN_SOURCE_MAX];
	char password[PASSWORD_MAX_BYTES + 1];
	struct session_account account;
	bool known;
	int rc;
	struct rv_error error;
};

struct sessions {
	struct sessions_config config;
	struct map by_digest;
	struct list all;
	struct list logins;
	int login_count;
	struct login_limit *limit;
	struct blame blame;
	uid_t own_uid;
	EVP_MD *sha256; /* fetched once: OpenSSL 3 takes its time to find it */
	EVP_MD_CTX *hash;
	/* A hash of nothing in particular: verified against for unknown users, so that
	 * they take as long as known ones. */
	char decoy[PASSWORD_HASH_SIZE];
};

/* --- roles --- */

int session_check_role(const struct session_identity *who, enum role least,
	const char *method, struct rv_error *e)
{
	if (who->role >= least && who->role != ROLE_NONE)
		return 0;
	return rv_error_set(e, RV_EPERM,
		"%s needs the role %s; %s has %s. Ask a pool-admin for the role", method,
		role_name(least), who->user, role_name(who->role));
}

/* --- the table --- */

static int64_t now_us(const struct sessions *s)
{
	return loop_now_us(s->config.loop);
}

static void session_drop(struct sessions *s, struct session *session)
{
	map_remove(&s->by_digest, session->digest, sizeof session->digest);
	list_remove(&session->node);
	free(session);
}

static void sessions_expire(struct sessions *s)
{
	int64_t oldest = now_us(s) - s->config.idle_ms * 1000;

	while (!list_empty(&s->all)) {
		struct session *first = CONTAINER_OF(s->all.next, struct session, node);

		if (first->used_us > oldest)
			return;
		session_drop(s, first);
	}
}

static bool token_digest(const struct sessions *s, const char *token, size_t len,
	uint8_t digest[DIGEST_BYTES])
{
	return EVP_DigestInit_ex2(s->hash, s->sha256, NULL) == 1 &&
	       EVP_DigestUpdate(s->hash, token, len) == 1 &&
	       EVP_DigestFinal_ex(s->hash, digest, NULL) == 1;
}

static struct session *session_find(struct sessions *s, const char *token, size_t len)
{
	uint8_t digest[DIGEST_BYTES];

	sessions_expire(s);
	if (len != SESSION_TOKEN_LEN || !token_digest(s, token, len, digest))
		return NULL;
	return map_get(&s->by_digest, digest, sizeof digest);
}

/* Keeps a user below the limit by ending the one used longest ago. */
static void session_make_room(struct sessions *s, const char *user)
{
	struct session *oldest = NULL;
	int count = 0;

	LIST_FOR_EACH (node, &s->all) {
		struct session *session = CONTAINER_OF(node, struct session, node);

		if (strcmp(session->user, user) != 0)
			continue;
		oldest = oldest ? oldest : session;
		count++;
	}
	if (count >= SESSION_MAX_PER_USER)
		session_drop(s, oldest);
}

static int session_make(struct sessions *s, const char *user, enum role role,
	char token[static SESSION_TOKEN_LEN + 1], struct rv_error *e)
{
	uint8_t random[SESSION_TOKEN_LEN / 2];
	struct session *session;

	sessions_expire(s);
	session_make_room(s, user);
	if (s->by_digest.count >= SESSION_MAX)
		return rv_error_set(e, RV_ELIMIT,
			"this host has %d sessions, its limit; log out of some or wait",
			SESSION_MAX);
	session = calloc(1, sizeof *session);
	if (!session)
		return rv_error_set(e, RV_ENOMEM, "out of memory for a session");
	if (RAND_bytes(random, sizeof random) != 1) {
		free(session);
		return rv_error_set(
			e, RV_EINTERNAL, "no random numbers for a session token");
	}
	bytes_hex(random, sizeof random, token);
	OPENSSL_cleanse(random, sizeof random);
	snprintf(session->user, sizeof session->user, "%s", user);
	session->role = role;
	session->used_us = now_us(s);
	if (!token_digest(s, token, SESSION_TOKEN_LEN, session->digest) ||
		map_add(&s->by_digest, session->digest, sizeof session->digest,
			session) != 0) {
		free(session);
		return rv_error_set(e, RV_ENOMEM, "out of memory for a session");
	}
	list_push_back(&s->all, &session->node);
	return 0;
}

size_t sessions_drop_user(struct sessions *s, const char *user)
{
	size_t dropped = 0;

	LIST_FOR_EACH_SAFE (node, &s->all) {
		struct session *session = CONTAINER_OF(node, struct session, node);

		if (strcmp(session->user, user) == 0) {
			session_drop(s, session);
			dropped++;
		}
	}
	return dropped;
}

size_t sessions_count(const struct sessions *s)
{
	return s->by_digest.count;
}

/* --- life --- */

static void sessions_release(struct sessions *s)
{
	login_limit_free(s->limit);
	EVP_MD_CTX_free(s->hash);
	EVP_MD_free(s->sha256);
	free(s);
}

int sessions_new(
	struct sessions **out, const struct sessions_config *config, struct rv_error *e)
{
	struct sessions *s = calloc(1, sizeof *s);

	*out = NULL;
	if (s) {
		s->limit = login_limit_new();
		s->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
		s->hash = EVP_MD_CTX_new();
	}
	if (!s || !s->limit || !s->sha256 || !s->hash) {
		if (s)
			sessions_release(s);
		return rv_error_set(e, RV_ENOMEM, "sessions: out of memory");
	}
	s->config = *config;
	if (s->config.idle_ms <= 0)
		s->config.idle_ms = SESSION_IDLE_MS;
	map_init(&s->by_digest, prng_next(loop_prng(config->loop)));
	list_init(&s->all);
	list_init(&s->logins);
	s->own_uid = geteuid();
	/* Good form, no known password: 32 zero bytes are nobody's scrypt. */
	snprintf(s->decoy, sizeof s->decoy, "$scrypt$ln=15,r=8,p=1$%032d$%064d", 0, 0);
	*out = s;
	return 0;
}

void sessions_free(struct sessions *s)
{
	if (!s)
		return;
	while (!list_empty(&s->logins)) {
		struct login *l = CONTAINER_OF(s->logins.next, struct login, node);

		list_remove(&l->node);
		l->sessions = NULL;
	}
	while (!list_empty(&s->all))
		session_drop(s, CONTAINER_OF(s->all.next, struct session, node));
	map_fini(&s->by_digest);
	sessions_release(s);
}

/* --- identity --- */

static bool peer_in_group(const struct rpc_peer *peer, gid_t group)
{
	if (peer->gid == group)
		return true;
	for (size_t i = 0; i < peer->group_count; i++)
		if (peer->groups[i] == group)
			return true;
	return false;
}

/* "uid N". snprintf would be a tenth of a small call. */
static void name_uid(char *name, uid_t uid)
{
	char digits[10];
	size_t count = 0;

	do
		digits[count++] = (char)('0' + uid % 10);
	while ((uid /= 10) > 0);
	memcpy(name, "uid ", 4);
	name += 4;
	while (count > 0)
		*name++ = digits[--count];
	*name = '\0';
}

static int identify_ipc(struct sessions *s, const struct rpc_peer *peer,
	struct session_identity *out, struct rv_error *e)
{
	out->via = "ipc";
	name_uid(out->user, peer->uid);
	if (peer->uid == 0 || peer->uid == s->own_uid)
		out->role = ROLE_POOL_ADMIN;
	else if (s->config.has_group && peer_in_group(peer, s->config.group))
		out->role = s->config.group_role;
	if (out->role != ROLE_NONE)
		return 0;
	return rv_error_set(e, RV_EAUTH,
		"uid %u is neither root nor in the group that may use this socket; log "
		"in with a password, or ask root",
		peer->uid);
}

int sessions_identify(struct sessions *s, const struct rpc_peer *peer, const char *token,
	size_t token_len, struct session_identity *out, struct rv_error *e)
{
	out->role = ROLE_NONE;
	out->via = "nothing";
	out->user[0] = '\0';
	if (token) {
		struct session *session = session_find(s, token, token_len);

		if (!session)
			return rv_error_set(e, RV_EAUTH,
				"the session is unknown here or has expired; log in "
				"again");
		session->used_us = now_us(s);
		list_remove(&session->node);
		list_push_back(&s->all, &session->node);
		out->via = "session";
		out->role = session->role;
		memcpy(out->user, session->user, sizeof out->user);
		return 0;
	}
	if (peer->has_credentials)
		return identify_ipc(s, peer, out, e);
	if (peer->tls && peer->tls->has_certificate && s->config.certificate) {
		out->via = "certificate";
		out->role = s->config.certificate(s->config.arg, peer->tls);
		snprintf(out->user, sizeof out->user, "%.255s", peer->tls->common_name);
		if (out->role != ROLE_NONE)
			return 0;
		return rv_error_set(e, RV_EAUTH,
			"the certificate of \"%s\" has no role here; log in with a "
			"password, or ask a pool-admin",
			out->user);
	}
	return rv_error_set(e, RV_EAUTH,
		"not logged in: call session.login_with_password and pass its result as "
		"\"session\"");
}

/* --- logging in --- */

static void login_free(struct login *l)
{
	OPENSSL_cleanse(l, sizeof *l);
	free(l);
}

/* On the worker. */
static void login_run(struct job *job)
{
	struct login *l = CONTAINER_OF(job, struct login, job);

	l->rc = password_verify(l->password, l->account.hash, &l->error);
	if (!l->rc && !l->known)
		l->rc = rv_error_set(&l->error, RV_EAUTH, "wrong user name or password");
}

static void login_reply(struct login *l, const char *token)
{
	msgpack_packer *pk = rpc_reply_begin(l->req);

	msgpack_pack_map(pk, 4);
	rpc_pack_key(pk, "value");
	rpc_pack_key(pk, token);
	rpc_pack_key(pk, "user");
	rpc_pack_text(pk, l->user);
	rpc_pack_key(pk, "role");
	rpc_pack_key(pk, role_name(l->account.role));
	rpc_pack_key(pk, "idle_ms");
	msgpack_pack_int64(pk, l->sessions->config.idle_ms);
	rpc_reply_end(l->req);
}

static void login_done(struct job *job, int rc)
{
	struct login *l = CONTAINER_OF(job, struct login, job);
	struct sessions *s = l->sessions;
	char token[SESSION_TOKEN_LEN + 1];
	uint32_t held;

	if (!s || rc) {
		rpc_reply_failuref(l->req, RV_ECANCELLED,
			"this host is stopping; log in at another or later");
		goto out;
	}
	list_remove(&l->node);
	s->login_count--;
	if (l->rc == 0 || l->rc == RV_EAUTH)
		login_limit_note(s->limit, l->source, now_us(s), l->rc == 0);
	if (l->rc == 0)
		l->rc = session_make(s, l->user, l->account.role, token, &l->error);
	if (l->rc) {
		if (blame_may_log(&s->blame, l->source, now_us(s), &held))
			log_warn("rpc.session",
				"user=\"%s\" from=%s rc=%s left_out=%u msg=\"login "
				"failed\"",
				l->user, l->source, rv_error_symbol(l->rc), held);
		rpc_reply_failure(l->req, &l->error);
		goto out;
	}
	log_info("rpc.session", "user=\"%s\" from=%s role=%s msg=\"logged in\"", l->user,
		l->source, role_name(l->account.role));
	if (s->config.logged_in)
		s->config.logged_in(s->config.arg, l->user);
	login_reply(l, token);
	OPENSSL_cleanse(token, sizeof token);
out:
	login_free(l);
}

/* A string parameter without NUL, copied; false and *e otherwise. */
static bool param_text(const struct rpc_request *req, const char *key, char *out,
	size_t size, struct rv_error *e)
{
	const msgpack_object *o = rpc_request_param(req, key);

	if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size == 0 ||
		o->via.str.size >= size) {
		rv_error_set(e, RV_EPARAM,
			"session.login_with_password: %s must be a string of 1 to %zu "
			"bytes",
			key, size - 1);
		return false;
	}
	memcpy(out, o->via.str.ptr, o->via.str.size);
	out[o->via.str.size] = '\0';
	return true;
}

/* Those being checked: they may all turn out to be wrong guesses. */
static int logins_from(const struct sessions *s, const char *source)
{
	int count = 0;

	LIST_FOR_EACH (node, &s->logins)
		if (strcmp(CONTAINER_OF(node, struct login, node)->source, source) == 0)
			count++;
	return count;
}

static int login_prepare(
	struct sessions *s, struct login *l, struct rpc_request *req, struct rv_error *e)
{
	int rc;

	if (!param_text(req, "uname", l->user, sizeof l->user, e) ||
		!param_text(req, "pwd", l->password, sizeof l->password, e))
		return RV_EPARAM;
	login_source(req->peer, l->source);
	rc = login_limit_check(s->limit, l->source, now_us(s), e);
	if (rc)
		return rc;
	if (s->login_count >= SESSION_MAX_LOGINS ||
		logins_from(s, l->source) >= SESSION_MAX_LOGINS_PER_SOURCE)
		return rv_error_set(e, RV_ELIMIT,
			"too many logins are being checked already; try again shortly");
	l->known = s->config.account(s->config.arg, l->user, &l->account) == 0 &&
		   l->account.role != ROLE_NONE;
	if (!l->known)
		memcpy(l->account.hash, s->decoy, sizeof l->account.hash);
	l->sessions = s;
	l->req = req;
	l->job = (struct job){
		.run = login_run, .done = login_done, .name = "rpc.session.login"};
	return worker_submit(s->config.worker, &l->job)
		       ? rv_error_set(e, RV_ELIMIT,
				 "the worker is busy; try to log in again shortly")
		       : 0;
}

static void login_start(struct sessions *s, struct rpc_request *req)
{
	struct login *l = calloc(1, sizeof *l);
	struct rv_error e = {0};

	if (!l) {
		rpc_reply_failuref(req, RV_ENOMEM, "out of memory for a login");
		return;
	}
	if (login_prepare(s, l, req, &e) != 0) {
		rpc_reply_failure(req, &e);
		login_free(l);
		return;
	}
	s->login_count++;
	list_push_back(&s->logins, &l->node);
}

/* --- methods --- */

static void session_logout(struct sessions *s, struct rpc_request *req)
{
	struct session *session =
		req->session ? session_find(s, req->session, req->session_len) : NULL;
	msgpack_packer *pk;

	if (!session) {
		rpc_reply_failuref(req, RV_EAUTH,
			"session.logout: no such session; it may have expired already");
		return;
	}
	session_drop(s, session);
	pk = rpc_reply_begin(req);
	msgpack_pack_map(pk, 1);
	rpc_pack_key(pk, "value");
	msgpack_pack_nil(pk);
	rpc_reply_end(req);
}

static void session_get_identity(struct sessions *s, struct rpc_request *req)
{
	struct session_identity who;
	struct rv_error e = {0};
	msgpack_packer *pk;

	if (sessions_identify(s, req->peer, req->session, req->session_len, &who, &e)) {
		rpc_reply_failure(req, &e);
		return;
	}
	pk = rpc_reply_begin(req);
	msgpack_pack_map(pk, 1);
	rpc_pack_key(pk, "value");
	msgpack_pack_map(pk, 3);
	rpc_pack_key(pk, "user");
	rpc_pack_text(pk, who.user);
	rpc_pack_key(pk, "role");
	rpc_pack_key(pk, role_name(who.role));
	rpc_pack_key(pk, "via");
	rpc_pack_key(pk, who.via);
	rpc_reply_end(req);
}

bool sessions_handle(struct sessions *s, struct rpc_request *req)
{
	if (rpc_request_is(req, "session.login_with_password"))
		login_start(s, req);
	else if (rpc_request_is(req, "session.logout"))
		session_logout(s, req);
	else if (rpc_request_is(req, "session.get_identity"))
		session_get_identity(s, req);
	else
		return false;
	return true;
}
