/*
 * The grammar (tools/libs/util's libxlu_cfg_y.y of Xen 4.17): assignments
 * `name = value` or `name += value`, ended by a newline or `;`; a value is a string, a
 * number, or a list of them in brackets, over several lines. `#` begins a comment.
 */
#include "daemon/xl_config.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/xl_devices.h"

enum { ITEM_SIZE = 1100, KEY_SIZE = 64 };

struct parser {
	const char *at, *end;
	int line;
	struct xl_config *out;
	struct rv_error *e;
	char key[KEY_SIZE];
	/* The value at hand. */
	bool is_list;
	size_t count;
	char items[XL_CONFIG_MAX_ITEMS][ITEM_SIZE];
	char root[XL_CONFIG_PATH_SIZE], extra[XL_CONFIG_ARGS_SIZE];
	bool has_cmdline;
};

void xl_config_note(struct xl_config *c, const char *fmt, ...)
{
	char *out;
	va_list ap;

	if (c->note_count == XL_CONFIG_MAX_NOTES) {
		snprintf(c->notes[XL_CONFIG_MAX_NOTES - 1], XL_CONFIG_NOTE_SIZE,
			"there is more that was not taken");
		return;
	}
	out = c->notes[c->note_count++];
	va_start(ap, fmt);
	vsnprintf(out, XL_CONFIG_NOTE_SIZE, fmt, ap);
	va_end(ap);
	/* It is told to a terminal; a character may have been cut in two. */
	for (; *out; out++)
		if ((unsigned char)*out < ' ' || (unsigned char)*out > '~')
			*out = '?';
}

static int bad(struct parser *p, const char *what)
{
	return rv_error_set(p->e, RV_EINVAL, "line %d: %s", p->line, what);
}

/* --- words --- */

static bool at_end(const struct parser *p)
{
	return p->at == p->end;
}

/* Blanks and comments; newlines too with `lines`. */
static void skip(struct parser *p, bool lines)
{
	for (; !at_end(p); p->at++) {
		if (*p->at == '#') {
			while (p->at + 1 < p->end && p->at[1] != '\n')
				p->at++;
		} else if (*p->at == '\n') {
			if (!lines)
				return;
			p->line++;
		} else if (*p->at != ' ' && *p->at != '\t' && *p->at != '\r') {
			return;
		}
	}
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What follows a backslash (xlu__cfgl_dequote). -1: no character. */
static int escape(struct parser *p)
{
	static const char from[] = "abefnrtv\\\"'?", to[] = "\a\b\033\f\n\r\t\v\\\"'?";
	const char *found;
	int value = 0, digits = 0;

	if (at_end(p))
		return -1;
	if (*p->at == 'x') {
		for (p->at++; !at_end(p) && digits < 2 && hex(*p->at) >= 0; digits++)
			value = value * 16 + hex(*p->at++);
		return digits ? value : -1;
	}
	for (; !at_end(p) && digits < 3 && *p->at >= '0' && *p->at <= '7'; digits++)
		value = value * 8 + (*p->at++ - '0');
	if (digits)
		return value;
	found = strchr(from, *p->at);
	if (!found || !*p->at)
		return -1;
	p->at++;
	return to[found - from];
}

static int quoted(struct parser *p, char *out)
{
	char quote = *p->at++;
	size_t len = 0;

	while (!at_end(p) && *p->at != quote) {
		int c = (unsigned char)*p->at++;

		if (c == '\n')
			return bad(p, "a string does not end");
		if (c == '\\')
			c = escape(p);
		if (c < ' ' || c == 127)
			return bad(p, "a string has a control character, or a backslash "
				      "before what it does not go with");
		if (len == ITEM_SIZE - 1)
			return bad(p, "a string is too long");
		out[len++] = (char)c;
	}
	if (at_end(p))
		return bad(p, "a string does not end");
	p->at++;
	out[len] = '\0';
	return 0;
}

static int bare(struct parser *p, char *out)
{
	size_t len = 0;

	while (!at_end(p) &&
		(isalnum((unsigned char)*p->at) || strchr("_.-/:", *p->at)) && *p->at) {
		if (len == ITEM_SIZE - 1)
			return bad(p, "a word is too long");
		out[len++] = *p->at++;
	}
	out[len] = '\0';
	return len ? 0 : bad(p, "a value is expected: a string, a number or a list");
}

static int item(struct parser *p)
{
	char *out;

	if (p->count == XL_CONFIG_MAX_ITEMS)
		return bad(p, "a list is too long");
	out = p->items[p->count++];
	return !at_end(p) && (*p->at == '"' || *p->at == '\'') ? quoted(p, out)
							       : bare(p, out);
}

static int list(struct parser *p)
{
	int rc = 0;

	p->at++;
	for (skip(p, true); !at_end(p) && *p->at != ']'; skip(p, true)) {
		if (*p->at == '[')
			return bad(p, "lists in lists are not taken; write strings");
		rc = item(p);
		if (rc)
			return rc;
		skip(p, true);
		if (!at_end(p) && *p->at == ',')
			p->at++;
		else if (!at_end(p) && *p->at != ']')
			return bad(p, "a list's elements are separated by commas");
	}
	if (at_end(p))
		return bad(p, "a list does not end");
	p->at++;
	return 0;
}

/* --- keys --- */

typedef int key_fn(struct parser *p);

static const char *one(const struct parser *p)
{
	return p->count ? p->items[0] : "";
}

static int text_of(struct parser *p, char *out, size_t size)
{
	if (p->is_list)
		return rv_error_set(
			p->e, RV_EINVAL, "line %d: %s is no list", p->line, p->key);
	if (strlen(one(p)) >= size)
		return rv_error_set(p->e, RV_ETOOBIG,
			"line %d: %s has more than %zu bytes", p->line, p->key, size - 1);
	snprintf(out, size, "%s", one(p));
	return 0;
}

static int number_of(struct parser *p, uint64_t max, uint64_t *out)
{
	char *end;

	if (p->is_list || !isdigit((unsigned char)one(p)[0]))
		return rv_error_set(
			p->e, RV_EINVAL, "line %d: %s is no number", p->line, p->key);
	*out = strtoull(one(p), &end, 0);
	if (*end || *out > max)
		return rv_error_set(p->e, RV_EINVAL,
			"line %d: %s is no number up to %llu", p->line, p->key,
			(unsigned long long)max);
	return 0;
}

static int small_number_of(struct parser *p, uint64_t max, uint32_t *out)
{
	uint64_t n = 0;
	int rc = number_of(p, max, &n);

	*out = (uint32_t)n;
	return rc;
}

static int key_name(struct parser *p)
{
	return text_of(p, p->out->name, sizeof p->out->name);
}

static int key_type(struct parser *p)
{
	static const char *const names[] = {"pv", "pvh", "hvm"};

	if (strcmp(p->key, "builder") == 0) /* of old: "hvm", or nothing of use */
		p->out->type = strcmp(one(p), "hvm") == 0 ? HYPER_HVM : HYPER_PV;
	else if (strcmp(p->key, "pvh") == 0)
		p->out->type = strcmp(one(p), "0") == 0 ? HYPER_PV : HYPER_PVH;
	else
		for (int i = 0;; i++) {
			if (i == 3)
				return bad(p, "type is pv, pvh or hvm");
			if (strcmp(one(p), names[i]) != 0)
				continue;
			p->out->type = (enum hyper_type)i;
			break;
		}
	p->out->has_type = true;
	return 0;
}

static int key_memory(struct parser *p)
{
	return number_of(p, UINT64_C(64) << 20, &p->out->memory_mib);
}

static int key_maxmem(struct parser *p)
{
	return number_of(p, UINT64_C(64) << 20, &p->out->maxmem_mib);
}

static int key_vcpus(struct parser *p)
{
	return small_number_of(p, HYPER_MAX_VCPUS, &p->out->vcpus);
}

static int key_maxvcpus(struct parser *p)
{
	return small_number_of(p, HYPER_MAX_VCPUS, &p->out->maxvcpus);
}

static int key_cpu_weight(struct parser *p)
{
	return small_number_of(p, 65535, &p->out->cpu_weight);
}

static int key_cap(struct parser *p)
{
	return small_number_of(p, HYPER_MAX_VCPUS * 100, &p->out->cpu_cap);
}

static int key_kernel(struct parser *p)
{
	return text_of(p, p->out->kernel, sizeof p->out->kernel);
}

static int key_ramdisk(struct parser *p)
{
	return text_of(p, p->out->ramdisk, sizeof p->out->ramdisk);
}

static int key_cmdline(struct parser *p)
{
	p->has_cmdline = true;
	return text_of(p, p->out->cmdline, sizeof p->out->cmdline);
}

static int key_root(struct parser *p)
{
	return text_of(p, p->root, sizeof p->root);
}

static int key_extra(struct parser *p)
{
	return text_of(p, p->extra, sizeof p->extra);
}

static int key_bootloader(struct parser *p)
{
	return text_of(p, p->out->bootloader, sizeof p->out->bootloader);
}

static int key_bootloader_args(struct parser *p)
{
	char *out = p->out->bootloader_args;
	size_t used = 0, size = sizeof p->out->bootloader_args;

	out[0] = '\0';
	for (size_t i = 0; i < p->count; i++) {
		used += (size_t)snprintf(
			out + used, size - used, "%s%s", i ? " " : "", p->items[i]);
		if (used >= size)
			return bad(p, "bootloader_args is too long");
	}
	return 0;
}

static int key_boot(struct parser *p)
{
	return text_of(p, p->out->boot, sizeof p->out->boot);
}

static int key_firmware(struct parser *p)
{
	return text_of(p, p->out->firmware, sizeof p->out->firmware);
}

/* What Reeve can't do comes nearest to what is said here. */
static int key_on(struct parser *p)
{
	static const struct {
		const char *name;
		enum hyper_on_exit what;
		bool same;
	} actions[] = {
		{"destroy", HYPER_ON_EXIT_DESTROY, true},
		{"restart", HYPER_ON_EXIT_RESTART, true},
		{"preserve", HYPER_ON_EXIT_PRESERVE, true},
		{"rename-restart", HYPER_ON_EXIT_RESTART, false},
		{"coredump-destroy", HYPER_ON_EXIT_DESTROY, false},
		{"coredump-restart", HYPER_ON_EXIT_RESTART, false},
		{"soft-reset", HYPER_ON_EXIT_RESTART, false},
	};
	enum hyper_on_exit *out = &p->out->on_crash;

	if (strcmp(p->key, "on_poweroff") == 0)
		out = &p->out->on_poweroff;
	else if (strcmp(p->key, "on_reboot") == 0)
		out = &p->out->on_reboot;
	for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
		if (strcmp(one(p), actions[i].name) != 0)
			continue;
		*out = actions[i].what;
		if (!actions[i].same)
			xl_config_note(p->out,
				"%s=%s: Reeve does not do that; taken as %s", p->key,
				one(p),
				*out == HYPER_ON_EXIT_RESTART ? "restart" : "destroy");
		return 0;
	}
	return rv_error_set(p->e, RV_EINVAL, "line %d: %s: no action is called '%.40s'",
		p->line, p->key, one(p));
}

static int key_disk(struct parser *p)
{
	int rc = 0;

	for (size_t i = 0; i < p->count && !rc; i++)
		rc = xl_disk_parse(p->out, p->items[i], p->line, p->e);
	return rc;
}

static int key_vif(struct parser *p)
{
	int rc = 0;

	for (size_t i = 0; i < p->count && !rc; i++)
		rc = xl_vif_parse(p->out, p->items[i], p->line, p->e);
	return rc;
}

/* The domain's own UUID: each of ours has another. Where its console goes: ours has one.
 */
static int key_ignored(struct parser *p)
{
	(void)p;
	return 0;
}

static const struct {
	const char *name;
	key_fn *fn;
	bool list;
} keys[] = {
	{"name", key_name, false},
	{"type", key_type, false},
	{"builder", key_type, false},
	{"pvh", key_type, false},
	{"memory", key_memory, false},
	{"maxmem", key_maxmem, false},
	{"vcpus", key_vcpus, false},
	{"maxvcpus", key_maxvcpus, false},
	{"cpu_weight", key_cpu_weight, false},
	{"cap", key_cap, false},
	{"kernel", key_kernel, false},
	{"ramdisk", key_ramdisk, false},
	{"cmdline", key_cmdline, false},
	{"root", key_root, false},
	{"extra", key_extra, false},
	{"bootloader", key_bootloader, false},
	{"bootloader_args", key_bootloader_args, true},
	{"boot", key_boot, false},
	{"firmware", key_firmware, false},
	{"on_poweroff", key_on, false},
	{"on_reboot", key_on, false},
	{"on_crash", key_on, false},
	{"disk", key_disk, true},
	{"vif", key_vif, true},
	{"uuid", key_ignored, false},
	{"serial", key_ignored, false},
};

static int assigned(struct parser *p, bool add)
{
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		if (strcmp(p->key, keys[i].name) != 0)
			continue;
		if (p->is_list && !keys[i].list)
			return rv_error_set(p->e, RV_EINVAL, "line %d: %s is no list",
				p->line, p->key);
		if (!add && keys[i].fn == key_disk)
			p->out->disk_count = 0;
		if (!add && keys[i].fn == key_vif)
			p->out->vif_count = 0;
		return keys[i].fn(p);
	}
	xl_config_note(p->out, "%s: not taken (line %d)", p->key, p->line);
	return 0;
}

/* --- the file --- */

static int assignment(struct parser *p)
{
	bool add = false;
	size_t len = 0;
	int rc;

	while (!at_end(p) && (isalnum((unsigned char)*p->at) || *p->at == '_')) {
		if (len == KEY_SIZE - 1)
			return bad(p, "a key is too long");
		p->key[len++] = *p->at++;
	}
	p->key[len] = '\0';
	if (!len || isdigit((unsigned char)p->key[0]))
		return bad(p, "a line reads key = value");
	skip(p, false);
	if (p->end - p->at >= 2 && p->at[0] == '+' && p->at[1] == '=') {
		add = true;
		p->at++;
	}
	if (at_end(p) || *p->at != '=')
		return bad(p, "a line reads key = value");
	p->at++;
	skip(p, false);
	p->count = 0;
	p->is_list = !at_end(p) && *p->at == '[';
	rc = p->is_list ? list(p) : item(p);
	if (rc)
		return rc;
	skip(p, false);
	if (!at_end(p) && *p->at != '\n' && *p->at != ';')
		return bad(p, "something follows the value (older files were programs; "
			      "write what it comes to)");
	return assigned(p, add);
}

/* As xl does: cmdline, or root= and extra= together. */
static int finish(struct parser *p)
{
	struct xl_config *c = p->out;

	if (!c->name[0])
		return rv_error_set(p->e, RV_EINVAL, "name is missing");
	if (p->has_cmdline) {
		if (p->root[0] || p->extra[0])
			xl_config_note(c, "root and extra: not taken, since cmdline is "
					  "there (as xl does)");
	} else if (p->root[0] || p->extra[0]) {
		int n = snprintf(c->cmdline, sizeof c->cmdline, "%s%s%s%s",
			p->root[0] ? "root=" : "", p->root,
			p->root[0] && p->extra[0] ? " " : "", p->extra);

		if (n < 0 || (size_t)n >= sizeof c->cmdline)
			return rv_error_set(p->e, RV_ETOOBIG,
				"root and extra together have more than %zu bytes",
				sizeof c->cmdline - 1);
	}
	if (!c->has_type) /* as libxl of 4.17 */
		c->type = HYPER_PV;
	if (c->maxmem_mib && c->memory_mib > c->maxmem_mib)
		return rv_error_set(p->e, RV_EINVAL, "memory is more than maxmem");
	return 0;
}

int xl_config_parse(
	struct xl_config *out, const char *text, size_t len, struct rv_error *e)
{
	struct parser *p;
	int rc = 0;

	memset(out, 0, sizeof *out);
	out->on_reboot = HYPER_ON_EXIT_RESTART;
	if (len > XL_CONFIG_TEXT_MAX)
		return rv_error_set(e, RV_ETOOBIG,
			"a configuration has at most %d bytes, this one %zu",
			XL_CONFIG_TEXT_MAX, len);
	p = calloc(1, sizeof *p);
	if (!p)
		return rv_error_set(e, RV_ENOMEM, "no memory to read a configuration");
	*p = (struct parser){
		.at = text, .end = text + len, .line = 1, .out = out, .e = e};
	while (!rc) {
		skip(p, true);
		while (!at_end(p) && *p->at == ';') {
			p->at++;
			skip(p, true);
		}
		if (at_end(p))
			break;
		rc = assignment(p);
	}
	if (!rc)
		rc = finish(p);
	free(p);
	return rc;
}
