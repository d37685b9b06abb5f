/*
 * reeve-xen-helper: one blocking operation on Xen, then the end.
 *
 *	daemon == control, data, life line ==> supervisor (main.c)
 *	                                           | forks
 *	                                        worker: does the operation, may be killed
 *
 * The supervisor reads the request and forks a worker, which alone speaks with Xen. It
 * kills the worker when the life line is cut, on SIGTERM, or never; then a second worker
 * undoes what the first had begun. So whatever libxl does, however long it blocks, the
 * way back is one and the same, and starts from what Xen and xenstore say. The worker
 * dies with the supervisor. What outlives both is QEMU alone, which libxl puts into a
 * session of its own.
 *
 * A killed supervisor leaves what a DESTROY by handle removes.
 */
#ifndef REEVE_XEN_HELPER_WORK_H
#define REEVE_XEN_HELPER_WORK_H

#include <libxl.h>
#include <libxl_utils.h>
#include <xenctrl.h>
#include <xenstore.h>

#include "xen/real/helper_wire.h"

/* What libxl and libxenctrl say goes to stderr; their first and last complaint are kept
 * for the error's words. */
struct work_log {
	xentoollog_logger vtable; /* first */
	char first[320], last[320];
};

struct work {
	struct helper_request *req;
	int control_fd, data_fd;
	int inner_fd; /* to the supervisor */
	struct work_log log;
	xc_interface *xc;
	struct xs_handle *xs;
	libxl_ctx *ctx;		  /* NULL until work_libxl */
	bool asked;		  /* in an undoing: the guest had been asked to suspend */
	struct work_saved *saved; /* saved.c's; NULL: the data goes through data_fd */
	char script_block[HELPER_PATH_SIZE + 32], script_vif[HELPER_PATH_SIZE + 32];
	struct helper_result result;
	struct rv_error error;
};

/* --- log.c --- */

void work_log_init(struct work_log *l);
/* "; libxl says: ..." or "". */
const char *work_log_words(struct work_log *l, char *text, size_t size);

/* Sets w->error to "WHAT: libxl's words" and returns the code. */
int work_fail(struct work *w, int code, const char *fmt, ...) RV_PRINTF(3, 4);

/* Where a hotplug script leaves its words: of one domid. */
#define WORK_HOTPLUG_ERROR "/reeve/hotplug/%u"

/* If a hotplug script complained about this domain, its words are told before others. */
void work_hotplug_words(struct work *w, uint32_t domid);

/* --- work.c --- */

/* What the undoing of a save is asked by; not a call of the port. */
#define WORK_UNDO_SAVE HYPER_CALL_REQUEST_SHUTDOWN

/* In the worker: does w->req and fills w->result and w->error. */
void work_run(struct work *w);

/* Tells the supervisor that from now on there is something to undo. */
void work_begun(struct work *w);

/* Tells it that the guest is being asked to suspend. */
void work_asked(struct work *w);

/* Opens libxl; RV_EHYPERVISOR. */
int work_libxl(struct work *w) RV_MUST_CHECK;

/* To the daemon. */
void work_send(struct work *w, const struct helper_message *m);
/* Waits for the daemon's next message: a verdict. */
int work_receive(struct work *w, struct helper_message *m) RV_MUST_CHECK;

/* --- domains.c --- */

/* Looks for the domain that bears the handle: at `domid`, or HYPER_DOMID_ANY. *out is
 * what Xen says. RV_ENOENT: none (`there` then tells whether another has that domid). */
int work_find(struct work *w, const struct uuid *handle, uint32_t domid,
	xc_domaininfo_t *out) RV_MUST_CHECK;

/* As work_find of the request's own domain, with words: RV_ENOENT, RV_ESTALE. */
int work_domain(struct work *w, xc_domaininfo_t *out) RV_MUST_CHECK;

bool work_is_suspended(const xc_domaininfo_t *info);

/* A node's text, NUL-terminated; returned owned (free), NULL: not there. */
char *work_read(struct work *w, const char *fmt, ...) RV_PRINTF(2, 3);
bool work_write(struct work *w, const char *value, const char *fmt, ...) RV_PRINTF(3, 4);

int64_t work_now_us(void); /* monotonic */

/* --- the operations; each file one --- */

int work_create(struct work *w);  /* build.c: create, restore */
int work_destroy(struct work *w); /* destroy.c */
int work_save(struct work *w);	  /* save.c */
int work_undo_save(struct work *w);
int work_resume(struct work *w);
int work_attach(struct work *w); /* devices.c */
int work_detach(struct work *w);
int work_console(struct work *w); /* domains.c */

/* --- saved.c: a save into, a restore from a file; all harmless without one --- */

/* Opens the request's file: it is data_fd from then on. */
int work_saved_begin(struct work *w) RV_MUST_CHECK;
/* The save has ended with rc: completes the file. Returns rc, or why it is not whole. */
int work_saved_end(struct work *w, int rc) RV_MUST_CHECK;

/* Opens it and checks whose it is; *actual_kib: what that guest held. */
int work_saved_open(struct work *w, uint64_t *actual_kib) RV_MUST_CHECK;
/* Begins to compare its sums, beside the restore. */
int work_saved_check(struct work *w) RV_MUST_CHECK;
/* The restore has ended with rc: waits until all was compared. */
int work_saved_checked(struct work *w, int rc) RV_MUST_CHECK;
void work_saved_free(struct work *w);

/* --- config.c --- */

/* libxl's words for a domain. `boot_kib`: what it is built with. Disposed by the caller,
 * also after a failure. */
int work_config(struct work *w, libxl_domain_config *c, uint64_t boot_kib) RV_MUST_CHECK;
int work_config_disk(struct work *w, const struct helper_vbd *d,
	libxl_device_disk *disk) RV_MUST_CHECK;
/* RV_EINVAL: it can't be read. NULL is fine. */
int work_file(struct work *w, const char *path, const char *what) RV_MUST_CHECK;
int work_config_nic(
	struct work *w, const struct helper_vif *v, libxl_device_nic *nic) RV_MUST_CHECK;

/* --- destroy.c --- */

/* Removes what xenstore and dom0 still hold for a domid that Xen no longer knows. */
void work_leftovers(struct work *w, uint32_t domid);

/* --- hotplug.c --- */

/* The program as libxl's script of a disk (reeve-xen-block add|remove) or of an interface
 * (reeve-xen-vif online|offline); XENBUS_PATH names the backend in xenstore. */
int hotplug_block(const char *action);
int hotplug_vif(const char *action);
/* Detaches the loop device that hotplug_block made for this backend, if it did. */
void hotplug_block_release(struct xs_handle *xs, const char *backend);

/* --- cpu.c --- */

/* Takes away from a domain that has not run yet what the request's level lacks. */
int work_cpu_level(struct work *w, uint32_t domid) RV_MUST_CHECK;

#endif
