#include "daemon/identity.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "daemon/files.h"

/*
 * STATE_DIR/member/ca.pem, cert.pem, key.pem, secret: what they say.
 * STATE_DIR/member/cert.next.pem, key.next.pem: what is prepared to follow.
 * cert.prior.pem, key.prior.pem: what was in force before one CA took over from another;
 * cross.pem: while it does, and as long as ejected hosts may have missed it.
 * STATE_DIR/member/place: "RAFT_ID founder|joined", then a line "UUID ADDRESS" for each
 * member known when it was written. Written last: without it there is no membership.
 */

static void path_of(char *path, const char *dir, const char *name)
{
	snprintf(path, PATH_MAX, "%s/member/%s", dir, name);
}

static char *read_part(const char *dir, const char *name)
{
	char path[PATH_MAX];

	path_of(path, dir, name);
	return files_read(path);
}

/* `member`: the directory itself. */
static int write_part(const char *member, const char *name, const void *bytes, size_t len,
	struct rv_error *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s", member, name);
	return files_write(path, bytes, len, e);
}

static int corrupt(const char *dir, const char *what, struct rv_error *e)
{
	return rv_error_set(e, RV_ECORRUPT,
		"%s/member: %s; restore it from a backup, or remove the directory and "
		"join the pool anew",
		dir, what);
}

/* --- the place file --- */

static int place_parse(struct identity *id, char *text)
{
	char *rest = text, *line = strtok_r(rest, "\n", &rest);
	char kind[16];

	if (!line || sscanf(line, "%lu %15s", &id->raft_id, kind) != 2)
		return RV_ECORRUPT;
	id->founder = strcmp(kind, "founder") == 0;
	if (id->founder && !id->raft_id)
		return RV_ECORRUPT;
	while ((line = strtok_r(NULL, "\n", &rest)) &&
		id->seed_count < IDENTITY_MAX_SEEDS) {
		struct peer_member *m = &id->seeds[id->seed_count];
		size_t len = strlen(line);

		if (len < UUID_TEXT_LEN + 2 ||
			uuid_parse(&m->host, line, UUID_TEXT_LEN) ||
			len - UUID_TEXT_LEN - 1 >= sizeof m->address)
			return RV_ECORRUPT;
		snprintf(m->address, sizeof m->address, "%s", line + UUID_TEXT_LEN + 1);
		m->dial = true;
		id->seed_count++;
	}
	return 0;
}

static int place_write(const struct identity *id, const char *member, struct rv_error *e)
{
	struct buf b;
	int rc;

	buf_init(&b, 64 << 10);
	rc = buf_printf(&b, "%lu %s\n", id->raft_id, id->founder ? "founder" : "joined");
	for (int i = 0; i < id->seed_count && !rc; i++) {
		char text[UUID_TEXT_SIZE];

		rc = buf_printf(&b, "%s %s\n", uuid_format(&id->seeds[i].host, text),
			id->seeds[i].address);
	}
	rc = rc ? rv_error_set(e, rc, "too many members to write down")
		: write_part(member, "place", buf_data(&b), buf_len(&b), e);
	buf_fini(&b);
	return rc;
}

int identity_keep_place(
	const struct identity *id, const char *state_dir, struct rv_error *e)
{
	char member[PATH_MAX];

	path_of(member, state_dir, "");
	return place_write(id, member, e);
}

/* --- one certificate after another --- */

static bool has_part(const char *dir, const char *name)
{
	char path[PATH_MAX];

	path_of(path, dir, name);
	return access(path, F_OK) == 0;
}

static int remove_part(const char *dir, const char *name, struct rv_error *e)
{
	char path[PATH_MAX];

	path_of(path, dir, name);
	if (unlink(path) == 0 || errno == ENOENT)
		return 0;
	return rv_error_set(e, rv_error_from_errno(errno), "%s can't be removed: %s",
		path, strerror(errno));
}

static int rename_part(
	const char *dir, const char *from, const char *to, struct rv_error *e)
{
	char a[PATH_MAX], b[PATH_MAX], member[PATH_MAX];

	path_of(a, dir, from);
	path_of(b, dir, to);
	path_of(member, dir, "");
	if (rename(a, b) != 0)
		return rv_error_set(e, rv_error_from_errno(errno),
			"%s can't be renamed: %s", a, strerror(errno));
	return files_sync_directory(member, e);
}

int identity_write_trust(const char *state_dir, const char *ca_pem, const char *cross_pem,
	struct rv_error *e)
{
	char member[PATH_MAX];
	int rc = 0;

	path_of(member, state_dir, "");
	if (cross_pem)
		rc = write_part(member, "cross.pem", cross_pem, strlen(cross_pem), e);
	if (!rc)
		rc = write_part(member, "ca.pem", ca_pem, strlen(ca_pem), e);
	return rc || cross_pem ? rc : remove_part(state_dir, "cross.pem", e);
}

/* The certificate's file is the last to come and the first to go: where it is, its key is
 * there, under this name or already under the other. */
int identity_write_prepared(const char *state_dir, const char *cert_pem,
	const char *key_pem, struct rv_error *e)
{
	char member[PATH_MAX];
	int rc = identity_discard_prepared(state_dir, e);

	path_of(member, state_dir, "");
	if (!rc)
		rc = write_part(member, "key.next.pem", key_pem, strlen(key_pem), e);
	return rc ? rc
		  : write_part(member, "cert.next.pem", cert_pem, strlen(cert_pem), e);
}

/* A copy: wherever this ends, what is in force is whole, and a pair that does not match
 * is not read as one. */
static int keep_prior(const char *state_dir, struct rv_error *e)
{
	char *cert = read_part(state_dir, "cert.pem");
	char *key = read_part(state_dir, "key.pem");
	char member[PATH_MAX];
	int rc = 0;

	path_of(member, state_dir, "");
	if (!cert || !key)
		rc = rv_error_set(
			e, RV_ECORRUPT, "%scert.pem or key.pem can't be read", member);
	if (!rc)
		rc = write_part(member, "key.prior.pem", key, strlen(key), e);
	if (!rc)
		rc = write_part(member, "cert.prior.pem", cert, strlen(cert), e);
	free(cert);
	ca_key_free(key);
	return rc;
}

int identity_forget_prior(const char *state_dir, struct rv_error *e)
{
	int rc = remove_part(state_dir, "cert.prior.pem", e);

	return rc ? rc : remove_part(state_dir, "key.prior.pem", e);
}

int identity_fall_back(const char *state_dir, struct rv_error *e)
{
	char *cert = read_part(state_dir, "cert.prior.pem");
	char *key = read_part(state_dir, "key.prior.pem");
	int rc = 0;

	if (!cert || !key)
		rc = rv_error_set(e, RV_ENOENT,
			"%s/member/cert.prior.pem or key.prior.pem is gone", state_dir);
	if (!rc)
		rc = identity_write_prepared(state_dir, cert, key, e);
	if (!rc)
		rc = identity_put_in_force(state_dir, false, e);
	free(cert);
	ca_key_free(key);
	return rc ? rc : identity_forget_prior(state_dir, e);
}

int identity_put_in_force(const char *state_dir, bool keep, struct rv_error *e)
{
	int rc = 0;

	if (has_part(state_dir, "key.next.pem")) {
		if (keep)
			rc = keep_prior(state_dir, e);
		if (!rc)
			rc = rename_part(state_dir, "key.next.pem", "key.pem", e);
	}
	return rc ? rc : rename_part(state_dir, "cert.next.pem", "cert.pem", e);
}

int identity_discard_prepared(const char *state_dir, struct rv_error *e)
{
	char member[PATH_MAX];
	int rc;

	/* Half in force: the key of what is shown is gone already. */
	if (!has_part(state_dir, "key.next.pem") && has_part(state_dir, "cert.next.pem"))
		return identity_put_in_force(state_dir, false, e);
	rc = remove_part(state_dir, "cert.next.pem", e);
	path_of(member, state_dir, "");
	if (!rc)
		rc = files_sync_directory(member, e);
	return rc ? rc : remove_part(state_dir, "key.next.pem", e);
}

/* A former life may have ended between the two names. */
static int finish_put_in_force(const char *dir, struct rv_error *e)
{
	if (has_part(dir, "key.next.pem") || !has_part(dir, "cert.next.pem"))
		return 0;
	log_info("daemon.identity", "msg=\"the next certificate comes into force\"");
	return identity_put_in_force(dir, false, e);
}

/* What is not whole, or not for this host, is as good as not there. */
static void read_pair(struct identity *id, const char *dir, const char *const names[2],
	const struct uuid *host, char **cert_pem, char **key_pem)
{
	struct rv_error e = {0};

	*cert_pem = read_part(dir, names[0]);
	*key_pem = read_part(dir, names[1]);
	if (*cert_pem && *key_pem && !ca_check(id->ca_pem, *cert_pem, *key_pem, host, &e))
		return;
	free(*cert_pem);
	ca_key_free(*key_pem);
	*cert_pem = *key_pem = NULL;
}

static void read_others(struct identity *id, const char *dir, const struct uuid *host)
{
	static const char *const next[] = {"cert.next.pem", "key.next.pem"};
	static const char *const prior[] = {"cert.prior.pem", "key.prior.pem"};

	read_pair(id, dir, next, host, &id->next_cert_pem, &id->next_key_pem);
	read_pair(id, dir, prior, host, &id->prior_cert_pem, &id->prior_key_pem);
}

char *identity_chain(const struct identity *id)
{
	static const char end[] = "-----END CERTIFICATE-----\n";
	const char *first = strstr(id->ca_pem, end);
	char *text = NULL;

	/* The present CA is the first one of those trusted; joining hosts look for it. It
	 * comes last: a host that knows a former one alone takes the first certificate of
	 * a key for its chain. */
	if (!id->cross_pem || !first)
		return strdup(id->cert_pem);
	return asprintf(&text, "%s%s%.*s", id->cert_pem, id->cross_pem,
		       (int)(first - id->ca_pem + (int)sizeof end - 1), id->ca_pem) < 0
		       ? NULL
		       : text;
}

/* --- reading --- */

static int secret_parse(struct identity *id, const char *text)
{
	if (strspn(text, "0123456789abcdef") < 2 * CA_SECRET_SIZE)
		return RV_ECORRUPT;
	for (int i = 0; i < CA_SECRET_SIZE; i++) {
		unsigned byte;

		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			return RV_ECORRUPT;
		id->secret[i] = (uint8_t)byte;
	}
	return 0;
}

static int identity_read(struct identity *id, const char *dir, char *place,
	const struct uuid *host, struct rv_error *e)
{
	char *secret = read_part(dir, "secret");
	int rc = finish_put_in_force(dir, e);

	if (rc) {
		free(secret);
		return rc;
	}
	id->cross_pem = read_part(dir, "cross.pem");
	id->ca_pem = read_part(dir, "ca.pem");
	id->cert_pem = read_part(dir, "cert.pem");
	id->key_pem = read_part(dir, "key.pem");
	if (place_parse(id, place))
		rc = corrupt(dir, "place does not say which member this is", e);
	else if (!id->ca_pem || !id->cert_pem || !id->key_pem || !secret)
		rc = corrupt(dir, "ca.pem, cert.pem, key.pem or secret is missing", e);
	else if (secret_parse(id, secret))
		rc = corrupt(dir, "secret is no secret", e);
	else
		rc = ca_check(id->ca_pem, id->cert_pem, id->key_pem, host, e);
	if (!rc)
		read_others(id, dir, host);
	free(secret);
	return rc;
}

/* --- making --- */

/* A pool of this host's own: its CA, and this host as the first that it certifies. */
static int identity_found(struct identity *id, const struct uuid *host,
	const char *const *names, struct rv_error *e)
{
	char *request = NULL;
	int rc = ca_random(id->secret, sizeof id->secret, e);

	if (!rc)
		rc = ca_new(host, &id->ca_pem, &id->ca_key_pem, e);
	if (!rc)
		rc = ca_request_new(host, &request, &id->key_pem, e);
	if (!rc)
		rc = ca_issue(id->ca_pem, id->ca_key_pem, request, host, names,
			CA_HOST_DAYS, &id->cert_pem, e);
	free(request);
	id->raft_id = 1;
	id->founder = true;
	return rc;
}

static int identity_write(const struct identity *id, const char *state_dir,
	const char *name, struct rv_error *e)
{
	char path[PATH_MAX], secret[2 * CA_SECRET_SIZE + 1];
	int rc;

	snprintf(path, sizeof path, "%s/%s", state_dir, name);
	rc = files_make_directory(path, 0700, e);
	bytes_hex(id->secret, CA_SECRET_SIZE, secret);
	if (!rc)
		rc = write_part(path, "ca.pem", id->ca_pem, strlen(id->ca_pem), e);
	if (!rc)
		rc = write_part(path, "cert.pem", id->cert_pem, strlen(id->cert_pem), e);
	if (!rc)
		rc = write_part(path, "key.pem", id->key_pem, strlen(id->key_pem), e);
	if (!rc)
		rc = write_part(path, "secret", secret, strlen(secret), e);
	if (!rc && id->ca_key_pem)
		rc = write_part(
			path, "ca-key.pem", id->ca_key_pem, strlen(id->ca_key_pem), e);
	return rc ? rc : place_write(id, path, e);
}

int identity_write_next(
	const struct identity *id, const char *state_dir, struct rv_error *e)
{
	return identity_write(id, state_dir, "member.next", e);
}

int identity_open(struct identity *id, const char *state_dir, const struct uuid *host,
	const char *const *names, struct rv_error *e)
{
	char *place = read_part(state_dir, "place");
	int rc;

	memset(id, 0, sizeof *id);
	if (place) {
		rc = identity_read(id, state_dir, place, host, e);
		/* Not recorded yet, if the first start ended early. */
		id->ca_key_pem = read_part(state_dir, "ca-key.pem");
		free(place);
		return rc;
	}
	if (errno != ENOENT)
		return corrupt(state_dir, strerror(errno), e);
	log_info("daemon.identity",
		"msg=\"making this host's own pool: CA and certificate\"");
	rc = identity_found(id, host, names, e);
	return rc ? rc : identity_write(id, state_dir, "member", e);
}

int identity_recorded(struct identity *id, const char *state_dir, struct rv_error *e)
{
	char member[PATH_MAX];
	int rc;

	if (!id->ca_key_pem)
		return 0;
	path_of(member, state_dir, "");
	rc = remove_part(state_dir, "ca-key.pem", e);
	if (!rc)
		rc = files_sync_directory(member, e);
	if (rc)
		return rc;
	ca_key_free(id->ca_key_pem);
	id->ca_key_pem = NULL;
	return 0;
}

int identity_without_database(const char *state_dir, struct rv_error *e)
{
	char *place = read_part(state_dir, "place");
	struct identity *id = calloc(1, sizeof *id);
	bool founder = place && id && !place_parse(id, place) && id->founder;

	free(place);
	free(id);
	/* A founder's first start may have ended before there was a database. */
	if (!founder || has_part(state_dir, "ca-key.pem"))
		return 0;
	return rv_error_set(e, RV_ECORRUPT,
		"%s/db is missing or empty, but %s/member says that this host founded a "
		"pool, whose database was there. Put db back, if it was moved away. If "
		"other hosts have the pool, `reeve pool-eject` this host there, then "
		"move member out of the directory, start, and join anew. If it was this "
		"host's alone, restore db and member from a backup; or, to begin another "
		"pool, move member out of the directory",
		state_dir, state_dir);
}

void identity_fini(struct identity *id)
{
	free(id->ca_pem);
	free(id->cert_pem);
	ca_key_free(id->key_pem);
	ca_key_free(id->ca_key_pem);
	free(id->cross_pem);
	free(id->next_cert_pem);
	ca_key_free(id->next_key_pem);
	free(id->prior_cert_pem);
	ca_key_free(id->prior_key_pem);
	memset(id, 0, sizeof *id);
}
