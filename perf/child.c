#include "perf/child.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf/report.h"

enum { POLL_US = 5000, READY_POLLS = 4000, STOP_POLLS = 2000, LOG_TAIL_BYTES = 2000 };

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *where)
{
	(void)s;
	(void)type;
	(void)where;
	return remove(path);
}

static void remove_directory(int status, void *directory)
{
	(void)status;
	nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(directory);
}

const char *child_directory(void)
{
	const char *base = getenv("TMPDIR");
	char *directory = malloc(CHILD_PATH_MAX);

	if (!directory)
		report_die("out of memory");
	snprintf(directory, CHILD_PATH_MAX, "%.64s/reeve-perf-XXXXXX",
		base && *base ? base : "/var/tmp");
	if (!mkdtemp(directory))
		report_die("%s: %s", directory, strerror(errno));
	on_exit(remove_directory, directory);
	return directory;
}

void child_program(char *path, size_t size, const char *name)
{
	char self[CHILD_PATH_MAX * 2];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n < 0)
		report_die("/proc/self/exe: %s", strerror(errno));
	self[n] = '\0';
	for (int i = 0; i < 2; i++) { /* <build>/perf/perf_NAME */
		char *slash = strrchr(self, '/');

		if (slash)
			*slash = '\0';
	}
	snprintf(path, size, "%s/%s", self, name);
	if (access(path, X_OK) != 0)
		report_die("%s: %s; build it first (./run build)", path, strerror(errno));
}

static void child_exec(char *const argv[], const char *log, char *const environment[])
{
	int out = open(log ? log : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0600);
	int in = open("/dev/null", O_RDONLY);

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(126);
	for (; environment && *environment; environment++)
		putenv(*environment);
	execvp(argv[0], argv);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

pid_t child_start(char *const argv[], const char *log, char *const environment[])
{
	pid_t pid = fork();

	if (pid < 0)
		report_die("fork: %s", strerror(errno));
	if (pid == 0)
		child_exec(argv, log, environment);
	return pid;
}

static void show_log(const char *log)
{
	char text[LOG_TAIL_BYTES + 1];
	int fd = log ? open(log, O_RDONLY) : -1;
	ssize_t n;

	if (fd < 0)
		return;
	if (lseek(fd, -LOG_TAIL_BYTES, SEEK_END) < 0)
		lseek(fd, 0, SEEK_SET);
	n = read(fd, text, LOG_TAIL_BYTES);
	close(fd);
	if (n > 0)
		fprintf(stderr, "%.*s", (int)n, text);
}

void child_check(pid_t pid, const char *log)
{
	int status;

	if (waitpid(pid, &status, WNOHANG) == 0)
		return;
	show_log(log);
	report_die("a program that the benchmark needs has ended (see above)");
}

void child_await_path(pid_t pid, const char *path, const char *log)
{
	for (int i = 0; i < READY_POLLS; i++) {
		child_check(pid, log);
		if (access(path, F_OK) == 0)
			return;
		usleep(POLL_US);
	}
	show_log(log);
	report_die("%s does not appear", path);
}

static bool somebody_listens(int port)
{
	enum { STATE_LISTEN = 0x0a };
	FILE *f = fopen("/proc/net/tcp", "r");
	char line[256];
	unsigned local, state;
	bool found = false;

	while (f && !found && fgets(line, sizeof line, f))
		found = sscanf(line, " %*u: %*x:%x %*x:%*x %x", &local, &state) == 2 &&
			local == (unsigned)port && state == STATE_LISTEN;
	if (f)
		fclose(f);
	return found;
}

void child_await_port(pid_t pid, int port, const char *log)
{
	for (int i = 0; i < READY_POLLS; i++) {
		child_check(pid, log);
		if (somebody_listens(port))
			return;
		usleep(POLL_US);
	}
	show_log(log);
	report_die("nobody listens on port %d", port);
}

void child_finish(pid_t pid, const char *log)
{
	int status;

	if (waitpid(pid, &status, 0) == pid && status == 0)
		return;
	show_log(log);
	report_die("a program of the benchmark has failed (see above)");
}

void child_stop(pid_t pid)
{
	int status;

	if (pid <= 0)
		return;
	kill(pid, SIGTERM);
	for (int i = 0; i < STOP_POLLS; i++) {
		if (waitpid(pid, &status, WNOHANG) != 0)
			return;
		usleep(POLL_US);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}
