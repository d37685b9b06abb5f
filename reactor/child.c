/*
 * A child process: its end is told by a pidfd, or by SIGCHLD where the kernel gives none;
 * its output is read meanwhile. Input lies in a memory file, so that a child that never
 * reads it holds up nobody.
 */
#include "reactor/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limits.h"
#include "reactor/child_internal.h"
#include "reactor/io.h"
#include "reactor/loop_internal.h"

enum {
	/* Descriptors meant for the child are kept above all numbers they become. */
	CHILD_FD_FLOOR = 64,
	/* After its end a child's output is in the pipe; others may still write. */
	CHILD_DRAIN_MAX = 512 << 10,
	CHILD_READ_MAX = 256 << 10, /* of one event */
	CHILD_ABANDON_MS = 1000,    /* for a child to obey SIGKILL */
};

struct child_output {
	struct child *child;
	struct io io;
	int fd;
	size_t len;
	char *text; /* RV_MAX_CHILD_OUTPUT_BYTES + 1, NULL before the first byte */
};

struct child {
	struct loop *loop;
	const char *name;
	child_done_fn *done;
	void *arg;
	pid_t pid;
	int pidfd; /* -1: by SIGCHLD */
	struct io io;
	struct child_output out, err;
	struct timer timer; /* the timeout, then the grace; the end in simulations */
	int kill_rc;	    /* why we ended it, or 0 */
	struct list node;   /* of loop->children */
	struct child_result sim_result;
};

static const char *const child_default_env[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C",
	NULL};

/* --- output --- */

/* Reads at most `max` bytes; what is beyond the cap is dropped. False at the end. */
static bool output_read(struct child_output *o, size_t max)
{
	char *scratch = (char *)o->child->loop->scratch;

	for (size_t got = 0; got < max;) {
		size_t room = RV_MAX_CHILD_OUTPUT_BYTES - o->len;
		ssize_t r = read(o->fd, scratch, LOOP_SCRATCH_BYTES);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno == EAGAIN;
		if (r == 0)
			return false;
		got += (size_t)r;
		if (!o->text)
			o->text = malloc(RV_MAX_CHILD_OUTPUT_BYTES + 1);
		if (!o->text)
			continue; /* its words are lost, its end is not */
		if (room > (size_t)r)
			room = (size_t)r;
		memcpy(o->text + o->len, scratch, room);
		o->len += room;
	}
	return true;
}

static void output_close(struct child_output *o)
{
	io_fini(&o->io);
	if (o->fd >= 0)
		close(o->fd);
	o->fd = -1;
}

static void output_ready(void *arg, int events)
{
	struct child_output *o = arg;

	(void)events;
	if (!output_read(o, CHILD_READ_MAX))
		output_close(o);
}

static const char *output_text(struct child_output *o)
{
	if (!o->text)
		return "";
	o->text[o->len] = '\0';
	return o->text;
}

/* --- the end --- */

static void child_release(struct child *c)
{
	timer_stop(&c->timer);
	list_remove(&c->node);
	io_fini(&c->io);
	if (c->pidfd >= 0)
		close(c->pidfd);
	output_close(&c->out);
	output_close(&c->err);
	free(c->out.text);
	free(c->err.text);
	free(c);
}

static void child_tell(struct child *c, int status)
{
	struct child_result result = {.exit_status = -1};

	if (WIFEXITED(status))
		result.exit_status = WEXITSTATUS(status);
	else
		result.signal = WTERMSIG(status);
	if (c->kill_rc)
		result.rc = c->kill_rc;
	else if (status != 0)
		result.rc = RV_ECHILD;
	result.out = output_text(&c->out);
	result.out_len = c->out.len;
	result.err = output_text(&c->err);
	result.err_len = c->err.len;
	c->done(c->arg, &result);
	child_release(c);
}

/* Called when the child may have ended; collects it if so. */
static void child_check(struct child *c)
{
	siginfo_t info = {0};
	int status;
	pid_t r;

	if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		info.si_pid == 0)
		return;
	/* While the leader is a zombie, its group's number can't be anybody else's. */
	if (c->kill_rc)
		kill(-c->pid, SIGKILL);
	do
		r = waitpid(c->pid, &status, 0);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		status = W_EXITCODE(255, 0); /* somebody else collected it */
	if (c->out.fd >= 0)
		(void)output_read(&c->out, CHILD_DRAIN_MAX);
	if (c->err.fd >= 0)
		(void)output_read(&c->err, CHILD_DRAIN_MAX);
	child_tell(c, status);
}

static void child_ended(void *arg, int events)
{
	(void)events;
	child_check(arg);
}

/* Children may end in any number for one signal. */
static void child_sigchld(void *arg)
{
	struct loop *l = arg;
	struct list seen;

	/* A done callback may start and kill children: each is looked at once. */
	list_init(&seen);
	while (!list_empty(&l->children)) {
		struct list *node = l->children.next;

		list_remove(node);
		list_push_back(&seen, node);
		child_check(CONTAINER_OF(node, struct child, node));
	}
	while (!list_empty(&seen)) {
		struct list *node = seen.next;

		list_remove(node);
		list_push_back(&l->children, node);
	}
}

static void child_timer(void *arg)
{
	struct child *c = arg;

	if (c->kill_rc) {
		kill(-c->pid, SIGKILL);
		return;
	}
	c->kill_rc = RV_ETIMEDOUT;
	kill(-c->pid, SIGTERM);
	timer_start_ms(&c->timer, CHILD_KILL_GRACE_MS);
}

void child_kill(struct child *c)
{
	if (c->kill_rc)
		return;
	c->kill_rc = RV_ECANCELLED;
	if (loop_is_sim(c->loop)) {
		timer_start_us(&c->timer, 0);
		return;
	}
	kill(-c->pid, SIGTERM);
	timer_start_ms(&c->timer, CHILD_KILL_GRACE_MS);
}

void child_abandon(struct child *c)
{
	if (!loop_is_sim(c->loop)) {
		kill(-c->pid, SIGKILL);
		/* One that hangs in the kernel is left to init. */
		for (int i = 0; i < CHILD_ABANDON_MS; i++) {
			if (waitpid(c->pid, NULL, WNOHANG) != 0)
				break;
			usleep(1000);
		}
	}
	child_release(c);
}

/* --- the start --- */

/* What the child's descriptors 0, 1, 2, 3 ... are made of. */
struct child_fds {
	int fd[3 + CHILD_MAX_FDS];
	int count;
};

static void fds_close(struct child_fds *f)
{
	for (int i = 0; i < f->count; i++)
		if (f->fd[i] >= 0)
			close(f->fd[i]);
	f->count = 0;
}

/* Takes fd and moves it out of the way of the numbers that the child will use. */
static int fds_add(struct child_fds *f, int fd, bool take)
{
	int high;

	if (fd < 0)
		return -1;
	high = fcntl(fd, F_DUPFD_CLOEXEC, CHILD_FD_FLOOR);
	if (take)
		close(fd);
	if (high < 0)
		return -1;
	f->fd[f->count++] = high;
	return 0;
}

/* The child's stdin. */
static int input_open(const struct child_spec *spec)
{
	const char *data = spec->input;
	size_t done = 0;
	int fd;

	if (!spec->input)
		return open("/dev/null", O_RDONLY | O_CLOEXEC);
	fd = memfd_create("reeve-child-input", MFD_CLOEXEC);
	while (fd >= 0 && done < spec->input_len) {
		ssize_t r = write(fd, data + done, spec->input_len - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			close(fd);
			return -1;
		}
		done += (size_t)r;
	}
	if (fd >= 0)
		(void)lseek(fd, 0, SEEK_SET);
	return fd;
}

static int output_open(struct child *c, struct child_output *o, struct child_fds *f)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	o->fd = ends[0];
	if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
		close(ends[1]);
		return -1;
	}
	if (fds_add(f, ends[1], true) < 0)
		return -1;
	if (io_init(&o->io, c->loop, c->name, o->fd, output_ready, o) != 0) {
		errno = ENOMEM;
		return -1;
	}
	return 0;
}

static int fds_open(struct child *c, const struct child_spec *spec, struct child_fds *f)
{
	if (fds_add(f, input_open(spec), true) < 0 || output_open(c, &c->out, f) < 0 ||
		output_open(c, &c->err, f) < 0)
		return -1;
	for (int i = 0; i < spec->fd_count; i++)
		if (fds_add(f, spec->fds[i], false) < 0)
			return -1;
	return 0;
}

/* A session of its own, no signal blocked or ignored. */
static int attributes_fill(posix_spawnattr_t *attr)
{
	sigset_t all, none;
	int r;

	sigfillset(&all);
	sigemptyset(&none);
	r = posix_spawnattr_setsigdefault(attr, &all);
	if (!r)
		r = posix_spawnattr_setsigmask(attr, &none);
	if (!r)
		r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSID |
							   POSIX_SPAWN_SETSIGDEF |
							   POSIX_SPAWN_SETSIGMASK);
	return r;
}

static int child_spawn(
	struct child *c, const struct child_spec *spec, const struct child_fds *f)
{
	const char *const *env = spec->env ? spec->env : child_default_env;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r = posix_spawn_file_actions_init(&actions);

	if (r)
		return r;
	r = posix_spawnattr_init(&attr);
	if (r) {
		posix_spawn_file_actions_destroy(&actions);
		return r;
	}
	r = attributes_fill(&attr);
	for (int i = 0; !r && i < f->count; i++)
		r = posix_spawn_file_actions_adddup2(&actions, f->fd[i], i);
	if (!r)
		r = posix_spawn_file_actions_addclosefrom_np(&actions, f->count);
	if (!r)
		r = posix_spawnp(&c->pid, spec->argv[0], &actions, &attr,
			(char *const *)spec->argv, (char *const *)env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* Has the loop told of the child's end. */
static int child_watch(struct child *c)
{
	struct loop *l = c->loop;

	if (!l->no_pidfd) {
		c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
		if (c->pidfd >= 0) {
			int rc = io_init(&c->io, l, c->name, c->pidfd, child_ended, c);

			if (!rc)
				io_want(&c->io, IO_READ);
			return rc;
		}
		if (errno != ENOSYS && errno != EPERM && errno != EINVAL)
			return rv_error_from_errno(errno);
		l->no_pidfd = true;
	}
	if (!l->sigchld_watched) {
		int rc = loop_on_signal(l, SIGCHLD, child_sigchld, l);

		if (rc)
			return rc;
		l->sigchld_watched = true;
	}
	list_push_back(&l->children, &c->node);
	/* It may have ended before the signal was watched. */
	kill(getpid(), SIGCHLD);
	return 0;
}

static int spawn_failed(const char *program, int err, struct rv_error *e)
{
	if (err == ENOENT)
		return rv_error_set(e, RV_ENOENT,
			"can't start %s: no such program; install the package that has "
			"it, or correct PATH",
			program);
	return rv_error_set(e, rv_error_from_errno(err), "can't start %s: %s", program,
		strerror(err));
}

static int child_start_real(
	struct child *c, const struct child_spec *spec, struct rv_error *e)
{
	struct child_fds fds = {.count = 0};
	int r, rc;

	if (fds_open(c, spec, &fds) < 0) {
		r = errno;
		fds_close(&fds);
		return spawn_failed(spec->argv[0], r, e);
	}
	r = child_spawn(c, spec, &fds);
	fds_close(&fds);
	if (r)
		return spawn_failed(spec->argv[0], r, e);
	rc = child_watch(c);
	if (rc) {
		/* Nobody would tell of its end: it must not go on unseen. */
		kill(-c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
		return rv_error_set(
			e, rc, "can't watch %s: %s", spec->argv[0], rv_error_text(rc));
	}
	io_want(&c->out.io, IO_READ);
	io_want(&c->err.io, IO_READ);
	if (spec->timeout_ms > 0)
		timer_start_ms(&c->timer, spec->timeout_ms);
	return 0;
}

/* --- simulation --- */

void child_sim_set(struct loop *l, child_sim_fn *fn, void *arg)
{
	l->sim.child = fn;
	l->sim.child_arg = arg;
}

static struct child_result child_sim_killed(int rc)
{
	return (struct child_result){
		.rc = rc, .exit_status = -1, .signal = SIGTERM, .out = "", .err = ""};
}

static void child_sim_end(void *arg)
{
	struct child *c = arg;

	if (c->kill_rc)
		c->sim_result = child_sim_killed(c->kill_rc);
	c->done(c->arg, &c->sim_result);
	child_release(c);
}

static int child_start_sim(
	struct child *c, const struct child_spec *spec, struct rv_error *e)
{
	struct child_result *r = &c->sim_result;
	int64_t delay_us;

	if (!c->loop->sim.child)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"can't start %s: this simulation runs no programs",
			spec->argv[0]);
	r->out = r->err = "";
	delay_us = c->loop->sim.child(c->loop->sim.child_arg, spec, r);
	if (spec->timeout_ms > 0 && delay_us > spec->timeout_ms * 1000) {
		*r = child_sim_killed(RV_ETIMEDOUT);
		delay_us = spec->timeout_ms * 1000;
	}
	timer_init(&c->timer, c->loop, c->name, child_sim_end, c);
	timer_start_us(&c->timer, delay_us);
	return 0;
}

int child_start(struct child **out, struct loop *l, const char *name,
	const struct child_spec *spec, child_done_fn *done, void *arg, struct rv_error *e)
{
	struct child *c;
	int rc;

	*out = NULL;
	if (!spec->argv || !spec->argv[0] || spec->fd_count < 0 ||
		spec->fd_count > CHILD_MAX_FDS)
		return rv_error_set(e, RV_EINVAL, "child %s: bad description", name);
	c = calloc(1, sizeof *c);
	if (!c || (!l->scratch && !(l->scratch = malloc(LOOP_SCRATCH_BYTES)))) {
		free(c);
		return rv_error_set(
			e, RV_ENOMEM, "can't start %s: out of memory", spec->argv[0]);
	}
	c->loop = l;
	c->name = name;
	c->done = done;
	c->arg = arg;
	c->pidfd = c->out.fd = c->err.fd = -1;
	c->out.child = c->err.child = c;
	list_init(&c->node);
	timer_init(&c->timer, l, name, child_timer, c);
	rc = loop_is_sim(l) ? child_start_sim(c, spec, e) : child_start_real(c, spec, e);
	if (rc) {
		child_release(c);
		return rc;
	}
	*out = c;
	return 0;
}

void child_force_sigchld(struct loop *l)
{
	l->no_pidfd = true;
}

/* --- words --- */

/* The last line that is not empty. */
static void last_line(const char *text, size_t len, const char **line, int *line_len)
{
	size_t start;

	while (len > 0 && strchr("\n\r\t ", text[len - 1]))
		len--;
	for (start = len; start > 0 && text[start - 1] != '\n';)
		start--;
	*line = text + start;
	*line_len = len - start > 400 ? 400 : (int)(len - start);
}

void child_describe(const struct child_result *r, const char *program, struct rv_error *e)
{
	const char *line;
	int len;

	last_line(r->err, r->err_len, &line, &len);
	if (len == 0 && r->rc)
		last_line(r->out, r->out_len, &line, &len);
	if (r->rc == RV_ETIMEDOUT)
		rv_error_set(e, r->rc, "%s did not end in time and was killed%s%.*s",
			program, len ? ": " : "", len, line);
	else if (r->rc == RV_ECANCELLED)
		rv_error_set(e, r->rc, "%s was cancelled", program);
	else if (r->signal)
		rv_error_set(e, r->rc, "%s was ended by signal %d (%s)%s%.*s", program,
			r->signal, strsignal(r->signal), len ? ": " : "", len, line);
	else
		rv_error_set(e, r->rc, "%s exited with status %d%s%.*s", program,
			r->exit_status, len ? ": " : "", len, line);
}
