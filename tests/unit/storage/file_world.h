/* A file SR in a directory of its own, two hosts that share it, and the calls to it. */
#ifndef REEVE_TESTS_STORAGE_FILE_WORLD_H
#define REEVE_TESTS_STORAGE_FILE_WORLD_H

#include "tests/unit/storage/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/file.h"

#define MIB_ (UINT64_C(1) << 20)

struct fixture {
	struct loop *loop;
	struct storage *st, *other; /* two hosts on one directory */
	char root[64], dir[80];
	struct answer a;
};

static struct storage_config location[1];

static inline struct storage_call sr_call(enum storage_verb verb)
{
	return (struct storage_call){.verb = verb,
		.sr = uuid_of(1),
		.type = "file",
		.config = location,
		.config_count = 1};
}

static inline struct storage_call vdi_call(enum storage_verb verb, uint8_t vdi)
{
	return (struct storage_call){.verb = verb,
		.sr = uuid_of(1),
		.vdi = uuid_of(vdi),
		.holder = uuid_of(90)};
}

static inline struct storage_call create_call(
	uint8_t vdi, uint64_t size, enum storage_format format)
{
	struct storage_call call = vdi_call(STORAGE_VDI_CREATE, vdi);
	call.size = size;
	call.format = format;
	return call;
}

static inline struct storage_call activate_call(
	uint8_t vdi, bool write, uint64_t generation)
{
	struct storage_call call = vdi_call(STORAGE_VDI_ACTIVATE, vdi);
	call.write = write;
	call.generation = generation;
	return call;
}

static inline struct storage_call copy_call(
	uint8_t from, uint8_t to, enum storage_format format)
{
	struct storage_call call = vdi_call(STORAGE_VDI_COPY, from);
	call.target_vdi = uuid_of(to);
	call.format = format;
	return call;
}

static inline void host_new(struct storage **st, struct loop *l, uint8_t host)
{
	assert_int_equal(storage_new(st, l, uuid_of(host)), 0);
	assert_int_equal(storage_file_add(*st), 0);
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct rv_error e;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(loop_new(&f->loop, &e), 0);
	host_new(&f->st, f->loop, 51);
	host_new(&f->other, f->loop, 52);
	snprintf(f->root, sizeof f->root, "/tmp/reeve-file-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	snprintf(f->dir, sizeof f->dir, "%s/the sr", f->root);
	location[0] = (struct storage_config){"location", f->dir};
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];
	storage_free(f->st);
	storage_free(f->other);
	loop_free(f->loop);
	umount2(f->root, MNT_DETACH);
	snprintf(command, sizeof command, "rm -rf '%s'", f->root);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static inline void attach(struct fixture *f)
{
	call_ok(f->st, f->loop, &f->a, sr_call(STORAGE_SR_CREATE));
	call_ok(f->st, f->loop, &f->a, sr_call(STORAGE_SR_ATTACH));
}

static inline void in_dir(const struct fixture *f, const char *name, char path[256])
{
	snprintf(path, 256, "%s/%s", f->dir, name);
}

static inline void vdi_path(
	const struct fixture *f, uint8_t vdi, const char *suffix, char path[256])
{
	char text[UUID_TEXT_SIZE], name[80];
	struct uuid u = uuid_of(vdi);
	snprintf(name, sizeof name, "%s%s", uuid_format(&u, text), suffix);
	in_dir(f, name, path);
}

static inline bool exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}

static inline void put(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static inline void run_command(const char *command)
{
	if (system(command))
		fail_msg("%s", command);
}

/* Nothing but marker, lock and `vdis` files. */
static inline void assert_clean(const struct fixture *f, int entries)
{
	char command[256], line[32] = "";
	snprintf(command, sizeof command, "ls -A '%s' | wc -l", f->dir);
	FILE *p = popen(command, "r");
	assert_non_null(fgets(line, sizeof line, p));
	pclose(p);
	assert_int_equal(atoi(line), entries);
}

#endif
