/*
 * The test guest of the lab: the only program of a Xen guest, its init.
 *
 * It counts every 20 ms, rewrites and checks memory as it goes, and prints one line a
 * second on its console:
 *	TICK n=COUNT up=S real=S gap=MS total=KIB bad=N
 * gap is the longest time between two counts since the last line, by the guest's own
 * wall clock, which Linux sets anew from Xen's after a suspend: so a migration's
 * downtime is the longest gap. bad counts pages that were not as it left them.
 *
 * Words of its kernel's command line: work=MIB (memory it rewrites, default 2),
 * dirty=PAGES (how many each count, default 1), ip=ADDRESS (for eth0), step=MS (default
 * 20; each count costs an emulated processor 3 ms).
 * With a first disk it writes numbered blocks there, reads them back and prints
 *	DISK n=COUNT bad=N
 * A line typed on its console is answered with "ECHO line"; some are orders: poweroff,
 * reboot, crash, "dirty PAGES".
 * As /sbin/poweroff and /sbin/reboot, which the kernel calls when Xen asks for it, it
 * does that.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, BLOCKS = 64 };

static double clock_s(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The value of "NAME=…" on the kernel's command line. */
static const char *word(const char *name, const char *missing)
{
	static char line[2048], value[64];
	const char *at;
	FILE *f;

	if (line[0] == '\0' && (f = fopen("/proc/cmdline", "r")) != NULL) {
		line[0] = ' ';
		if (!fgets(line + 1, sizeof line - 1, f))
			line[1] = '\0';
		fclose(f);
	}
	for (at = line; (at = strstr(at, name)) != NULL; at++)
		if (at[-1] == ' ' && at[strlen(name)] == '=') {
			sscanf(at + strlen(name) + 1, "%63[^ \n]", value);
			return value;
		}
	return missing;
}

static void load_modules(void)
{
	struct dirent **names;
	char path[300];
	int i, fd, n = scandir("/modules", &names, NULL, alphasort);

	for (i = 0; i < n; i++) {
		snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
		if (names[i]->d_name[0] == '.' || (fd = open(path, O_RDONLY)) < 0)
			continue;
		if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
			printf("MODULE %s: %s\n", path, strerror(errno));
		close(fd);
	}
}

static void network(const char *address)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	struct sockaddr_in *in = (struct sockaddr_in *)&ifr.ifr_addr;
	int i, fd = socket(AF_INET, SOCK_DGRAM, 0);

	for (i = 0; i < 300 && ioctl(fd, SIOCGIFINDEX, &ifr); i++)
		usleep(100000);
	in->sin_family = AF_INET;
	inet_pton(AF_INET, address, &in->sin_addr);
	if (ioctl(fd, SIOCSIFADDR, &ifr))
		printf("NETWORK %s: %s\n", address, strerror(errno));
	in->sin_addr.s_addr = htonl(0xffffff00);
	ioctl(fd, SIOCSIFNETMASK, &ifr);
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	ioctl(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
	printf("NETWORK up %s\n", address);
}

/* Writes a numbered block past the page cache and reads it back, for ever. */
static void disk(const char *path)
{
	uint64_t *block = aligned_alloc(PAGE, PAGE), n = 0, bad = 0;
	int i, fd = -1;

	for (i = 0; i < 100 && (fd = open(path, O_RDWR | O_DIRECT | O_SYNC)) < 0; i++)
		usleep(100000);
	if (fd < 0)
		_exit(0);
	for (;;) {
		off_t at = (off_t)(n % BLOCKS) * PAGE;

		for (i = 0; i < WORDS; i++)
			block[i] = n * WORDS + (uint64_t)i;
		if (pwrite(fd, block, PAGE, at) != PAGE)
			bad++;
		memset(block, 0, PAGE);
		if (pread(fd, block, PAGE, at) != PAGE ||
			block[WORDS - 1] != n * WORDS + WORDS - 1)
			bad++;
		if (++n % 10 == 0)
			printf("DISK n=%lu bad=%lu\n", n, bad);
		usleep(100000);
	}
}

static void fill(uint64_t *page, uint64_t index, uint64_t round)
{
	int i;

	for (i = 0; i < WORDS; i++)
		page[i] = index << 32 ^ round * 0x9e3779b97f4a7c15u ^ (uint64_t)i;
}

static uint64_t check(const uint64_t *pages, uint64_t count, const uint64_t *rounds)
{
	uint64_t i, bad = 0, want[WORDS];

	for (i = 0; i < count; i++) {
		fill(want, i, rounds[i]);
		bad += memcmp(want, pages + i * WORDS, PAGE) != 0;
	}
	return bad;
}

static void crash(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY);

	if (write(fd, "c", 1) != 1)
		abort();
}

static void answer_console(uint64_t *dirty)
{
	static char line[128];
	static size_t used;
	ssize_t r = read(0, line + used, sizeof line - 1 - used);

	if (r <= 0)
		return;
	used += (size_t)r;
	line[used] = '\0';
	if (strpbrk(line, "\r\n") == NULL && used < sizeof line - 1)
		return;
	line[strcspn(line, "\r\n")] = '\0';
	printf("ECHO %s\n", line);
	used = 0;
	if (strcmp(line, "poweroff") == 0)
		reboot(RB_POWER_OFF);
	else if (strcmp(line, "reboot") == 0)
		reboot(RB_AUTOBOOT);
	else if (strcmp(line, "crash") == 0)
		crash();
	else
		sscanf(line, "dirty %lu", dirty);
}

static void count(void)
{
	uint64_t pages = strtoull(word("work", "2"), NULL, 10) * 256;
	uint64_t dirty = strtoull(word("dirty", "1"), NULL, 10), next = 0, n = 0, bad = 0,
		 i;
	uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t *rounds = calloc(pages, sizeof *rounds);
	double last = clock_s(CLOCK_REALTIME), gap = 0, line = clock_s(CLOCK_MONOTONIC);
	struct timespec step = {
		.tv_nsec = strtol(word("step", "20"), NULL, 10) * 1000000};

	for (i = 0; i < pages; i++)
		fill(memory + i * WORDS, i, 0);
	for (;;) {
		double now;

		nanosleep(&step, NULL);
		now = clock_s(CLOCK_REALTIME);
		if (now - last > gap)
			gap = now - last;
		last = now;
		n++;
		for (i = 0; i < dirty && pages > 0; i++, next = (next + 1) % pages)
			fill(memory + next * WORDS, next, ++rounds[next]);
		answer_console(&dirty);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (clock_s(CLOCK_MONOTONIC) - line >= 1) {
			struct sysinfo s;

			line = clock_s(CLOCK_MONOTONIC);
			bad += check(memory, pages, rounds);
			sysinfo(&s);
			printf("TICK n=%lu up=%.2f real=%.3f gap=%.0f total=%lu "
			       "bad=%lu\n",
				n, line, now, gap * 1000, s.totalram * s.mem_unit / 1024,
				bad);
			gap = 0;
		}
	}
}

int main(int argc, char **argv)
{
	int fd;

	(void)argc;
	if (getpid() != 1) {
		reboot(strstr(argv[0], "reboot") ? RB_AUTOBOOT : RB_POWER_OFF);
		return 1;
	}
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	fd = open("/dev/console", O_RDWR | O_NONBLOCK);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("GUEST up=%.2f\n", clock_s(CLOCK_BOOTTIME));
	load_modules();
	if (word("ip", NULL) && fork() == 0) {
		network(word("ip", NULL));
		_exit(0);
	}
	if (fork() == 0)
		disk("/dev/xvda");
	count();
}
