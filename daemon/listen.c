#include "daemon/listen.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "daemon/call.h"
#include "daemon/descriptors.h"
#include "daemon/files.h"
#include "link/ca.h"
#include "rpc/message.h"

enum { CERTIFICATE_DAYS = 3650 };

void daemon_socket_path(const struct config *c, const char *name, char *path, size_t size)
{
	snprintf(path, size, "ipc://%s/%s", c->run_dir, name);
}

/* --- who is who --- */

static int account_of(void *arg, const char *user, struct session_account *out)
{
	struct daemon *d = arg;
	const struct db *db = pool_db(d->pool);
	unsigned count;
	const struct row *row = db_by_name(db, CLASS_USER, user, &count);
	const char *role;

	if (!row || count != 1 || !db_bool(row, USER_ENABLED))
		return RV_ENOENT;
	snprintf(out->hash, sizeof out->hash, "%s", db_string(row, USER_PASSWORD_HASH));
	role = schema_enum_text(
		schema_field(USER_ROLE)->enum_texts, db_enum(row, USER_ROLE));
	return role_parse(&out->role, role, strlen(role));
}

static void account_used(void *arg, const char *user)
{
	struct daemon *d = arg;
	struct value now = value_time(loop_wall_ms(d->loop));
	const struct row *row = db_by_name(pool_db(d->pool), CLASS_USER, user, NULL);

	if (row && pool_set_live(d->pool, row_uuid(row), USER_LAST_LOGIN, &now, NULL))
		log_debug("daemon.login", "msg=\"the time of it can't be kept\"");
}

/* A client certificate belongs to the user who lists its fingerprint. */
static enum role certificate_role(void *arg, const struct tls_peer *peer)
{
	struct daemon *d = arg;
	const struct db *db = pool_db(d->pool);
	char text[2 * sizeof peer->fingerprint + 1];

	bytes_hex(peer->fingerprint, sizeof peer->fingerprint, text);
	for (const struct row *row = db_next(db, CLASS_USER, NULL); row;
		row = db_next(db, CLASS_USER, row)) {
		enum role role;
		const char *name = schema_enum_text(
			schema_field(USER_ROLE)->enum_texts, db_enum(row, USER_ROLE));

		if (db_bool(row, USER_ENABLED) &&
			value_set_has(row_value(row, USER_CERTIFICATES), text) &&
			!role_parse(&role, name, strlen(name)))
			return role;
	}
	return ROLE_NONE;
}

static int listen_sessions(struct daemon *d, struct rv_error *e)
{
	struct sessions_config config = {.loop = d->loop,
		.worker = d->worker,
		.account = account_of,
		.certificate = certificate_role,
		.logged_in = account_used,
		.arg = d};

	if (*d->config->rpc_group) {
		const struct group *group = getgrnam(d->config->rpc_group);

		if (!group)
			return rv_error_set(e, RV_EINVAL,
				"rpc.group: there is no group '%s' here",
				d->config->rpc_group);
		config.has_group = true;
		config.group = group->gr_gid;
		if (role_parse(&config.group_role, d->config->rpc_group_role,
			    strlen(d->config->rpc_group_role)))
			return rv_error_set(e, RV_EINVAL,
				"rpc.group-role: there is no role '%s'",
				d->config->rpc_group_role);
	}
	return sessions_new(&d->sessions, &config, e);
}

/* --- TLS --- */

/* What `reeve --fingerprint=` wants. */
static void say_fingerprint(const char *cert_pem, const char *path)
{
	uint8_t digest[CA_FINGERPRINT_SIZE];
	char text[2 * CA_FINGERPRINT_SIZE + 1];

	if (ca_fingerprint(cert_pem, digest, NULL))
		return; /* tls_context_new says why */
	log_info("daemon.listen", "certificate=%s fingerprint=%s", path,
		bytes_hex(digest, sizeof digest, text));
}

/* The certificate of the RPC port: the admin's, or one that signs itself, made once. */
static int listen_tls(struct daemon *d, struct tls_context **out, struct rv_error *e)
{
	char cert_path[CONFIG_TEXT_MAX + 32], key_path[CONFIG_TEXT_MAX + 32];
	struct tls_config config = {.profile = TLS_RPC,
		.server = true,
		.verify = TLS_VERIFY_NONE,
		.allow_tls12 = d->config->rpc_tls12};
	char *cert, *key;
	int rc = 0;

	snprintf(cert_path, sizeof cert_path, "%s/rpc-cert.pem", d->config->state_dir);
	snprintf(key_path, sizeof key_path, "%s/rpc-key.pem", d->config->state_dir);
	cert = files_read(cert_path);
	key = files_read(key_path);
	if (!cert || !key) {
		struct tls_certificate_request request = {
			.common_name = "reeved", .days = CERTIFICATE_DAYS};

		free(cert);
		free(key);
		rc = tls_certificate_new(&request, &cert, &key, e);
		if (rc)
			return rc;
		rc = files_write(key_path, key, strlen(key), e);
		if (!rc)
			rc = files_write(cert_path, cert, strlen(cert), e);
		log_info("daemon.listen", "certificate=%s msg=\"made for the RPC port\"",
			cert_path);
	}
	config.cert_pem = cert;
	config.key_pem = key;
	if (!rc) {
		say_fingerprint(cert, cert_path);
		rc = tls_context_new(out, &config, e);
	}
	free(cert);
	free(key);
	return rc;
}

/* --- sockets --- */

static int listen_one(
	struct daemon *d, enum sp_protocol protocol, const char *url, struct rv_error *e)
{
	int port = 0, rc = rpc_server_listen(d->rpc, protocol, url, &port, e);

	if (!rc)
		log_info("daemon.listen", "url=%s port=%d", url, port);
	return rc;
}

/* Mode 0660: the configured group's members get in, too. */
static int listen_local(
	struct daemon *d, enum sp_protocol protocol, const char *name, struct rv_error *e)
{
	char url[CONFIG_TEXT_MAX + 32];
	const char *path = url + strlen("ipc://");
	const struct group *group = NULL;
	int rc;

	daemon_socket_path(d->config, name, url, sizeof url);
	rc = listen_one(d, protocol, url, e);
	if (rc || !*d->config->rpc_group)
		return rc;
	group = getgrnam(d->config->rpc_group);
	if (group && lchown(path, (uid_t)-1, group->gr_gid) == 0)
		return 0;
	return rv_error_set(e, RV_EPERM, "%s can't be given to the group '%s': %s", path,
		d->config->rpc_group, group ? strerror(errno) : "it has gone");
}

static int listen_further(struct daemon *d, struct rv_error *e)
{
	char urls[CONFIG_TEXT_MAX], *rest = urls;
	int rc = 0;

	snprintf(urls, sizeof urls, "%s", d->config->rpc_listen);
	for (char *url = strtok_r(rest, " ,", &rest); url && !rc;
		url = strtok_r(NULL, " ,", &rest))
		rc = listen_one(d, SP_REP, url, e);
	return rc;
}

int listen_open(struct daemon *d, struct rv_error *e)
{
	struct rpc_server_config config = {.loop = d->loop,
		.handler = call_begin,
		.arg = d,
		.max_connections = descriptors_rpc_limit()};
	struct tls_context *tls = NULL;
	int rc;

	if (config.max_connections < RV_MAX_RPC_CONNECTIONS)
		config.full_advice = "raise the hard limit of open files "
				     "(LimitNOFILE=65536 in reeved.service)";
	rc = worker_new(&d->worker, d->loop, "daemon.password");
	if (rc)
		return rv_error_set(e, rc, "no thread for passwords");
	rc = listen_sessions(d, e);
	if (rc)
		return rc;
	if (strstr(d->config->rpc_listen, "tls+tcp:")) {
		rc = listen_tls(d, &tls, e);
		if (rc)
			return rc;
		config.tls = tls;
	}
	rc = rpc_server_new(&d->rpc, &config, e);
	tls_context_unref(tls);
	if (rc)
		return rc;
	rc = listen_local(d, SP_REP, "rpc.sock", e);
	if (rc)
		return rc;
	rc = listen_local(d, SP_PUB, "events.sock", e);
	if (rc)
		return rc;
	rc = listen_further(d, e);
	d->serving = rc == 0;
	return rc;
}

void listen_close(struct daemon *d)
{
	d->serving = false;
	rpc_server_free(d->rpc);
	d->rpc = NULL;
}

void listen_publish(struct daemon *d)
{
	struct buf params;
	msgpack_packer pk;

	if (!d->serving)
		return;
	buf_init(&params, 64);
	msgpack_packer_init(&pk, &params, rpc_pack_to_buf);
	msgpack_pack_map(&pk, 1);
	rpc_pack_key(&pk, "seq");
	msgpack_pack_uint64(&pk, pool_seq(d->pool));
	if (rpc_server_publish(d->rpc, "changed", buf_data(&params), buf_len(&params)))
		log_debug("daemon.publish", "msg=\"a notice was dropped\"");
	buf_fini(&params);
}
