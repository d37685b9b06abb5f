/*
 * Scripts of transactions, and what each must come to: NAME.script beside NAME.trace.
 * With REEVE_GOLDEN_WRITE=1 the traces are written anew, to be read before they are
 * committed.
 *
 * A line of a script: `create CLASS NAME field=value ...`, `set`, `expect`, `expect-not`
 * (the same form), `delete CLASS NAME`, `add CLASS NAME field element`, `remove`,
 * `put CLASS NAME field key value`, `unput`, `free CLASS name` (expect a free name),
 * `commit`, `dump`. A value that begins with @ is the UUID of that NAME. '_' stands for a
 * blank in values.
 */
#include "pool/db/db.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "pool/db/txn.h"

static struct uuid named(const char *name)
{
	struct prng p;

	prng_seed(&p, XXH3_64bits(name, strlen(name)));
	return uuid_random(&p);
}

static const struct schema_field *field_of(const char *cls, const char *name)
{
	const struct schema_class *c = schema_class_by_name(cls, strlen(cls));
	const struct schema_field *f;

	if (!c)
		fail_msg("no class %s", cls);
	f = schema_field_by_name(c, name, strlen(name));
	if (!f)
		fail_msg("no field %s.%s", cls, name);
	return f;
}

static void read_value(const struct schema_field *f, char *text, struct value *v)
{
	struct rv_error e;

	for (char *c = text; *c; c++)
		*c = *c == '_' ? ' ' : *c;
	if (text[0] == '@')
		*v = value_ref(named(text + 1));
	else if (value_parse(v, f->type, text, &e))
		fail_msg("%s: %s", f->name, e.detail);
}

/* The rest of a create, set or expect line. */
static void do_fields(
	struct txn *t, const char *verb, const char *cls, struct uuid uuid, char *rest)
{
	char *save, *word = strtok_r(rest, " ", &save);

	for (; word; word = strtok_r(NULL, " ", &save)) {
		char *equals = strchr(word, '=');
		const struct schema_field *f;
		struct value v;

		if (!equals)
			fail_msg("%s: no '='", word);
		*equals = '\0';
		f = field_of(cls, word);
		read_value(f, equals + 1, &v);
		if (strcmp(verb, "expect") == 0)
			txn_expect_value(t, uuid, f->id, &v);
		else if (strcmp(verb, "expect-not") == 0)
			txn_expect_not(t, uuid, f->id, &v);
		else
			txn_set_value(t, uuid, f->id, &v);
		value_fini(&v);
	}
}

static void do_element(
	struct txn *t, const char *verb, const char *cls, struct uuid uuid, char *rest)
{
	char field[64] = "", key[64] = "", text[64] = "";
	const struct schema_field *f;

	sscanf(rest, "%63s %63s %63s", field, key, text);
	f = field_of(cls, field);
	if (strcmp(verb, "add") == 0)
		txn_set_add(t, uuid, f->id, key);
	else if (strcmp(verb, "remove") == 0)
		txn_set_remove(t, uuid, f->id, key);
	else if (strcmp(verb, "put") == 0)
		txn_map_put(t, uuid, f->id, key, text);
	else if (strcmp(verb, "unput") == 0)
		txn_map_remove(t, uuid, f->id, key);
	else
		fail_msg("unknown verb %s", verb);
}

static void do_commit(struct db *db, struct txn *t, FILE *out)
{
	struct rv_error e = {0};
	const uint8_t *entry;
	struct db_result r;
	struct db_hash h;
	size_t len;

	if (txn_finish(t, &entry, &len, &e)) {
		fprintf(out, "refused %s: %s\n", rv_error_symbol(e.code), e.detail);
	} else {
		int rc = db_apply(db, entry, len, &r);

		h = db_hash(db);
		if (rc)
			fprintf(out, "stop %s: ", rv_error_symbol(rc));
		else if (r.verdict.code)
			fprintf(out, "%llu %s %d: ", (unsigned long long)r.seq,
				rv_error_symbol(r.verdict.code), r.failed_expect);
		else
			fprintf(out, "%llu changed=%u hash=%016llx%016llx",
				(unsigned long long)r.seq, r.changed,
				(unsigned long long)h.hi, (unsigned long long)h.lo);
		fprintf(out, "%s\n", rc || r.verdict.code ? r.verdict.detail : "");
	}
	txn_fini(t);
	txn_init(t, db, 1000 * (int64_t)db_seq(db));
}

static void dump_row(const struct db *db, const struct row *row, FILE *out)
{
	const struct schema_class *c = schema_class(row_class(row));

	fprintf(out, "  %s %s (entry %llu)\n", c->name, row_name(row),
		(unsigned long long)row_seq(row));
	for (int i = 0; i < c->field_count; i++) {
		const struct schema_field *f = &c->fields[i];
		struct value initial;
		struct buf b;
		bool shown;

		assert_int_equal(schema_initial(f, &initial), 0);
		shown = f->ref == REF_BACK || !value_eq(row_value(row, f->id), &initial);
		value_fini(&initial);
		if (!shown)
			continue;
		buf_init(&b, 1 << 20);
		assert_int_equal(db_format_field(db, row, f->id, &b), 0);
		if (buf_len(&b))
			fprintf(out, "    %s = %.*s\n", f->name, (int)buf_len(&b),
				(char *)buf_data(&b));
		buf_fini(&b);
	}
}

static void dump(const struct db *db, FILE *out)
{
	for (int i = 1; i < CLASS_COUNT; i++) {
		const struct row *row = NULL;

		while ((row = db_next(db, i, row)))
			dump_row(db, row, out);
	}
}

static void do_line(struct db *db, struct txn *t, char *line, FILE *out)
{
	char verb[32] = "", cls[32] = "", name[64] = "";
	const struct schema_class *c;
	int used = 0;

	sscanf(line, "%31s %31s %63s %n", verb, cls, name, &used);
	if (strcmp(verb, "commit") == 0) {
		do_commit(db, t, out);
		return;
	}
	if (strcmp(verb, "dump") == 0) {
		dump(db, out);
		return;
	}
	c = schema_class_by_name(cls, strlen(cls));
	if (!c)
		fail_msg("no class %s", cls);
	if (strcmp(verb, "create") == 0)
		txn_create(t, c->id, named(name));
	if (strcmp(verb, "delete") == 0)
		txn_delete(t, c->id, named(name));
	else if (strcmp(verb, "free") == 0)
		txn_expect_name_free(t, c->id, name);
	else if (strcmp(verb, "create") == 0 || strcmp(verb, "set") == 0 ||
		 strncmp(verb, "expect", 6) == 0)
		do_fields(t, verb, cls, named(name), line + used);
	else
		do_element(t, verb, cls, named(name), line + used);
}

static void run_script(const char *path, FILE *out)
{
	FILE *script = fopen(path, "r");
	struct db *db = db_new(1);
	char line[1024];
	struct txn t;

	if (!script)
		fail_msg("%s is not there", path);
	txn_init(&t, db, 1);
	while (fgets(line, sizeof line, script)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '\0' || line[0] == '#')
			continue;
		fprintf(out, "> %s\n", line);
		do_line(db, &t, line, out);
	}
	fclose(script);
	txn_fini(&t);
	db_free(db);
}

static void compare(const char *name)
{
	char script[512], trace[512], *is = NULL, was[65536];
	size_t size, len;
	FILE *out, *golden;

	snprintf(script, sizeof script, "%s/%s.script", TRACE_DIR, name);
	snprintf(trace, sizeof trace, "%s/%s.trace", TRACE_DIR, name);
	out = open_memstream(&is, &size);
	run_script(script, out);
	fclose(out);
	golden = fopen(trace, getenv("REEVE_GOLDEN_WRITE") ? "w+" : "r");
	if (!golden)
		fail_msg("%s is not there: run with REEVE_GOLDEN_WRITE=1", trace);
	if (getenv("REEVE_GOLDEN_WRITE")) {
		fwrite(is, 1, size, golden);
		rewind(golden);
	}
	len = fread(was, 1, sizeof was - 1, golden);
	was[len] = '\0';
	fclose(golden);
	assert_string_equal(is, was);
	free(is);
}

static void life_of_a_vm(void **state)
{
	(void)state;
	compare("life");
}

static void what_is_refused(void **state)
{
	(void)state;
	compare("refused");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(life_of_a_vm),
		cmocka_unit_test(what_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
