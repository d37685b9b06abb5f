/* reeve-fenced: ends protected VMs when their host's lease runs out. docs/fencing.md */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "fence/serve.h"
#include "fence/sim.h"

static const char usage[] =
	"usage: reeve-fenced [--socket=PATH] [--driver-dir=DIR] [--simulated=FILE]\n"
	"\n"
	"Ends the protected VMs of this host when its lease runs out, so that the pool "
	"may\n"
	"start them elsewhere. reeved tells it of both, on the socket.\n"
	"\n"
	"  --socket=PATH      [/run/reeve/" FENCE_SOCKET_NAME "] where reeved finds it\n"
	"  --driver-dir=DIR   where reeve-fence-VERSION.so is [/usr/lib/reeve]\n"
	"  --simulated=FILE   no Xen: reeved's simulated host, "
	"STATE_DIR/simulated-machine\n";

struct options {
	const char *socket, *driver_dir, *machine;
};

/* Exits on what is not understood. */
static void read_options(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"driver-dir", required_argument, NULL, 'd'},
		{"simulated", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	int c;

	*o = (struct options){.socket = "/run/reeve/" FENCE_SOCKET_NAME};
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			o->socket = optarg;
			break;
		case 'd':
			o->driver_dir = optarg;
			break;
		case 'm':
			o->machine = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		case 'v':
			puts("reeve-fenced " REEVE_VERSION);
			exit(0);
		default:
			exit(2);
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		exit(2);
	}
}

static int open_listener(const char *path, struct rv_error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	mode_t before;
	int fd, r;

	if (strlen(path) >= sizeof a.sun_path)
		return rv_error_set(e, RV_EPARAM, "%s: too long for a socket", path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return rv_error_set(
			e, rv_error_from_errno(errno), "socket: %s", strerror(errno));
	/* Another one that listens there is not taken its place. */
	if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
		close(fd);
		return rv_error_set(
			e, RV_EEXIST, "%s: another reeve-fenced runs already", path);
	}
	(void)unlink(path);
	before = umask(077);
	r = bind(fd, (struct sockaddr *)&a, sizeof a);
	umask(before);
	if (r || listen(fd, 8)) {
		close(fd);
		return rv_error_set(e, rv_error_from_errno(errno),
			"%s can't be listened on: %s", path, strerror(errno));
	}
	return fd;
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int open_port(struct fence_port **out, const struct options *o, struct rv_error *e)
{
	char note[PATH_MAX];
	const char *slash = strrchr(o->socket, '/');

	if (o->machine)
		return fence_sim_open(out, o->machine, e);
	snprintf(note, sizeof note, "%.*s/fenced.watchdog",
		slash ? (int)(slash - o->socket) : 1, slash ? o->socket : ".");
	return fence_xen_load(out, o->driver_dir, note, e);
}

/* What it needs is in memory, and it runs before others: a host that swaps or is busy
 * must be fenced all the same. */
static int become_sure(bool simulated, struct rv_error *e)
{
	struct sched_param p = {.sched_priority = 10};

	if (mlockall(MCL_CURRENT | MCL_FUTURE) && !simulated)
		return rv_error_set(e, rv_error_from_errno(errno),
			"its memory can't be locked: %s; run it as root, and raise "
			"LimitMEMLOCK",
			strerror(errno));
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &p))
		log_warn("fence.main", "msg=\"no real-time priority: %s\"",
			strerror(errno));
	return 0;
}

int main(int argc, char **argv)
{
	struct fence_port *port = NULL;
	struct fence_ender *ender = NULL;
	struct fenced *f = calloc(1, sizeof *f);
	struct options o;
	struct rv_error e = {0};
	int listener, rc;

	read_options(&o, argc, argv);
	listener = open_listener(o.socket, &e);
	rc = listener < 0 || !f ? -1 : open_port(&port, &o, &e);
	if (!rc)
		rc = become_sure(o.machine != NULL, &e);
	if (!rc)
		rc = fence_ender_new(&ender, port, &e);
	if (rc) {
		log_error("fence.main", "error=%s msg=\"%s\"", rv_error_symbol(e.code),
			e.detail);
		free(f);
		return 1;
	}
	signal(SIGPIPE, SIG_IGN); /* a watchdog that has ended is an error to tell */
	fenced_init(f, port, ender, listener, open_signals());
	log_info("fence.main", "driver=%s socket=%s", port->ops->name, o.socket);
	fenced_run(f);
	(void)unlink(o.socket);
	fence_ender_free(ender);
	port->ops->close(port);
	free(f);
	return 0;
}
