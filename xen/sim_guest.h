/*
 * What a simulated guest is at a moment: pure functions of its record and of the time it
 * has run. Nothing here reads a clock or changes anything but the record given.
 *
 * Internal to the simulated driver.
 */
#ifndef REEVE_XEN_SIM_GUEST_H
#define REEVE_XEN_SIM_GUEST_H

#include "xen/sim_machine.h"

enum { SIM_PAGE = 4096, SIM_PAGE_KIB = 4 };

/* --- running --- */

/* How long it has run by now. */
uint64_t sim_ran_us(const struct sim_record *r, int64_t now_us);
bool sim_booted(const struct sim_record *r, int64_t now_us);
void sim_run(struct sim_record *r, int64_t now_us);
/* Stops the clock; the caller sets the state. */
void sim_stop(struct sim_record *r, int64_t now_us);

/* The end that comes first. */
struct sim_end sim_next_end(const struct sim_record *r);
/* Ends it if it was to end by now (at that moment, which may lie back); true if so. */
bool sim_end_if_due(struct sim_record *r, int64_t now_us);
/* Takes note of a request that the guest, such as it is, will follow or ignore. */
void sim_ask(struct sim_record *r, enum hyper_reason reason, int64_t now_us);

/* --- cpu --- */

int64_t sim_cpu_ns(const struct sim_record *r, int64_t now_us);

/* Another model from now on; contents and counters go on from where they are. The shape
 * of its memory (used_ppm, working_set_kib) stays once it has written anything. */
void sim_set_model(
	struct sim_record *r, const struct hyper_sim_guest *guest, int64_t now_us);

/* --- balloon --- */

/* Moves the balloon to where it is by now; growth takes at most free_kib. Returns true
 * when actual changed. */
bool sim_balloon(struct sim_record *r, int64_t now_us, uint64_t free_kib);
bool sim_balloon_grows(const struct sim_record *r);
/* Microseconds until it reaches its goal; -1: not moving, never will, or not booted. */
int64_t sim_balloon_left_us(const struct sim_record *r, int64_t now_us);
void sim_balloon_target(struct sim_record *r, uint64_t target_kib);

/* --- memory --- */

/* Pages of the working set; they are the lowest ones. */
uint64_t sim_working_pages(const struct sim_record *r);
uint64_t sim_writes(const struct sim_record *r, int64_t now_us);

/* Which of its possible contents a page has: 0 all zero, 1 as at boot, 1 + n after the
 * n-th write to it. `writes` is what sim_writes said. */
uint32_t sim_stamp(const struct sim_record *r, uint64_t pfn, uint64_t writes);

/* Pages' bytes come from one block of random bytes, the same everywhere, at an offset
 * drawn from seed, page and stamp, after a header that tells which page it is. */
enum { SIM_BLOCK = 256 * 1024 };
void sim_block_fill(uint8_t block[static SIM_BLOCK]);
void sim_page_fill(const uint8_t *block, uint64_t seed, uint64_t pfn, uint32_t stamp,
	uint8_t page[static SIM_PAGE]);
/* Recognises it: 0 and *stamp, or RV_ECORRUPT. */
int sim_page_read(const uint8_t *block, uint64_t seed, uint64_t pfn,
	const uint8_t page[static SIM_PAGE], uint32_t *stamp) RV_MUST_CHECK;

#endif
