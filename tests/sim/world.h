/*
 * The deterministic simulation: whole hosts in one process under a virtual clock.
 *
 * A world is made from one seed. It holds hosts, each with what survives a daemon (the
 * machine with its guests, the disk of the database, the SR) and, while it lives, a
 * daemon's inside: pool, ports and VM manager wired as daemon/ does it. Clients issue
 * random operations (client.h), an adversary breaks things (faults.h), and after every
 * single event the model (model.h) is asked whether all of this is still right.
 *
 * Today each host is a pool of its own with one voter; a host's place in a pool is a
 * matter of host_boot alone, everything else is written per host and per pool.
 *
 * The same seed gives the same events. A broken rule ends the process: sim_fail.
 */
#ifndef REEVE_TESTS_SIM_WORLD_H
#define REEVE_TESTS_SIM_WORLD_H

#include "base/map.h"
#include "net/sim.h"
#include "pool/disk.h"
#include "pool/pool.h"
#include "storage/sim.h"
#include "trail.h"
#include "vm/vm.h"
#include "xen/sim.h"

enum {
	SIM_MAX_HOSTS = 8,
	SIM_MAX_CLIENTS = 4,
	SIM_MAX_VMS = 12, /* of one pool, at a time */
	SIM_MAX_DOMAINS = 64,
	SIM_MIB = 1 << 20,
};

struct sim_world;
struct sim_host;

enum sim_life {
	SIM_DOWN,
	SIM_OPENING,	 /* the pool reads its disk */
	SIM_INSTALLING,	 /* the very first start */
	SIM_ATTACHING,	 /* the SR */
	SIM_NETTING,	 /* the bridge */
	SIM_RECONCILING, /* vm_manager_start */
	SIM_UP,
};

enum sim_death {
	SIM_KILL,	   /* -9: guests run on, the page cache stays */
	SIM_KILL_UNSYNCED, /* and what was not synced is torn */
	SIM_POWER,	   /* and the machine is off */
};

/* A write to the database on behalf of a client; freed after `fn`, or by the crash
 * without it. */
struct sim_write {
	struct pool_commit commit;
	struct list node;
	struct sim_host *host;
	void (*fn)(struct sim_write *w, int rc);
	struct uuid vm;
	int64_t number;
	int64_t dynamic_min, dynamic_max;
};

/* A task as the model has seen it; `asked` are those of clients. */
struct sim_task {
	struct list node;
	struct uuid uuid;
	bool asked;
	enum vm_operation kind;
	struct vm_op_args args;
	char new_name[40];
	bool accepted; /* somebody was told so, or it was seen */
	bool refused;  /* the last thing said: it is not there */
	unsigned tries;
	bool seen;
	int64_t created_ms;
	int status;	 /* enum task_status, once seen */
	uint64_t ending; /* hash of what it ended with */
	uint64_t ended_seq;
};

/* What clients wrote to one VM: numbers in other_config, one write at a time. */
struct sim_numbers {
	struct list node;
	struct uuid vm;
	int64_t issued, acked;
	bool open; /* one is under way */
	uint64_t refused[16];
	unsigned refused_count;
};

/* What a disk must hold: a hash of all that its guest wrote. */
struct sim_disk {
	struct list node;
	struct uuid vdi;
	uint64_t hash;
	bool may_be_gone; /* a destroy of its VM failed, perhaps after it */
};

struct sim_ghost {
	struct hyper_domain_id id;
};

struct sim_host {
	struct sim_world *world;
	int index;
	char name[16];
	struct prng prng;

	/* Outlives the daemon. */
	struct hyper_sim_machine *machine;
	struct hyper_sim_config hyper_config;
	struct disk_sim_medium *medium;
	struct storage_sim_world *bytes;
	struct uuid uuid, sr, network, pool_uuid;
	bool installed;
	int64_t ghost_until_us; /* the hypervisor's free memory is not as promised */
	bool net_broke, storage_broke; /* for some time */
	bool meddled; /* somebody made or destroyed domains behind our back */

	/* One life of a daemon. */
	enum sim_life life;
	uint64_t lives;
	struct disk *disk;
	struct pool *pool;
	struct hyper *hyper;
	struct storage *storage;
	struct net *net;
	struct vm_manager *mgr;
	struct pool_subscriber subscriber;
	struct list writes;
	bool was_master;
	struct timer restart, retry;
	bool death_due;
	enum sim_death death;
	uint64_t kill_in;     /* events until it dies; 0: not planned */
	int die_at, die_skip; /* crash point, -1: none */
	bool dead_at_point;

	/* What the model knows of its pool. */
	struct list tasks, numbers, disks;
	struct map tasks_by_uuid;
	size_t task_count;
	struct db_hash *hashes; /* by seq */
	size_t hash_room;
	uint64_t seq;	/* the highest ever applied */
	unsigned asked; /* operations that clients asked for */
};

/* One run's knobs, drawn from the seed (see profile_draw in world.c). */
struct sim_profile {
	int hosts, clients;
	uint32_t faults[2];	/* bits of enum sim_fault */
	int64_t fault_every_ms; /* 0: never */
	int64_t think_ms;	/* clients' */
	unsigned actions;	/* of each client */
	int favourite_point;	/* crash point that this seed goes for; -1 */
	uint64_t host_kib;	/* memory for guests */
	uint32_t weights[64];	/* of enum sim_action */
};

struct sim_client {
	struct sim_world *world;
	struct sim_host *host;
	int index;
	struct prng prng;
	struct timer timer;
	unsigned left;
};

struct sim_world {
	struct loop *loop;
	uint64_t seed;
	struct prng prng;
	struct sim_profile profile;
	struct sim_host hosts[SIM_MAX_HOSTS];
	int host_count;
	struct sim_client clients[SIM_MAX_CLIENTS];
	struct prng fault_prng;
	struct timer fault, heal;
	bool faults_on, quiet;
	uint64_t last_vm; /* for names */
};

/* Runs one seed to its end; fails by sim_fail. The trace's hash is returned. */
uint64_t world_run_seed(uint64_t seed);

/* --- hosts --- */

void host_boot(struct sim_host *h);
/* Not from inside a callback: sets death_due instead (host_die). */
void host_crash(struct sim_host *h, enum sim_death death);
/* Dies after the running event. */
void host_die(struct sim_host *h, enum sim_death death);
bool host_up(const struct sim_host *h);

/* A write for a client. `t` is used up. */
void host_write(struct sim_host *h, struct sim_write *w, struct txn *t,
	void (*fn)(struct sim_write *w, int rc));
struct sim_write *host_write_new(struct sim_host *h, struct txn *t);

/* A random VM of the host's pool; NULL: there is none. */
const struct row *host_any_vm(struct sim_host *h, struct prng *p);

#endif
