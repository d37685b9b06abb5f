/*
 * The supervisor: see work.h. Also the door to the hotplug scripts, which are this
 * program under other names.
 *
 * From the worker come single bytes ("B": there is something to undo, "S": the guest is
 * being asked to suspend), then its result. What the worker sends the daemon meanwhile
 * (pre-copy, suspended) does not pass here.
 */
#include "xen/helper/work.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mpcheck.h"
#include "xen/real/request.h"

struct supervisor {
	struct helper_request *req;
	int signal_fd;
	char scripts[HELPER_PATH_SIZE];

	pid_t worker;
	int inner_fd; /* from the worker */
	bool begun, asked, answered, cancelled;
	bool told;  /* the daemon has its result */
	int status; /* of the worker's end */
	struct helper_result result;
};

/* --- the worker's process --- */

static void worker_main(struct supervisor *s, int inner_fd)
{
	struct work w = {
		.req = s->req,
		.control_fd = HELPER_FD_CONTROL,
		.data_fd = HELPER_FD_DATA,
		.inner_fd = inner_fd,
		.asked = s->asked,
	};
	struct helper_message m = {.kind = HELPER_RESULT};
	struct rv_error e = {0};
	sigset_t none;
	struct buf out;

	snprintf(w.script_block, sizeof w.script_block, "%s/reeve-xen-block", s->scripts);
	snprintf(w.script_vif, sizeof w.script_vif, "%s/reeve-xen-vif", s->scripts);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	work_run(&w);
	m.result = w.result;
	buf_init(&out, HELPER_WIRE_MAX * 2);
	if (helper_wire_encode(&out, &m, &e) != 0) {
		/* Words that are no UTF-8: the code must still be told. */
		memset(m.result.detail, 0, sizeof m.result.detail);
		memset(m.result.console, 0, sizeof m.result.console);
		buf_consume(&out, buf_len(&out));
		if (helper_wire_encode(&out, &m, &e) != 0)
			_exit(3);
	}
	if (send(inner_fd, buf_data(&out), buf_len(&out), MSG_NOSIGNAL) < 0)
		_exit(3);
	_exit(0);
}

/* Who reads what the worker writes is to see its end, and so is who writes to it. */
static void data_leave(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	(void)dup3(null, HELPER_FD_DATA, O_CLOEXEC);
	close(null);
}

static int worker_start(struct supervisor *s)
{
	int pair[2];
	pid_t parent = getpid();

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	s->answered = false;
	s->worker = fork();
	if (s->worker == 0) {
		/* A group of its own, so that libxl's children end with it; but when the
		 * supervisor is killed it must not stay behind. */
		(void)setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(3);
		close(pair[0]);
		worker_main(s, pair[1]);
	}
	close(pair[1]);
	if (s->worker < 0) {
		close(pair[0]);
		return -1;
	}
	(void)setpgid(s->worker, s->worker);
	data_leave();
	s->inner_fd = pair[0];
	return 0;
}

/* False when there is nothing more to read now. */
static bool inner_read(struct supervisor *s)
{
	static uint8_t packet[HELPER_WIRE_MAX];
	struct helper_message m = {0};
	struct rv_error e = {0};
	ssize_t r = recv(s->inner_fd, packet, sizeof packet, MSG_DONTWAIT);

	if (r < 0 && errno == EINTR)
		return true;
	if (r <= 0)
		return false;
	if (r == 1 && packet[0] == 'B') {
		s->begun = true;
	} else if (r == 1 && packet[0] == 'S') {
		s->asked = true;
	} else if (helper_wire_decode(&m, packet, (size_t)r, &e) == 0 &&
		   m.kind == HELPER_RESULT) {
		s->result = m.result;
		s->answered = true;
	}
	return true;
}

static void worker_kill(struct supervisor *s)
{
	(void)kill(-s->worker, SIGKILL);
	(void)kill(s->worker, SIGKILL); /* should it not have its group yet */
}

/* True when the worker has ended. Children of it that come to us are collected too. */
static bool worker_reap(struct supervisor *s)
{
	bool ended = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != s->worker)
			continue;
		s->status = status;
		ended = true;
	}
	return ended;
}

static void signals_drain(struct supervisor *s, bool *term)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
		if (info.ssi_signo == SIGTERM)
			*term = true;
}

static void result_send(struct supervisor *s)
{
	struct helper_message m = {.kind = HELPER_RESULT, .result = s->result};
	struct work w = {.control_fd = HELPER_FD_CONTROL};

	/* What is cut in the middle of a character would not pass. */
	m.result.detail[mpcheck_utf8((const uint8_t *)m.result.detail,
		strnlen(m.result.detail, sizeof m.result.detail - 1))] = '\0';
	work_send(&w, &m);
}

/* What is well done is told at once: the worker has closed what it had, and its end takes
 * as long as its page tables. A cancel that comes later comes too late. */
static void tell_early(struct supervisor *s)
{
	struct pollfd life = {.fd = HELPER_FD_LIFE};

	if (s->told || !s->answered || s->result.rc != 0 || poll(&life, 1, 0) > 0)
		return;
	result_send(s);
	s->told = true;
}

/* Runs one worker to its end. `heed`: a cut life line or SIGTERM ends it early. */
static void worker_run(struct supervisor *s, bool heed)
{
	bool ended = false, killed = false;

	if (worker_start(s) < 0) {
		s->result = (struct helper_result){.rc = RV_ECHILD};
		snprintf(s->result.detail, sizeof s->result.detail,
			"the Xen helper can't fork: %s", strerror(errno));
		s->answered = true;
		return;
	}
	while (!ended) {
		struct pollfd p[3] = {
			{.fd = s->signal_fd, .events = POLLIN},
			{.fd = s->inner_fd, .events = POLLIN},
			{.fd = heed && !killed && !s->told ? HELPER_FD_LIFE : -1},
		};
		bool term = false;

		(void)poll(p, 3, -1);
		if (p[1].revents && !inner_read(s) && (p[1].revents & POLLHUP))
			p[1].revents = 0;
		signals_drain(s, &term);
		if (heed && !killed)
			tell_early(s);
		if (heed && !killed && !s->told && (term || p[2].revents)) {
			killed = s->cancelled = true;
			worker_kill(s);
		}
		ended = worker_reap(s);
	}
	while (inner_read(s))
		;
	close(s->inner_fd);
	(void)kill(-s->worker, SIGKILL); /* its scripts, should any be left */
}

/* --- undoing --- */

/* QEMU is in a session of its own; when a half-made domain goes, so does it. */
static void orphans_end(void)
{
	char path[64], text[4096], *at = text;
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	for (;;) {
		char *end;
		long pid = strtol(at, &end, 10);

		if (end == at)
			return;
		if (pid > 1)
			(void)kill((pid_t)pid, SIGKILL);
		at = end;
	}
}

/* What takes back what the request had begun; HYPER_CALL_NONE: nothing can or need be. */
static enum hyper_call undo_of(const struct helper_request *req)
{
	switch (req->call) {
	case HYPER_CALL_CREATE:
	case HYPER_CALL_RESTORE:
		return HYPER_CALL_DESTROY;
	case HYPER_CALL_SAVE:
		return WORK_UNDO_SAVE;
	case HYPER_CALL_ATTACH_VBD:
		return HYPER_CALL_DETACH_VBD;
	case HYPER_CALL_ATTACH_VIF:
		return HYPER_CALL_DETACH_VIF;
	default:
		return HYPER_CALL_NONE;
	}
}

static void undo(struct supervisor *s)
{
	struct helper_result was = s->result;
	enum hyper_call call = undo_of(s->req);
	bool makes = call == HYPER_CALL_DESTROY;

	if (!s->begun || call == HYPER_CALL_NONE)
		return;
	/* A save that ended by itself has tidied up. */
	if (s->req->call == HYPER_CALL_SAVE && s->answered && !s->cancelled)
		return;
	if (makes)
		orphans_end();
	s->req->call = (uint32_t)call;
	worker_run(s, false);
	if (!s->answered || s->result.rc != 0) {
		char why[RV_ERROR_DETAIL_MAX], first[RV_ERROR_DETAIL_MAX];

		snprintf(why, sizeof why, "%s",
			s->answered ? s->result.detail : "it was killed");
		snprintf(first, sizeof first, "%s",
			was.detail[0] ? was.detail : rv_error_text(was.rc));
		was.left = makes;
		snprintf(was.detail, sizeof was.detail,
			"%.380s; and what was begun could not be undone: %.300s", first,
			why);
		was.rc = RV_EOUTCOME;
	} else {
		was.left = false;
		was.suspended = s->result.suspended;
	}
	s->result = was;
}

/* --- the operation --- */

/* What the worker's end means. */
static void judge(struct supervisor *s)
{
	struct pollfd life = {.fd = HELPER_FD_LIFE};

	if (s->answered && s->result.rc == 0 && poll(&life, 1, 0) > 0 && s->begun &&
		undo_of(s->req) == HYPER_CALL_DESTROY)
		s->cancelled = true; /* made for nobody */
	else if (s->answered)
		return;
	s->result = (struct helper_result){.rc = RV_ECANCELLED};
	snprintf(s->result.detail, sizeof s->result.detail, "cancelled");
	if (s->cancelled)
		return;
	s->result.rc = RV_ECHILD;
	if (WIFSIGNALED(s->status))
		snprintf(s->result.detail, sizeof s->result.detail,
			"the Xen helper's worker was ended by signal %d (%s)",
			WTERMSIG(s->status), strsignal(WTERMSIG(s->status)));
	else
		snprintf(s->result.detail, sizeof s->result.detail,
			"the Xen helper's worker ended with status %d",
			WEXITSTATUS(s->status));
}

static int request_read(struct supervisor *s)
{
	static uint8_t packet[HELPER_WIRE_MAX];
	struct helper_message m = {.request = s->req};
	struct rv_error e = {0};
	int data_fd;
	ssize_t r;

	r = xen_request_receive(HELPER_FD_CONTROL, packet, sizeof packet, &data_fd);
	if (r <= 0)
		return -1; /* the daemon went away again */
	if (data_fd >= 0) {
		if (dup3(data_fd, HELPER_FD_DATA, O_CLOEXEC) < 0)
			return -1;
		close(data_fd);
	}
	if (helper_wire_decode(&m, packet, (size_t)r, &e) == 0) {
		if (m.kind == HELPER_REQUEST && s->req->version == HELPER_WIRE_VERSION &&
			s->req->call != WORK_UNDO_SAVE)
			return 0;
		(void)rv_error_set(&e, RV_EPROTO,
			"reeve-xen-helper is of another version than the daemon: install "
			"both from one package and restart reeved");
	}
	s->result.rc = e.code;
	memcpy(s->result.detail, e.detail, sizeof s->result.detail);
	result_send(s);
	return -1;
}

/* The scripts are where the request says, or beside the program. */
static int scripts_find(struct supervisor *s)
{
	ssize_t n;
	char *slash;

	if (s->req->scripts[0]) {
		memcpy(s->scripts, s->req->scripts, sizeof s->scripts);
		return 0;
	}
	n = readlink("/proc/self/exe", s->scripts, sizeof s->scripts - 1);
	if (n <= 0)
		return -1;
	s->scripts[n] = '\0';
	slash = strrchr(s->scripts, '/');
	if (slash)
		*slash = '\0';
	return 0;
}

static int signals_take(struct supervisor *s)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? -1 : 0;
}

static int operate(struct supervisor *s)
{
	if (request_read(s) < 0)
		return 1;
	if (scripts_find(s) < 0)
		return 3;
	worker_run(s, true);
	if (s->told)
		return 0;
	judge(s);
	if (s->result.rc != 0)
		undo(s);
	result_send(s);
	return 0;
}

static int job(void)
{
	struct supervisor s = {.inner_fd = -1};
	int status = 3;

	for (int fd = HELPER_FD_CONTROL; fd <= HELPER_FD_LIFE; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
			fprintf(stderr, "reeve-xen-helper is started by reeved alone\n");
			return 2;
		}
	/* What the worker leaves behind comes to us. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	s.req = calloc(1, sizeof *s.req);
	if (s.req && signals_take(&s) == 0)
		status = operate(&s);
	free(s.req);
	return status;
}

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argv[0];

	if (argc >= 2 && strcmp(name, "reeve-xen-block") == 0)
		return hotplug_block(argv[1]);
	if (argc >= 2 && strcmp(name, "reeve-xen-vif") == 0)
		return hotplug_vif(argv[1]);
	if (argc == 2 && strcmp(argv[1], "--job") == 0)
		return job();
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("reeve-xen-helper %s, for Xen %d.%d\n", REEVE_VERSION,
			REEVE_XEN_MAJOR, REEVE_XEN_MINOR);
		return 0;
	}
	fprintf(stderr, "usage: reeve-xen-helper --version\n"
			"reeved starts it for each operation that blocks on Xen; libxl "
			"starts it as reeve-xen-block and reeve-xen-vif.\n");
	return 2;
}
