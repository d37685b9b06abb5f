/*
 * The storage port of the replicated log: named files inside one directory.
 *
 * Two drivers: disk_open_dir (a directory of the host) and disk_new_sim (memory that
 * forgets, tears, flips and runs full on demand), so that the whole log runs in
 * deterministic simulation. Users: pool/raft_io and pool/recover, nobody else.
 *
 * The operations below block: they run on a worker's thread, as jobs given to
 * disk_submit, in one of two lanes (jobs of a lane run in order, one at a time). The one
 * exemption is disk_write_now for terms and votes, called from the loop, rarely. One file
 * is used by one lane at a time.
 *
 * Nothing written is durable before disk_sync (for bytes and length) or the return of
 * disk_create, disk_rename and disk_remove (for names) says so. After a failed disk_sync
 * nothing is known about the bytes since the last good one: cut them off or give up.
 */
#ifndef REEVE_POOL_DISK_H
#define REEVE_POOL_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "reactor/loop.h"
#include "reactor/worker.h"

enum { DISK_NAME_MAX = 64 };

/* Log appends must not wait behind snapshots. */
enum disk_lane { DISK_LANE_LOG, DISK_LANE_BULK, DISK_LANE_COUNT };

struct disk;
struct disk_file;

typedef void disk_list_fn(void *arg, const char *name, uint64_t bytes);

struct disk_ops {
	int (*list)(struct disk *d, disk_list_fn *fn, void *arg, struct rv_error *e);
	int (*read)(struct disk *d, const char *name, uint8_t **bytes, size_t *len,
		struct rv_error *e);
	int (*open)(struct disk *d, const char *name, bool create, uint64_t reserve,
		struct disk_file **out, struct rv_error *e);
	int (*write)(struct disk_file *f, uint64_t offset, const void *bytes, size_t len,
		struct rv_error *e);
	int (*sync)(struct disk_file *f, struct rv_error *e);
	int (*truncate)(struct disk_file *f, uint64_t size, struct rv_error *e);
	void (*close)(struct disk_file *f);
	int (*rename)(
		struct disk *d, const char *from, const char *to, struct rv_error *e);
	int (*remove)(struct disk *d, const char *name, struct rv_error *e);
	int (*space)(struct disk *d, uint64_t *free_bytes, struct rv_error *e);
	int (*lanes)(struct disk *d); /* starts those that are NULL */
	void (*free)(struct disk *d);
};

/* The head of every driver's struct. */
struct disk {
	const struct disk_ops *ops;
	const char *path; /* for messages */
	struct worker *lanes[DISK_LANE_COUNT];
};

/* The head of every driver's open file. */
struct disk_file {
	struct disk *disk;
	char name[DISK_NAME_MAX];
};

/* A directory, made (mode 0700) if missing and locked against a second daemon: RV_EBUSY
 * names the holder. Returned owned. */
int disk_open_dir(struct disk **out, struct loop *l, const char *path,
	struct rv_error *e) RV_MUST_CHECK;

/* Waits for the jobs at work; those waiting end with RV_ECANCELLED inside this call. */
void disk_quiesce(struct disk *d);

/* disk_quiesce, then closes. NULL-safe. Of a simulated disk only the front goes: its
 * content is in the disk_sim_medium. */
void disk_free(struct disk *d);

/* Runs job->run on the lane's thread and job->done on the loop; see reactor/worker.h. */
int disk_submit(struct disk *d, enum disk_lane lane, struct job *job) RV_MUST_CHECK;

/* --- blocking operations, for jobs --- */

/* Visits every file, in no order. */
int disk_list(
	struct disk *d, disk_list_fn *fn, void *arg, struct rv_error *e) RV_MUST_CHECK;

/* The whole file; *bytes is returned owned (free()), also for an empty file. RV_ENOENT.
 */
int disk_read(struct disk *d, const char *name, uint8_t **bytes, size_t *len,
	struct rv_error *e) RV_MUST_CHECK;

/* Makes an empty file (an old one of that name is emptied) whose name is durable on
 * return, with `reserve` bytes of space set aside, reading as zeros: writes inside them
 * don't fail for lack of space. RV_ESPACE. *out is returned owned. */
int disk_create(struct disk *d, const char *name, uint64_t reserve,
	struct disk_file **out, struct rv_error *e) RV_MUST_CHECK;

/* An existing file, for writing. RV_ENOENT. */
int disk_open(struct disk *d, const char *name, struct disk_file **out,
	struct rv_error *e) RV_MUST_CHECK;

int disk_write(struct disk_file *f, uint64_t offset, const void *bytes, size_t len,
	struct rv_error *e) RV_MUST_CHECK;
int disk_sync(struct disk_file *f, struct rv_error *e) RV_MUST_CHECK;
int disk_truncate(struct disk_file *f, uint64_t size, struct rv_error *e) RV_MUST_CHECK;
void disk_close(struct disk_file *f); /* NULL-safe; syncs nothing */

/* Atomic and durable; replaces `to`. Sync the file itself first. */
int disk_rename(struct disk *d, const char *from, const char *to,
	struct rv_error *e) RV_MUST_CHECK;
int disk_remove(struct disk *d, const char *name, struct rv_error *e) RV_MUST_CHECK;

/* Writes `name`.tmp, syncs it and renames it over `name`. */
int disk_replace(struct disk *d, const char *name, const void *bytes, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* What is left for this user in the file system. */
int disk_space(struct disk *d, uint64_t *free_bytes, struct rv_error *e) RV_MUST_CHECK;

/* --- blocking, from the loop: terms and votes only --- */

/* Writes and syncs a few bytes inside an open file. */
int disk_write_now(struct disk_file *f, uint64_t offset, const void *bytes, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* --- simulation --- */

/* What survives a crash: the files. Outlives the disks opened on it. */
struct disk_sim_medium;

int disk_sim_medium_new(struct disk_sim_medium **out, uint64_t seed) RV_MUST_CHECK;
void disk_sim_medium_free(struct disk_sim_medium *m); /* NULL-safe */

/* A disk on the medium, for one life of a simulated daemon. */
int disk_new_sim(
	struct disk **out, struct loop *l, struct disk_sim_medium *m) RV_MUST_CHECK;

/* Faults are counted in steps: each write, sync, create, truncate, rename and remove
 * (their directory syncs too) is one step. */
enum disk_sim_fault {
	DISK_SIM_NONE,
	DISK_SIM_CRASH,	     /* that step and all after it fail: the machine is dead */
	DISK_SIM_FAIL_STEP,  /* that step alone fails with RV_EIO */
	DISK_SIM_FAIL_WRITE, /* the first write from that step on fails, half done */
	DISK_SIM_FAIL_SYNC,  /* the first sync from that step on fails, bytes as torn */
};
void disk_sim_inject(
	struct disk_sim_medium *m, enum disk_sim_fault fault, uint64_t steps_from_now);
uint64_t disk_sim_steps(const struct disk_sim_medium *m); /* so far */

/* The power goes: of each unsynced write any part may survive, sectors (512 bytes) in
 * any order and torn at any byte; of unsynced names all changes or none. Faults are
 * cleared, a disk still open on the medium stays dead. */
void disk_sim_crash(struct disk_sim_medium *m);

/* Bytes that files may hold in all; UINT64_MAX (the default): no limit. */
void disk_sim_set_capacity(struct disk_sim_medium *m, uint64_t bytes);
uint64_t disk_sim_used(const struct disk_sim_medium *m);

/* For tests that damage things. `flip` is XORed into the byte. */
size_t disk_sim_file_count(const struct disk_sim_medium *m);
const char *disk_sim_file(const struct disk_sim_medium *m, size_t i, uint64_t *bytes);
void disk_sim_flip(
	struct disk_sim_medium *m, const char *name, uint64_t offset, uint8_t flip);
int disk_sim_copy(
	struct disk_sim_medium **out, const struct disk_sim_medium *m) RV_MUST_CHECK;

#endif
