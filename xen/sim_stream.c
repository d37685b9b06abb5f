#include "xen/sim_stream.h"

#include "base/bytes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { TYPE_HEAD = 1, TYPE_PAGES = 2, TYPE_STATE = 3, TYPE_END = 4 };

/* "RVSIMSV" and the format's version: the first word of a HEAD. Version 1. */
#define STREAM_MAGIC UINT64_C(0x0156534d49535652)

/* At most so many pages are looked at in one call that finds none to send. */
enum { SCAN_PAGES = 65536 };

/* --- words --- */

struct words {
	uint8_t *at;
	size_t left; /* bytes */
	bool bad;
};

static void put(struct words *w, uint64_t value)
{
	assert(w->left >= 8);
	for (int i = 0; i < 8; i++)
		w->at[i] = (uint8_t)(value >> 8 * i);
	w->at += 8;
	w->left -= 8;
}

static uint64_t get(struct words *w)
{
	uint64_t value = 0;

	if (w->left < 8) {
		w->bad = true;
		return 0;
	}
	for (int i = 0; i < 8; i++)
		value |= (uint64_t)w->at[i] << 8 * i;
	w->at += 8;
	w->left -= 8;
	return value;
}

static void put_uuid(struct words *w, const struct uuid *u)
{
	assert(w->left >= sizeof u->b);
	memcpy(w->at, u->b, sizeof u->b);
	w->at += sizeof u->b;
	w->left -= sizeof u->b;
}

static void get_uuid(struct words *w, struct uuid *u)
{
	if (w->left < sizeof u->b) {
		w->bad = true;
		return;
	}
	memcpy(u->b, w->at, sizeof u->b);
	w->at += sizeof u->b;
	w->left -= sizeof u->b;
}

/* --- the domain as words --- */

/* X(field): every number of a record that travels. What belongs to one host (domid, name,
 * handle, generation, overhead, times since its boot, devices) does not. stopped_us does:
 * simulated hosts share one clock, and the guest's gap is measured with it. */
#define TRAVELS(X)                                                                       \
	X(type)                                                                          \
	X(vcpus_max)                                                                     \
	X(vcpus_online)                                                                  \
	X(announced)                                                                     \
	X(actual_kib)                                                                    \
	X(target_kib)                                                                    \
	X(static_max_kib)                                                                \
	X(lowest_kib)                                                                    \
	X(ran_us)                                                                        \
	X(stopped_us)                                                                    \
	X(has_run)                                                                       \
	X(longest_gap_us)                                                                \
	X(last_gap_us)                                                                   \
	X(script.at_ran_us)                                                              \
	X(script.reason)                                                                 \
	X(content_seed)                                                                  \
	X(model_ran_us)                                                                  \
	X(model_writes)                                                                  \
	X(model_cpu_ns)                                                                  \
	X(damaged_pages)                                                                 \
	X(restores)                                                                      \
	X(guest.balloon)                                                                 \
	X(guest.balloon_kib_per_s)                                                       \
	X(guest.balloon_floor_kib)                                                       \
	X(guest.balloon_overshoot_kib)                                                   \
	X(guest.stuck_period_us)                                                         \
	X(guest.stuck_for_us)                                                            \
	X(guest.feature_balloon)                                                         \
	X(guest.used_ppm)                                                                \
	X(guest.working_set_kib)                                                         \
	X(guest.dirty_pages_per_s)                                                       \
	X(guest.boot_us)                                                                 \
	X(guest.suspend_us)                                                              \
	X(guest.shutdown_us)                                                             \
	X(guest.ignores_shutdown)                                                        \
	X(guest.ignores_suspend)                                                         \
	X(guest.ends_by)                                                                 \
	X(guest.ends_after_us)                                                           \
	X(guest.load)                                                                    \
	X(guest.load_ppm)                                                                \
	X(guest.load_period_us)

static void put_domain(struct words *w, const struct sim_record *r)
{
	put_uuid(w, &r->vm);
#define X(field) put(w, (uint64_t)r->field);
	TRAVELS(X)
#undef X
}

/* A stream is a peer's word: numbers that later arithmetic relies on are bounded. */
static bool domain_sane(const struct sim_record *r)
{
	const uint64_t most = UINT64_C(1) << 50; /* µs: 35 years; KiB: 1 EiB */
	const struct hyper_sim_guest *g = &r->guest;
	const uint64_t bounded[] = {r->ran_us, r->model_ran_us, r->model_writes,
		r->longest_gap_us, r->last_gap_us, (uint64_t)r->stopped_us,
		(uint64_t)r->model_cpu_ns >> 10, g->balloon_kib_per_s >> 4,
		g->balloon_floor_kib, g->balloon_overshoot_kib,
		(uint64_t)g->stuck_period_us, (uint64_t)g->stuck_for_us,
		g->working_set_kib, g->dirty_pages_per_s << 20, (uint64_t)g->boot_us,
		(uint64_t)g->suspend_us, (uint64_t)g->shutdown_us,
		(uint64_t)g->ends_after_us, (uint64_t)g->load_period_us};

	for (size_t i = 0; i < sizeof bounded / sizeof *bounded; i++)
		if (bounded[i] >= most)
			return false;
	return r->type <= HYPER_HVM && r->vcpus_max >= 1 &&
	       r->vcpus_max <= HYPER_MAX_VCPUS && r->vcpus_online >= 1 &&
	       r->vcpus_online <= r->vcpus_max && r->static_max_kib > 0 &&
	       r->static_max_kib <= UINT64_C(16) << 30 &&
	       r->actual_kib <= r->static_max_kib && r->target_kib <= r->static_max_kib &&
	       r->lowest_kib <= r->actual_kib && r->model_ran_us <= r->ran_us &&
	       g->used_ppm <= 1000000 && g->load_ppm <= 1000000 &&
	       (unsigned)g->balloon <= HYPER_SIM_BALLOON_OVERSHOOT &&
	       (unsigned)g->load <= HYPER_SIM_LOAD_WAVE &&
	       (unsigned)g->ends_by <= HYPER_REASON_WATCHDOG &&
	       r->script.reason <= HYPER_REASON_WATCHDOG;
}

static bool get_domain(struct words *w, struct sim_record *r)
{
	uint64_t value;

	memset(r, 0, sizeof *r);
	get_uuid(w, &r->vm);
#define X(field)                                                                         \
	value = get(w);                                                                  \
	r->field = value;                                                                \
	if ((uint64_t)r->field != value)                                                 \
		w->bad = true;
	TRAVELS(X)
#undef X
	r->asked.at_ran_us = SIM_NEVER;
	r->balloon_ran_us = r->ran_us;
	return !w->bad && domain_sane(r);
}

/* --- encoder --- */

void sim_encoder_init(struct sim_encoder *x, const uint8_t *block, bool zero_pages)
{
	memset(x, 0, sizeof *x);
	x->block = block;
	x->zero_pages = zero_pages;
}

bool sim_encoder_idle(const struct sim_encoder *x)
{
	return x->head_at == x->head_len && x->page_at == x->pages && !x->round_open;
}

static struct words record_body(struct sim_encoder *x)
{
	struct words w = {.at = x->head + SIM_RECORD_HEAD, .left = SIM_BODY_MAX};

	return w;
}

/* Of a record's first 16 bytes and of its body. */
static uint64_t record_sum(const uint8_t *head, size_t body)
{
	return XXH3_64bits_withSeed(head + SIM_RECORD_HEAD, body, XXH3_64bits(head, 16));
}

/* Closes the record whose body was put into w. */
static void record_ready(
	struct sim_encoder *x, uint32_t type, const struct words *w, uint32_t pages)
{
	size_t body = (size_t)(w->at - (x->head + SIM_RECORD_HEAD));
	uint64_t sum;

	bytes_put_le32(x->head, type);
	bytes_put_le32(x->head + 4, (uint32_t)body);
	bytes_put_le32(x->head + 8, pages);
	bytes_put_le32(x->head + 12, x->round);
	sum = record_sum(x->head, body);
	bytes_put_le32(x->head + 16, (uint32_t)sum);
	bytes_put_le32(x->head + 20, (uint32_t)(sum >> 32));
	x->head_len = SIM_RECORD_HEAD + body;
	x->head_at = 0;
	x->pages = pages;
	x->page_at = 0;
	x->bounce_at = 0;
}

void sim_encoder_head(struct sim_encoder *x, const struct sim_record *r)
{
	struct words w = record_body(x);

	assert(sim_encoder_idle(x));
	x->content_seed = r->content_seed;
	put(&w, STREAM_MAGIC);
	put_domain(&w, r);
	record_ready(x, TYPE_HEAD, &w, 0);
}

void sim_encoder_state(struct sim_encoder *x, const struct sim_record *r)
{
	struct words w = record_body(x);

	assert(sim_encoder_idle(x));
	put(&w, x->base_pages);
	put_domain(&w, r);
	record_ready(x, TYPE_STATE, &w, 0);
}

void sim_encoder_end(struct sim_encoder *x)
{
	struct words w = record_body(x);

	assert(sim_encoder_idle(x));
	put(&w, x->total_pages);
	record_ready(x, TYPE_END, &w, 0);
}

uint64_t sim_encoder_dirty(
	const struct sim_encoder *x, const struct sim_record *r, uint64_t writes)
{
	uint64_t working = sim_working_pages(r), dirty = writes - x->to;

	return dirty < working ? dirty : working;
}

void sim_encoder_round(struct sim_encoder *x, const struct sim_record *r, uint64_t writes)
{
	assert(sim_encoder_idle(x));
	x->limit_pfn = r->actual_kib / SIM_PAGE_KIB;
	if (x->begun)
		x->round++;
	x->begun = true;
	x->from = x->to;
	if (x->round > 0 && writes - x->from > sim_working_pages(r))
		x->from = writes - sim_working_pages(r);
	x->to = writes;
	x->cursor = x->round == 0 ? 0 : x->from;
	x->round_pages = 0;
	x->round_open = true;
}

/* The next page of the round, or false at its end. */
static bool round_next(struct sim_encoder *x, const struct sim_record *r, uint64_t writes,
	uint32_t *scan, uint64_t *pfn, uint32_t *stamp)
{
	uint64_t working = sim_working_pages(r);

	while (*scan > 0) {
		(*scan)--;
		if (x->cursor >= (x->round == 0 ? x->limit_pfn : x->to)) {
			x->round_open = false;
			return false;
		}
		*pfn = x->round == 0 ? x->cursor : x->cursor % working;
		x->cursor++;
		if (*pfn >= x->limit_pfn)
			continue;
		*stamp = sim_stamp(r, *pfn, writes);
		if (*stamp == 0 && !x->zero_pages)
			continue;
		if (x->round == 0 && *pfn >= working && *stamp != 0)
			x->base_pages++;
		return true;
	}
	return false;
}

/* Puts the round's next pages into a record. */
static void round_batch(struct sim_encoder *x, const struct sim_record *r,
	uint64_t writes, uint32_t *scan)
{
	struct words w = record_body(x);
	uint32_t n = 0;

	while (n < SIM_BATCH &&
		round_next(x, r, writes, scan, &x->pfns[n], &x->stamps[n])) {
		put(&w, x->pfns[n]);
		n++;
	}
	if (n == 0)
		return;
	x->round_pages += n;
	x->total_pages += n;
	record_ready(x, TYPE_PAGES, &w, n);
}

/* Copies what of the current record fits. */
static size_t record_copy(struct sim_encoder *x, uint8_t *out, size_t room)
{
	size_t done = 0, n;

	n = x->head_len - x->head_at < room ? x->head_len - x->head_at : room;
	memcpy(out, x->head + x->head_at, n);
	x->head_at += n;
	done += n;
	while (x->head_at == x->head_len && x->page_at < x->pages && done < room) {
		if (x->bounce_at == 0 && room - done >= SIM_PAGE) {
			sim_page_fill(x->block, x->content_seed, x->pfns[x->page_at],
				x->stamps[x->page_at], out + done);
			done += SIM_PAGE;
			x->page_at++;
			continue;
		}
		if (x->bounce_at == 0)
			sim_page_fill(x->block, x->content_seed, x->pfns[x->page_at],
				x->stamps[x->page_at], x->bounce);
		n = SIM_PAGE - x->bounce_at < room - done ? SIM_PAGE - x->bounce_at
							  : room - done;
		memcpy(out + done, x->bounce + x->bounce_at, n);
		done += n;
		x->bounce_at += n;
		if (x->bounce_at == SIM_PAGE) {
			x->bounce_at = 0;
			x->page_at++;
		}
	}
	return done;
}

size_t sim_encoder_fill(struct sim_encoder *x, const struct sim_record *r,
	uint64_t writes, uint8_t *out, size_t room)
{
	uint32_t scan = SCAN_PAGES;
	size_t done = 0;

	while (done < room) {
		if (x->head_at == x->head_len && x->page_at == x->pages) {
			if (!x->round_open || scan == 0)
				break;
			round_batch(x, r, writes, &scan);
			continue;
		}
		done += record_copy(x, out + done, room - done);
	}
	x->total_bytes += done;
	return done;
}

/* --- decoder --- */

void sim_decoder_init(struct sim_decoder *x, const uint8_t *block)
{
	memset(x, 0, sizeof *x);
	x->block = block;
}

void sim_decoder_fini(struct sim_decoder *x)
{
	free(x->stamps);
	x->stamps = NULL;
}

static int corrupt(struct sim_decoder *x, struct rv_error *e, const char *what)
{
	return rv_error_set(e, RV_ECORRUPT,
		"the saved domain's stream is damaged near byte %llu: %s; save or "
		"migrate "
		"it again",
		(unsigned long long)x->total_bytes, what);
}

static int take_head(struct sim_decoder *x, struct words *w, struct rv_error *e)
{
	if (x->has_head)
		return corrupt(x, e, "a second head");
	if (get(w) != STREAM_MAGIC)
		return rv_error_set(e, RV_EPROTO,
			"not a stream of the simulated hypervisor, or of another "
			"version");
	if (!get_domain(w, &x->record))
		return corrupt(x, e, "the domain's description makes no sense");
	x->page_count = x->record.actual_kib / SIM_PAGE_KIB;
	x->has_head = true;
	return 0;
}

static int take_state(struct sim_decoder *x, struct words *w, struct rv_error *e)
{
	uint64_t base_sent = get(w), working, writes, damaged = x->wrong_pages;
	struct sim_record r;

	if (x->has_state || !get_domain(w, &r))
		return corrupt(x, e, "the domain's state makes no sense");
	if (!uuid_eq(&r.vm, &x->record.vm) || r.actual_kib != x->record.actual_kib ||
		r.content_seed != x->record.content_seed ||
		r.static_max_kib != x->record.static_max_kib ||
		r.guest.working_set_kib != x->record.guest.working_set_kib)
		return corrupt(x, e, "its state belongs to another domain");
	/* Pages outside the working set came once and are counted; those in it must have
	 * come with their last contents. */
	if (x->base_pages < base_sent)
		damaged += base_sent - x->base_pages;
	working = sim_working_pages(&r);
	writes = sim_writes(&r, r.stopped_us);
	for (uint64_t pfn = 0; pfn < working && pfn < x->page_count; pfn++)
		damaged += (x->stamps != NULL ? x->stamps[pfn] : 0) !=
			   sim_stamp(&r, pfn, writes);
	r.damaged_pages += damaged;
	x->record = r;
	x->has_state = true;
	return 0;
}

static int take_pages(struct sim_decoder *x, struct words *w, struct rv_error *e)
{
	if (!x->has_head || x->has_state)
		return corrupt(x, e, "pages out of place");
	/* Not at the head: by now the caller has seen whether so much memory is here. */
	if (x->stamps == NULL)
		x->stamps = calloc(x->page_count + 1, sizeof *x->stamps);
	if (x->stamps == NULL)
		return rv_error_set(e, RV_ENOMEM, "no memory to restore %llu pages",
			(unsigned long long)x->page_count);
	for (uint32_t i = 0; i < x->pages; i++) {
		x->pfns[i] = get(w);
		if (!w->bad && x->pfns[i] >= x->page_count)
			return corrupt(x, e, "a page beyond the domain's memory");
	}
	if (w->bad)
		return corrupt(x, e, "a record of pages without their numbers");
	return 0;
}

static int take_page(struct sim_decoder *x, const uint8_t *page, struct rv_error *e)
{
	uint64_t pfn = x->pfns[x->page_at++];
	uint32_t stamp;

	if (sim_page_read(x->block, x->record.content_seed, pfn, page, &stamp) != 0)
		return corrupt(x, e, "a page's contents are not what the guest wrote");
	if (pfn >= sim_working_pages(&x->record)) {
		if (stamp != sim_stamp(&x->record, pfn, 0))
			x->wrong_pages++;
		else if (stamp != 0 && x->stamps[pfn] == 0)
			x->base_pages++;
	}
	x->stamps[pfn] = stamp;
	return 0;
}

static int check_sum(const struct sim_decoder *x)
{
	uint64_t said = bytes_get_le32(x->head + 16) |
			(uint64_t)bytes_get_le32(x->head + 20) << 32;

	return record_sum(x->head, x->head_len - SIM_RECORD_HEAD) == said ? 0
									  : RV_ECORRUPT;
}

/* A whole record but its pages is there. */
static enum sim_decoder_step take_record(struct sim_decoder *x, struct rv_error *e)
{
	struct words w = {
		.at = x->head + SIM_RECORD_HEAD, .left = x->head_len - SIM_RECORD_HEAD};
	uint32_t type = bytes_get_le32(x->head);
	int rc;

	if (check_sum(x) != 0) {
		(void)corrupt(x, e, "a record's checksum differs");
		return SIM_DECODER_ERROR;
	}
	x->pages = bytes_get_le32(x->head + 8);
	x->page_at = 0;
	if (x->pages > SIM_BATCH || (type != TYPE_PAGES && x->pages != 0)) {
		(void)corrupt(x, e, "too many pages in a record");
		return SIM_DECODER_ERROR;
	}
	switch (type) {
	case TYPE_HEAD:
		rc = take_head(x, &w, e);
		return rc != 0 ? SIM_DECODER_ERROR : SIM_DECODER_HEAD;
	case TYPE_PAGES:
		rc = take_pages(x, &w, e);
		return rc != 0 ? SIM_DECODER_ERROR : SIM_DECODER_MORE;
	case TYPE_STATE:
		rc = x->has_head ? take_state(x, &w, e) : corrupt(x, e, "state first");
		return rc != 0 ? SIM_DECODER_ERROR : SIM_DECODER_MORE;
	case TYPE_END:
		if (x->has_state)
			return SIM_DECODER_DONE;
		(void)corrupt(x, e, "it ends without the domain's state");
		return SIM_DECODER_ERROR;
	default:
		(void)corrupt(x, e, "a record of unknown type");
		return SIM_DECODER_ERROR;
	}
}

/* Gathers the head and body of a record; returns bytes consumed. */
static size_t gather_head(struct sim_decoder *x, const uint8_t *data, size_t len)
{
	size_t want = x->head_len != 0 ? x->head_len : SIM_RECORD_HEAD;
	size_t n = want - x->head_at < len ? want - x->head_at : len;

	memcpy(x->head + x->head_at, data, n);
	x->head_at += n;
	return n;
}

static size_t gather_page(struct sim_decoder *x, const uint8_t *data, size_t len, int *rc,
	struct rv_error *e)
{
	size_t n = SIM_PAGE - x->bounce_at < len ? SIM_PAGE - x->bounce_at : len;

	*rc = 0;
	if (x->bounce_at == 0 && n == SIM_PAGE) {
		*rc = take_page(x, data, e);
		return n;
	}
	memcpy(x->bounce + x->bounce_at, data, n);
	x->bounce_at += n;
	if (x->bounce_at == SIM_PAGE) {
		x->bounce_at = 0;
		*rc = take_page(x, x->bounce, e);
	}
	return n;
}

enum sim_decoder_step sim_decoder_feed(struct sim_decoder *x, const uint8_t *data,
	size_t len, size_t *used, struct rv_error *e)
{
	enum sim_decoder_step step = SIM_DECODER_MORE;
	size_t at = 0, n;
	int rc;

	while (step == SIM_DECODER_MORE && at < len) {
		if (x->page_at < x->pages) {
			n = gather_page(x, data + at, len - at, &rc, e);
			if (rc != 0)
				step = SIM_DECODER_ERROR;
		} else {
			n = gather_head(x, data + at, len - at);
			if (x->head_len == 0 && x->head_at == SIM_RECORD_HEAD) {
				x->head_len = SIM_RECORD_HEAD +
					      (size_t)bytes_get_le32(x->head + 4);
				if (x->head_len > sizeof x->head) {
					(void)corrupt(x, e, "a record is too long");
					step = SIM_DECODER_ERROR;
				}
			}
			if (step == SIM_DECODER_MORE && x->head_len != 0 &&
				x->head_at == x->head_len) {
				step = take_record(x, e);
				x->head_len = x->head_at = 0;
			}
		}
		at += n;
		x->total_bytes += n;
	}
	*used = at;
	return step;
}
