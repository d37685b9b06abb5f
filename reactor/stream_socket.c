/* Plain sockets, and what TLS shares with them: connecting, the peer's name, the end. */
#include "reactor/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "reactor/stream_internal.h"

/* A unix listener whose backlog is full says EAGAIN and never "writable". */
enum { CONNECT_RETRY_MS = 10 };

int stream_socket_error(const char *what, struct rv_error *e)
{
	int err = errno;

	return rv_error_set(e, rv_error_from_errno(err), "%s: %s", what, strerror(err));
}

static void socket_event(void *arg, int events)
{
	stream_event(arg, events);
}

static void socket_retry(void *arg)
{
	stream_event(arg, 0);
}

static void socket_name_peer(struct stream *s)
{
	struct address peer = {.len = sizeof peer.sa};
	struct ucred cred;
	socklen_t len = sizeof cred;

	if (getpeername(s->fd, (struct sockaddr *)&peer.sa, &peer.len) != 0)
		return;
	if (address_family(&peer) == AF_UNIX &&
		getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		snprintf(s->peer, sizeof s->peer, "unix:pid=%d,uid=%u", (int)cred.pid,
			(unsigned)cred.uid);
	else
		address_format(&peer, s->peer, sizeof s->peer);
}

static int socket_connect_failed(int err, struct rv_error *e)
{
	const char *hint = "";

	if (err == ECONNREFUSED || err == ENOENT)
		hint = "; is the daemon running there?";
	else if (err == EACCES || err == EPERM)
		hint = "; may this user open the socket?";
	return rv_error_set(
		e, rv_error_from_errno(err), "can't connect: %s%s", strerror(err), hint);
}

/* Starts or retries connect; 0 when connected. */
static int socket_connect(struct stream *s, struct rv_error *e)
{
	const struct sockaddr *sa = (const struct sockaddr *)&s->target->sa;
	int r;

	do
		r = connect(s->fd, sa, s->target->len);
	while (r < 0 && errno == EINTR);
	if (r == 0 || errno == EISCONN)
		return 0;
	if (errno == EAGAIN) {
		s->open_want = 0;
		timer_start_ms(&s->retry, CONNECT_RETRY_MS);
		return RV_EAGAIN;
	}
	if (errno == EINPROGRESS || errno == EALREADY) {
		s->open_want = IO_WRITE;
		return RV_EAGAIN;
	}
	return socket_connect_failed(errno, e);
}

int stream_socket_open(struct stream *s, struct rv_error *e)
{
	int err = 0, one = 1, rc;
	socklen_t len = sizeof err;

	if (s->connected)
		return 0;
	if (s->target) {
		if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err)
			return socket_connect_failed(err, e);
		rc = socket_connect(s, e);
		if (rc)
			return rc;
		free(s->target);
		s->target = NULL;
	}
	s->connected = true;
	/* Fails on unix sockets, where there is nothing to do. */
	(void)setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	socket_name_peer(s);
	return 0;
}

static ssize_t socket_read(
	struct stream *s, uint8_t *data, size_t len, struct rv_error *e)
{
	ssize_t r;

	do
		r = recv(s->fd, data, len, 0);
	while (r < 0 && errno == EINTR);
	if (r >= 0)
		return r;
	if (errno == EAGAIN)
		return RV_EAGAIN;
	return stream_socket_error("reading", e);
}

static ssize_t socket_write(
	struct stream *s, const struct iovec *pieces, int count, struct rv_error *e)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)pieces,
		.msg_iovlen = count > IOV_MAX ? IOV_MAX : (size_t)count};
	ssize_t r;

	do /* send costs the kernel a little less */
		r = count == 1
			    ? send(s->fd, pieces->iov_base, pieces->iov_len, MSG_NOSIGNAL)
			    : sendmsg(s->fd, &msg, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r >= 0)
		return r;
	if (errno == EAGAIN || errno == ENOBUFS)
		return RV_EAGAIN;
	return stream_socket_error("writing", e);
}

static int socket_finish(struct stream *s, struct rv_error *e)
{
	(void)e;
	/* Fails when the peer is gone, which the next read tells. */
	(void)shutdown(s->fd, SHUT_WR);
	return 0;
}

void stream_socket_want(struct stream *s, int events)
{
	io_want(&s->io, events);
}

void stream_socket_fini(struct stream *s)
{
	timer_stop(&s->retry);
	io_fini(&s->io);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	free(s->target);
	s->target = NULL;
}

const struct stream_backend stream_plain = {
	.open = stream_socket_open,
	.read = socket_read,
	.write = socket_write,
	.finish = socket_finish,
	.want = stream_socket_want,
	.fini = stream_socket_fini,
};

/* Takes fd. A stream on it whose first event comes soon. */
static int socket_stream_new(struct stream **out, struct loop *l, int fd, bool server,
	const struct stream_config *config, struct rv_error *e)
{
	struct stream *s;
	int rc = stream_new(&s, l, config, e);

	*out = NULL;
	if (rc) {
		close(fd);
		return rc;
	}
	s->backend = &stream_plain;
	s->fd = fd;
	s->server = server;
	timer_init(&s->retry, l, s->name, socket_retry, s);
	rc = io_init(&s->io, l, s->name, fd, socket_event, s);
	if (rc) {
		rv_error_set(e, rc, "stream: no watcher for the socket: %s",
			rv_error_text(rc));
		goto fail;
	}
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		rc = stream_socket_error("stream: socket", e);
		goto fail;
	}
	snprintf(s->peer, sizeof s->peer, "socket");
	if (config->tls) {
		rc = stream_tls_init(s, config, e);
		if (rc)
			goto fail;
	}
	defer_start(&s->soon);
	*out = s;
	return 0;
fail:
	stream_release(s);
	return rc;
}

int stream_open(struct stream **out, struct loop *l, int fd, bool server,
	const struct stream_config *config, struct rv_error *e)
{
	return socket_stream_new(out, l, fd, server, config, e);
}

int stream_connect(struct stream **out, struct loop *l, const char *address,
	const struct stream_config *config, struct rv_error *e)
{
	struct address target;
	struct stream *s;
	int fd, rc;

	*out = NULL;
	rc = address_parse(&target, address, e);
	if (rc)
		return rc;
	if (loop_is_sim(l))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s: a simulated loop has no sockets", address);
	fd = socket(
		address_family(&target), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return rv_error_set(e, rv_error_from_errno(errno), "%s: no socket: %s",
			address, strerror(errno));
	rc = socket_stream_new(&s, l, fd, false, config, e);
	if (rc)
		return rc;
	s->target = malloc(sizeof *s->target);
	if (!s->target) {
		stream_release(s);
		return rv_error_set(e, RV_ENOMEM, "%s: out of memory", address);
	}
	*s->target = target;
	address_format(&target, s->peer, sizeof s->peer);
	*out = s;
	return 0;
}

int stream_peer_credentials(const struct stream *s, pid_t *pid, uid_t *uid, gid_t *gid)
{
	int domain = 0;
	struct ucred cred;
	socklen_t len = sizeof domain;

	if (s->fd < 0 || getsockopt(s->fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) != 0 ||
		domain != AF_UNIX)
		return RV_EUNSUPPORTED;
	len = sizeof cred;
	if (getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return RV_EUNSUPPORTED;
	*pid = cred.pid;
	*uid = cred.uid;
	*gid = cred.gid;
	return 0;
}
