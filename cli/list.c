/* <class>-list. */
#include <stdlib.h>
#include <string.h>

#include "cli/input.h"
#include "cli/print.h"
#include "cli/records.h"
#include "cli/verbs.h"
#include "rpc/message.h"

const struct schema_field *verb_field(
	struct cli *cli, const struct schema_class *cls, const char *typed, size_t len)
{
	const struct schema_field *f = schema_field_by_typed(cls, typed, len);
	char name[NAME_TYPED_MAX], text[300];
	struct name_guess guess;

	if (f && !f->secret)
		return f;
	name_guess_init(&guess, typed, len);
	for (int i = 0; i < cls->field_count; i++)
		if (!cls->fields[i].secret)
			name_guess_try(&guess, name_typed(cls->fields[i].name, false,
						       name, sizeof name));
	name_guess_text(&guess, text, sizeof text);
	if (text[0])
		cli_usage(cli, "class %s has no field '%.*s'%s", cls->name,
			(int)(len < 64 ? len : 64), typed, text);
	else
		cli_usage(cli, "class %s has no field '%.*s'; `reeve help %s` lists them",
			cls->name, (int)(len < 64 ? len : 64), typed,
			command_self_key(cls, name));
	return NULL;
}

/* --- what to show --- */

/* What a list shows where nobody says otherwise. */
static const struct {
	enum schema_class_id cls;
	enum schema_field_id fields[6];
} columns[] = {
	{CLASS_POOL, {POOL_NAME_LABEL, POOL_MASTER, POOL_DEFAULT_SR}},
	{CLASS_HOST, {HOST_NAME_LABEL, HOST_ENABLED, HOST_LIVE, HOST_ADDRESS}},
	{CLASS_VM, {VM_NAME_LABEL, VM_POWER_STATE}},
	{CLASS_SR, {SR_NAME_LABEL, SR_TYPE, SR_SHARED}},
	{CLASS_VDI, {VDI_NAME_LABEL, VDI_SR, VDI_VIRTUAL_SIZE, VDI_FORMAT}},
	{CLASS_VBD, {VBD_VM, VBD_VDI, VBD_USERDEVICE, VBD_TYPE, VBD_CURRENTLY_ATTACHED}},
	{CLASS_PBD, {PBD_HOST, PBD_SR, PBD_CURRENTLY_ATTACHED}},
	{CLASS_NETWORK, {NETWORK_NAME_LABEL, NETWORK_BRIDGE}},
	{CLASS_PIF, {PIF_HOST, PIF_DEVICE, PIF_NETWORK, PIF_CURRENTLY_ATTACHED}},
	{CLASS_VIF, {VIF_VM, VIF_NETWORK, VIF_DEVICE, VIF_MAC, VIF_CURRENTLY_ATTACHED}},
	{CLASS_BOND, {BOND_MASTER, BOND_MODE}},
	{CLASS_VLAN, {VLAN_TAG, VLAN_TAGGED_PIF, VLAN_UNTAGGED_PIF}},
	{CLASS_TASK, {TASK_NAME_LABEL, TASK_STATUS, TASK_PROGRESS, TASK_CREATED}},
	{CLASS_MESSAGE,
		{MESSAGE_TIMESTAMP, MESSAGE_PRIORITY, MESSAGE_NAME, MESSAGE_BODY}},
	{CLASS_CONSOLE, {CONSOLE_VM, CONSOLE_PROTOCOL, CONSOLE_LOCATION}},
	{CLASS_USER, {USER_NAME_LABEL, USER_ROLE, USER_ENABLED}},
	{CLASS_ROLE, {ROLE_NAME_LABEL, ROLE_NAME_DESCRIPTION}},
};

static void want_all(struct records *r)
{
	for (int i = 0; i < r->cls->field_count; i++)
		if (!r->cls->fields[i].secret)
			records_want(r, &r->cls->fields[i]);
}

static void want_default(struct records *r)
{
	records_want(r, &r->cls->fields[0]); /* the uuid */
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
		if (columns[i].cls != r->cls->id)
			continue;
		for (int j = 0; j < 6 && columns[i].fields[j] != FIELD_NONE; j++)
			records_want(r, schema_field(columns[i].fields[j]));
	}
}

/* params=a,b; *all: every field, so that the call needs no projection. */
static int want_params(struct cli *cli, struct records *r, const char *text, bool *all)
{
	while (*text) {
		size_t len = strcspn(text, ",");
		const struct schema_field *f;

		if (len == 3 && memcmp(text, "all", 3) == 0) {
			want_all(r);
			*all = true;
		} else if (len) {
			f = verb_field(cli, r->cls, text, len);
			if (!f)
				return CLI_USAGE;
			records_want(r, f);
		}
		text += len + (text[len] == ',');
	}
	if (!r->field_count)
		return cli_usage(cli, "params= needs names of fields, or all");
	return CLI_OK;
}

/* --- filters --- */

enum { MAX_FILTERS = 32 };

static int filter_read(struct cli *cli, const struct schema_class *cls, struct word *w,
	struct filter *out)
{
	char key[NAME_TYPED_MAX];
	const struct schema_field *f;
	struct input in;
	size_t len = w->key_len;

	w->used = true;
	/* xe's sr-uuid= for a field that holds an SR. */
	if (len > 5 && name_is(w->key + len - 5, 5, "-uuid") &&
		!schema_field_by_typed(cls, w->key, len))
		len -= 5;
	if (!schema_field_by_typed(cls, w->key, len) && schema_name_field(cls) &&
		name_is(w->key, len, command_self_key(cls, key)))
		return cli_usage(cli,
			"%s has no %s=; to find one: name-label=%.64s, or uuid=",
			cli->words.command, key, w->value);
	f = verb_field(cli, cls, w->key, len);
	if (!f)
		return CLI_USAGE;
	in = input_of_field(f, name_typed(f->name, false, key, sizeof key));
	*out = (struct filter){.field = f, .key = w->sub, .key_len = w->sub_len};
	if (w->sub && f->type != VALUE_STRING_MAP)
		return cli_usage(
			cli, "%s is no map and has no keys: say %s=VALUE", key, key);
	if (f->key)
		in.ref_class = cls->id;
	if (w->sub || f->type == VALUE_STRING_SET)
		in.type = VALUE_STRING;
	if (f->type == VALUE_REF_SET)
		in.type = VALUE_REF;
	return input_value(cli, &in, w->value, &out->value);
}

static int filters_read(
	struct cli *cli, const struct command *c, struct filter *filters, int *count)
{
	bool template_said = false;

	for (int i = 0; i < cli->words.count; i++) {
		struct word *w = &cli->words.list[i];
		int rc;

		if (w->used)
			continue;
		if (!w->key)
			return cli_usage(cli, "%s: '%.64s' does not read field=value",
				c->name, w->value);
		if (*count >= MAX_FILTERS - 2)
			return cli_usage(cli,
				"%s: more than %d field=value words; leave some out",
				c->name, MAX_FILTERS - 2);
		rc = filter_read(cli, c->cls, w, &filters[(*count)++]);
		if (rc)
			return rc;
		template_said |= filters[*count - 1].field->id == VM_IS_A_TEMPLATE ||
				 filters[*count - 1].field->id == VM_UUID;
	}
	/* As xe does: templates are listed apart. */
	if (c->cls->id == CLASS_VM && !template_said) {
		filters[(*count)++] =
			(struct filter){.field = schema_field(VM_IS_A_TEMPLATE),
				.value = value_bool(c->templates)};
	}
	return CLI_OK;
}

/* --- names for UUIDs in tables --- */

struct names {
	struct records list[CLASS_COUNT]; /* with the name alone; cls NULL: not fetched */
};

static int name_compare(const void *a, const void *b)
{
	return uuid_cmp(
		&((const struct record *)a)->uuid, &((const struct record *)b)->uuid);
}

static const char *name_of(void *arg, enum schema_class_id cls, const struct uuid *uuid)
{
	struct names *names = arg;
	struct records *r = &names->list[cls];
	const struct record *found, key = {.uuid = *uuid};
	const char *text;

	if (!r->cls || !r->count)
		return NULL;
	found = bsearch(&key, r->list, (size_t)r->count, sizeof *r->list, name_compare);
	text = found ? value_get_string(&found->values[0]) : "";
	return *text ? text : NULL;
}

static int records_call(struct cli *cli, struct records *r, bool all)
{
	const msgpack_object *value;
	struct rv_error e = {0};
	char method[NAME_TYPED_MAX];
	struct params p;
	int rc;

	params_init(&p);
	if (!all) {
		params_key(&p, "fields");
		msgpack_pack_array(&p.pk, (size_t)r->field_count);
		for (int i = 0; i < r->field_count; i++)
			rpc_pack_key(&p.pk, r->fields[i]->name);
	}
	snprintf(method, sizeof method, "%s.get_all_records", r->cls->name);
	rc = cli_call(cli, method, &p, &value);
	params_fini(&p);
	if (rc)
		return rc;
	return records_take(r, value, &e) ? cli_refused(cli, &e) : CLI_OK;
}

/* Whether a record names an object of the field's class. */
static bool any_ref(const struct records *r, int field)
{
	for (int i = 0; i < r->count; i++)
		if (!value_is_zero(&r->list[i].values[field]))
			return true;
	return false;
}

static int names_fetch(struct cli *cli, const struct records *r, struct names *names)
{
	for (int i = 0; i < r->shown; i++) {
		const struct schema_field *f = r->fields[i];
		const struct schema_class *cls;
		struct records *list;
		int rc;

		if (f->key || f->ref_class == CLASS_NONE || !any_ref(r, i))
			continue;
		cls = schema_class(f->ref_class);
		list = &names->list[f->ref_class];
		if (list->cls || !schema_name_field(cls))
			continue;
		records_init(list, cls);
		records_want(list, schema_name_field(cls));
		rc = records_call(cli, list, false);
		if (rc)
			return rc;
		qsort(list->list, (size_t)list->count, sizeof *list->list, name_compare);
	}
	return CLI_OK;
}

static int list_table(struct cli *cli, const struct records *r)
{
	struct names *names = calloc(1, sizeof *names);
	struct rv_error e = {0};
	int rc;

	if (!names) {
		rv_error_set(&e, RV_ENOMEM, "out of memory");
		return cli_refused(cli, &e);
	}
	rc = names_fetch(cli, r, names);
	if (!rc)
		rc = print_table(cli, r, name_of, names);
	for (int i = 0; i < CLASS_COUNT; i++)
		records_fini(&names->list[i]);
	free(names);
	return rc;
}

/* --- the command --- */

static int list_print(struct cli *cli, const struct records *r, bool params)
{
	if (cli->words.json)
		return print_json_records(cli, r);
	if (cli->words.minimal)
		return print_minimal(cli, r);
	if (params || cli->out_tty)
		return list_table(cli, r);
	return print_records(cli, r);
}

int verb_list(struct cli *cli, const struct command *c)
{
	const char *params = words_take(&cli->words, "params");
	struct filter filters[MAX_FILTERS];
	struct records r;
	bool all = false;
	int count = 0, rc;

	records_init(&r, c->cls);
	if (params) {
		rc = want_params(cli, &r, params, &all);
	} else {
		all = cli->words.json;
		if (all)
			want_all(&r);
		else if (cli->words.minimal)
			records_want(&r, &c->cls->fields[0]);
		else
			want_default(&r);
		rc = CLI_OK;
	}
	r.shown = r.field_count;
	if (!rc)
		rc = filters_read(cli, c, filters, &count);
	for (int i = 0; i < count; i++)
		records_want(&r, filters[i].field);
	if (records_order(c->cls))
		records_want(&r, records_order(c->cls));
	if (!rc)
		rc = records_call(cli, &r, all);
	if (!rc) {
		records_filter(&r, filters, count);
		records_sort(&r);
		rc = list_print(cli, &r, params != NULL);
	}
	for (int i = 0; i < count; i++)
		value_fini(&filters[i].value);
	records_fini(&r);
	return rc;
}
