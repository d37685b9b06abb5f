/*
 * The deterministic simulation of a pool: three hosts in one process on one virtual
 * clock. Host 1 votes and leads; 2 and 3 are standbys. Each has a machine, a disk and one
 * life of a daemon after the other: pool, ports, VM manager and migrate wired as daemon/
 * does it. The SR is shared. Links between hosts are ring_link.c's, clients
 * ring_client.c's, the adversary ring_faults.c's; what must be so after every event and
 * at rest is ring_model.c's.
 *
 * The same seed gives the same events. A broken rule ends the process: ring_fail.
 */
#ifndef REEVE_TESTS_SIM_POOL_RING_H
#define REEVE_TESTS_SIM_POOL_RING_H

#include "base/list.h"
#include "migrate/migrate.h"
#include "net/sim.h"
#include "pool/disk.h"
#include "pool/pool.h"
#include "storage/sim.h"
#include "vm/vm.h"
#include "xen/sim.h"

enum {
	RING_HOSTS = 3,
	RING_VMS = 6,
	RING_DOMAINS = 32,
	RING_STREAMS = 16,
	RING_TASKS = 512,
	RING_SEQS = 1 << 16,
	RING_MIB = 1 << 20,
	RING_LINES = 120,
	RING_WIDTH = 220,
};

#define RING_FAULTS(X)                                                                   \
	X(LINK_CUT, "link-cut")                                                          \
	X(LINK_RESET, "link-reset")                                                      \
	X(MESSAGES_LOST, "messages-lost-in-flight")                                      \
	X(STREAM_CUT, "migration-stream-cut")                                            \
	X(STREAM_RESET, "migration-stream-reset")                                        \
	X(POWER, "power-loss")                                                           \
	X(KILL, "kill-9")                                                                \
	X(UNSYNCED, "kill-9-unsynced-torn")                                              \
	X(POINT, "kill-9-at-point")                                                      \
	X(MASTER_DIED, "master-died")                                                    \
	X(HYPER_ERROR, "hyper-error")                                                    \
	X(HYPER_EFFECT_ERROR, "hyper-effect-error")                                      \
	X(HYPER_LATE, "hyper-late")                                                      \
	X(HYPER_LOST, "hyper-lost")                                                      \
	X(STORAGE_FAIL, "storage-fail")                                                  \
	X(STORAGE_AFTER, "storage-fail-after-effect")                                    \
	X(DISK_SYNC, "disk-fsync-fails")

enum ring_fault {
#define X(symbol, name) RING_FAULT_##symbol,
	RING_FAULTS(X)
#undef X
		RING_FAULT_COUNT
};

#define RING_ACTIONS(X)                                                                  \
	X(CREATE, "create")                                                              \
	X(WRITE, "write")                                                                \
	X(START, "start")                                                                \
	X(RESUME, "resume")                                                              \
	X(CLEAN_SHUTDOWN, "clean-shutdown")                                              \
	X(HARD_SHUTDOWN, "hard-shutdown")                                                \
	X(CLEAN_REBOOT, "clean-reboot")                                                  \
	X(HARD_REBOOT, "hard-reboot")                                                    \
	X(PAUSE, "pause")                                                                \
	X(UNPAUSE, "unpause")                                                            \
	X(SUSPEND, "suspend")                                                            \
	X(MIGRATE, "migrate")                                                            \
	X(REPEAT, "repeat")

enum ring_action {
#define X(symbol, name) RING_ACTION_##symbol,
	RING_ACTIONS(X)
#undef X
		RING_ACTION_COUNT
};

/* Of one seed, in memory shared with the parent. */
struct ring_totals {
	uint64_t seeds, events, virtual_s, lives, tasks, failed;
	uint64_t commits, unknown;
	uint64_t faults[RING_FAULT_COUNT];
	uint64_t actions[RING_ACTION_COUNT];   /* accepted */
	uint64_t succeeded[RING_ACTION_COUNT]; /* of which succeeded */
};

struct ring;
struct ring_host;

enum ring_life {
	RING_DOWN,
	RING_OPENING,
	RING_JOINING,
	RING_ATTACHING,
	RING_NETTING,
	RING_RECONCILING,
	RING_UP
};

enum ring_death { RING_KILL, RING_UNSYNCED, RING_POWER };

struct ring_host {
	struct ring *ring;
	int index;
	struct uuid uuid;
	struct prng prng;

	/* Outlives the daemon. */
	struct hyper_sim_machine *machine;
	struct hyper_sim_config config;
	struct disk_sim_medium *medium;
	struct hyper_domain last[RING_DOMAINS]; /* while no daemon looks */
	size_t last_count;

	/* One life. */
	enum ring_life life;
	struct pool_messenger messenger;
	struct pool_subscriber subscriber;
	struct pool_barrier barrier;
	bool asking; /* the barrier is at work */
	struct disk *disk;
	struct pool *pool;
	struct hyper *hyper;
	struct storage *storage;
	struct net *net;
	struct vm_manager *mgr;
	struct migrate *migrate;
	struct timer restart, tick;
	struct list asks; /* struct ring_ask */
	bool death_due;
	enum ring_death death;
	int die_in; /* points until it dies; 0: not planned */
	bool dead_at_point;
};

/* One direction of a link. */
struct ring_way {
	struct ring *ring;
	int from, to;
	bool up;	   /* `from` believes so */
	int64_t notice_us; /* when it is told otherwise; 0: not foreseen */
	struct list queue; /* struct ring_flight */
	struct timer timer;
	int64_t last_us;
};

struct ring_stream {
	struct stream_sim_link *link; /* a is `from`'s end */
	int from, to;
	bool dead; /* an end's machine lost power */
	int64_t cut_until_us;
	bool cut;
};

struct ring_task {
	struct uuid uuid, vm;
	enum ring_action action;
	struct uuid on;
	bool accepted;
};

/* What clients wrote to one VM; one write at a time. */
struct ring_vm {
	struct uuid uuid, vdi;
	char name[16];
	bool asked, made; /* its rows are: on their way, acknowledged */
	int64_t issued, acked;
	bool open;
	/* Who owns it, as the master has it. */
	struct uuid on, handle;
	int64_t generation;
};

struct ring {
	struct loop *loop;
	uint64_t seed;
	struct prng prng, fault_prng;
	struct ring_totals *totals;
	bool verbose, formed, faults_on;

	struct storage_sim_world *bytes;
	struct uuid pool_uuid, sr, network;
	struct ring_host hosts[RING_HOSTS];
	struct ring_way ways[RING_HOSTS][RING_HOSTS];
	bool cut[RING_HOSTS][RING_HOSTS];
	int64_t cut_until_us[RING_HOSTS][RING_HOSTS];
	int64_t redial_us[RING_HOSTS][RING_HOSTS];
	struct timer link_tick;
	struct ring_stream streams[RING_STREAMS];
	size_t next_stream;

	struct ring_vm vms[RING_VMS];
	struct ring_task tasks[RING_TASKS];
	size_t task_count;
	struct timer client, fault, heal;
	unsigned left; /* actions of the client */
	int64_t think_ms, fault_every_ms;
	uint32_t faults; /* bits of enum ring_fault that this seed has */

	struct db_hash hashes[RING_SEQS];
	bool hashed[RING_SEQS];
	uint64_t truth_seq; /* up to here `vms` knows */

	char lines[RING_LINES][RING_WIDTH];
	uint64_t line_count;
};

/* --- ring.c --- */

/* Runs one seed to its end; the trace's hash. */
uint64_t ring_run_seed(uint64_t seed, bool verbose, struct ring_totals *totals);
void ring_note(struct ring *r, const char *fmt, ...) RV_PRINTF(2, 3);
_Noreturn void ring_fail(struct ring *r, const char *fmt, ...) RV_PRINTF(2, 3);
const char *ring_fault_name(enum ring_fault fault);
const char *ring_action_name(enum ring_action action);

/* --- ring_host.c --- */

void ring_host_init(struct ring *r, int index);
void ring_host_fini(struct ring_host *h);
void ring_host_boot(struct ring_host *h);
void ring_host_crash(struct ring_host *h, enum ring_death death);
bool ring_host_up(const struct ring_host *h);
struct ring_host *ring_host_of(struct ring *r, const struct uuid *uuid);

/* --- ring_link.c --- */

void ring_link_init(struct ring *r);
void ring_link_fini(struct ring *r);
int ring_link_send(struct pool_messenger *m, const struct uuid *host,
	enum pool_message type, const uint8_t *bytes, size_t len);
/* A daemon has gone; silently: its machine with it. */
void ring_link_host_gone(struct ring *r, int index, bool silently);
void ring_link_cut(struct ring *r, int a, int b, int64_t ms);
void ring_link_reset(struct ring *r, int a, int b);
bool ring_link_whole(const struct ring *r); /* all hosts are linked */
int ring_link_dial(void *arg, const struct uuid *host, struct stream_config *config,
	struct stream **out, struct rv_error *e);
/* Of a migration that is at work; false: there is none. */
bool ring_stream_cut(struct ring *r, struct prng *p);
bool ring_stream_reset(struct ring *r, struct prng *p);

/* --- ring_client.c --- */

/* Something that a client waits for; freed after `fn`, or by the crash without it. */
struct ring_ask {
	struct list node;
	struct ring_host *host;
	struct pool_commit commit;
	struct ring_vm *vm;
	int64_t number;
	size_t task;
};

void ring_client_start(struct ring *r);
bool ring_client_done(const struct ring *r);
void ring_client_lost(struct ring_host *h); /* the answers that it owed */

/* --- ring_faults.c --- */

void ring_faults_start(struct ring *r);
void ring_faults_stop(struct ring *r);
bool ring_faults_point(void *arg, const char *point, const struct uuid *vm);
void ring_faults_collect(struct ring_host *h); /* before hyper_free */

/* --- ring_model.c --- */

void ring_model_follow(struct ring_host *h);
void ring_model_event(struct ring *r);
bool ring_model_at_rest(struct ring *r, char *why, size_t size);
void ring_model_settled(struct ring *r);
size_t ring_model_domains(struct ring_host *h, struct hyper_domain *out);

#endif
