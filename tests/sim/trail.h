/*
 * What happened last, and how much of everything: in memory shared with the parent, so
 * that it is there however the child that ran the seed died.
 */
#ifndef REEVE_TESTS_SIM_TRAIL_H
#define REEVE_TESTS_SIM_TRAIL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "reactor/loop.h"

enum { TRAIL_LINES = 80, TRAIL_WIDTH = 240 };

#define SIM_FAULTS(X)                                                                    \
	X(HYPER_ERROR, "hyper-error")                                                    \
	X(HYPER_EFFECT_ERROR, "hyper-effect-error")                                      \
	X(HYPER_LATE, "hyper-late")                                                      \
	X(HYPER_LOST, "hyper-lost")                                                      \
	X(HYPER_CRASH, "helper-crash")                                                   \
	X(GUEST_DEAF, "guest-ignores-requests")                                          \
	X(GUEST_STUCK, "guest-balloon-stuck")                                            \
	X(GUEST_POWEROFF, "guest-poweroff")                                              \
	X(GUEST_REBOOT, "guest-reboot")                                                  \
	X(GUEST_CRASH, "guest-crash")                                                    \
	X(GHOST, "ghost")                                                                \
	X(XL_DESTROY, "xl-destroy")                                                      \
	X(STORED_LOST, "xenstored-lost")                                                 \
	X(STORAGE_FAIL, "storage-fail")                                                  \
	X(STORAGE_AFTER, "storage-fail-after-effect")                                    \
	X(STORAGE_HANG, "storage-hang")                                                  \
	X(SR_HUNG, "sr-hung")                                                            \
	X(NET_FAIL, "net-fail")                                                          \
	X(NET_AFTER, "net-fail-after-effect")                                            \
	X(NET_HANG, "net-hang")                                                          \
	X(DISK_STEP, "disk-step-fails")                                                  \
	X(DISK_WRITE, "disk-write-torn")                                                 \
	X(DISK_SYNC, "disk-fsync-fails")                                                 \
	X(DISK_FULL, "disk-full")                                                        \
	X(DISK_SLOW, "disk-slow")                                                        \
	X(DAEMON_KILL, "kill-9")                                                         \
	X(DAEMON_UNSYNCED, "kill-9-unsynced-torn")                                       \
	X(HOST_POWER, "power-loss")                                                      \
	X(DAEMON_POINT, "kill-9-at-point")

enum sim_fault {
#define X(symbol, name) SIM_FAULT_##symbol,
	SIM_FAULTS(X)
#undef X
		SIM_FAULT_COUNT
};
const char *sim_fault_name(enum sim_fault fault);

/* Every vm_point of vm/. One that is passed and not listed here fails the run. */
#define SIM_POINTS(X)                                                                    \
	X("op.intent")                                                                   \
	X("op.ending")                                                                   \
	X("build.reserved")                                                              \
	X("build.plugged")                                                               \
	X("build.created")                                                               \
	X("build.recorded")                                                              \
	X("build.unpaused")                                                              \
	X("destroy.disk")                                                                \
	X("hotplug.attached")                                                            \
	X("hotplug.detached")                                                            \
	X("make.disk")                                                                   \
	X("pause.called")                                                                \
	X("reboot.ended")                                                                \
	X("reboot.gone")                                                                 \
	X("resume.recorded")                                                             \
	X("shutdown.ended")                                                              \
	X("shutdown.gone")                                                               \
	X("suspend.image")                                                               \
	X("suspend.saved")                                                               \
	X("suspend.flushed")                                                             \
	X("suspend.committed")

enum {
#define X(name) +1
	SIM_POINT_COUNT = 0 SIM_POINTS(X)
#undef X
};
const char *sim_point_name(int point);
int sim_point_by_name(const char *name); /* -1: not listed */

/* What clients do. */
#define SIM_ACTIONS(X)                                                                   \
	X(CREATE, "create")                                                              \
	X(WRITE, "write")                                                                \
	X(MEMORY, "memory-range")                                                        \
	X(CANCEL, "cancel")                                                              \
	X(REPEAT, "repeat")                                                              \
	X(START, "start")                                                                \
	X(START_ON, "start-on")                                                          \
	X(RESUME, "resume")                                                              \
	X(CLEAN_SHUTDOWN, "clean-shutdown")                                              \
	X(HARD_SHUTDOWN, "hard-shutdown")                                                \
	X(CLEAN_REBOOT, "clean-reboot")                                                  \
	X(HARD_REBOOT, "hard-reboot")                                                    \
	X(PAUSE, "pause")                                                                \
	X(UNPAUSE, "unpause")                                                            \
	X(SUSPEND, "suspend")                                                            \
	X(CLONE, "clone")                                                                \
	X(PROVISION, "provision")                                                        \
	X(DESTROY, "destroy")                                                            \
	X(VBD_PLUG, "vbd-plug")                                                          \
	X(VBD_UNPLUG, "vbd-unplug")                                                      \
	X(VIF_PLUG, "vif-plug")                                                          \
	X(VIF_UNPLUG, "vif-unplug")

enum sim_action {
#define X(symbol, name) SIM_ACTION_##symbol,
	SIM_ACTIONS(X)
#undef X
		SIM_ACTION_COUNT
};
const char *sim_action_name(enum sim_action action);

struct sim_totals {
	uint64_t seeds, events, lives, tasks, virtual_s;
	uint64_t faults[SIM_FAULT_COUNT];
	uint64_t points[SIM_POINT_COUNT]; /* crashes there */
	uint64_t passed[SIM_POINT_COUNT];
	uint64_t actions[SIM_ACTION_COUNT];   /* accepted */
	uint64_t succeeded[SIM_ACTION_COUNT]; /* of which succeeded */
	uint64_t failed, cancelled;
};

/* Of one child; the parent reads it when that has ended. */
struct trail {
	struct sim_totals totals;
	uint64_t hash;
	bool on, verbose; /* lines are wanted; and printed at once */
	bool failed;
	char why[1200];
	uint64_t next; /* lines so far */
	int64_t now_us;
	char lines[TRAIL_LINES][TRAIL_WIDTH];
};

/* Borrowed; set once per process. */
void trail_set(struct trail *t, struct loop *l);
struct trail *trail_get(void);

/* A line; free when nobody wants lines. */
void sim_note(const char *fmt, ...) RV_PRINTF(1, 2);

/* The rule that was broken, in words; ends the process. */
_Noreturn void sim_fail(const char *fmt, ...) RV_PRINTF(1, 2);

#endif
