/*
 * reeved: everything of one host, wired together.
 *
 * main.c reads the configuration and runs the loop; daemon.c makes the parts and ends
 * them; start.c brings them up, in steps; follow.c has them look when the database has
 * changed; call.c and the files of methods serve RPC; metrics.c measures.
 */
#ifndef REEVE_DAEMON_DAEMON_H
#define REEVE_DAEMON_DAEMON_H

#include "base/buf.h"
#include "base/list.h"
#include "base/uuid.h"
#include "daemon/config.h"
#include "net/net.h"
#include "pool/db/changes.h"
#include "pool/pool.h"
#include "reactor/op.h"
#include "reactor/worker.h"
#include "rpc/server.h"
#include "rpc/session.h"
#include "sched/loader.h"
#include "storage/storage.h"
#include "vm/vm.h"
#include "xen/hyper.h"

struct attach;
struct ca_change;
struct emergency;
struct clocks;
struct consoles;
struct dumps;
struct ejection;
struct fencing;
struct forward;
struct ghosts;
struct guard;
struct imports;
struct joining;
struct lease;
struct members;
struct metrics;
struct state_disk;
struct migrate;
struct restarts;
struct rotation;
struct voters;

/* A method that was asked for by this name. */
struct known_method {
	const struct schema_method *method; /* NULL: nothing is known */
	size_t len;
	char name[48];
};

enum { DAEMON_METHODS_KNOWN = 64 };

/* SR.virtual_allocation, being summed up: daemon/object_live.c. */
struct object_sums {
	struct uuid sr, vdi; /* in whose middle, the last that counts; none: at rest */
	int64_t sum;
	bool again; /* disks have changed meanwhile */
};

/* Who looks when the database has changed: daemon/follow.h. */
struct follow {
	struct pool_subscriber subscriber;
	struct defer look;
	struct timer turn; /* the rest of them, after the sockets */
	size_t next;	   /* who looks next */
	bool looking;	   /* some have, the others are to */
	bool changed;	   /* meanwhile: all look again */
	bool once_more;	   /* the one that looks isn't through */
	int64_t begun_us;  /* this callback, by the thread's own time */
};

struct daemon {
	const struct config *config; /* borrowed */
	struct loop *loop;	     /* borrowed */
	struct uuid host;	     /* this host's, also before it is in the database */

	struct disk *disk;
	struct pool *pool;
	struct hyper *hyper;	      /* a witness has none of the three */
	struct hyper_host hyper_host; /* as the hypervisor said at start */
	struct storage *storage;
	struct net *net;
	struct vm_manager *vms;
	struct worker *worker; /* scrypt */
	struct sessions *sessions;
	struct known_method methods_known[DAEMON_METHODS_KNOWN];
	struct rpc_server *rpc;
	struct metrics *metrics;
	struct state_disk *state_disk;
	struct clocks *clocks;
	struct consoles *consoles;
	struct dumps *dumps;
	struct ghosts *ghosts;
	struct guard *guard;
	struct imports *imports;
	struct lease *lease;
	struct fencing *fencing;
	struct restarts *restarts;
	struct attach *attach;
	struct members *members; /* NULL: a pool of this host alone */
	struct forward *forward;
	struct joining *joining;
	struct ejection *ejection;   /* NULL without members */
	struct emergency *emergency; /* NULL without members */
	struct migrate *migrate;     /* NULL without members, and on a witness */
	struct rotation *rotation;   /* NULL without members */
	struct ca_change *ca_change; /* NULL without members */
	struct voters *voters;	     /* NULL without members */

	struct list calls, free_calls; /* struct call */
	size_t call_count;
	struct list task_waiters, event_waiters; /* struct call */
	struct list task_due; /* of them: to be looked at; daemon/tasks.c */
	struct timer task_turn;
	struct list event_due; /* of them: to be looked at; daemon/events.c */
	struct timer event_turn;
	struct list large_reads; /* struct call; daemon/large.c */
	struct timer large_read;
	struct list chores;	  /* struct chore */
	struct list designations; /* pool_status.c */
	struct timer recover;	  /* recover.c */
	struct follow follow;

	struct op start;		/* start.c */
	struct pool_commit back_commit; /* daemon/declare.c */
	bool back_pending;
	struct pool_commit level_commit; /* daemon/level.c */
	bool level_pending;
	struct hyper_req hyper_req;
	struct pool_commit commit;
	uint64_t start_token;
	struct timer start_watch;
	int64_t start_waited_ms;
	int *exit_status;		   /* borrowed: main's */
	char policy_name[CONFIG_TEXT_MAX]; /* at work; policy.c */
	struct loader_plugin policy_plugin;
	struct changes_token vm_live_token, object_live_token;
	struct timer object_live_turn, vm_live_turn;
	struct object_sums sums;
	struct buf vm_live_due; /* UUIDs of VMs to be looked at; daemon/vm_live.c */
	bool restart;		/* begin anew after the loop has ended: see main.c */
	bool serving, stopping;
	bool recorded; /* this host is in the database as it is now: changes are taken */
};

/* While this host starts, clients may only ask, and only once it has read the pool's
 * database: true for other methods, with the reason and what to do. */
bool daemon_refuses(
	const struct daemon *d, const struct schema_method *m, struct rv_error *e);

/* Asks whoever works on the task to end it. RV_ENOTALLOWED: it can't be cancelled any
 * more or at all. */
int daemon_cancel(struct daemon *d, struct uuid task, struct rv_error *e) RV_MUST_CHECK;

/* The socket paths of a configuration. */
void daemon_socket_path(
	const struct config *c, const char *name, char *path, size_t size);

/* Begins to bring everything up; loop_run then serves. `e` says what is wrong at once;
 * what fails later is logged, and the loop is stopped with `*status` set. */
int daemon_start(struct daemon *d, struct loop *l, const struct config *c, int *status,
	struct rv_error *e) RV_MUST_CHECK;

/* Begins an orderly end: no new calls, the log flushed; VMs keep running. Stops the loop.
 */
void daemon_stop(struct daemon *d);

/* Stops the loop for another start, as what the state directory now says. Not once the
 * end was asked for: that is an end. */
void daemon_restart(struct daemon *d);
bool daemon_starts_again(const struct daemon *d);

/* Frees everything, after the loop has ended. */
void daemon_fini(struct daemon *d);

#endif
