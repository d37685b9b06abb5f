/* pool-database-dump and pool-database-restore: a file here, the database there. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli/input.h"
#include "cli/print.h"
#include "cli/verbs.h"

enum { PIECE_BYTES = 512 << 10 };

static int file_failed(struct cli *cli, const char *verb, const char *path)
{
	fprintf(cli->err, "reeve: %s %s: %s\n", verb, path, strerror(errno));
	return CLI_REFUSED;
}

/* filename=; the rest of the words is refused. NULL: has been told. */
static const char *take_filename(struct cli *cli, const struct command *c, int *rc)
{
	const char *path = words_take(&cli->words, "filename");

	*rc = CLI_OK;
	if (!path || !*path) {
		*rc = input_needs(cli, "%s needs filename=", c->name);
		return NULL;
	}
	return path;
}

static const msgpack_object *map_get(const msgpack_object *map, const char *key)
{
	for (uint32_t i = 0; map->type == MSGPACK_OBJECT_MAP && i < map->via.map.size;
		i++) {
		const msgpack_object *k = &map->via.map.ptr[i].key;

		if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == strlen(key) &&
			memcmp(k->via.str.ptr, key, strlen(key)) == 0)
			return &map->via.map.ptr[i].val;
	}
	return NULL;
}

static void pack_text(struct params *p, const char *key, const char *text)
{
	if (*text)
		params_text(p, key, text);
}

static void pack_int(struct params *p, const char *key, uint64_t n)
{
	params_key(p, key);
	msgpack_pack_uint64(&p->pk, n);
}

/* --- making one --- */

struct taking {
	char id[64];
	uint64_t at, size;
	bool stale; /* also what this host has without the others */
};

static int odd_answer(struct cli *cli)
{
	fprintf(cli->err, "reeve: the daemon's answer makes no sense\n");
	return CLI_UNREACHABLE;
}

static int take_piece(struct cli *cli, struct taking *t, FILE *f, const char *path)
{
	const msgpack_object *value, *id, *size, *bytes;
	const struct value yes = value_bool(true);
	struct params p;
	int rc;

	params_init(&p);
	pack_text(&p, "id", t->id);
	pack_int(&p, "position", t->at);
	if (!t->at && !t->stale)
		params_value(&p, "consistent", &yes);
	rc = cli_call(cli, "pool.database_dump", &p, &value);
	params_fini(&p);
	if (rc)
		return rc;
	id = map_get(value, "id");
	size = map_get(value, "size");
	bytes = map_get(value, "bytes");
	if (!id || id->type != MSGPACK_OBJECT_STR || id->via.str.size >= sizeof t->id ||
		!size || size->type != MSGPACK_OBJECT_POSITIVE_INTEGER || !bytes ||
		bytes->type != MSGPACK_OBJECT_BIN || !bytes->via.bin.size ||
		bytes->via.bin.size > size->via.u64 - t->at)
		return odd_answer(cli);
	memcpy(t->id, id->via.str.ptr, id->via.str.size);
	t->id[id->via.str.size] = '\0';
	t->size = size->via.u64;
	t->at += bytes->via.bin.size;
	if (fwrite(bytes->via.bin.ptr, 1, bytes->via.bin.size, f) != bytes->via.bin.size)
		return file_failed(cli, "write", path);
	return CLI_OK;
}

/* Secrets are in it: for its owner alone. Never over another file. */
static int dump_to(struct cli *cli, const char *path, bool stale)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;
	struct taking t = {.stale = stale};
	int rc = CLI_OK;

	if (!f)
		return file_failed(cli, "make", path);
	do
		rc = take_piece(cli, &t, f, path);
	while (!rc && t.at < t.size);
	if (!rc && (fflush(f) || fsync(fd)))
		rc = file_failed(cli, "write", path);
	if (fclose(f) && !rc)
		rc = file_failed(cli, "write", path);
	if (rc)
		unlink(path);
	else
		fprintf(cli->err,
			"%llu bytes. Keep the file secret: it holds the pool's keys and "
			"passwords\n",
			(unsigned long long)t.size);
	return rc;
}

int verb_database_dump(struct cli *cli, const struct command *c)
{
	bool stale = false;
	int rc;
	const char *path = take_filename(cli, c, &rc);

	if (!rc)
		rc = input_flag(cli, "stale", &stale);
	if (!rc)
		rc = cli_check_used(cli, "filename=, stale=");
	if (!rc)
		rc = cli_connect(cli);
	return rc ? rc : dump_to(cli, path, stale);
}

/* --- putting one back --- */

static int give_piece(struct cli *cli, struct taking *t, const uint8_t *bytes, size_t len)
{
	const msgpack_object *value;
	struct params p;
	int rc;

	params_init(&p);
	pack_text(&p, "id", t->id);
	pack_int(&p, "position", t->at);
	params_key(&p, "piece");
	msgpack_pack_map(&p.pk, 1);
	msgpack_pack_str_with_body(&p.pk, "bytes", 5);
	msgpack_pack_bin_with_body(&p.pk, bytes, len);
	rc = cli_call(cli, "pool.database_upload", &p, &value);
	params_fini(&p);
	if (rc)
		return rc;
	if (value->type != MSGPACK_OBJECT_STR || value->via.str.size >= sizeof t->id)
		return odd_answer(cli);
	memcpy(t->id, value->via.str.ptr, value->via.str.size);
	t->id[value->via.str.size] = '\0';
	t->at += len;
	return CLI_OK;
}

static int give_file(struct cli *cli, struct taking *t, const char *path)
{
	FILE *f = fopen(path, "rbe");
	uint8_t *bytes = malloc(PIECE_BYTES);
	int rc = CLI_OK;
	size_t n;

	if (!f || !bytes) {
		rc = file_failed(cli, "read", path);
	} else {
		while (!rc && (n = fread(bytes, 1, PIECE_BYTES, f)) > 0)
			rc = give_piece(cli, t, bytes, n);
		if (!rc && ferror(f))
			rc = file_failed(cli, "read", path);
	}
	if (!rc && !t->at)
		rc = cli_usage(cli, "%s is empty", path);
	if (f)
		fclose(f);
	free(bytes);
	return rc;
}

static int restore(
	struct cli *cli, const struct taking *t, bool dry_run, bool force, char **account)
{
	const msgpack_object *value;
	struct value yes = value_bool(true);
	struct params p;
	int rc;

	params_init(&p);
	params_text(&p, "id", t->id);
	if (dry_run)
		params_value(&p, "dry_run", &yes);
	if (force)
		params_value(&p, "force", &yes);
	rc = dry_run ? cli_call(cli, "pool.database_restore", &p, &value)
		     : cli_change(cli, "pool.database_restore", &p, &value);
	params_fini(&p);
	if (!rc && value->type != MSGPACK_OBJECT_STR)
		rc = odd_answer(cli);
	if (!rc)
		*account = strndup(value->via.str.ptr, value->via.str.size);
	return rc;
}

static int ask(struct cli *cli, const char *account)
{
	char answer[16] = "";

	fputs("If the dump is restored, ", cli->err);
	/* Names in it are other people's. */
	for (const char *p = account; *p; p++)
		fputc((unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p, cli->err);
	if (!cli->in_tty || !cli->err_tty) {
		fputc('\n', cli->err);
		return cli_usage(cli, "nothing was done: say force=true where nobody can "
				      "be asked");
	}
	fputs(". Type 'yes' to go on: ", cli->err);
	fflush(cli->err);
	if (fgets(answer, sizeof answer, cli->in) && strcmp(answer, "yes\n") == 0)
		return CLI_OK;
	return cli_usage(cli, "nothing was done");
}

int verb_database_restore(struct cli *cli, const struct command *c)
{
	struct taking t = {.at = 0};
	char *account = NULL;
	bool force = false;
	int rc;
	const char *path = take_filename(cli, c, &rc);

	if (!rc)
		rc = input_flag(cli, "force", &force);
	if (!rc)
		rc = cli_check_used(cli, "filename=, force=");
	if (!rc)
		rc = cli_connect(cli);
	if (!rc)
		rc = give_file(cli, &t, path);
	if (!rc && !force) {
		rc = restore(cli, &t, true, force, &account);
		if (!rc)
			rc = ask(cli, account ? account : "");
		free(account);
		account = NULL;
	}
	if (!rc)
		rc = restore(cli, &t, false, force, &account);
	if (!rc && account) {
		fprintf(cli->out, "restored: ");
		print_text(cli, account, strlen(account));
		fputc('\n', cli->out);
	}
	free(account);
	return rc;
}
