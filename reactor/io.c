#include "reactor/io.h"

#include <ev.h>
#include <stdlib.h>

#include "reactor/loop_internal.h"

static void io_ready(struct ev_loop *ev, ev_io *w, int revents)
{
	struct io *io = w->data;
	struct loop *l = io->loop;
	struct watch_frame frame;
	int events = 0;

	(void)ev;
	/* EV_ERROR: libev found the descriptor dead; reading will say why. */
	if (revents & (EV_READ | EV_ERROR))
		events |= IO_READ;
	if (revents & (EV_WRITE | EV_ERROR))
		events |= IO_WRITE;
	watch_enter(l, &frame, io->name);
	io->fn(io->arg, events);
	watch_leave(l, &frame);
}

int io_init(struct io *io, struct loop *l, const char *name, int fd, io_fn *fn, void *arg)
{
	*io = (struct io){.loop = l, .name = name, .fn = fn, .arg = arg, .fd = fd};
	if (!l->ev)
		return RV_EUNSUPPORTED;
	io->watcher = malloc(sizeof *io->watcher);
	if (!io->watcher)
		return RV_ENOMEM;
	ev_io_init(io->watcher, io_ready, fd, 0);
	io->watcher->data = io;
	return 0;
}

void io_want(struct io *io, int events)
{
	struct ev_loop *ev = io->loop->ev;
	int wanted =
		(events & IO_READ ? EV_READ : 0) | (events & IO_WRITE ? EV_WRITE : 0);

	if (ev_is_active(io->watcher)) {
		if ((io->watcher->events & (EV_READ | EV_WRITE)) == wanted)
			return;
		ev_io_stop(ev, io->watcher);
	}
	if (!wanted)
		return;
	ev_io_set(io->watcher, io->fd, wanted);
	ev_io_start(ev, io->watcher);
}

void io_fini(struct io *io)
{
	if (!io->watcher)
		return;
	ev_io_stop(io->loop->ev, io->watcher);
	free(io->watcher);
	io->watcher = NULL;
}
