#include "fence/serve.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

enum { SERVE_POLL_MS = 1000, SERVE_BURST = 64, LONG_DESTROY_MS = 10 * 1000 };

int64_t fenced_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void fenced_init(struct fenced *f, struct fence_port *port, struct fence_ender *ender,
	int listener, int signals)
{
	memset(f, 0, sizeof *f);
	f->port = port;
	f->ender = ender;
	f->listener = listener;
	f->client = -1;
	f->signals = signals;
	f->able = true; /* until something shows the opposite */
	guard_book_init(&f->book, port->watching);
}

/* --- telling --- */

static void drop_client(struct fenced *f, const char *why)
{
	if (f->client < 0)
		return;
	log_warn("fence.client",
		"msg=\"%s; %u domains stay guarded until the lease ends\"", why,
		f->book.count);
	close(f->client);
	f->client = -1;
	f->greeted = false;
}

static void send_out(struct fenced *f)
{
	size_t len = fence_encode(&f->out, f->bytes);

	/* One that does not read is told nothing; it asks again when it is back. */
	if (f->client >= 0 && f->greeted &&
		send(f->client, f->bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
		errno != EAGAIN && errno != EWOULDBLOCK)
		drop_client(f, "reeved can't be told");
}

static void tell_state(struct fenced *f)
{
	f->out = (struct fence_message){.type = FENCE_STATE,
		.version = FENCE_VERSION,
		.until_ms = f->book.until_ms,
		.seq = f->book.seq,
		.guarded = f->book.count,
		.able = f->able};
	memcpy(f->out.words, f->trouble, sizeof f->out.words);
	send_out(f);
}

static void tell_ended(struct fenced *f, const struct fence_domain *d)
{
	f->ended[f->ended_count++ % FENCED_ENDED] = *d;
	f->out = (struct fence_message){.type = FENCE_ENDED, .domain = *d};
	send_out(f);
}

/* All that are still known, to one that has just come. */
static void tell_all_ended(struct fenced *f)
{
	unsigned first =
		f->ended_count > FENCED_ENDED ? f->ended_count - FENCED_ENDED : 0;

	for (unsigned i = first; i < f->ended_count; i++) {
		f->out = (struct fence_message){
			.type = FENCE_ENDED, .domain = f->ended[i % FENCED_ENDED]};
		send_out(f);
	}
}

static void note_trouble(struct fenced *f, int rc, const struct rv_error *e)
{
	f->able = rc == 0;
	snprintf(f->trouble, sizeof f->trouble, "%.*s", FENCE_WORDS - 1,
		rc ? e->detail : "");
}

/* --- acting --- */

static const char *act_name(enum guard_act act)
{
	switch (act) {
	case GUARD_QUIET:
		return "quiet";
	case GUARD_OFF:
		return "off";
	case GUARD_STOP:
		return "stop";
	case GUARD_DESTROY:
		return "destroy";
	case GUARD_WAIT:
		break;
	}
	return "wait";
}

static int carry_out(struct fenced *f, enum guard_act act, uint32_t i, struct rv_error *e)
{
	const struct fence_domain *d = &f->book.domains[i].domain;

	switch (act) {
	case GUARD_QUIET:
		return f->port->ops->quiet(f->port, e);
	case GUARD_OFF:
		return f->port->ops->off(f->port, e);
	case GUARD_STOP:
		return fence_stop(f->port, d, e);
	case GUARD_DESTROY:
		fence_ender_begin(f->ender, d);
		f->ending_ms = fenced_now_ms();
		f->ending_told = false;
		return 0;
	case GUARD_WAIT:
		break;
	}
	return 0;
}

static void log_end(enum guard_act act, const struct fence_domain *d, int rc,
	const struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];

	log_warn("fence.end", "act=%s domid=%u handle=%s rc=%s msg=\"%s\"", act_name(act),
		d->domid, uuid_format(&d->handle, text), rc ? rv_error_symbol(rc) : "0",
		rc ? e->detail : "this host's lease has run out");
}

static void log_act(const struct fenced *f, enum guard_act act, uint32_t i, int rc,
	const struct rv_error *e)
{
	if (act == GUARD_STOP)
		log_end(act, &f->book.domains[i].domain, rc, e);
	else if (rc)
		log_error(
			"fence.watchdog", "act=%s msg=\"%s\"", act_name(act), e->detail);
}

/* What became of the destroy at work. It may take its time, since the domain runs no
 * more; only that is told. */
static void look_at_ending(struct fenced *f)
{
	struct rv_error e = {0};
	struct fence_domain d;
	int64_t now_ms = fenced_now_ms();
	int rc;

	if (!f->ending_ms)
		return;
	if (fence_ender_take(f->ender, &d, &rc, &e)) {
		f->ending_ms = 0;
		log_end(GUARD_DESTROY, &d, rc, &e);
		guard_book_destroyed(&f->book, &d, rc == 0, now_ms);
		if (rc)
			note_trouble(f, rc, &e);
		else
			tell_ended(f, &d);
	} else if (!f->ending_told && now_ms >= f->ending_ms + LONG_DESTROY_MS) {
		f->ending_told = true;
		log_warn("fence.end",
			"act=destroy msg=\"a domain that was stopped is still being "
			"destroyed after %d s; nothing else waits for it\"",
			LONG_DESTROY_MS / 1000);
	}
}

int64_t fenced_act(struct fenced *f)
{
	look_at_ending(f);
	for (;;) {
		struct rv_error e = {0};
		int64_t now_ms = fenced_now_ms(), at_ms;
		uint32_t i = 0;
		enum guard_act act = guard_book_next(&f->book, now_ms, &i, &at_ms);
		int rc;

		if (act == GUARD_WAIT)
			return at_ms;
		rc = carry_out(f, act, i, &e);
		log_act(f, act, i, rc, &e);
		if (rc || act == GUARD_QUIET)
			note_trouble(f, rc, &e);
		/* The watchdog's time began before the call, at the latest. */
		guard_book_did(&f->book, act, i, rc == 0, now_ms);
		if (rc && (act == GUARD_QUIET || act == GUARD_OFF))
			return now_ms + GUARD_AGAIN_MS;
	}
}

/* --- listening --- */

static bool refused(const struct rv_error *e)
{
	log_warn("fence.client", "msg=\"refused: %s\"", e->detail);
	return false;
}

/* What is refused comes again with each renewal: told once, and when it is over. */
static void note_list(struct fenced *f, int rc, const struct rv_error *e)
{
	if (rc && rc != f->list_rc)
		log_warn("fence.client", "msg=\"%s\"", e->detail);
	else if (!rc && f->list_rc)
		log_info("fence.client", "guarded=%u msg=\"its list is taken again\"",
			f->book.count);
	f->list_rc = rc;
}

bool fenced_take(struct fenced *f, const uint8_t *bytes, size_t len, int64_t now_ms)
{
	struct fence_message *m = &f->in;
	struct rv_error e;

	if (fence_decode(m, bytes, len, &e))
		return refused(&e);
	if (m->type == FENCE_HELLO) {
		if (m->version != FENCE_VERSION) {
			rv_error_set(&e, RV_EUNSUPPORTED,
				"reeved speaks version %u, this is version %d; install "
				"both from one package",
				m->version, FENCE_VERSION);
			return refused(&e);
		}
		f->greeted = true;
		f->list_rc = 0;
		(void)fenced_act(f);
		tell_state(f);
		tell_all_ended(f);
		return true;
	}
	if (!f->greeted || m->type == FENCE_STATE || m->type == FENCE_ENDED) {
		rv_error_set(&e, RV_EPROTO, "a message out of turn");
		return refused(&e);
	}
	if (m->type == FENCE_LEASE) {
		if (guard_book_lease(&f->book, m->until_ms, now_ms, &e))
			return refused(&e);
		(void)fenced_act(f);
		return true;
	}
	note_list(f, guard_book_list(&f->book, m, now_ms, &e), &e);
	(void)fenced_act(f); /* so that what it is told is so */
	tell_state(f);
	return true;
}

static void read_client(struct fenced *f)
{
	for (int i = 0; i < SERVE_BURST && f->client >= 0; i++) {
		static const char over[] = "reeved has closed the connection";
		ssize_t r = recv(f->client, f->bytes, sizeof f->bytes, MSG_DONTWAIT);

		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (r <= 0)
			drop_client(f, over);
		else if (!fenced_take(f, f->bytes, (size_t)r, fenced_now_ms()))
			drop_client(f, "reeved is not understood");
	}
}

static void accept_client(struct fenced *f)
{
	struct ucred who = {0};
	socklen_t len = sizeof who;
	int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	/* The socket's mode says so already; this holds wherever it is. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ||
		(who.uid != 0 && who.uid != geteuid())) {
		log_warn("fence.client", "uid=%u msg=\"only root may\"", who.uid);
		close(fd);
		return;
	}
	drop_client(f, "reeved has connected anew");
	f->client = fd;
	if (f->port->ops->peer)
		f->port->ops->peer(f->port, who.pid);
	log_info("fence.client", "pid=%d", (int)who.pid);
}

/* True: end. */
static bool on_signal(struct fenced *f)
{
	struct signalfd_siginfo info;

	if (read(f->signals, &info, sizeof info) != sizeof info)
		return false;
	if (f->book.count == 0)
		return true;
	log_error("fence.end",
		"domains=%u msg=\"not now: the pool relies on this process to end "
		"protected VMs. Migrate them away, or take their ha-restart-priority, "
		"first\"",
		f->book.count);
	return false;
}

void fenced_run(struct fenced *f)
{
	for (;;) {
		int64_t at_ms = fenced_act(f), left_ms = at_ms - fenced_now_ms();
		/* Never long: timers stand still while the machine is suspended. */
		int wait_ms = left_ms > SERVE_POLL_MS ? SERVE_POLL_MS : (int)left_ms;
		struct pollfd p[] = {{.fd = f->client, .events = POLLIN},
			{.fd = f->listener, .events = POLLIN},
			{.fd = f->signals, .events = POLLIN},
			{.fd = fence_ender_fd(f->ender), .events = POLLIN}};

		if (at_ms == INT64_MAX)
			wait_ms = SERVE_POLL_MS;
		if (poll(p, 4, wait_ms < 0 ? 0 : wait_ms) <= 0)
			continue;
		if (p[0].revents)
			read_client(f);
		if (p[1].revents)
			accept_client(f);
		if (p[2].revents && on_signal(f))
			return;
	}
}
