/* Users and their passwords. scrypt takes its time on purpose: it runs on the worker. */
#include "daemon/methods.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "rpc/password.h"

/* One password being hashed for one call. */
struct hashing {
	struct job job;
	struct call *call;
	char password[PASSWORD_MAX_BYTES + 1];
	char hash[PASSWORD_HASH_SIZE];
	struct rv_error error;
};

static void hashing_run(struct job *job)
{
	struct hashing *h = CONTAINER_OF(job, struct hashing, job);

	rv_error_clear(&h->error);
	if (password_hash(h->password, h->hash, &h->error) && !h->error.code)
		rv_error_set(&h->error, RV_EINTERNAL, "the password can't be hashed");
}

static void user_commit(struct call *c, const char *hash)
{
	struct txn t;

	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	if (c->method->id == METHOD_USER_CREATE) {
		struct uuid uuid = uuid_random(loop_prng(c->daemon->loop));

		txn_expect_name_free(&t, CLASS_USER, call_text(c, "name_label"));
		txn_create(&t, CLASS_USER, uuid);
		txn_set_string(&t, uuid, USER_NAME_LABEL, call_text(c, "name_label"));
		txn_set_string(&t, uuid, USER_FULLNAME, call_text(c, "fullname"));
		txn_set_enum(&t, uuid, USER_ROLE,
			schema_enum_value(schema_field(USER_ROLE)->enum_texts,
				call_text(c, "role")));
		txn_set_string(&t, uuid, USER_PASSWORD_HASH, hash);
		txn_set_time(&t, uuid, USER_CREATED, loop_wall_ms(c->daemon->loop));
		call_commit(c, &t, value_ref(uuid), uuid);
		return;
	}
	txn_set_string(&t, call_ref(c, "self"), USER_PASSWORD_HASH, hash);
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, call_ref(c, "self"));
}

static void hashing_done(struct job *job, int rc)
{
	struct hashing *h = CONTAINER_OF(job, struct hashing, job);

	if (rc)
		call_failf(h->call, rc, "the daemon ends");
	else if (h->error.code)
		call_fail(h->call, &h->error);
	else
		user_commit(h->call, h->hash);
	OPENSSL_cleanse(h, sizeof *h);
	free(h);
}

static void user_hash(struct call *c)
{
	const char *password = call_text(c, "password");
	struct hashing *h;

	if (!*password || strlen(password) > PASSWORD_MAX_BYTES) {
		call_failf(c, RV_EINVAL, "password: 1 to %d bytes", PASSWORD_MAX_BYTES);
		return;
	}
	h = calloc(1, sizeof *h);
	if (!h) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	h->call = c;
	h->job = (struct job){
		.run = hashing_run, .done = hashing_done, .name = "user.hash"};
	memcpy(h->password, password, strlen(password) + 1);
	if (!worker_submit(c->daemon->worker, &h->job))
		return;
	OPENSSL_cleanse(h, sizeof *h);
	free(h);
	call_failf(c, RV_ELIMIT,
		"too many passwords are being set at once; ask again later");
}

void user_create(struct call *c)
{
	struct rv_error e = {0};

	if (call_name_check(CLASS_USER, call_text(c, "name_label"), &e))
		call_fail(c, &e);
	else
		user_hash(c);
}

/* A changed or removed user's sessions end with the change. */
static void on_user_changed(struct call *c)
{
	const struct row *user =
		db_row(pool_db(c->daemon->pool), CLASS_USER, call_ref(c, "self"));

	if (user)
		sessions_drop_user(c->daemon->sessions, row_name(user));
}

void user_set_password(struct call *c)
{
	if (!call_row(c, "self"))
		return;
	c->committed = on_user_changed;
	user_hash(c);
}

void user_destroy(struct call *c)
{
	const struct row *user = call_row(c, "self");
	struct txn t;

	if (!user)
		return;
	sessions_drop_user(c->daemon->sessions, row_name(user));
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_delete(&t, CLASS_USER, row_uuid(user));
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(user));
}
