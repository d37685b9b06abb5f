/*
 * Serves the lab's requests in dom0, one TCP connection each, on port 7:
 *	"run LIMIT SIZE\n" and a shell script of SIZE bytes: its output, then a last line
 *		"@status=N"; ended by force after LIMIT seconds, N is 124 then
 *	"clock N\n", as often as wanted: turns the clock by N µs, answers with the time
 *		in µs
 * Static and without other programs: under emulation each start of one costs 50 ms.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 7, SCRIPT_MAX = 100 * 1024 };

static long long clock_us(long long by)
{
	struct timespec t;
	long long us;

	clock_gettime(CLOCK_REALTIME, &t);
	us = t.tv_sec * 1000000LL + t.tv_nsec / 1000 + by;
	if (by != 0) {
		t.tv_sec = us / 1000000;
		t.tv_nsec = us % 1000000 * 1000;
		clock_settime(CLOCK_REALTIME, &t);
	}
	return us;
}

static void interrupted(int signal_number)
{
	(void)signal_number;
}

static int run(const char *script, int limit, int fd)
{
	struct sigaction act = {.sa_handler = interrupted};
	int status, null, late = 0;
	pid_t pid = fork();

	if (pid == 0) {
		setsid();
		null = open("/dev/null", O_RDONLY);
		dup2(null, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		close(null);
		close(fd);
		execl("/bin/sh", "sh", "-c", script, (char *)NULL);
		_exit(127);
	}
	sigaction(SIGALRM, &act, NULL);
	alarm((unsigned)limit);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
		late = 1;
		kill(-pid, SIGKILL);
	}
	if (late)
		return 124;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void serve(int fd)
{
	static char script[SCRIPT_MAX + 1];
	FILE *f = fdopen(fd, "r");
	long long by;
	char line[64];
	int limit, size;

	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "clock %lld", &by) == 1) {
			dprintf(fd, "%lld\n", clock_us(by));
		} else if (sscanf(line, "run %d %d", &limit, &size) == 2 && size >= 0 &&
			   size <= SCRIPT_MAX &&
			   fread(script, 1, (size_t)size, f) == (size_t)size) {
			script[size] = '\0';
			dprintf(fd, "@status=%d\n", run(script, limit, fd));
			return;
		} else {
			return;
		}
	}
}

int main(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 64)) {
		perror("agent");
		return 1;
	}
	/* In the background only once it listens: its caller then says that it is ready.
	 */
	if (daemon(0, 0))
		return 1;
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		if (fork() == 0) {
			signal(SIGCHLD, SIG_DFL);
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
}
