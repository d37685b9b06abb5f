/*
 * The deterministic simulation of a pool: one to nine hosts in one process on one virtual
 * clock, one to five of which vote, chosen as in daemon/voters.c; the others are standbys
 * and learners. How many is the seed's. Each has a machine, a disk
 * and one life of a daemon after the other: pool, ports, VM manager and migrate wired as
 * daemon/ does it. The SR is shared. Links between hosts are ring_link.c's, clients
 * ring_client.c's and ring_register.c's, the adversary ring_faults.c's, ring_aim.c's and
 * ring_learn.c's and ring_slow.c's; leases are ring_lease.c's, fencing ring_fence.c's,
 * and VMs that start again elsewhere ring_restart.c's; what must be so after every event
 * and at rest is ring_model.c's, of the log ring_log.c's.
 *
 * The same seed gives the same events. A broken rule ends the process: ring_fail.
 */
#ifndef REEVE_TESTS_SIM_POOL_RING_H
#define REEVE_TESTS_SIM_POOL_RING_H

#include "base/list.h"
#include "fence/guard.h"
#include "migrate/migrate.h"
#include "net/sim.h"
#include "pool/disk.h"
#include "pool/leases.h"
#include "pool/pool.h"
#include "pool/voters.h"
#include "ring_kinds.h"
#include "storage/sim.h"
#include "vm/vm.h"
#include "xen/sim.h"

enum {
	RING_HOSTS = 9, /* at most */
	RING_VMS = 6,
	RING_DOMAINS = 32,
	RING_STREAMS = 16,
	RING_TASKS = 512,
	RING_SEQS = 1 << 16,
	RING_MIB = 1 << 20,
	RING_LINES = 120,
	RING_WIDTH = 220,
	RING_REGISTERS = 3,
	RING_REGISTER_OPS = 2048,
	RING_SESSIONS = 4,
	RING_TERMS = 4096,
	RING_ASKED = 32,
	/* Messages beside the pool's (enum pool_message). */
	RING_LEASE_ASK = 1000,
	RING_LEASE_ANSWER,
};

/* Of one seed, in memory shared with the parent. */
struct ring_totals {
	uint64_t seeds, events, virtual_s, lives, tasks, failed;
	uint64_t commits, unknown, terms, masters, registers;
	uint64_t voters[RING_HOSTS + 1];   /* seeds with so many at most */
	uint64_t hosts[RING_HOSTS + 1];	   /* seeds with so many */
	uint64_t places[VOTERS_HAND_OVER]; /* changes of the configuration, by kind */
	uint64_t became, installed;	   /* learners: another, by a snapshot */
	uint64_t blows[RING_STAGE_COUNT][RING_BLOW_COUNT];
	uint64_t faults[RING_FAULT_COUNT];
	uint64_t ha[RING_HA_COUNT];
	uint64_t actions[RING_ACTION_COUNT];   /* accepted */
	uint64_t succeeded[RING_ACTION_COUNT]; /* of which succeeded */
	uint64_t rows[RING_PHASE_COUNT][RING_FAILURE_COUNT];
	uint64_t passed[RING_POINT_COUNT], crashed[RING_POINT_COUNT];
	uint64_t powered[RING_POINT_COUNT]; /* lost power there */
};

/* One call on a register, for ring_register.c. Times are steps of one counter. */
struct ring_register_op {
	int8_t reg;
	bool write;
	enum { RING_OPEN, RING_DONE, RING_REFUSED } state; /* open: not known either */
	uint32_t value;					   /* a write's is its number */
	uint64_t began, ended;
};

/* A client that reads wherever it likes, and must never see an older state. */
struct ring_session {
	uint64_t seq, seen[RING_REGISTERS];
	bool busy;
};

/* What the next migration is struck with, and where. */
struct ring_aim {
	enum ring_phase phase;
	enum ring_failure failure;
	struct uuid migration; /* counted in: none yet */
	int events;	       /* in that phase until it strikes */
	int misses;
	bool armed;
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

/* The master's choice of voters: ring_voters.c. */
struct ring_voters {
	struct timer timer;
	struct pool_commit commit;
	bool leads, changing, recording;
	struct timer strike;   /* it dies in the middle of the change */
	enum voters_kind kind; /* of the change */
	struct uuid outsider;
	uint64_t outsider_id;
	struct {
		struct uuid host;
		bool alive;
		int64_t since_us;
	} seen[2 * RING_HOSTS];
	struct voters_member members[2 * RING_HOSTS];
	struct rlog_member servers[2 * RING_HOSTS];
	size_t count;
};

/* Which learner is struck next, and when. */
struct ring_learn {
	unsigned cell; /* stage * RING_BLOW_COUNT + blow, less whole rounds */
	int skip;      /* events in that stage until it strikes */
	int64_t from_us, nudge_us;
	bool armed;
};

/* A request for a lease, as the ring knows it. */
struct ring_asked {
	uint64_t nonce;
	int64_t sent_us;
};

/* reeve-fenced of a host, which outlives reeved; and what reeved knows of it. */
struct ring_fence {
	struct guard_book book;
	struct timer act, bite, again;
	bool up, hangs; /* what fails until then: all it does, or a destroy hangs */
	int64_t fails_us, bite_left_us;
	struct timer ended; /* a destroy that takes long */
	struct fence_domain ending;

	struct timer tick;
	struct pool_commit commit;
	bool told, committing;
	int64_t lost_us;
	struct fence_message sent, next;
};

struct ring_refused {
	struct uuid task;
	int64_t at_ms;
	char why[300];
};

/* What the master does about VMs that were lost. */
struct ring_restarts {
	struct timer look;
	struct pool_commit release, settle;
	bool releasing, settling;
	bool early; /* the release at work: in truth */
	struct ring_refused refused[RING_VMS];
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
	bool dead_at_point;
	bool led;	      /* was the master after the last event */
	uint64_t checked_seq; /* of the database, whose operations were checked */
	struct ring_voters voters;

	/* Its clock; until when it may act in truth; whether it is stopped. */
	int64_t clock_ahead_ms, clock_ppm;
	struct ring_asked asked[RING_ASKED];
	unsigned asked_next;
	int64_t lease_true_us, frozen_us;
	bool asleep, leasing;
	struct timer wake;
	struct leases leases;
	struct ring_fence fence;
	struct ring_restarts restarts;
	struct hyper_ops hyper_ops;
	void (*hyper_submit)(struct hyper *h, struct hyper_req *req);

	/* Of its log, over all lives. */
	uint64_t server; /* 0: a learner */
	uint64_t used;	 /* the greatest id that raft knew it by */
	uint64_t stored; /* as a learner it told that it has this on its disk */
	uint64_t installs;
	bool found;	    /* this life's log has been looked at */
	uint64_t committed; /* raft's index, as last seen; UINT64_MAX: not seen */
};

/* One direction of a link. */
struct ring_way {
	struct ring *ring;
	int from, to;
	bool up;		      /* `from` believes so */
	int64_t cut_us;		      /* nothing passes before then */
	int64_t slow_us, slow_max_us; /* until when; how long messages may take */
	int64_t notice_us;	      /* when it is told otherwise; 0: not foreseen */
	struct list queue;	      /* struct ring_flight */
	struct timer timer;
	int64_t last_us;
};

struct ring_stream {
	struct stream_sim_link *link; /* a is `from`'s end */
	int from, to;
	bool dead;	   /* an end's machine lost power */
	int64_t cut_us[2]; /* from a, from b: nothing passes before then */
	bool cut[2];
};

struct ring_task {
	struct uuid uuid, vm;
	enum ring_action action;
	struct uuid on;
	bool accepted;
	int status; /* as first seen in an entry */
	uint64_t ended_seq, ending;
};

/* What clients wrote to one VM; one write at a time. */
struct ring_vm {
	struct uuid uuid, vdi;
	char name[16];
	bool asked, made; /* its rows are: on their way, acknowledged */
	int64_t issued, acked;
	bool open;
	/* The domains that ran, in turn: memory that was overtaken must never go on. */
	struct uuid ran, past[RING_DOMAINS];
	unsigned past_count;
	/* Who owns it, as the master has it. */
	struct uuid on, handle;
	int64_t generation;
	struct uuid migration; /* the last, and how far it came */
	int phase;
	struct uuid restart; /* ha_restart_task */
	bool restarted;	     /* it was up since that was asked for */
	int state;
	bool guest_ended;  /* by itself, since it was started */
	unsigned refusals; /* to start it again, at the end */
};

struct ring {
	struct loop *loop;
	uint64_t seed;
	struct prng prng, fault_prng;
	struct ring_totals *totals;
	bool verbose, formed, faults_on, resting, quiet;
	uint64_t skipped;

	struct storage_sim_world *bytes;
	struct uuid pool_uuid, sr, network;
	struct ring_host hosts[RING_HOSTS];
	int count;
	struct voters_rules rules;
	struct ring_learn learn;
	struct ring_way ways[RING_HOSTS][RING_HOSTS];
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
	uint64_t faults; /* bits of enum ring_fault that this seed has */
	struct ring_aim aim;
	struct {
		struct prng prng;
		struct timer turn;
	} slow;
	struct timer race; /* the source gives up while the target takes over */
	int point;	   /* where the next host to pass it dies; -1: nowhere */
	bool point_power;
	unsigned points;    /* that were aimed at */
	struct uuid helped; /* the migration whose way to it was made */
	int64_t point_us;   /* another one from then on */
	int64_t jumped_ms;
	bool sr_hung;

	struct ring_register_op register_ops[RING_REGISTER_OPS];
	uint32_t register_count;
	uint64_t register_steps;
	uint64_t register_seqs[RING_REGISTER_OPS]; /* of the entry that wrote it */
	uint32_t register_now[RING_REGISTERS];
	struct ring_session sessions[RING_SESSIONS];
	struct timer register_timer;

	struct db_hash hashes[RING_SEQS];
	bool hashed[RING_SEQS];
	uint64_t truth_seq; /* up to here `vms` and `tasks` know; what anybody applied */
	uint64_t highest_term;
	int8_t leaders[RING_TERMS]; /* host + 1 by term */

	char lines[RING_LINES][RING_WIDTH];
	uint64_t line_count;
};

/* --- ring.c --- */

/* Runs one seed to its end; the trace's hash. */
uint64_t ring_run_seed(uint64_t seed, bool verbose, struct ring_totals *totals);
void ring_note(struct ring *r, const char *fmt, ...) RV_PRINTF(2, 3);
_Noreturn void ring_fail(struct ring *r, const char *fmt, ...) RV_PRINTF(2, 3);
const char *ring_fault_name(enum ring_fault fault);
const char *ring_ha_name(enum ring_ha what);
const char *ring_action_name(enum ring_action action);

/* --- ring_host.c --- */

void ring_host_init(struct ring *r, int index);
void ring_host_fini(struct ring_host *h);
void ring_host_boot(struct ring_host *h);
void ring_host_crash(struct ring_host *h, enum ring_death death);
bool ring_host_up(const struct ring_host *h);
/* The machine loses power, or is restarted by its watchdog. */
void ring_host_power(struct ring_host *h);
/* reeved is stopped for so long; `asleep`: and the whole machine with it. */
void ring_host_freeze(struct ring_host *h, int64_t ms, bool asleep);
bool ring_host_frozen(const struct ring_host *h);
/* A domain was stopped, or destroyed, while no daemon looked. */
void ring_host_last_fenced(struct ring_host *h, const struct uuid *handle, bool gone);
/* Of loop_sim_as. */
int ring_host_who(const struct ring_host *h);
struct ring_host *ring_host_of(struct ring *r, const struct uuid *uuid);
/* The one that leads with the highest term, or NULL. */
struct ring_host *ring_host_master(struct ring *r);

/* --- ring_link.c --- */

void ring_link_init(struct ring *r);
void ring_link_fini(struct ring *r);
int ring_link_send(struct pool_messenger *m, const struct uuid *host,
	enum pool_message type, const uint8_t *bytes, size_t len);
/* A daemon has gone; silently: its machine with it. */
void ring_link_host_gone(struct ring *r, int index, bool silently);
/* Nothing passes from a to b for so long; both ends find out in their own time. */
void ring_link_cut(struct ring *r, int a, int b, int64_t ms);
void ring_link_slow(struct ring *r, int a, int b, int64_t ms, int64_t max_ms);
void ring_link_heal(struct ring *r);
void ring_link_reset(struct ring *r, int a, int b);
bool ring_link_whole(const struct ring *r); /* all hosts are linked */
int ring_link_dial(void *arg, const struct uuid *host, struct stream_config *config,
	struct stream **out, struct rv_error *e);
/* Of a migration that is at work; NULL: there is none. */
struct ring_stream *ring_stream_last(struct ring *r);
void ring_stream_cut(struct ring *r, struct ring_stream *s, int end, int64_t ms);

/* --- ring_client.c --- */

/* Something that a client waits for; freed after `fn`, or by the crash without it. */
struct ring_ask {
	struct list node;
	struct ring_host *host;
	struct pool_commit commit;
	struct pool_barrier barrier;
	struct pool_wait wait;
	uint32_t op; /* of a register, + 1 */
	struct ring_session *session;
	struct ring_vm *vm;
	int64_t number;
	size_t task;
};

void ring_client_start(struct ring *r);
bool ring_client_done(const struct ring *r);
void ring_client_lost(struct ring_host *h); /* the answers that it owed */
struct ring_ask *ring_ask_new(struct ring_host *h);
void ring_ask_free(struct ring_ask *a);

/* --- ring_register.c --- */

void ring_register_start(struct ring *r);
void ring_register_stop(struct ring *r);
void ring_register_applied(struct ring *r, const struct db *db, uint64_t seq);
/* From what clients were told alone: whether one order explains it all. */
void ring_register_check(struct ring *r);

/* --- ring_aim.c --- */

const char *ring_phase_name(enum ring_phase phase);
const char *ring_failure_name(enum ring_failure failure);
const char *ring_point_name(int point);
void ring_aim_start(struct ring *r);
void ring_aim_stop(struct ring *r);
void ring_aim_event(struct ring *r); /* after every event */
bool ring_aim_point(void *arg, const char *point, const struct uuid *vm);

/* --- ring_voters.c --- */

void ring_voters_init(struct ring_host *h);
void ring_voters_stop(struct ring_host *h); /* its daemon dies */
void ring_voters_look(struct ring_host *h); /* it may lead now, or no more */
/* Whether everybody is what he is to be, by this host, the master. */
bool ring_voters_at_rest(struct ring_host *h, char *why, size_t size);

/* --- ring_lease.c --- */

int64_t ring_lease_clock_ms(const struct ring_host *h);
int64_t ring_lease_true_us(const struct ring_host *h, int64_t ms);
bool ring_lease_is_over(const struct ring_host *h); /* in truth */
int ring_lease_may_run(void *arg, const struct uuid *host, struct rv_error *e);
void ring_lease_submit(struct hyper *hyper, struct hyper_req *req);
void ring_lease_deliver(struct ring_host *h, const struct uuid *from, unsigned type,
	const uint8_t *bytes, size_t len);
void ring_lease_boot(struct ring_host *h); /* leases_start: when the pool is open */
void ring_lease_gone(struct ring_host *h); /* after the pool */
bool ring_lease_at_rest(struct ring_host *h, char *why, size_t size);

/* --- ring_fence.c --- */

void ring_fence_init(struct ring_host *h);
void ring_fence_fini(struct ring_host *h);
void ring_fence_boot(struct ring_host *h); /* of reeved */
void ring_fence_gone(struct ring_host *h);
void ring_fence_power(struct ring_host *h);
void ring_fence_sleep(struct ring_host *h, bool asleep);
bool ring_fence_works(const struct ring_host *h); /* nothing of it fails now */
void ring_fence_lease(struct ring_host *h, int64_t until_ms);
void ring_fence_kill(struct ring_host *h, int64_t ms);
bool ring_fence_at_rest(struct ring_host *h, char *why, size_t size);

/* --- ring_restart.c --- */

void ring_restart_init(struct ring_host *h);
void ring_restart_boot(struct ring_host *h);
void ring_restart_gone(struct ring_host *h);

/* --- ring_learn.c --- */

const char *ring_stage_name(enum ring_stage stage);
const char *ring_blow_name(enum ring_blow blow);
void ring_learn_start(struct ring *r);
void ring_learn_event(struct ring *r); /* after every event */
void ring_learn_tell(struct ring *r);
/* Takes a vote or a place from somebody, or has a learner begin anew. */
bool ring_learn_unsettle(struct ring *r, enum ring_fault fault);

/* --- ring_log.c --- */

void ring_log_event(struct ring_host *h); /* after every event */
/* What a host is about to send to another's log. */
void ring_log_sent(struct ring_host *h, const uint8_t *bytes, size_t len);

/* --- ring_slow.c --- */

void ring_slow_start(struct ring *r);
void ring_slow_stop(struct ring *r);
void ring_slow_heal(struct ring *r); /* all disks are as fast as ever */

/* --- ring_faults.c --- */

void ring_faults_start(struct ring *r);
void ring_faults_stop(struct ring *r);
void ring_faults_count(struct ring *r, enum ring_fault fault);
void ring_faults_die(struct ring_host *h, enum ring_death death);
void ring_faults_inject(struct ring_host *h, enum hyper_call call,
	enum hyper_sim_fault fault, uint32_t count, int64_t delay_us);
void ring_faults_disk_full(struct ring_host *h);
/* In the middle of what it does now, once in so many times: for longer than a lease. */
void ring_faults_freeze(struct ring_host *h, unsigned one_in);
void ring_faults_guest_ends(struct ring_host *h, const struct uuid *vm, struct prng *p);
void ring_faults_collect(struct ring_host *h); /* before hyper_free */

/* --- ring_model.c --- */

void ring_model_follow(struct ring_host *h);
void ring_model_event(struct ring *r);
bool ring_model_at_rest(struct ring *r, char *why, size_t size);
void ring_model_settled(struct ring *r);
size_t ring_model_domains(struct ring_host *h, struct hyper_domain *out);

#endif
