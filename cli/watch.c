/* event-watch: changes as they happen. */
#include <string.h>
#include <time.h>

#include "cli/master.h"
#include "cli/print.h"
#include "cli/verbs.h"
#include "rpc/message.h"

enum { EVENT_WAIT_MS = 30000, EVENT_ANSWER_MS = 40000 };

static const char *text_of(const msgpack_object *o, size_t *len)
{
	if (!o || o->type != MSGPACK_OBJECT_STR) {
		*len = 0;
		return "";
	}
	*len = o->via.str.size;
	return o->via.str.ptr;
}

/* "09:30:01 mod VM 5f0e… web1" */
static void print_event(struct cli *cli, const msgpack_object *event)
{
	static const char *const keys[] = {"operation", "class", "uuid"};
	const msgpack_object *record;
	char clock[16];
	time_t now = time(NULL);
	struct tm local;
	size_t len;

	if (event->type != MSGPACK_OBJECT_MAP)
		return;
	if (cli->words.json) {
		print_json_object(cli->out, event);
		fputc('\n', cli->out);
		return;
	}
	strftime(clock, sizeof clock, "%H:%M:%S", localtime_r(&now, &local));
	fputs(clock, cli->out);
	for (size_t i = 0; i < 3; i++) {
		const char *text = text_of(rpc_map_get(event, keys[i]), &len);

		fputc(' ', cli->out);
		print_text(cli, text, len);
	}
	record = rpc_map_get(event, "record");
	if (record && record->type == MSGPACK_OBJECT_MAP) {
		const char *text = text_of(rpc_map_get(record, "name_label"), &len);

		fputc(' ', cli->out);
		print_text(cli, text, len);
	}
	fputc('\n', cli->out);
}

static int watch_once(struct cli *cli, const struct value *classes, char *token,
	size_t size, bool *fresh)
{
	const msgpack_object *value, *events, *o;
	struct rv_error e = {0};
	struct params p;
	bool began = *token != '\0';
	struct value wait = value_int(began ? EVENT_WAIT_MS : 0);
	int rc;

	params_init(&p);
	params_value(&p, "classes", classes);
	params_text(&p, "token", token);
	params_value(&p, "timeout_ms", &wait);
	rc = connect_call(&cli->connect, "event.from", &p, EVENT_ANSWER_MS, &value, &e);
	params_fini(&p);
	if (rc)
		return cli_call_failed(cli, &e);
	events = value->type == MSGPACK_OBJECT_MAP ? rpc_map_get(value, "events") : NULL;
	o = events ? rpc_map_get(value, "token") : NULL;
	if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size >= size ||
		events->type != MSGPACK_OBJECT_ARRAY) {
		rv_error_set(&e, RV_EPROTO, "event.from answered no token and events");
		return cli_refused(cli, &e);
	}
	memcpy(token, o->via.str.ptr, o->via.str.size);
	token[o->via.str.size] = '\0';
	o = rpc_map_get(value, "fresh");
	*fresh = o && o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
	if (*fresh && began)
		fputs("reeve: changes were missed: too many, or the database is another "
		      "one now\n",
			cli->err);
	/* What is there already is no event: `reeve CLASS-list` shows it. */
	for (uint32_t i = 0; !*fresh && i < events->via.array.size; i++)
		print_event(cli, &events->via.array.ptr[i]);
	fflush(cli->out);
	return CLI_OK;
}

int verb_event_watch(struct cli *cli)
{
	struct value classes = value_zero(VALUE_STRING_SET);
	char token[256] = "";
	const char *name;
	bool fresh;
	int rc = CLI_OK;

	while (!rc && (name = words_plain(&cli->words))) {
		const struct schema_class *cls =
			schema_class_by_typed(name, strlen(name));

		if (!cls)
			rc = cli_usage(cli,
				"there is no class '%.64s'; `reeve help` lists them",
				name);
		else if (value_set_add(&classes, cls->name, strlen(cls->name)))
			rc = cli_usage(cli,
				"event-watch: that is too many classes; name none to "
				"watch all");
	}
	if (!rc)
		rc = cli_check_used(cli, "names of classes");
	if (!rc)
		rc = cli_connect(cli);
	if (!rc)
		master_unwatch(cli);
	while (!rc && !ferror(cli->out))
		rc = watch_once(cli, &classes, token, sizeof token, &fresh);
	value_fini(&classes);
	return rc;
}
