/* Reading records: the same few functions for every class. */
#include "daemon/methods.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/daemon.h"
#include "rpc/message.h"

static void pack_raw(msgpack_packer *pk, const uint8_t *bytes, size_t len)
{
	/* Bytes that are msgpack already go out as they are. */
	pk->callback(pk->data, (const char *)bytes, len);
}

static void pack_uuid(msgpack_packer *pk, struct uuid uuid)
{
	char text[UUID_TEXT_SIZE];

	rpc_pack_key(pk, uuid_format(&uuid, text));
}

/* The fields that `fields` names, in `chosen`; their number, 0 for "all", or an error. */
static int read_projection(struct call *c, const struct schema_field **chosen, int max)
{
	const struct value *names = call_arg(c, "fields");
	const struct schema_class *cls = schema_class(c->method->cls);
	int count = 0;

	if (!names)
		return 0;
	for (size_t i = 0; i < value_count(names); i++) {
		const char *name = value_set_at(names, i);
		const struct schema_field *f =
			schema_field_by_name(cls, name, strlen(name));

		if (!f || f->secret) {
			call_failf(c, RV_EFIELD, "class %s has no field '%s'", cls->name,
				name);
			return RV_EFIELD;
		}
		if (count == max) {
			call_failf(c, RV_EPARAM, "fields: at most %d", max);
			return RV_EPARAM;
		}
		chosen[count++] = f;
	}
	return count;
}

static int pack_field(msgpack_packer *pk, const struct db *db, const struct row *row,
	const struct schema_field *f)
{
	struct value refs;

	rpc_pack_key(pk, f->name);
	if (f->key) {
		pack_uuid(pk, row_uuid(row));
		return 0;
	}
	if (f->ref != REF_BACK) {
		value_pack(row_value(row, f->id), pk, VALUE_WIRE_RPC);
		return 0;
	}
	if (db_backrefs(db, row, f->id, &refs))
		return RV_ENOMEM;
	value_pack(&refs, pk, VALUE_WIRE_RPC);
	value_fini(&refs);
	return 0;
}

enum {
	READ_MAX_FIELDS = 128,
	READ_SLICE_US = 1500,
	READ_CLOCK_EVERY = 32, /* records between two looks at the clock */
	READ_ENVELOPE_BYTES = 4096,
};

/* One record, whole or as the projection says. */
static void pack_record(msgpack_packer *pk, const struct db *db, const struct row *row,
	const struct schema_field *const *chosen, int count)
{
	if (count == 0) {
		size_t len;
		const uint8_t *bytes = db_record(db, row, &len);

		if (bytes)
			pack_raw(pk, bytes, len);
		else
			msgpack_pack_nil(pk);
		return;
	}
	msgpack_pack_map(pk, (size_t)count);
	for (int i = 0; i < count; i++)
		if (pack_field(pk, db, row, chosen[i]))
			msgpack_pack_nil(pk);
}

void read_get_record(struct call *c)
{
	const struct schema_field *chosen[READ_MAX_FIELDS];
	const struct row *row = call_row(c, "self");
	int count;

	if (!row)
		return;
	count = read_projection(c, chosen, READ_MAX_FIELDS);
	if (count < 0)
		return;
	pack_record(call_reply_begin(c), pool_db(c->daemon->pool), row, chosen, count);
	call_reply_end(c);
}

void read_get_all_records(struct call *c)
{
	const struct db *db = pool_db(c->daemon->pool);
	const struct schema_field *chosen[READ_MAX_FIELDS];
	enum schema_class_id cls = c->method->cls;
	int count = read_projection(c, chosen, READ_MAX_FIELDS);
	msgpack_packer *pk;

	if (count < 0)
		return;
	pk = call_reply_begin(c);
	msgpack_pack_map(pk, db_count(db, cls));
	for (const struct row *row = db_next(db, cls, NULL); row;
		row = db_next(db, cls, row)) {
		pack_uuid(pk, row_uuid(row));
		pack_record(pk, db, row, chosen, count);
	}
	call_reply_end(c);
}

/* --- many records, some at a time --- */

struct read_slices {
	struct uuid *list; /* owned; those there were at the beginning */
	size_t count, next;
	uint32_t packed;
	bool overflow;
	struct buf out;
	msgpack_packer pk;
	const struct schema_field *chosen[READ_MAX_FIELDS];
	int chosen_count;
};

void read_slices_drop(struct call *c)
{
	if (!c->slices)
		return;
	buf_fini(&c->slices->out);
	free(c->slices->list);
	free(c->slices);
	c->slices = NULL;
}

static int slices_write(void *arg, const char *bytes, size_t len)
{
	struct read_slices *s = arg;

	s->overflow = s->overflow || rpc_pack_to_buf(&s->out, bytes, len);
	return s->overflow ? -1 : 0;
}

/* False: the call has been failed. */
static bool slices_begin(struct call *c)
{
	const struct db *db = pool_db(c->daemon->pool);
	enum schema_class_id cls = c->method->cls;
	struct read_slices *s = calloc(1, sizeof *s);

	c->slices = s;
	if (s)
		s->list = calloc(db_count(db, cls), sizeof *s->list);
	if (!s || !s->list) {
		free(s);
		c->slices = NULL;
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return false;
	}
	buf_init(&s->out, RV_MAX_RPC_MESSAGE_BYTES - READ_ENVELOPE_BYTES);
	msgpack_packer_init(&s->pk, s, slices_write);
	s->chosen_count = read_projection(c, s->chosen, READ_MAX_FIELDS);
	if (s->chosen_count < 0)
		return false;
	/* What is packed later may be newer, and is never older. */
	c->seq = pool_seq(c->daemon->pool);
	for (const struct row *row = NULL; (row = db_next(db, cls, row));)
		s->list[s->count++] = row_uuid(row);
	return true;
}

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

static void slices_reply(struct call *c)
{
	struct read_slices *s = c->slices;
	msgpack_packer *pk;

	if (s->overflow) {
		call_failf(c, RV_ETOOBIG,
			"the result is larger than one message (16 MiB); ask for fewer "
			"fields or objects");
		return;
	}
	pk = call_reply_begin(c);
	msgpack_pack_map(pk, s->packed);
	if (s->packed)
		pack_raw(pk, buf_data(&s->out), buf_len(&s->out));
	call_reply_end(c);
}

bool read_all_records_some(struct call *c)
{
	const struct db *db = pool_db(c->daemon->pool);
	int64_t until = now_us() + READ_SLICE_US;
	struct read_slices *s;

	if (!c->slices && !slices_begin(c))
		return true;
	s = c->slices;
	while (s->next < s->count && !s->overflow) {
		const struct row *row = db_row(db, c->method->cls, s->list[s->next++]);

		if (row) {
			pack_uuid(&s->pk, row_uuid(row));
			pack_record(&s->pk, db, row, s->chosen, s->chosen_count);
			s->packed++;
		}
		if (s->next % READ_CLOCK_EVERY == 0 && now_us() >= until)
			return false;
	}
	slices_reply(c);
	return true;
}

void read_get_all(struct call *c)
{
	const struct db *db = pool_db(c->daemon->pool);
	enum schema_class_id cls = c->method->cls;
	msgpack_packer *pk = call_reply_begin(c);

	msgpack_pack_array(pk, db_count(db, cls));
	for (const struct row *row = db_next(db, cls, NULL); row;
		row = db_next(db, cls, row))
		pack_uuid(pk, row_uuid(row));
	call_reply_end(c);
}

void read_get_by_uuid(struct call *c)
{
	const struct row *row = call_row(c, "uuid");

	if (!row)
		return;
	pack_uuid(call_reply_begin(c), row_uuid(row));
	call_reply_end(c);
}

void read_get_by_name(struct call *c)
{
	const struct db *db = pool_db(c->daemon->pool);
	unsigned count;
	const struct row *row =
		db_by_name(db, c->method->cls, call_text(c, "label"), &count);
	msgpack_packer *pk = call_reply_begin(c);

	msgpack_pack_array(pk, count);
	for (; row; row = db_next_name(db, row))
		pack_uuid(pk, row_uuid(row));
	call_reply_end(c);
}
