/* Methods as commands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "cli/input.h"
#include "cli/master.h"
#include "cli/print.h"
#include "cli/task.h"
#include "cli/verbs.h"
#include "rpc/message.h"

static int print_result(struct cli *cli, const struct buf *result)
{
	size_t len = buf_len(result);

	if (!len)
		return CLI_OK;
	if (cli->words.json)
		print_json_text(cli->out, (const char *)buf_data(result), len);
	else
		print_text(cli, (const char *)buf_data(result), len);
	fputc('\n', cli->out);
	return CLI_OK;
}

static int invoke_task(struct cli *cli, const struct schema_method *m, struct params *p)
{
	struct buf result;
	int rc;

	buf_init(&result, RV_MAX_RPC_MESSAGE_BYTES);
	rc = task_run(cli, m, p, &result);
	if (!rc)
		rc = print_result(cli, &result);
	buf_fini(&result);
	return rc;
}

/* As an exit status: whether anything is to be mended before VMs are trusted to it. */
static int check_status(const msgpack_object *findings)
{
	if (findings->type != MSGPACK_OBJECT_ARRAY)
		return CLI_OK;
	for (uint32_t i = 0; i < findings->via.array.size; i++) {
		const msgpack_object *grade =
			rpc_map_get(&findings->via.array.ptr[i], "grade");

		if (grade && grade->type == MSGPACK_OBJECT_STR &&
			grade->via.str.size == strlen("wrong") &&
			memcmp(grade->via.str.ptr, "wrong", strlen("wrong")) == 0)
			return CLI_REFUSED;
	}
	return CLI_OK;
}

/* It answers when something has happened, or its own time is over. */
static bool is_long_poll(const struct schema_method *m)
{
	return m->mode == MODE_SYNC &&
	       schema_arg_by_name(m, "timeout_ms", strlen("timeout_ms"));
}

static int invoke_sync(struct cli *cli, const struct schema_method *m, struct params *p)
{
	const msgpack_object *value;
	char method[NAME_TYPED_MAX];
	int rc = cli_connect(cli);

	if (rc)
		return rc;
	if (is_long_poll(m))
		master_unwatch(cli);
	snprintf(method, sizeof method, "%s.%s", m->group, m->name);
	rc = m->role == ROLE_READ_ONLY ? cli_call(cli, method, p, &value)
				       : cli_change(cli, method, p, &value);
	if (!rc)
		rc = print_object(cli, value);
	return !rc && m->id == METHOD_HOST_CHECK ? check_status(value) : rc;
}

static int invoke(struct cli *cli, const struct schema_method *m, struct params *p)
{
	return m->mode == MODE_TASK ? invoke_task(cli, m, p) : invoke_sync(cli, m, p);
}

/* What can't be taken back: somebody has to say yes. */
static int confirm(struct cli *cli, const struct command *c)
{
	char answer[16] = "";

	if (!cli->in_tty || !cli->err_tty)
		return cli_usage(cli,
			"%s asks before it %s: say force=true where nobody can be asked",
			c->name,
			c->warns ? "does what can do harm"
				 : "destroys what can't be had back");
	if (c->warns)
		fprintf(cli->err, "%s Type 'yes' to go on: ", c->warns);
	else
		fprintf(cli->err,
			"%s will be destroyed. Type 'yes' to go on: ", c->destroys);
	fflush(cli->err);
	if (fgets(answer, sizeof answer, cli->in) && strcmp(answer, "yes\n") == 0)
		return CLI_OK;
	return cli_usage(cli, "nothing was done");
}

int verb_method(struct cli *cli, const struct command *c)
{
	const struct schema_method *m = c->method;
	bool force = false;
	struct params p;
	int rc = CLI_OK;

	if (c->forced || c->destroys || c->warns)
		rc = input_flag(cli, "force", &force);
	if (rc)
		return rc;
	if (c->forced && force)
		m = c->forced;
	params_init(&p);
	if (c->uninstall) {
		const struct value yes = value_bool(true);

		params_value(&p, "disks", &yes);
	}
	rc = input_params(cli, c, m, &p);
	if (!rc && (c->destroys || c->warns) && !force)
		rc = confirm(cli, c);
	if (!rc)
		rc = invoke(cli, m, &p);
	params_fini(&p);
	return rc;
}

/* --- vm-install: a clone of a template, with disks --- */

struct install {
	struct uuid template, sr;
	const char *name;
};

static int install_read(struct cli *cli, struct install *in)
{
	const char *template = words_take(&cli->words, "template");
	const char *sr = words_take(&cli->words, "sr");
	int rc;

	if (!template)
		template = words_take(&cli->words, "template-uuid");
	if (!sr)
		sr = words_take(&cli->words, "sr-uuid");
	in->name = words_take(&cli->words, "new-name-label");
	if (!in->name)
		in->name = words_take(&cli->words, "new-name");
	if (!template || !in->name)
		return input_needs(cli, "vm-install needs template= and new-name-label=");
	rc = cli_check_used(cli, "template=, new-name-label=, sr=");
	if (!rc)
		rc = input_object(
			cli, schema_class(CLASS_VM), "template", template, &in->template);
	if (!rc && sr)
		rc = input_object(cli, schema_class(CLASS_SR), "sr", sr, &in->sr);
	return rc;
}

static int install_step(struct cli *cli, enum schema_method_id id,
	const struct install *in, const struct uuid *self, struct buf *result)
{
	struct params p;
	int rc;

	params_init(&p);
	params_uuid(&p, "self", self);
	if (id == METHOD_VM_CLONE)
		params_text(&p, "new_name", in->name);
	if (id != METHOD_VM_DESTROY && !uuid_is_none(&in->sr))
		params_uuid(&p, "sr", &in->sr);
	rc = task_run(cli, schema_method(id), &p, result);
	params_fini(&p);
	return rc;
}

int verb_vm_install(struct cli *cli, const struct command *c)
{
	struct install in = {.name = NULL};
	struct buf result, ignored;
	struct uuid vm;
	int rc = install_read(cli, &in);

	(void)c;
	if (rc)
		return rc;
	cli->words.async = false; /* two steps: somebody has to begin the second */
	buf_init(&result, RV_MAX_RPC_MESSAGE_BYTES);
	buf_init(&ignored, RV_MAX_RPC_MESSAGE_BYTES);
	rc = install_step(cli, METHOD_VM_CLONE, &in, &in.template, &result);
	if (!rc && uuid_parse(&vm, (const char *)buf_data(&result), buf_len(&result)))
		rc = cli_usage(cli, "the host did not say which VM it made; see vm-list");
	if (!rc) {
		rc = install_step(cli, METHOD_VM_PROVISION, &in, &vm, &ignored);
		/* Half a VM helps nobody; the failure has been told. */
		if (rc == CLI_REFUSED &&
			install_step(cli, METHOD_VM_DESTROY, &in, &vm, &ignored))
			cli_note(cli,
				"VM %.128s was made, but not its disks; destroy it with "
				"vm-destroy",
				in.name);
	}
	if (!rc)
		rc = print_result(cli, &result);
	buf_fini(&ignored);
	buf_fini(&result);
	return rc;
}

int verb_task_wait(struct cli *cli, const struct command *c)
{
	struct buf result;
	struct uuid task;
	int rc = input_self(cli, c->cls, &task);

	if (!rc)
		rc = cli_check_used(cli, "task=");
	if (rc)
		return rc;
	buf_init(&result, RV_MAX_RPC_MESSAGE_BYTES);
	rc = task_await(cli, &task, "task-wait", &result);
	if (!rc)
		rc = print_result(cli, &result);
	buf_fini(&result);
	return rc;
}
