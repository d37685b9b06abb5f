/*
 * console: a VM's console in this terminal.
 *
 * Two connections: one reads in a thread of its own, waiting for what the guest writes;
 * the other carries what is typed. Both are plain calls, so it works from any machine and
 * through any host of the pool, while the VM reboots and when it has moved.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/input.h"
#include "cli/verbs.h"
#include "rpc/message.h"

enum {
	CONSOLE_WAIT_MS = 1000, /* of one reading: how long ending may take */
	CONSOLE_ANSWER_MS = 15000,
	CONSOLE_LOOK_MS = 100,
	CONSOLE_QUIET_MS = 2000, /* after the end of piped input */
	CONSOLE_RETRY_US = 300 * 1000,
	CONSOLE_ESCAPE = 0x1d, /* Ctrl-] */
	CONSOLE_TYPED_BYTES = 4096,
};

struct viewer {
	struct connect connect; /* the reader's own */
	struct uuid vm;
	FILE *out;
	char position[64];
	atomic_bool stop, ended;
	atomic_llong heard_ms; /* when the guest wrote last */
	bool remote, seen;
	struct rv_error error;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* --- what the guest writes --- */

static int viewer_show(struct viewer *v, const msgpack_object *value)
{
	const msgpack_object *bytes = rpc_map_get(value, "bytes");
	const msgpack_object *position = rpc_map_get(value, "position");

	if (!bytes || bytes->type != MSGPACK_OBJECT_BIN || !position ||
		position->type != MSGPACK_OBJECT_STR ||
		position->via.str.size >= sizeof v->position)
		return rv_error_set(&v->error, RV_EPROTO,
			"VM.console_read answered no bytes and position");
	memcpy(v->position, position->via.str.ptr, position->via.str.size);
	v->position[position->via.str.size] = '\0';
	if (bytes->via.bin.size == 0)
		return 0;
	atomic_store(&v->heard_ms, now_ms());
	fwrite(bytes->via.bin.ptr, 1, bytes->via.bin.size, v->out);
	fflush(v->out);
	return ferror(v->out)
		       ? rv_error_set(&v->error, RV_EIO, "can't write to the terminal")
		       : 0;
}

static int viewer_read(struct viewer *v)
{
	struct value wait = value_int(CONSOLE_WAIT_MS);
	const msgpack_object *value;
	struct params p;
	int rc;

	params_init(&p);
	params_uuid(&p, "self", &v->vm);
	params_text(&p, "position", v->position);
	params_value(&p, "timeout_ms", &wait);
	rc = connect_call(
		&v->connect, "VM.console_read", &p, CONSOLE_ANSWER_MS, &value, &v->error);
	params_fini(&p);
	if (rc) {
		v->remote = v->connect.remote;
		return rc;
	}
	v->seen = true;
	return viewer_show(v, value);
}

static void *viewer_run(void *arg)
{
	struct viewer *v = arg;

	while (!atomic_load(&v->stop)) {
		int rc = viewer_read(v);

		if (rc == RV_EAGAIN)
			usleep(CONSOLE_RETRY_US); /* it has moved */
		else if (rc)
			break;
	}
	atomic_store(&v->ended, true);
	return NULL;
}

/* --- what is typed --- */

/* A terminal that passes every key on; restored by keyboard_end. */
struct keyboard {
	struct termios before;
	bool raw;
};

static void keyboard_begin(struct keyboard *k, int fd)
{
	struct termios raw;

	k->raw = isatty(fd) && tcgetattr(fd, &k->before) == 0;
	if (!k->raw)
		return;
	raw = k->before;
	cfmakeraw(&raw);
	k->raw = tcsetattr(fd, TCSANOW, &raw) == 0;
}

static void keyboard_end(const struct keyboard *k, int fd)
{
	if (k->raw)
		tcsetattr(fd, TCSANOW, &k->before);
}

static int send_text(struct cli *cli, const struct uuid *vm, const char *text)
{
	const msgpack_object *value;
	struct params p;
	int rc;

	params_init(&p);
	params_uuid(&p, "self", vm);
	params_text(&p, "text", text);
	rc = cli_change(cli, "VM.console_write", &p, &value);
	params_fini(&p);
	return rc;
}

/* The bytes at the end that begin a character whose rest is still to come. */
static size_t unfinished(const char *bytes, size_t len)
{
	for (size_t back = 1; back <= 3 && back <= len; back++) {
		unsigned char c = (unsigned char)bytes[len - back];

		if (c < 0x80)
			return 0;
		if (c >= 0xc0)
			return back < (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) ? back : 0;
	}
	return 0;
}

struct typing {
	struct cli *cli;
	struct uuid vm;
	bool escapes; /* Ctrl-] ends it: at a terminal */
	bool over;    /* the end of input, or the escape */
	bool any;     /* something was typed */
	size_t len;
	char bytes[CONSOLE_TYPED_BYTES + 1];
};

static int typing_read(struct typing *t, int fd)
{
	size_t room = CONSOLE_TYPED_BYTES - t->len, kept, rest;
	ssize_t r = read(fd, t->bytes + t->len, room);
	char *end, text[CONSOLE_TYPED_BYTES + 1];

	if (r < 0 && (errno == EINTR || errno == EAGAIN))
		return CLI_OK;
	if (r <= 0) {
		t->over = true;
		return CLI_OK;
	}
	t->any = true;
	end = t->escapes ? memchr(t->bytes + t->len, CONSOLE_ESCAPE, (size_t)r) : NULL;
	t->over = end != NULL;
	t->len += end ? (size_t)(end - (t->bytes + t->len)) : (size_t)r;
	rest = unfinished(t->bytes, t->len);
	kept = 0;
	for (size_t i = 0; i < t->len - rest; i++)
		if (t->bytes[i]) /* texts hold no NUL */
			text[kept++] = t->bytes[i];
	text[kept] = '\0';
	memmove(t->bytes, t->bytes + t->len - rest, rest);
	t->len = rest;
	return kept ? send_text(t->cli, &t->vm, text) : CLI_OK;
}

/* A serial console has no size of its own: its shell is told, as if it were typed. */
static int send_size(struct cli *cli, const struct uuid *vm)
{
	struct winsize size;
	char text[64];

	if (ioctl(fileno(cli->out), TIOCGWINSZ, &size) != 0 || size.ws_row == 0)
		return CLI_OK;
	snprintf(text, sizeof text, " stty rows %u cols %u\r", size.ws_row, size.ws_col);
	return send_text(cli, vm, text);
}

/* --- both --- */

struct options {
	bool read_only, resize;
};

static void look_on(struct cli *cli, struct viewer *v);

static int talk(struct cli *cli, struct viewer *v, const struct options *o)
{
	struct typing t = {.cli = cli, .vm = v->vm, .escapes = cli->in_tty};
	struct winsize now, size = {0};
	int64_t over_ms = 0;
	int rc = CLI_OK;

	while (!rc && !atomic_load(&v->ended)) {
		struct pollfd p = {.fd = fileno(cli->in), .events = POLLIN};
		/* Input that has ended is readable for ever. */
		bool typed = poll(&p, over_ms ? 0 : 1, CONSOLE_LOOK_MS) > 0 && !over_ms;

		if (o->resize && ioctl(fileno(cli->out), TIOCGWINSZ, &now) == 0 &&
			(now.ws_row != size.ws_row || now.ws_col != size.ws_col)) {
			size = now;
			rc = send_size(cli, &v->vm);
		}
		if (typed && !rc)
			rc = typing_read(&t, p.fd);
		if (t.over && (cli->in_tty || o->read_only))
			break;
		if (t.over && !t.any) { /* nobody is there to type: </dev/null */
			look_on(cli, v);
			break;
		}
		if (t.over && over_ms == 0)
			over_ms = now_ms();
		if (over_ms && now_ms() - over_ms > CONSOLE_QUIET_MS &&
			now_ms() - atomic_load(&v->heard_ms) > CONSOLE_QUIET_MS)
			break;
	}
	return rc;
}

/* Looks on until the VM or Ctrl-C or, at a terminal, Ctrl-] ends it. */
static void look_on(struct cli *cli, struct viewer *v)
{
	char key;

	while (!atomic_load(&v->ended)) {
		struct pollfd p = {.fd = fileno(cli->in), .events = POLLIN};

		if (poll(&p, cli->in_tty, CONSOLE_LOOK_MS) <= 0 || !cli->in_tty)
			continue;
		if (read(p.fd, &key, 1) != 1 || key == CONSOLE_ESCAPE || key == 3)
			return;
	}
}

static int run(struct cli *cli, struct viewer *v, const struct options *o)
{
	struct keyboard keyboard;
	pthread_t thread;
	int rc = CLI_OK;

	if (pthread_create(&thread, NULL, viewer_run, v) != 0)
		return cli_usage(cli, "no thread can be made");
	if (cli->in_tty)
		fprintf(cli->err, "Ctrl-] ends this; the VM runs on.\n");
	keyboard_begin(&keyboard, fileno(cli->in));
	if (o->read_only)
		look_on(cli, v);
	else
		rc = talk(cli, v, o);
	atomic_store(&v->stop, true);
	pthread_join(thread, NULL);
	keyboard_end(&keyboard, fileno(cli->in));
	if (cli->in_tty)
		fputc('\n', cli->err);
	if (rc || v->error.code == 0)
		return rc;
	/* That it has been shut down is how a console ends, too. */
	if (v->seen && v->error.code == RV_ESTATE) {
		fprintf(cli->err, "reeve: %s\n", v->error.detail);
		return CLI_OK;
	}
	cli->connect.remote = v->remote;
	return cli_call_failed(cli, &v->error);
}

int verb_console(struct cli *cli, const struct command *c)
{
	struct viewer v = {.out = cli->out};
	struct options o;
	int rc = input_self(cli, c->cls, &v.vm);

	if (!rc)
		rc = input_flag(cli, "read-only", &o.read_only);
	if (!rc)
		rc = input_flag(cli, "resize", &o.resize);
	if (!rc)
		rc = cli_check_used(cli, "vm=, read-only=, resize=");
	if (!rc)
		rc = cli_connect(cli);
	if (rc)
		return rc;
	connect_init(&v.connect);
	v.connect.target = cli->connect.target;
	v.connect.timeout_ms = CONSOLE_ANSWER_MS;
	if (connect_open(&v.connect, 0, &v.error)) {
		cli->connect.remote = v.connect.remote;
		return cli_call_failed(cli, &v.error);
	}
	rc = run(cli, &v, &o);
	connect_close(&v.connect);
	return rc;
}
