/*
 * The messages between the daemon and one reeve-xen-helper, over a SOCK_SEQPACKET pair:
 * one msgpack map per packet, each kind with exactly its own keys.
 *
 *	daemon	REQUEST first; VERDICT after each PRECOPY
 *	helper	PRECOPY, SUSPENDED, WRITTEN while it saves; RESULT last
 *
 * Both sides check what they get: every key of the kind once and no other, every number
 * in its range, every text within its size and without NUL. Pure.
 */
#ifndef REEVE_XEN_REAL_HELPER_WIRE_H
#define REEVE_XEN_REAL_HELPER_WIRE_H

#include "base/buf.h"
#include "xen/hyper.h"

enum {
	HELPER_WIRE_VERSION = 3,
	HELPER_WIRE_MAX = 128 * 1024, /* bytes of one message */
	HELPER_CMDLINE_SIZE = 4096,
	HELPER_PLATFORM_SIZE = 2048,
	HELPER_PATH_SIZE = 1024,
	HELPER_WORD_SIZE = 64, /* backends, devices */
	/* The helper's descriptors. */
	HELPER_FD_CONTROL = 3,
	/* A pipe, which comes with the request (request.h): a save writes, a restore
	 * reads; else /dev/null. */
	HELPER_FD_DATA = 4,
	HELPER_FD_LIFE = 5, /* a pipe that ends when the helper is to undo and end */
};

struct helper_vbd {
	uint32_t devid;
	char device[HELPER_WORD_SIZE], backend[HELPER_WORD_SIZE];
	char params[HELPER_PATH_SIZE];
	bool read_only, cdrom;
};

struct helper_vif {
	uint32_t devid;
	char mac[HELPER_WORD_SIZE], backend[HELPER_WORD_SIZE], bridge[HELPER_WORD_SIZE];
	uint32_t mtu;
};

/* A whole struct hyper_domain_spec, with its texts. */
struct helper_domain {
	char name[HYPER_NAME_SIZE];
	uint32_t type; /* enum hyper_type */
	uint32_t vcpus_max, vcpus_online;
	uint64_t static_max_kib, target_kib;
	/* restore: what the saved guest holds; 0 else. */
	uint64_t actual_kib;
	bool populate_on_demand, console;
	uint32_t on_poweroff, on_reboot, on_crash; /* enum hyper_on_exit */
	char kernel[HELPER_PATH_SIZE], ramdisk[HELPER_PATH_SIZE];
	char cmdline[HELPER_CMDLINE_SIZE], bootloader[HELPER_PATH_SIZE];
	char platform[HELPER_PLATFORM_SIZE];
	size_t cpu_policy_len;
	uint8_t cpu_policy[HYPER_MAX_CPU_POLICY];
	size_t vbd_count, vif_count;
	struct helper_vbd vbds[HYPER_MAX_VBDS];
	struct helper_vif vifs[HYPER_MAX_VIFS];
};

struct helper_request {
	uint32_t version;		/* HELPER_WIRE_VERSION */
	uint32_t call;			/* enum hyper_call */
	struct uuid handle;		/* of the domain, or of the one to be made */
	uint32_t domid;			/* HYPER_DOMID_ANY: by handle */
	uint32_t devid;			/* detach */
	bool live;			/* save */
	char scripts[HELPER_PATH_SIZE]; /* empty: the helper's own folder */
	/* save, restore: the file that it goes to or comes from, see saved_file.h; empty:
	 * HELPER_FD_DATA. */
	char file[HELPER_PATH_SIZE];
	uint64_t file_at, file_size;
	/* With a file: whose state it is; the rest only of a save. */
	struct uuid vm;
	uint32_t vm_type; /* enum hyper_type */
	uint64_t vm_actual_kib;
	uint32_t vm_extra_kib;
	bool has_domain; /* create, restore, attach (its one vbd or vif) */
	struct helper_domain domain;
};

struct helper_precopy {
	uint32_t iteration;
	uint64_t total_pages, dirty_pages, round_pages;
	int64_t round_us;
};

struct helper_result {
	int rc; /* on the wire: the error's number */
	char detail[RV_ERROR_DETAIL_MAX];
	uint32_t domid;
	bool left, suspended;
	char console[HYPER_TEXT_SIZE];
	uint64_t file_bytes; /* of a file: all that was written or read */
	uint32_t extra_kib;  /* restore from a file: as its head tells */
};

enum helper_kind {
	HELPER_REQUEST = 1,
	HELPER_VERDICT,
	HELPER_PRECOPY,
	HELPER_SUSPENDED,
	HELPER_RESULT,
	HELPER_WRITTEN, /* a save into a file: so many bytes so far */
};

struct helper_message {
	enum helper_kind kind;
	uint32_t verdict; /* enum hyper_precopy_verdict */
	uint64_t written;
	struct helper_precopy precopy;
	struct helper_result result;
	struct helper_request *request; /* to be read into; NULL: requests are refused */
};

/* Appends one message. RV_EINVAL: something in it is out of its range (only a programmer
 * or a caller of the port can do that); RV_ETOOBIG, RV_ENOMEM. */
int helper_wire_encode(struct buf *out, const struct helper_message *m,
	struct rv_error *e) RV_MUST_CHECK;

/* Reads one packet; texts are copied. m->request is set by the caller, where it takes
 * requests. RV_EPROTO, RV_ETOOBIG, RV_ENOMEM. */
int helper_wire_decode(struct helper_message *m, const uint8_t *data, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* Copies a spec. RV_EINVAL or RV_ETOOBIG names what does not fit. */
int helper_domain_take(struct helper_domain *d, const struct hyper_domain_spec *spec,
	struct rv_error *e) RV_MUST_CHECK;
int helper_vbd_take(struct helper_vbd *d, const struct hyper_vbd_spec *spec,
	struct rv_error *e) RV_MUST_CHECK;
int helper_vif_take(struct helper_vif *d, const struct hyper_vif_spec *spec,
	struct rv_error *e) RV_MUST_CHECK;

#endif
