#include "reactor/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "reactor/address.h"
#include "reactor/io.h"
#include "reactor/loop_internal.h"

enum {
	LISTENER_BACKLOG = 1024,
	LISTENER_BATCH = 64,
	LISTENER_BATCH_NS = 1000000,
	LISTENER_PAUSE_MS = 100, /* after running out of descriptors */
};

struct listener {
	struct loop *loop;
	struct address address;
	char text[128];
	int fd;
	dev_t device; /* of the unix socket we made */
	ino_t inode;
	bool made;
	struct io io;
	struct timer pause;
	int max, open;
	listener_fn *fn;
	void *arg;
	bool busy, freed;
};

static void listener_want(struct listener *li)
{
	bool full = li->max > 0 && li->open >= li->max;

	if (li->freed)
		return;
	io_want(&li->io, full || timer_active(&li->pause) ? 0 : IO_READ);
}

static void listener_resume(void *arg)
{
	listener_want(arg);
}

/* True when the next connection may be tried. */
static bool listener_failed(struct listener *li)
{
	switch (errno) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		/* The connection stays in the backlog; level-triggered readiness would
		 * spin on it. */
		log_warn("reactor.listener",
			"address=%s msg=\"can't accept: %s; waiting\"", li->text,
			strerror(errno));
		timer_start_ms(&li->pause, LISTENER_PAUSE_MS);
		return false;
	default:
		return true; /* of that connection alone, see accept(2) */
	}
}

static void listener_ready(void *arg, int events)
{
	struct listener *li = arg;
	int64_t end_ns = loop_clock_ns() + LISTENER_BATCH_NS;

	(void)events;
	li->busy = true;
	for (int i = 0; i < LISTENER_BATCH && !li->freed; i++) {
		int fd;

		if (li->max > 0 && li->open >= li->max)
			break;
		fd = accept4(li->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			li->fn(li->arg, fd);
		else if (!listener_failed(li))
			break;
		if (loop_clock_ns() > end_ns)
			break;
	}
	li->busy = false;
	if (li->freed)
		free(li);
	else
		listener_want(li);
}

/* A socket nobody listens on is what a dead daemon left; anything else is kept. */
static int listener_clear_path(struct listener *li, struct rv_error *e)
{
	const char *path = address_path(&li->address);
	struct stat st;
	int fd, r, err;

	if (lstat(path, &st) != 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return rv_error_set(e, RV_EEXIST,
			"can't listen on %s: a file that is no socket is there; move it "
			"away",
			li->text);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return rv_error_set(e, rv_error_from_errno(errno),
			"can't listen on %s: %s", li->text, strerror(errno));
	r = connect(fd, (const struct sockaddr *)&li->address.sa, li->address.len);
	err = errno;
	close(fd);
	if (r < 0 && err == ECONNREFUSED) {
		if (unlink(path) == 0 || errno == ENOENT)
			return 0;
		return rv_error_set(e, rv_error_from_errno(errno),
			"can't listen on %s: can't remove the stale socket: %s", li->text,
			strerror(errno));
	}
	return rv_error_set(e, RV_EEXIST,
		"can't listen on %s: another process listens there; stop it first",
		li->text);
}

static int listener_bind(struct listener *li, struct rv_error *e)
{
	bool is_unix = address_family(&li->address) == AF_UNIX;
	int one = 1;
	struct stat st;

	if (is_unix) {
		int rc = listener_clear_path(li, e);

		if (rc)
			return rc;
		/* The mode of the path from its first moment on, where umask lets it. */
		(void)fchmod(li->fd, 0660);
	} else if (setsockopt(li->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0) {
		goto fail;
	}
	if (bind(li->fd, (const struct sockaddr *)&li->address.sa, li->address.len) < 0)
		goto fail;
	if (is_unix) {
		const char *path = address_path(&li->address);

		if (chmod(path, 0660) < 0 || lstat(path, &st) < 0) {
			int err = errno;

			unlink(path);
			errno = err;
			goto fail;
		}
		li->device = st.st_dev;
		li->inode = st.st_ino;
		li->made = true;
	}
	if (listen(li->fd, LISTENER_BACKLOG) < 0)
		goto fail;
	li->address.len = sizeof li->address.sa;
	if (getsockname(li->fd, (struct sockaddr *)&li->address.sa, &li->address.len) < 0)
		goto fail;
	return 0;
fail:
	return rv_error_set(e, rv_error_from_errno(errno), "can't listen on %s: %s%s",
		li->text, strerror(errno),
		errno == EADDRINUSE ? "; another process listens there" : "");
}

static void listener_release(struct listener *li)
{
	struct stat st;

	timer_stop(&li->pause);
	io_fini(&li->io);
	if (li->fd >= 0)
		close(li->fd);
	/* Somebody may have replaced the path meanwhile: not ours to remove. */
	if (li->made && lstat(address_path(&li->address), &st) == 0 &&
		st.st_dev == li->device && st.st_ino == li->inode)
		unlink(address_path(&li->address));
}

int listener_open(struct listener **out, struct loop *l, const char *address,
	int max_connections, listener_fn *fn, void *arg, struct rv_error *e)
{
	struct listener *li = calloc(1, sizeof *li);
	int rc;

	*out = NULL;
	if (!li)
		return rv_error_set(e, RV_ENOMEM, "%s: out of memory", address);
	li->loop = l;
	li->fd = -1;
	li->max = max_connections;
	li->fn = fn;
	li->arg = arg;
	snprintf(li->text, sizeof li->text, "%s", address);
	timer_init(&li->pause, l, "listener.pause", listener_resume, li);
	rc = address_parse(&li->address, address, e);
	if (rc)
		goto fail;
	if (loop_is_sim(l)) {
		rc = rv_error_set(e, RV_EUNSUPPORTED,
			"%s: a simulated loop has no sockets", address);
		goto fail;
	}
	li->fd = socket(address_family(&li->address),
		SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (li->fd < 0) {
		rc = rv_error_set(e, rv_error_from_errno(errno), "%s: no socket: %s",
			address, strerror(errno));
		goto fail;
	}
	rc = listener_bind(li, e);
	if (rc)
		goto fail;
	rc = io_init(&li->io, l, "listener", li->fd, listener_ready, li);
	if (rc) {
		rv_error_set(e, rc, "%s: no watcher: %s", address, rv_error_text(rc));
		goto fail;
	}
	listener_want(li);
	*out = li;
	return 0;
fail:
	listener_release(li);
	free(li);
	return rc;
}

void listener_free(struct listener *li)
{
	if (!li)
		return;
	listener_release(li);
	li->freed = true;
	if (!li->busy)
		free(li);
}

void listener_set_open(struct listener *li, int open_connections)
{
	li->open = open_connections;
	if (!li->busy)
		listener_want(li);
}

int listener_port(const struct listener *li)
{
	return address_port(&li->address);
}
