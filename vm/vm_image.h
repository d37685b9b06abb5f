/*
 * A suspended guest's memory on a VDI: a header block, then the hypervisor's own stream.
 *
 * Where the SR keeps the VDI as a file or device of this host and the hypervisor takes
 * files (hyper_file), that stream is the hypervisor's to write and read, in its own
 * format of files; its bytes don't pass through here. The header tells which of the two
 * it is.
 *
 * Else, bounded memory: two chunks, one being filled (or read by the hypervisor) while
 * the other is on its way to (or from) the SR; now and then one is synced. The header is
 * written last, with a sync: an image is whole or it is none.
 */
#ifndef REEVE_VM_VM_IMAGE_H
#define REEVE_VM_VM_IMAGE_H

#include "reactor/loop.h"
#include "vm/vm_ports.h"
#include "vm/vm_request.h"

enum {
	VM_IMAGE_CHUNK_BYTES = STORAGE_MAX_IO_BYTES,
	VM_IMAGE_HEADER_BYTES = 4096,
};

/* rc and words are in image->rc, image->error. */
typedef void vm_image_fn(void *arg, uint64_t token, int rc);

struct vm_image_chunk {
	uint8_t *bytes;
	size_t len;  /* bytes that it holds */
	size_t used; /* reading: taken by the hypervisor already */
	size_t wanted;
	bool busy; /* on its way */
};

/* Embed it, zeroed. */
struct vm_image {
	struct loop *loop;
	struct storage *storage;
	struct uuid sr, vdi, holder;
	uint64_t generation;
	uint64_t void_generation; /* VM.claims_void; the owner may set it */
	uint64_t size;		  /* of the VDI */
	uint64_t offset;	  /* of the next chunk */
	uint64_t synced;	  /* what is before it is on the disk */
	uint64_t length;	  /* of the stream, from or for the header */
	uint64_t actual_kib;	  /* what the guest held, from or for the header */
	struct vm_image_chunk chunk[2];
	int current;		   /* being filled, or read */
	struct hyper_req *req;	   /* to be kicked */
	struct vm_request release; /* closing, deleting: tried several times */
	enum vm_image_phase {
		VM_IMAGE_IDLE,
		VM_IMAGE_CREATING,
		VM_IMAGE_ACTIVATING,
		VM_IMAGE_HEADING,
		VM_IMAGE_STREAMING,
		VM_IMAGE_FLUSHING,
		VM_IMAGE_CLOSING,
		VM_IMAGE_DISCARDING,
	} phase;
	char path[STORAGE_PATH_MAX]; /* of the active VDI here; empty: none */
	bool direct;		     /* the hypervisor's format of files */
	bool writing, active, ended, stopped, then_discard;
	int outstanding;
	int rc; /* of the stream: the first error */
	struct rv_error error;
	vm_image_fn *fn;
	void *arg;
	uint64_t token;
	/* The stream broke: called once, from the loop, so that the save can be
	 * cancelled. */
	void (*broken)(void *arg);
	struct defer tell, tell_broken;
};

/* RV_ENOMEM. */
int vm_image_init(struct vm_image *i, struct loop *l, struct storage *st, struct uuid sr,
	struct uuid vdi, struct uuid holder, uint64_t generation,
	struct rv_error *e) RV_MUST_CHECK;

/* The size a VDI needs for a guest of so much memory. */
uint64_t vm_image_size(uint64_t memory_kib);

/* Makes the VDI and opens it for writing. */
void vm_image_create(
	struct vm_image *i, uint64_t size, vm_image_fn *fn, void *arg, uint64_t token);
/* Opens it for reading and checks its header. RV_ECORRUPT: no whole image. */
void vm_image_open(struct vm_image *i, vm_image_fn *fn, void *arg, uint64_t token);

/* `req` is the save or restore that is kicked when there is room or data. takes_files: of
 * the hypervisor; an image whose `direct` is set is read only by one that does. */
struct hyper_sink vm_image_sink(struct vm_image *i, struct hyper_req *req,
	bool takes_files, void (*broken)(void *arg), void *arg);
struct hyper_source vm_image_source(struct vm_image *i, struct hyper_req *req);

/* Waits for what is on its way, writes the rest and the header, closes. */
void vm_image_finish(struct vm_image *i, uint64_t actual_kib, vm_image_fn *fn, void *arg,
	uint64_t token);
/* Waits for what is on its way, then closes. */
void vm_image_close(struct vm_image *i, vm_image_fn *fn, void *arg, uint64_t token);
/* Closes and deletes. Success where there is nothing. */
void vm_image_discard(struct vm_image *i, vm_image_fn *fn, void *arg, uint64_t token);

void vm_image_stop(struct vm_image *i);
void vm_image_fini(struct vm_image *i); /* harmless on a zeroed one */

/* The header, for tests and fuzzing: 0, or RV_ECORRUPT with what is wrong. */
int vm_image_parse(const uint8_t *bytes, size_t len, uint64_t size, struct uuid vm,
	uint64_t *length, uint64_t *actual_kib, bool *direct,
	struct rv_error *e) RV_MUST_CHECK;
void vm_image_format(uint8_t bytes[static VM_IMAGE_HEADER_BYTES], struct uuid vm,
	uint64_t length, uint64_t actual_kib, bool direct);

#endif
