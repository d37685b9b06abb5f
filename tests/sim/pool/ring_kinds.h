/*
 * What there is of each kind in the simulation of pools: faults, what comes of leases,
 * actions of clients, and what is struck where. Each is counted, and --complete demands
 * that each took place.
 */
#ifndef REEVE_TESTS_SIM_POOL_RING_KINDS_H
#define REEVE_TESTS_SIM_POOL_RING_KINDS_H

#define RING_FAULTS(X)                                                                   \
	X(LINK_CUT, "link-cut")                                                          \
	X(LINK_CUT_ONE_WAY, "link-cut-one-way")                                          \
	X(LINK_RESET, "link-reset")                                                      \
	X(LINK_SLOW, "link-delay")                                                       \
	X(PARTITION, "partition")                                                        \
	X(PARTITION_ONE_WAY, "partition-one-way")                                        \
	X(MASTER_ISOLATED, "master-isolated")                                            \
	X(MESSAGES_LOST, "messages-lost-in-flight")                                      \
	X(STREAM_CUT, "migration-stream-cut")                                            \
	X(STREAM_CUT_ONE_WAY, "migration-stream-cut-one-way")                            \
	X(STREAM_RESET, "migration-stream-reset")                                        \
	X(STREAM_SLOW, "migration-stream-slow")                                          \
	X(AIMED, "migration-struck-in-phase")                                            \
	X(POWER, "power-loss")                                                           \
	X(KILL, "kill-9")                                                                \
	X(UNSYNCED, "kill-9-unsynced-torn")                                              \
	X(POINT, "dies-at-point")                                                        \
	X(MASTER_DIED, "master-died")                                                    \
	X(MASTER_MOVED, "leadership-transfer")                                           \
	X(HYPER_ERROR, "hyper-error")                                                    \
	X(HYPER_EFFECT_ERROR, "hyper-effect-error")                                      \
	X(HYPER_LATE, "hyper-late")                                                      \
	X(HYPER_LOST, "hyper-lost")                                                      \
	X(HYPER_CRASH, "helper-crash")                                                   \
	X(GUEST_ENDED, "guest-ends-by-itself")                                           \
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
	X(CLOCK_JUMP, "clock-jump")                                                      \
	X(DEMOTED, "voter-demoted")                                                      \
	X(REMOVED, "standby-removed")                                                    \
	X(DISCARD, "learner-told-to-discard")                                            \
	X(LEARNER, "learner-struck-in-stage")                                            \
	X(HOST_CUT, "host-cut-off")                                                      \
	X(HOST_CUT_ONE_WAY, "host-cut-off-one-way")                                      \
	X(FROZEN, "reeved-frozen")                                                       \
	X(ASLEEP, "host-asleep")                                                         \
	X(FENCE_FAILS, "fenced-fails")                                                   \
	X(FENCE_DIES, "fenced-dies")                                                     \
	X(WAIT_MASTER, "master-changes-in-the-wait")                                     \
	X(CHANGE_MASTER, "master-dies-in-a-change-of-places")                            \
	X(DISK_SLOW, "disk-slow")                                                        \
	X(MASTER_STOPPED, "master-stopped")

enum ring_fault {
#define X(symbol, name) RING_FAULT_##symbol,
	RING_FAULTS(X)
#undef X
		RING_FAULT_COUNT,
	/* From here on: ring_slow.c's, which seeds don't draw. */
	RING_FAULT_DRAWN = RING_FAULT_DISK_SLOW
};

/* What came of leases and protection. */
#define RING_HA(X)                                                                       \
	X(GRANT, "leases granted")                                                       \
	X(REFUSED, "starts refused without a lease")                                     \
	X(FENCED, "domains fenced")                                                      \
	X(BITTEN, "hosts restarted by the watchdog")                                     \
	X(RELEASED, "entries that let go of VMs")                                        \
	X(RESTARTED, "VMs started again")                                                \
	X(RESUMED, "VMs to be resumed elsewhere")                                        \
	X(GIVEN_UP, "VMs that no host had room for")

enum ring_ha {
#define X(symbol, name) RING_HA_##symbol,
	RING_HA(X)
#undef X
		RING_HA_COUNT
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
	X(MIGRATE_STRICT, "migrate-accept=false")                                        \
	X(REPEAT, "repeat")                                                              \
	X(CANCEL, "task-cancel")                                                         \
	X(PROTECT, "protect")                                                            \
	X(LEASE_MS, "lease-ms")                                                          \
	X(REGISTER_WRITE, "register-write")                                              \
	X(REGISTER_READ, "register-read-consistent")                                     \
	X(REGISTER_LOOK, "register-read-ordinary")

enum ring_action {
#define X(symbol, name) RING_ACTION_##symbol,
	RING_ACTIONS(X)
#undef X
		RING_ACTION_COUNT
};

/* docs/migration.md: the columns of its table, and the rows. */
#define RING_PHASES(X)                                                                   \
	X(PREPARE, "prepare")                                                            \
	X(STREAM, "stream")                                                              \
	X(SUSPEND, "suspend")                                                            \
	X(HANDOVER, "hand-over")                                                         \
	X(OWNED, "owned")                                                                \
	X(LEAVE, "leave")

enum ring_phase {
#define X(symbol, name) RING_PHASE_##symbol,
	RING_PHASES(X)
#undef X
		RING_PHASE_COUNT
};

#define RING_FAILURES(X)                                                                 \
	X(SOURCE_CRASH, "source daemon crashes")                                         \
	X(TARGET_CRASH, "target daemon crashes")                                         \
	X(SOURCE_POWER, "source loses power")                                            \
	X(TARGET_POWER, "target loses power")                                            \
	X(CUT, "link cut")                                                               \
	X(RESET, "link reset")                                                           \
	X(FULL, "master's disk is full")                                                 \
	X(ERROR, "hypervisor errors")                                                    \
	X(CANCEL, "cancel")                                                              \
	X(TIMEOUT, "time-out")                                                           \
	X(GUEST, "guest ends by itself")

enum ring_failure {
#define X(symbol, name) RING_FAILURE_##symbol,
	RING_FAILURES(X)
#undef X
		RING_FAILURE_COUNT
};

/* What a learner is struck in, and with what. */
#define RING_STAGES(X)                                                                   \
	X(APPEND, "append")                                                              \
	X(TAKE, "own-snap")                                                              \
	X(WIPE, "wipe")                                                                  \
	X(DATA, "chunks")                                                                \
	X(DECODE, "decode")                                                              \
	X(WRITE, "write")                                                                \
	X(COMMIT, "commit")                                                              \
	X(RESET, "reset")                                                                \
	X(BECOME, "become")

enum ring_stage {
#define X(symbol, name) RING_STAGE_##symbol,
	RING_STAGES(X)
#undef X
		RING_STAGE_COUNT
};

#define RING_BLOWS(X)                                                                    \
	X(KILL, "it dies, unsynced torn")                                                \
	X(POWER, "it loses power")                                                       \
	X(FEEDER, "who feeds it dies")                                                   \
	X(LINK, "the link resets")                                                       \
	X(DISK, "its disk fails")

enum ring_blow {
#define X(symbol, name) RING_BLOW_##symbol,
	RING_BLOWS(X)
#undef X
		RING_BLOW_COUNT
};

/* Every vm_point that an operation of these clients can pass; an unlisted one fails. */
#define RING_POINTS(X)                                                                   \
	X("op.intent")                                                                   \
	X("op.ending")                                                                   \
	X("build.reserved")                                                              \
	X("build.plugged")                                                               \
	X("build.created")                                                               \
	X("build.recorded")                                                              \
	X("build.unpaused")                                                              \
	X("pause.called")                                                                \
	X("reboot.ended")                                                                \
	X("reboot.gone")                                                                 \
	X("resume.recorded")                                                             \
	X("shutdown.ended")                                                              \
	X("shutdown.gone")                                                               \
	X("suspend.image")                                                               \
	X("suspend.saved")                                                               \
	X("suspend.flushed")                                                             \
	X("suspend.committed")                                                           \
	X("migrate.looked")                                                              \
	X("migrate.prepared")                                                            \
	X("migrate.begun")                                                               \
	X("migrate.suspended")                                                           \
	X("migrate.saved")                                                               \
	X("migrate.closed")                                                              \
	X("migrate.final")                                                               \
	X("migrate.unwinding")                                                           \
	X("migrate.aborted")                                                             \
	X("migrate.disks")                                                               \
	X("migrate.resumed")                                                             \
	X("migrate.waiting")                                                             \
	X("migrate.leaving")                                                             \
	X("target.checked")                                                              \
	X("target.reserved")                                                             \
	X("target.nics")                                                                 \
	X("target.restored")                                                             \
	X("target.whole")                                                                \
	X("target.committed")                                                            \
	X("target.aborted")                                                              \
	X("target.owner")                                                                \
	X("target.disks")                                                                \
	X("target.attached")                                                             \
	X("target.unpaused")                                                             \
	X("target.returning")                                                            \
	X("target.undone")                                                               \
	X("target.returned")

enum {
#define X(name) +1
	RING_POINT_COUNT = 0 RING_POINTS(X)
#undef X
};

#endif
