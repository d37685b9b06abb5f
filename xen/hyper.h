/*
 * The hypervisor port: all that Reeve asks of one host's hypervisor.
 *
 * Two drivers stand behind it: the simulated one (xen/sim.h) and the one for real Xen.
 * The port knows no pool, no policy and no database. Its callers are vm/, migrate/, the
 * shell of memctl/ and the daemon; each call comes from the loop's thread.
 *
 * Calls. A `struct hyper_req` is embedded in the caller, made ready once by
 * hyper_req_init, then handed to one call at a time. Calls return nothing: every answer,
 * refusals too, comes through `done`, exactly once, from the loop, never inside the call.
 * In `done` the request is already free for the next call, or to be freed. Specs and
 * their strings are borrowed for the call alone: drivers copy what they keep.
 *
 * Outcomes. rc 0: done. RV_EINVAL, RV_ENOENT, RV_EEXIST, RV_ESTATE, RV_ESTALE, RV_EBUSY,
 * RV_EMEMORY, RV_ECPU, RV_ELIMIT and RV_EUNSUPPORTED are refusals: nothing was changed.
 * Any other code (RV_EHYPERVISOR, RV_ECHILD, RV_EOUTCOME, RV_ECANCELLED, ...) leaves open
 * whether it happened: look with hyper_info or hyper_list, or call again, since every
 * call may be repeated without harm.
 *
 * Fencing. When `done` fires the driver has nothing more at work for the request: what it
 * may have changed is changed, nothing happens later. A caller whose patience ends calls
 * hyper_cancel and goes on waiting: `done` still fires, once the call has been answered
 * or its helper is surely dead. Deadlines are the caller's.
 *
 * Identity. Domids are reused, so a domain is named by (host boot id, domid, handle,
 * owner generation) and the driver compares all four before it acts: a domain that is not
 * there gives RV_ENOENT, a boot id, handle or generation that differs RV_ESTALE.
 *
 * While a create, restore, save or destroy is at work on a domain, any other call for it
 * but info, console, set_maxmem and relabel is refused with RV_EBUSY.
 */
#ifndef REEVE_XEN_HYPER_H
#define REEVE_XEN_HYPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "base/uuid.h"

struct loop;

enum {
	HYPER_MAX_VBDS = 16,
	HYPER_MAX_VIFS = 8,
	HYPER_MAX_VCPUS = 512,
	HYPER_MAX_DOMAINS = 1024, /* of one host */
	HYPER_NAME_SIZE = 128,
	HYPER_TEXT_SIZE = 256,	       /* paths and backend parameters */
	HYPER_MAX_CPU_POLICY = 32768,  /* bytes of a serialised CPU policy */
	HYPER_CHUNK_MAX = 1024 * 1024, /* a save stream's chunk is never larger */
};

/* Any domid: "whichever domain bears this handle". For hyper_destroy and hyper_info
 * after a crash, when the domid was not recorded. */
#define HYPER_DOMID_ANY UINT32_MAX

struct hyper_domain_id {
	struct uuid boot_id;
	uint32_t domid;
	struct uuid handle;  /* drawn anew by the caller for each create or restore */
	uint64_t generation; /* owner generation, from the database */
};

/* --- describing a domain --- */

enum hyper_type { HYPER_PV, HYPER_PVH, HYPER_HVM };

/* What the caller wants after the guest ends by itself. The driver records it (tools
 * beside Reeve read it) but never restarts or destroys: it reports HYPER_EV_SHUTDOWN,
 * keeps the dead domain, and the caller destroys it and creates the next. */
enum hyper_on_exit {
	HYPER_ON_EXIT_DESTROY,
	HYPER_ON_EXIT_RESTART,
	HYPER_ON_EXIT_PRESERVE
};

/* A virtual disk, resolved by storage/: the driver opens nothing by itself. */
struct hyper_vbd_spec {
	uint32_t devid;	     /* Xen's number, e.g. 51712 for xvda */
	const char *device;  /* "xvda" */
	const char *backend; /* "phy", "loop", "qdisk", ...: how dom0 serves it */
	const char *params;  /* path and options for that backend */
	bool read_only, cdrom;
	/* Attach without opening for writing yet: an incoming migration's disks are
	 * activated by storage/ only after COMMIT. */
	bool inactive;
};

/* A virtual interface, resolved by net/. */
struct hyper_vif_spec {
	uint32_t devid;
	const char *mac;     /* "00:16:3e:..." */
	const char *backend; /* "bridge", "openvswitch" */
	const char *bridge;  /* name of the bridge in dom0 */
	uint32_t mtu;	     /* 0: the default */
};

struct hyper_domain_spec {
	struct uuid vm;
	struct uuid handle;
	uint64_t generation;
	const char *name; /* as xl shows it; a driver that needs it unique adds to it */
	enum hyper_type type;
	uint32_t vcpus_max, vcpus_online; /* online 0: all */
	/* static_max is what the guest believes to have for ever; target is what it gets
	 * now. PV boots at target. PVH and HVM boot at static_max unless
	 * populate_on_demand. */
	uint64_t static_max_kib, target_kib;
	bool populate_on_demand;
	/* Direct kernel boot (paths in dom0), or a bootloader; one of the two. */
	const char *kernel, *ramdisk, *cmdline, *bootloader;
	/* The CPU level to show the guest; NULL: the host's own. */
	const uint8_t *cpu_policy;
	size_t cpu_policy_len;
	const struct hyper_vbd_spec *vbds;
	size_t vbd_count;
	const struct hyper_vif_spec *vifs;
	size_t vif_count;
	bool console; /* give it a console that hyper_console_open can open */
	enum hyper_on_exit on_poweroff, on_reboot, on_crash;
	/* "key=value ..." for the driver alone, from VM.platform; unknown keys are
	 * ignored. NULL: none. The simulated driver reads `sim.` keys (xen/sim.h). */
	const char *platform;
};

/* --- what is there --- */

enum hyper_state {
	HYPER_BUILDING, /* being built or restored; or half-made, left by a crash */
	HYPER_PAUSED,
	HYPER_RUNNING,
	HYPER_SHUTDOWN, /* ended; `reason` says how; memory still held */
	HYPER_DYING,	/* being destroyed; memory still held */
};

enum hyper_reason {
	HYPER_REASON_NONE,
	HYPER_REASON_POWEROFF,
	HYPER_REASON_REBOOT,
	HYPER_REASON_SUSPEND,
	HYPER_REASON_CRASH,
	HYPER_REASON_WATCHDOG,
};

/* One domain as the hypervisor sees it. */
struct hyper_domain {
	struct hyper_domain_id id;
	struct uuid vm; /* none: made by another tool */
	char name[HYPER_NAME_SIZE];
	enum hyper_type type;
	enum hyper_state state;
	enum hyper_reason reason; /* in HYPER_SHUTDOWN */
	uint32_t vcpus_online;
	uint64_t actual_kib;	 /* memory held now */
	uint64_t target_kib;	 /* last one set */
	uint64_t maxmem_kib;	 /* never holds more */
	uint64_t static_max_kib; /* fixed at creation */
	uint64_t overhead_kib;	 /* held beside actual_kib */
	uint64_t pod_kib;	 /* populate-on-demand still outstanding */
	bool can_balloon;	 /* says so itself; plain Linux guests don't */
	bool is_up; /* its kernel has begun to talk to us: a balloon driver would, too */
	int64_t cpu_ns; /* consumed by all its vcpus */
};

enum hyper_cap {
	HYPER_CAP_PV = 1 << 0,
	HYPER_CAP_PVH = 1 << 1,
	HYPER_CAP_HVM = 1 << 2,
	/* Live migration of a running PV guest. Debian's hypervisor is built without
	 * shadow paging and can't; offer migration with suspend instead. */
	HYPER_CAP_LIVE_PV = 1 << 3,
	HYPER_CAP_LIVE_HVM = 1 << 4, /* PVH too */
	HYPER_CAP_CLAIM = 1 << 5,
	HYPER_CAP_CONSOLE = 1 << 6,
	HYPER_CAP_WATCHDOG = 1 << 7, /* domain watchdog, for fencing */
};

struct hyper_host {
	struct uuid boot_id;
	char driver[32]; /* "simulated", "xen-4.17" */
	bool is_simulated;
	char version[64]; /* "4.17.5" */
	uint32_t version_major, version_minor;
	uint64_t total_kib;
	uint64_t free_kib;    /* of the hypervisor's heap */
	uint64_t claimed_kib; /* of the free, promised to domains being built */
	uint64_t dom0_kib;    /* dom0's share of the total */
	bool dom0_fixed;      /* dom0_mem=N,max:N; else the daemon refuses to start VMs */
	uint32_t cpus, nodes, cores_per_socket, threads_per_core;
	uint32_t cpu_mhz;
	char cpu_model[64];
	uint32_t caps; /* enum hyper_cap */
	size_t cpu_policy_len;
	uint8_t cpu_policy[HYPER_MAX_CPU_POLICY];
};

struct hyper_domain_metrics {
	struct hyper_domain_id id;
	struct uuid vm;
	uint32_t cpu_ppm; /* of one cpu, since the previous hyper_metrics: may pass 1e6 */
	uint64_t actual_kib;
};

struct hyper_metrics {
	int64_t interval_us;   /* since the previous call; 0: the first */
	uint32_t cpu_busy_ppm; /* of all cpus */
	uint64_t free_kib;
	const struct hyper_domain_metrics *domains;
	size_t domain_count;
};

/* --- byte streams of saved domains --- */

/* A file or block device of this host that a driver may write or read by itself, so that
 * the bytes don't pass through the daemon: the `size` bytes from `at` on. path NULL:
 * none. What it holds is the driver's own format, and whole when the call has succeeded;
 * the caller syncs it. */
struct hyper_file {
	const char *path;
	uint64_t at, size;
};

/* Where a save's bytes go. The driver asks for room, fills some of it, says how much.
 * The bytes are the driver's own format, self-contained, zero pages left out. */
struct hyper_sink {
	/* Points *room at writable memory and returns its size; 0: none now, the driver
	 * stops until hyper_kick. Valid until `filled` or the callback's end. */
	size_t (*room)(void *arg, uint8_t **room);
	void (*filled)(void *arg, size_t n); /* n > 0 */
	void *arg;
	/* Only where hyper_takes_files: they go there. Room is never asked for; `filled`
	 * tells how it goes on, in sum all that was written when the save is done. */
	struct hyper_file file;
};

/* Where a restore's bytes come from. */
struct hyper_source {
	/* Points *data at bytes that have arrived and returns how many; 0: none now, the
	 * driver stops until hyper_kick. *end: nothing follows these bytes. */
	size_t (*peek)(void *arg, const uint8_t **data, bool *end);
	void (*consumed)(void *arg, size_t n);
	void *arg;
	/* Only where hyper_takes_files: they come from there, the others are not used. */
	struct hyper_file file;
};

/* What the pre-copy policy sees before each round after the first (libxenguest's
 * precopy_policy with its rate worked out). */
struct hyper_precopy {
	uint32_t iteration;   /* rounds finished so far, 1 the first time */
	uint64_t total_pages; /* sent since the start */
	uint64_t total_bytes; /* of the stream, since the start */
	uint64_t dirty_pages; /* written meanwhile: what is still to send */
	uint64_t round_pages; /* sent in the round just finished */
	int64_t round_us;     /* which took so long */
	uint64_t bytes_per_s; /* in that round */
	uint64_t dirty_per_s; /* pages the guest dirtied per second in it */
};

enum hyper_precopy_verdict {
	HYPER_PRECOPY_CONTINUE, /* another round while it runs */
	HYPER_PRECOPY_STOP,	/* suspend and send the rest */
	HYPER_PRECOPY_ABORT,	/* end the save; the domain goes on running */
};

typedef enum hyper_precopy_verdict hyper_precopy_fn(
	void *arg, const struct hyper_precopy *round);

struct hyper_save_spec {
	/* Live: pages are sent in rounds while the guest runs. Otherwise it is suspended
	 * first. A domain that is already suspended is saved as it stands. */
	bool live;
	struct hyper_sink sink;
	hyper_precopy_fn *policy; /* live only; called from the loop; decides at once */
	/* The guest is suspended; the last pages follow. Backends can be drained now. May
	 * be NULL. */
	void (*suspended)(void *arg);
	void *arg; /* of policy and suspended */
};

/* --- requests --- */

enum hyper_call {
	HYPER_CALL_NONE,
	HYPER_CALL_CREATE,
	HYPER_CALL_RESTORE,
	HYPER_CALL_SAVE,
	HYPER_CALL_RESUME,
	HYPER_CALL_DESTROY,
	HYPER_CALL_PAUSE,
	HYPER_CALL_UNPAUSE,
	HYPER_CALL_REQUEST_SHUTDOWN,
	HYPER_CALL_SET_TARGET,
	HYPER_CALL_SET_MAXMEM,
	HYPER_CALL_ATTACH_VBD,
	HYPER_CALL_DETACH_VBD,
	HYPER_CALL_ATTACH_VIF,
	HYPER_CALL_DETACH_VIF,
	HYPER_CALL_RELABEL,
	HYPER_CALL_CONSOLE,
	HYPER_CALL_HOST,
	HYPER_CALL_METRICS,
	HYPER_CALL_LIST,
	HYPER_CALL_INFO,
	HYPER_CALL_COUNT
};

const char *hyper_call_name(enum hyper_call call);	 /* "create" */
const char *hyper_state_name(enum hyper_state state);	 /* "running" */
const char *hyper_reason_name(enum hyper_reason reason); /* "poweroff" */

struct hyper_req;
typedef void hyper_done_fn(void *arg, struct hyper_req *req);

/* Whether a domain may be let go on at this moment: 0, or an error with its words. */
typedef int hyper_may_run_fn(void *arg, struct rv_error *e);

struct hyper_req {
	hyper_done_fn *done;
	void *arg;
	uint64_t token; /* the caller's, e.g. of op_await; the driver leaves it alone */

	/* The question; filled by the calls below. */
	enum hyper_call call;
	struct hyper_domain_id id; /* also an answer: of create, restore, info */
	union {
		const struct hyper_domain_spec *spec; /* create, restore: for the call */
		enum hyper_reason reason;	      /* request_shutdown */
		uint64_t kib;			      /* set_target, set_maxmem */
		uint32_t devid;			      /* detach */
		const struct hyper_vbd_spec *vbd;     /* for the call */
		const struct hyper_vif_spec *vif;     /* for the call */
		struct {
			struct uuid vm;
			uint64_t generation;
		} label;
		struct {
			hyper_may_run_fn *fn; /* NULL: it may */
			void *arg;
		} may_run; /* unpause */
	} in;
	struct hyper_save_spec save;
	struct hyper_source source;

	/* The answer. */
	int rc;
	struct rv_error
		error; /* when rc != 0: names the domain, the cause, the way out */
	struct hyper_domain domain;	     /* info, save, resume: as it is now */
	const struct hyper_domain *domains;  /* list: borrowed for the callback */
	size_t domain_count;		     /* list */
	const struct hyper_host *host;	     /* host: borrowed for the callback */
	const struct hyper_metrics *metrics; /* metrics: borrowed for the callback */
	int fd;				     /* console: returned owned */

	/* The driver's. */
	struct hyper *hyper; /* NULL: idle */
	void *job;
};

/* `done(arg, req)` answers every call made with this request. */
void hyper_req_init(struct hyper_req *req, hyper_done_fn *done, void *arg);

static inline bool hyper_req_busy(const struct hyper_req *req)
{
	return req->hyper != NULL;
}

/* --- events --- */

enum hyper_event_kind {
	HYPER_EV_INTRODUCED,  /* a domain is there (made by us or another tool) */
	HYPER_EV_SHUTDOWN,    /* it ended, by itself or on request; once per ending; the
				 suspend of a hyper_save is told too (reason suspend) */
	HYPER_EV_RELEASED,    /* it is gone, its memory free; once per domain */
	HYPER_EV_BALLOON,     /* actual_kib moved; the driver looks often while it does */
	HYPER_EV_FEATURES,    /* the guest wrote what it can do (can_balloon, is_up) */
	HYPER_EV_STORED_LOST, /* xenstored answers no more: management is frozen */
	HYPER_EV_STORED_BACK,
};

struct hyper_event {
	enum hyper_event_kind kind;
	struct hyper_domain domain; /* not for STORED_*; as it was when it happened */
};

typedef void hyper_event_fn(void *arg, const struct hyper_event *event);

/* Embed it. Every listener gets every event, from the loop, none inside a call. What
 * happened before hyper_listen is not told again: listen first, then list. */
struct hyper_listener {
	struct list node;
	hyper_event_fn *fn;
	void *arg;
};

/* --- the port --- */

struct hyper;

struct hyper_ops {
	const char *name;
	bool takes_files; /* of sinks and sources */
	/* Takes req->call with its question; answers by hyper_finish, from the loop. */
	void (*submit)(struct hyper *h, struct hyper_req *req);
	void (*cancel)(struct hyper *h, struct hyper_req *req);
	void (*kick)(struct hyper *h, struct hyper_req *req);
	/* Pure and immediate. */
	uint64_t (*overhead_kib)(
		const struct hyper *h, const struct hyper_domain_spec *s);
	int (*cpu_check)(const struct hyper *h, const uint8_t *offered,
		size_t offered_len, const uint8_t *needed, size_t needed_len,
		struct rv_error *e);
	int (*cpu_common)(const struct hyper *h, const uint8_t *a, size_t a_len,
		const uint8_t *b, size_t b_len, uint8_t *out, size_t *out_len,
		struct rv_error *e);
	void (*free)(struct hyper *h);
};

/* Drivers embed it first. */
struct hyper {
	const struct hyper_ops *ops;
	struct loop *loop; /* borrowed */
	struct list listeners;
};

static inline bool hyper_takes_files(const struct hyper *h)
{
	return h->ops->takes_files;
}

/* For drivers. */
void hyper_init(struct hyper *h, const struct hyper_ops *ops, struct loop *l);
/* Ends a request: frees it for reuse, then calls done. req->rc and the answer are set. */
void hyper_finish(struct hyper_req *req);
void hyper_emit(struct hyper *h, const struct hyper_event *event);

void hyper_listen(
	struct hyper *h, struct hyper_listener *l, hyper_event_fn *fn, void *arg);
void hyper_unlisten(struct hyper_listener *l); /* idempotent once listened */

/* Ends the driver, not the domains. Requests still at work are dropped: their `done` does
 * not fire (only the daemon's end and a simulated crash do this). Not from inside one of
 * the driver's callbacks. NULL-safe. */
void hyper_free(struct hyper *h);

/* For the inline calls below. */
void hyper_submit(struct hyper *h, struct hyper_req *req, enum hyper_call call);

/* Asks to end early. `done` still fires, once: RV_ECANCELLED, or as it ended anyway. A
 * no-op on an idle request; idempotent. A cancelled create or restore leaves no domain; a
 * cancelled save leaves it running, or suspended if it already was (see hyper_save). */
void hyper_cancel(struct hyper_req *req);

/* To a save: its sink has room again. To a restore: its source has bytes, or has ended.
 * Harmless at any time, also on an idle request; the sink or source is called from the
 * loop. */
void hyper_kick(struct hyper_req *req);

/* Builds a domain, paused. *spec is borrowed for the call. Answer: req->id. The memory is
 * claimed before the build, so RV_EMEMORY comes first and changes nothing. Repeated with
 * the handle of a domain that is complete and of the same vm and generation, it answers 0
 * with that one; of one that is half-made RV_ESTATE (destroy it). A failure leaves no
 * domain; if even the clean-up failed the answer is RV_EOUTCOME: hyper_destroy by handle
 * (HYPER_DOMID_ANY) until that answers 0. */
static inline void hyper_create(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_spec *spec)
{
	req->in.spec = spec;
	hyper_submit(h, req, HYPER_CALL_CREATE);
}

/* Builds a domain from a saved stream, paused, at max(spec target, saved actual). The
 * source is pulled until the format's own end; RV_ECORRUPT and RV_EPROTO for a damaged or
 * truncated stream, RV_ESTATE for one of another vm. Otherwise as hyper_create. */
static inline void hyper_restore(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_spec *spec, const struct hyper_source *source)
{
	req->in.spec = spec;
	req->source = *source;
	hyper_submit(h, req, HYPER_CALL_RESTORE);
}

/* Saves to a sink. rc 0: the whole stream is out and the domain is suspended
 * (HYPER_SHUTDOWN, reason suspend); destroy it, or hyper_resume it. On failure
 * req->domain.state tells whether it still runs, or is suspended and waits for
 * hyper_resume: the driver never resumes by itself what may be running elsewhere.
 * RV_EUNSUPPORTED before anything happens where `live` can't work (PV without
 * HYPER_CAP_LIVE_PV). A guest that ignores the suspend is the caller's deadline:
 * hyper_cancel takes the request back. A guest that ends by itself first: RV_ESTATE. */
static inline void hyper_save(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, const struct hyper_save_spec *spec)
{
	req->id = *id;
	req->save = *spec;
	hyper_submit(h, req, HYPER_CALL_SAVE);
}

/* Lets a suspended domain run on in place. A running one: 0. */
static inline void hyper_resume(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id)
{
	req->id = *id;
	hyper_submit(h, req, HYPER_CALL_RESUME);
}

/* Ends a domain in whatever state, half-made ones too, and answers when it is gone with
 * its memory and backends. Gone already, or another boot id: 0. A domid that now belongs
 * to another handle: 0, that one is left alone. RV_ESTALE when the handle matches but the
 * generation differs. Repeat it until it answers 0. */
static inline void hyper_destroy(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id)
{
	req->id = *id;
	hyper_submit(h, req, HYPER_CALL_DESTROY);
}

/* A paused one: 0. RV_ESTATE unless running. */
static inline void hyper_pause(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id)
{
	req->id = *id;
	hyper_submit(h, req, HYPER_CALL_PAUSE);
}

/* A running one: 0. RV_ESTATE unless paused. `may_run` is asked from the loop right
 * before the domain goes on, which may be much later than this call (the driver waits,
 * the machine slept): what it refuses with is the answer, and nothing was done. Whoever
 * pauses the domain in between, or while it is asked, wins. */
static inline void hyper_unpause_if(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, hyper_may_run_fn *may_run, void *arg)
{
	req->id = *id;
	req->in.may_run.fn = may_run;
	req->in.may_run.arg = arg;
	hyper_submit(h, req, HYPER_CALL_UNPAUSE);
}

static inline void hyper_unpause(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id)
{
	hyper_unpause_if(h, req, id, NULL, NULL);
}

/* Asks the guest to end: HYPER_REASON_POWEROFF, _REBOOT or _SUSPEND. Answers when the
 * request is placed; whether the guest follows is seen by HYPER_EV_SHUTDOWN. RV_ESTATE
 * unless running. A newer request replaces an older one. */
static inline void hyper_request_shutdown(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, enum hyper_reason reason)
{
	req->id = *id;
	req->in.reason = reason;
	hyper_submit(h, req, HYPER_CALL_REQUEST_SHUTDOWN);
}

/* Tells the guest's balloon driver; answers when told. RV_EINVAL above static_max. */
static inline void hyper_set_target(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, uint64_t target_kib)
{
	req->id = *id;
	req->in.kib = target_kib;
	hyper_submit(h, req, HYPER_CALL_SET_TARGET);
}

/* The most the domain may hold, overhead apart. Below actual it takes nothing away but
 * stops all growth. */
static inline void hyper_set_maxmem(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, uint64_t maxmem_kib)
{
	req->id = *id;
	req->in.kib = maxmem_kib;
	hyper_submit(h, req, HYPER_CALL_SET_MAXMEM);
}

/* Hot-plug. The same devid with the same parameters: 0; with others: RV_EEXIST. Detach of
 * what is not there: 0. */
static inline void hyper_attach_vbd(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, const struct hyper_vbd_spec *vbd)
{
	req->id = *id;
	req->in.vbd = vbd;
	hyper_submit(h, req, HYPER_CALL_ATTACH_VBD);
}

static inline void hyper_detach_vbd(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, uint32_t devid)
{
	req->id = *id;
	req->in.devid = devid;
	hyper_submit(h, req, HYPER_CALL_DETACH_VBD);
}

static inline void hyper_attach_vif(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, const struct hyper_vif_spec *vif)
{
	req->id = *id;
	req->in.vif = vif;
	hyper_submit(h, req, HYPER_CALL_ATTACH_VIF);
}

static inline void hyper_detach_vif(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, uint32_t devid)
{
	req->id = *id;
	req->in.devid = devid;
	hyper_submit(h, req, HYPER_CALL_DETACH_VIF);
}

/* Gives a domain another owner generation or VM: adoption of a ghost. */
static inline void hyper_relabel(struct hyper *h, struct hyper_req *req,
	const struct hyper_domain_id *id, const struct uuid *vm, uint64_t generation)
{
	req->id = *id;
	req->in.label.vm = *vm;
	req->in.label.generation = generation;
	hyper_submit(h, req, HYPER_CALL_RELABEL);
}

/* Opens the console. Answer: req->fd, a non-blocking descriptor to read and write,
 * returned owned. One at a time: a second opening takes it over (the first reads an
 * end). RV_EUNSUPPORTED on a simulated loop. */
static inline void hyper_console_open(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id)
{
	req->id = *id;
	hyper_submit(h, req, HYPER_CALL_CONSOLE);
}

/* Answer: req->host. */
static inline void hyper_host(struct hyper *h, struct hyper_req *req)
{
	hyper_submit(h, req, HYPER_CALL_HOST);
}

/* Answer: req->metrics. One caller: the interval is since the previous call. */
static inline void hyper_metrics(struct hyper *h, struct hyper_req *req)
{
	hyper_submit(h, req, HYPER_CALL_METRICS);
}

/* Answer: req->domains, by domid; dom0 is not in it. */
static inline void hyper_list(struct hyper *h, struct hyper_req *req)
{
	hyper_submit(h, req, HYPER_CALL_LIST);
}

/* Answer: req->domain. With HYPER_DOMID_ANY it is looked up by handle. */
static inline void hyper_info(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id)
{
	req->id = *id;
	hyper_submit(h, req, HYPER_CALL_INFO);
}

/* Memory the hypervisor holds for a domain beside its own, in KiB. Pure. The caller adds
 * it to static_max (or target) for what a start needs. */
static inline uint64_t hyper_overhead_kib(
	const struct hyper *h, const struct hyper_domain_spec *spec)
{
	return h->ops->overhead_kib(h, spec);
}

/* What no driver takes: no identity, a type, number or size beyond Xen's or this port's
 * bounds. For drivers. RV_EINVAL names the domain. */
int hyper_check_spec(
	const struct hyper_domain_spec *spec, struct rv_error *e) RV_MUST_CHECK;

/* Xen's own rule, for drivers: 1 MiB for the domain itself (libxl's
 * LIBXL_MAXMEM_CONSTANT); PVH and HVM also 1 MiB per vcpu and 8 KiB per MiB of memory for
 * their paging (libxl_get_required_shadow_memory, libxl 4.17). */
uint64_t hyper_xen_overhead_kib(
	enum hyper_type type, uint32_t vcpus_max, uint64_t static_max_kib);

/* Can a guest that was shown `needed` run where `offered` is? RV_ECPU names each missing
 * feature. Pure; policies are blobs of hyper_host of the same kind of driver. */
static inline int RV_MUST_CHECK hyper_cpu_check(const struct hyper *h,
	const uint8_t *offered, size_t offered_len, const uint8_t *needed,
	size_t needed_len, struct rv_error *e)
{
	return h->ops->cpu_check(h, offered, offered_len, needed, needed_len, e);
}

/* The greatest level that both offer: a pool's. `out` holds HYPER_MAX_CPU_POLICY. */
static inline int RV_MUST_CHECK hyper_cpu_common(const struct hyper *h, const uint8_t *a,
	size_t a_len, const uint8_t *b, size_t b_len, uint8_t *out, size_t *out_len,
	struct rv_error *e)
{
	return h->ops->cpu_common(h, a, a_len, b, b_len, out, out_len, e);
}

#endif
