#include "daemon/dump.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/dump_plan.h"
#include "pool/db/snapshot.h"
#include "rpc/message.h"

/* Somebody who is asked whether to go on may think it over. */
enum { DUMP_IDLE_MS = 10 * 60 * 1000, HEAD_MAX = 1024 };

struct dump {
	struct list node; /* dumps.all */
	struct dumps *dumps;
	struct uuid id;
	struct buf bytes;
	bool uploaded;
	struct call *call; /* that it is at work for; NULL: none */
	struct snapshot_encoder *encoder;
	struct snapshot_decoder *decoder;
	size_t at; /* decoded so far */
	struct db *then;
	struct dump_head head;
	struct timer step, idle;
};

struct dumps {
	struct daemon *daemon;
	struct list all;
	int count;
};

/* --- the head --- */

int dump_head_write(const struct dump_head *h, struct buf *out)
{
	char text[HEAD_MAX], pool[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
	size_t len;

	len = (size_t)snprintf(text, sizeof text,
		"REEVE-DUMP 1\npool %s\nname %s\ngeneration %" PRIu64 " %s\nseq %" PRIu64
		"\ndate %s\nbytes %" PRIu64 "\n",
		uuid_format(&h->pool, pool), h->name, h->generation,
		uuid_format(&h->generation_id, id), h->seq, h->date, h->bytes);
	snprintf(text + len, sizeof text - len, "check %016" PRIx64 "\n\n",
		(uint64_t)XXH3_64bits(text, len));
	return buf_append(out, text, strlen(text));
}

static bool read_line(const char **at, const char *key, char *out, size_t size)
{
	size_t n = strlen(key);
	const char *end = strchr(*at, '\n');

	if (strncmp(*at, key, n) != 0 || !end || (size_t)(end - *at) - n >= size)
		return false;
	memcpy(out, *at + n, (size_t)(end - *at) - n);
	out[(size_t)(end - *at) - n] = '\0';
	*at = end + 1;
	return true;
}

static bool read_number(const char **at, const char *key, uint64_t *out)
{
	char text[24], *end;

	if (!read_line(at, key, text, sizeof text) || *text < '0' || *text > '9')
		return false;
	*out = strtoull(text, &end, 10);
	return !*end;
}

static bool read_uuid(const char *text, struct uuid *out)
{
	return !uuid_parse(out, text, strlen(text));
}

static bool read_head(struct dump_head *h, const char *text, size_t *at)
{
	char line[DUMP_NAME_MAX], check[24], sum[24];
	const char *p = text;
	int n = 0;

	*h = (struct dump_head){0};
	if (!read_line(&p, "REEVE-DUMP 1", line, sizeof line) || *line ||
		!read_line(&p, "pool ", line, sizeof line) ||
		!read_uuid(line, &h->pool) ||
		!read_line(&p, "name ", h->name, sizeof h->name) ||
		!read_line(&p, "generation ", line, sizeof line) ||
		sscanf(line, "%" SCNu64 " %n", &h->generation, &n) != 1 || !n ||
		!read_uuid(line + n, &h->generation_id) ||
		!read_number(&p, "seq ", &h->seq) ||
		!read_line(&p, "date ", h->date, sizeof h->date) ||
		!read_number(&p, "bytes ", &h->bytes))
		return false;
	snprintf(sum, sizeof sum, "%016" PRIx64,
		(uint64_t)XXH3_64bits(text, (size_t)(p - text)));
	if (!read_line(&p, "check ", check, sizeof check) || strcmp(check, sum) != 0 ||
		*p != '\n')
		return false;
	*at = (size_t)(p + 1 - text);
	return true;
}

int dump_head_read(struct dump_head *h, const uint8_t *bytes, size_t len, size_t *at,
	struct rv_error *e)
{
	size_t n = len < HEAD_MAX - 1 ? len : HEAD_MAX - 1;
	char text[HEAD_MAX];

	memcpy(text, bytes, n);
	text[n] = '\0';
	if (!read_head(h, text, at))
		return rv_error_set(e, RV_ECORRUPT,
			"this is no dump of a pool's database, or its first lines are "
			"damaged");
	if (h->bytes != len - *at)
		return rv_error_set(e, RV_ECORRUPT,
			"the dump should have %" PRIu64
			" bytes after its first lines and "
			"has %zu: it was cut, or something was added",
			h->bytes, len - *at);
	return 0;
}

/* --- what is held --- */

static void dump_free(struct dump *u)
{
	timer_stop(&u->step);
	timer_stop(&u->idle);
	snapshot_encoder_free(u->encoder);
	snapshot_decoder_free(u->decoder);
	db_free(u->then);
	buf_fini(&u->bytes);
	list_remove(&u->node);
	u->dumps->count--;
	free(u);
}

static void on_idle(void *arg)
{
	struct dump *u = arg;

	if (u->call)
		timer_start_ms(&u->idle, DUMP_IDLE_MS);
	else
		dump_free(u);
}

/* Of those that nobody waits for. */
static void forget_oldest(struct dumps *s)
{
	LIST_FOR_EACH (node, &s->all) {
		struct dump *u = CONTAINER_OF(node, struct dump, node);

		if (u->call)
			continue;
		dump_free(u);
		return;
	}
}

/* NULL: the call has been failed. */
static struct dump *dump_new(struct call *c, timer_fn *step)
{
	struct dumps *s = c->daemon->dumps;
	struct dump *u;

	if (s->count >= DUMP_MAX_AT_ONCE)
		forget_oldest(s);
	u = s->count < DUMP_MAX_AT_ONCE ? calloc(1, sizeof *u) : NULL;

	if (!u) {
		call_failf(c, RV_ELIMIT,
			"%d dumps are being made or restored at this host: try again in "
			"a "
			"moment",
			s->count);
		return NULL;
	}
	u->dumps = s;
	u->id = uuid_random(loop_prng(c->daemon->loop));
	buf_init(&u->bytes, DUMP_MAX_BYTES);
	timer_init(&u->step, c->daemon->loop, "daemon.dump.step", step, u);
	timer_init(&u->idle, c->daemon->loop, "daemon.dump.idle", on_idle, u);
	timer_start_ms(&u->idle, DUMP_IDLE_MS);
	list_push_back(&s->all, &u->node);
	s->count++;
	return u;
}

/* By the argument `id`. NULL: the call has been failed. */
static struct dump *dump_of(struct call *c, bool uploaded)
{
	const char *text = call_text(c, "id");
	struct uuid id;

	if (!uuid_parse(&id, text, strlen(text)))
		LIST_FOR_EACH (node, &c->daemon->dumps->all) {
			struct dump *u = CONTAINER_OF(node, struct dump, node);

			if (!uuid_eq(&u->id, &id) || u->uploaded != uploaded)
				continue;
			if (u->call) {
				call_failf(c, RV_EBUSY, "that dump is at work");
				return NULL;
			}
			timer_start_ms(&u->idle, DUMP_IDLE_MS);
			return u;
		}
	call_failf(c, RV_ENOENT,
		"id: no such dump at this host (it is forgotten after a while, and when "
		"the master changes): begin anew");
	return NULL;
}

/* --- making one --- */

static void reply_piece(struct dump *u, struct call *c, size_t position)
{
	size_t len = buf_len(&u->bytes), n = len - position;
	char text[UUID_TEXT_SIZE];
	msgpack_packer *pk;

	if (n > DUMP_PIECE_BYTES)
		n = DUMP_PIECE_BYTES;
	pk = call_reply_begin(c);
	msgpack_pack_map(pk, 3);
	rpc_pack_key(pk, "id");
	rpc_pack_key(pk, uuid_format(&u->id, text));
	rpc_pack_key(pk, "size");
	msgpack_pack_uint64(pk, len);
	rpc_pack_key(pk, "bytes");
	msgpack_pack_bin(pk, n);
	msgpack_pack_bin_body(pk, buf_data(&u->bytes) + position, n);
	call_reply_end(c);
}

static void fail_call(struct dump *u, const struct rv_error *e)
{
	struct call *c = u->call;

	u->call = NULL;
	dump_free(u);
	call_fail(c, e);
}

static struct dump_head head_of(struct daemon *d, uint64_t seq, uint64_t bytes)
{
	const struct row *pool = db_pool(pool_db(d->pool));
	time_t now = (time_t)(loop_wall_ms(d->loop) / 1000);
	struct dump_head h = {
		.pool = row_uuid(pool),
		.generation = (uint64_t)db_int(pool, POOL_GENERATION_NUMBER),
		.generation_id = db_ref(pool, POOL_GENERATION_ID),
		.seq = seq,
		.bytes = bytes,
	};
	struct tm tm;

	snprintf(h.name, sizeof h.name, "%.*s", DUMP_NAME_MAX - 1, row_name(pool));
	gmtime_r(&now, &tm);
	strftime(h.date, sizeof h.date, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return h;
}

static void encode_done(struct dump *u)
{
	struct buf all;
	struct call *c = u->call;
	struct rv_error e = {0};
	int rc;

	u->head.bytes = buf_len(&u->bytes);
	buf_init(&all, DUMP_MAX_BYTES);
	rc = dump_head_write(&u->head, &all);
	if (!rc)
		rc = buf_append(&all, buf_data(&u->bytes), buf_len(&u->bytes));
	buf_fini(&u->bytes);
	u->bytes = all;
	if (rc) {
		rv_error_set(&e, rc, "the dump does not fit into memory");
		fail_call(u, &e);
		return;
	}
	u->call = NULL;
	log_info("dump.made", "user=\"%s\" bytes=%zu seq=%" PRIu64, c->who.user,
		buf_len(&u->bytes), u->head.seq);
	reply_piece(u, c, 0);
}

static void encode_step(void *arg)
{
	struct dump *u = arg;
	struct rv_error e = {0};
	int rc = snapshot_encode(u->encoder, &u->bytes);

	if (rc == RV_EAGAIN) {
		timer_start_ms(&u->step, 0);
	} else if (rc) {
		rv_error_set(&e, rc, "the dump does not fit into memory");
		fail_call(u, &e);
	} else {
		encode_done(u);
	}
}

void pool_database_dump(struct call *c)
{
	int64_t position = call_int(c, "position", 0);
	struct dump *u;

	if (call_arg(c, "id")) {
		u = dump_of(c, false);
		if (!u)
			return;
		if (position < 0 || (uint64_t)position > buf_len(&u->bytes))
			call_failf(
				c, RV_EPARAM, "position: 0 to %zu", buf_len(&u->bytes));
		else
			reply_piece(u, c, (size_t)position);
		return;
	}
	u = dump_new(c, encode_step);
	if (!u)
		return;
	/* A view costs what the database's page table does. */
	u->encoder = snapshot_encoder_new((struct db *)pool_db(c->daemon->pool));
	if (!u->encoder) {
		dump_free(u);
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	u->head = head_of(c->daemon, snapshot_encoder_seq(u->encoder), 0);
	u->call = c;
	timer_start_ms(&u->step, 0);
}

/* --- taking one --- */

static void decode_step(void *arg);

void pool_database_upload(struct call *c)
{
	const msgpack_object *piece = call_record(c, "piece"), *bytes;
	int64_t position = call_int(c, "position", 0);
	char text[UUID_TEXT_SIZE];
	struct value id;
	struct dump *u;

	bytes = piece ? rpc_map_get(piece, "bytes") : NULL;
	if (!bytes || bytes->type != MSGPACK_OBJECT_BIN ||
		bytes->via.bin.size > DUMP_PIECE_BYTES) {
		call_failf(c, RV_EPARAM, "piece: a map with bytes, at most %d of them",
			DUMP_PIECE_BYTES);
		return;
	}
	u = call_arg(c, "id") ? dump_of(c, true) : dump_new(c, decode_step);
	if (!u)
		return;
	u->uploaded = true;
	/* A repeat of what is here already changes nothing. */
	if (position < 0 || (uint64_t)position > buf_len(&u->bytes)) {
		call_failf(
			c, RV_EPARAM, "position: %zu bytes are here", buf_len(&u->bytes));
		return;
	}
	if ((uint64_t)position == buf_len(&u->bytes) &&
		buf_append(&u->bytes, bytes->via.bin.ptr, bytes->via.bin.size)) {
		dump_free(u);
		call_failf(c, RV_ETOOBIG, "the dump does not fit into memory");
		return;
	}
	if (value_from_cstr(&id, uuid_format(&u->id, text))) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	call_reply(c, &id);
	value_fini(&id);
}

/* --- putting it in force --- */

static int check_head(struct dump *u, struct rv_error *e)
{
	const struct row *pool = db_pool(u->then);
	struct uuid uuid = pool ? row_uuid(pool) : UUID_NONE;

	if (!pool || !uuid_eq(&uuid, &u->head.pool) || db_seq(u->then) != u->head.seq)
		return rv_error_set(e, RV_ECORRUPT,
			"the dump's first lines and what follows are not of one dump");
	return 0;
}

static void restore(struct dump *u)
{
	struct call *c = u->call;
	struct daemon *d = c->daemon;
	const struct db *db = pool_db(d->pool);
	struct uuid generation = uuid_random(loop_prng(d->loop));
	struct uuid message = uuid_random(loop_prng(d->loop));
	char account[DUMP_WORDS_MAX];
	struct rv_error e = {0};
	struct value words;
	struct txn t;
	int rc;

	txn_init(&t, db, loop_wall_ms(d->loop));
	rc = check_head(u, &e);
	if (!rc)
		rc = dump_plan(db, u->then, call_bool(c, "force", false), c->who.user,
			generation, message, &t, account, &e);
	if (!rc && value_from_cstr(&words, account))
		rc = rv_error_set(&e, RV_ENOMEM, "out of memory; ask again later");
	if (rc) {
		txn_fini(&t);
		fail_call(u, &e);
		return;
	}
	u->call = NULL;
	db_free(u->then);
	u->then = NULL;
	if (call_bool(c, "dry_run", false)) {
		txn_fini(&t);
		call_reply(c, &words);
		value_fini(&words);
		return;
	}
	log_warn("dump.restore", "user=\"%s\" seq=%" PRIu64 " msg=\"%s\"", c->who.user,
		u->head.seq, account);
	dump_free(u);
	call_commit(c, &t, words, row_uuid(db_pool(db)));
}

static int decode_some(struct dump *u, struct rv_error *e)
{
	size_t left = buf_len(&u->bytes) - u->at;
	size_t n = left < SNAPSHOT_SLICE_BYTES ? left : SNAPSHOT_SLICE_BYTES;
	int rc;

	if (!n)
		return snapshot_decode_finish(u->decoder, &u->then, e);
	rc = snapshot_decode(u->decoder, buf_data(&u->bytes) + u->at, n, e);
	u->at += n;
	return rc ? rc : RV_EAGAIN;
}

static void decode_step(void *arg)
{
	struct dump *u = arg;
	struct rv_error e = {0}, words = {0};
	int rc = decode_some(u, &e);

	if (rc == RV_EAGAIN) {
		timer_start_ms(&u->step, 0);
		return;
	}
	snapshot_decoder_free(u->decoder);
	u->decoder = NULL;
	if (!rc) {
		restore(u);
		return;
	}
	rv_error_set(&words, rc, "the dump can't be used, nothing was changed: %.500s",
		e.detail);
	fail_call(u, &words);
}

void pool_database_restore(struct call *c)
{
	struct dump *u = dump_of(c, true);
	struct rv_error e = {0};

	if (!u)
		return;
	u->call = c;
	if (dump_head_read(
		    &u->head, buf_data(&u->bytes), buf_len(&u->bytes), &u->at, &e)) {
		fail_call(u, &e);
		return;
	}
	u->decoder = snapshot_decoder_new(prng_next(loop_prng(c->daemon->loop)));
	if (!u->decoder) {
		rv_error_set(&e, RV_ENOMEM, "out of memory; ask again later");
		fail_call(u, &e);
		return;
	}
	timer_start_ms(&u->step, 0);
}

/* --- beginning and ending --- */

int dumps_new(struct dumps **out, struct daemon *d)
{
	struct dumps *s = calloc(1, sizeof *s);

	if (!s)
		return RV_ENOMEM;
	s->daemon = d;
	list_init(&s->all);
	*out = s;
	return 0;
}

/* Calls that wait are ended with all others. */
void dumps_free(struct dumps *s)
{
	if (!s)
		return;
	LIST_FOR_EACH_SAFE (node, &s->all)
		dump_free(CONTAINER_OF(node, struct dump, node));
	free(s);
}
