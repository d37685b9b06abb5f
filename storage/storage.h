/*
 * The storage port: SRs and VDIs of one host, whatever keeps them.
 *
 * `struct storage` is the host's front: it knows the drivers ("file", later "lvm", "nfs",
 * "iscsi", "iso"), the SRs attached here, and the requests under way. Drivers stand
 * behind storage/driver.h. The front knows no database: vm/ and daemon/ call it, on the
 * host the request is for, and record the outcome.
 *
 * Every call is a request: storage_start copies what it is given and returns; `done` is
 * called exactly once, from the loop, never inside storage_start or storage_cancel.
 *
 * A deadline is not an ending. When it passes while the driver is at work (a hung NFS
 * server), `done` gets RV_ETIMEDOUT with settled == false: the effect may still come. The
 * SR then settles: later requests for it wait behind, each until its own deadline, and
 * `settled` is called when the late answer is there. Every request can be repeated, since
 * the caller names what it makes by UUID: create of what exists in the same shape,
 * destroy of what is gone, activate and deactivate by the same holder all succeed. So
 * after a time-out repeat the request or do its opposite.
 *
 * Write activation is exclusive over all hosts of a shared SR, by a claim kept in the SR
 * itself, which survives daemon and host. A claim names holder (the VM), host and owner
 * generation. Another host's is broken only where the caller knows that it is void, since
 * that host was fenced or declared dead.
 *
 * Errors name SR, VDI, path, the reason and what to do.
 */
#ifndef REEVE_STORAGE_STORAGE_H
#define REEVE_STORAGE_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "reactor/loop.h"

struct storage;
struct storage_driver;
struct storage_request;

enum {
	STORAGE_MAX_DRIVERS = 16,
	STORAGE_MAX_SRS = 256,	      /* attached to one host */
	STORAGE_MAX_REQUESTS = 4096,  /* under way on one host, settling ones included */
	STORAGE_MAX_CONFIG = 16,      /* device-config entries */
	STORAGE_MAX_SCAN = 1 << 16,   /* VDIs of one SR */
	STORAGE_MAX_CLAIMS = 1 << 16, /* that sr_claims tells of */
	STORAGE_MAX_IO_BYTES = 1 << 20, /* one vdi_read or vdi_write */
	STORAGE_PATH_MAX = 512,
	STORAGE_SPEC_MAX = 640,
	STORAGE_PROBLEM_MAX = 256,
};

/* A VDI's size is a multiple of this; storage_start rounds up. */
#define STORAGE_SIZE_ALIGN UINT64_C(4096)
#define STORAGE_SIZE_LIMIT (UINT64_C(1) << 46) /* 64 TiB */

enum storage_feature {
	STORAGE_CAN_SHARE = 1,	     /* several hosts may attach the same SR */
	STORAGE_CAN_RESIZE = 2,	     /* vdi_resize, growing only */
	STORAGE_CAN_COPY = 4,	     /* vdi_copy */
	STORAGE_CAN_SNAPSHOT = 8,    /* snapshots that share blocks with their origin */
	STORAGE_CAN_READ_WRITE = 16, /* vdi_read and vdi_write of raw VDIs */
};

/* Bits, so that a driver can name those it has. */
enum storage_format { STORAGE_FORMAT_RAW = 1, STORAGE_FORMAT_QCOW2 = 2 };

const char *storage_format_name(enum storage_format format); /* "raw", "qcow2" */
int storage_format_parse(enum storage_format *out, const char *text) RV_MUST_CHECK;

/* One device-config key of a driver, for sr-create's checks and help. */
struct storage_config_key {
	const char *name, *doc;
	bool required;
};

struct storage_config {
	const char *key, *value;
};

enum storage_verb {
	/* Makes the SR's structure (a marker with its UUID). config, type. Does not
	 * attach. Refuses a place that holds another SR or, unmarked, anything else. */
	STORAGE_SR_CREATE,
	/* Looks what is there, changes nothing. config, type. -> probe */
	STORAGE_SR_PROBE,
	/* Plugs the PBD on this host: checks the marker, removes what interrupted changes
	 * of this host left behind. config, type. -> sr_info */
	STORAGE_SR_ATTACH,
	/* RV_EBUSY while this host has VDIs active in it. */
	STORAGE_SR_DETACH,
	/* Lists the VDIs, broken ones with what is wrong. -> sr_info, vdis */
	STORAGE_SR_SCAN,
	/* -> sr_info */
	STORAGE_SR_STAT,
	/* Who has VDIs active, by any host, but for copies under way. Those of a claim
	 * file that can't be read are left out; beyond STORAGE_MAX_CLAIMS too. -> claims
	 */
	STORAGE_SR_CLAIMS,
	/* Removes what sr_create made. The SR must be attached and hold no VDI; it is
	 * detached by it. */
	STORAGE_SR_DESTROY,

	/* vdi (chosen by the caller), size, format. -> vdi_info. RV_EEXIST when a VDI of
	 * that UUID exists in another size or format; the same is success. */
	STORAGE_VDI_CREATE,
	/* RV_EBUSY while active anywhere. Success when it does not exist. */
	STORAGE_VDI_DESTROY,
	/* size: the new one; RV_EINVAL when smaller than now. -> vdi_info */
	STORAGE_VDI_RESIZE,
	/* A full copy of `vdi` in `sr` as `target_vdi` in `target_sr` (attached here too;
	 * none: the same SR), in `format` (0: the source's). Shares blocks where the file
	 * system can. The source must not be active for writing and can't become so
	 * meanwhile. Progress; cancel leaves nothing. The deadline counts from the last
	 * progress. -> vdi_info of the copy */
	STORAGE_VDI_COPY,
	/* -> vdi_info */
	STORAGE_VDI_STAT,
	/* Makes it usable by a backend of this host: holder, generation, write,
	 * void_generation, size (what the database says: a smaller VDI was truncated and
	 * is refused; 0: not checked). Several may read, or one may write. -> backend.
	 * RV_EBUSY names who has it; RV_ESTALE when the claim is of a newer generation.
	 */
	STORAGE_VDI_ACTIVATE,
	/* holder, generation, claim_host. Success when it was not active. RV_ESTALE as
	 * above. */
	STORAGE_VDI_DEACTIVATE,
	/* Raw bytes of a raw VDI at offset, length (at most STORAGE_MAX_IO_BYTES): a
	 * piece of an export or a storage motion. The reader's own pace is the
	 * back-pressure.
	 * -> data */
	STORAGE_VDI_READ,
	/* data, length at offset; zero blocks stay holes. `sync`: on disk before done.
	 * The holder must have it active for writing. */
	STORAGE_VDI_WRITE,
};

const char *storage_verb_name(enum storage_verb verb); /* "vdi_create" */

struct storage_sr_info {
	uint64_t physical_size;	       /* of the file system or volume group */
	uint64_t physical_utilisation; /* by anybody */
	uint64_t free_bytes;	       /* that this host may still use */
	uint64_t virtual_allocation;   /* sum of the VDIs' virtual sizes (scan) */
	bool read_only;
	uint32_t foreign; /* entries that are not ours: left alone (scan) */
};

struct storage_vdi_info {
	struct uuid uuid;
	enum storage_format format;
	uint64_t virtual_size;
	uint64_t physical_utilisation;
	char location[64]; /* within the SR */
	int problem;	   /* 0, or RV_E...: it can't be activated */
	char problem_text[STORAGE_PROBLEM_MAX];
};

/* On a VDI: it is active for `holder` on `host`. */
struct storage_claim {
	struct uuid vdi, holder, host;
	uint64_t generation;
	bool write;
};

struct storage_probe {
	bool exists; /* the place itself */
	bool is_sr;  /* it carries a marker, of this UUID */
	struct uuid sr;
	char type[16];
	struct storage_sr_info info;
};

/* What a hypervisor driver needs. */
struct storage_backend {
	/* libxl's disk syntax without vdev: "format=raw,access=rw,target=/path". */
	char spec[STORAGE_SPEC_MAX];
	char path[STORAGE_PATH_MAX]; /* of the file or block device; empty: simulated */
	enum storage_format format;
	bool writable, block_device;
	uint64_t virtual_size;
};

/* All pointers are borrowed for the callback, which must not call storage_free. Fields a
 * verb does not return are zero. */
struct storage_result {
	int rc; /* error.code */
	struct rv_error error;
	bool settled; /* false only with RV_ETIMEDOUT: it may still take effect */
	struct storage_sr_info sr_info;
	struct storage_vdi_info vdi_info;
	const struct storage_vdi_info *vdis;
	size_t vdi_count;
	struct storage_probe probe;
	struct storage_backend backend;
	const struct storage_claim *claims;
	size_t claim_count;
	const uint8_t *data;
	size_t data_len;
};

typedef void storage_done_fn(
	void *arg, uint64_t token, const struct storage_result *result);
/* Now and then, never after done. total may be 0: unknown. */
typedef void storage_progress_fn(
	void *arg, uint64_t token, uint64_t bytes, uint64_t total);
/* After done with settled == false: the late outcome. Not called if storage_free comes
 * first. */
typedef void storage_settled_fn(void *arg, uint64_t token, int rc);

/* Everything is borrowed for storage_start only. */
struct storage_call {
	enum storage_verb verb;
	struct uuid sr;
	struct uuid vdi;

	/* sr_create, sr_probe, sr_attach */
	const char *type;
	const struct storage_config *config;
	size_t config_count;

	/* vdi_create, vdi_resize, vdi_copy */
	uint64_t size;
	enum storage_format format;
	struct uuid target_sr, target_vdi;

	/* vdi_activate, vdi_deactivate, vdi_write */
	struct uuid holder;
	uint64_t generation;
	bool write;
	/* vdi_activate: what the same holder claimed on other hosts is void up to this
	 * generation; 0: nothing is. */
	uint64_t void_generation;
	/* vdi_deactivate: whose claim; none: this host's. Of another host only one that
	 * surely is void. */
	struct uuid claim_host;

	/* vdi_read, vdi_write */
	uint64_t offset;
	size_t length;
	const void *data;
	bool sync;

	int64_t deadline_ms; /* 0: the verb's own (storage.c) */
	storage_done_fn *done;
	storage_progress_fn *progress; /* may be NULL */
	storage_settled_fn *settled;   /* may be NULL */
	void *arg;
	uint64_t token; /* handed back: op_await's */
};

/* Returned owned. `host` is this host's UUID: it signs claims and names leftovers. */
int storage_new(struct storage **out, struct loop *l, struct uuid host) RV_MUST_CHECK;

/* Drops all requests without callbacks and detaches: claims stay, as VMs keep running.
 * Waits for a worker's job at hand, so call it when nothing hangs or at exit. */
void storage_free(struct storage *st);

/* 0, or at once (then `done` never comes): RV_EINVAL for arguments that can't be right,
 * RV_ENOTATTACHED, RV_ENOENT for an unknown type, RV_EUNSUPPORTED, RV_ELIMIT, RV_ENOMEM.
 * *out (may be NULL) is borrowed and valid until done. */
int storage_start(struct storage *st, const struct storage_call *call,
	struct storage_request **out, struct rv_error *e) RV_MUST_CHECK;

/* Asks it to end early: one that waits ends with RV_ECANCELLED; one at work ends so where
 * it can, having undone its part, or with its true outcome. Idempotent until done. */
void storage_cancel(struct storage_request *r);

/* --- what is there --- */

struct storage_type {
	const char *name, *doc;
	uint32_t features; /* enum storage_feature */
	uint32_t formats;  /* enum storage_format */
	const struct storage_config_key *keys;
	size_t key_count;
};

/* Borrowed; NULL when there is no such driver. */
const struct storage_type *storage_type_find(const struct storage *st, const char *name);
size_t storage_type_count(const struct storage *st);
const struct storage_type *storage_type_at(const struct storage *st, size_t i);

bool storage_sr_attached(const struct storage *st, const struct uuid *sr);
/* Since when (loop_now_us) the SR's driver has not answered a timed-out request; 0: it is
 * well. For host health and placement. */
int64_t storage_sr_settling_since_us(const struct storage *st, const struct uuid *sr);

#endif
