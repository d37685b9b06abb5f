#include "pool/lease.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/within.h"

int64_t lease_wait_ms(int64_t longest_ms)
{
	return within(longest_ms, LEASE_MIN_MS, LEASE_MAX_MS) + LEASE_WATCHDOG_MS +
	       LEASE_MARGIN_MS;
}

int64_t lease_gather_ms(int64_t length_ms)
{
	return within(length_ms, LEASE_MIN_MS, LEASE_MAX_MS) / LEASE_GATHERINGS;
}

int64_t lease_renew_ms(int64_t length_ms)
{
	return within(length_ms, LEASE_MIN_MS, LEASE_MAX_MS) / LEASE_RENEWALS;
}

/* --- the holder --- */

void lease_holder_init(struct lease_holder *h, uint64_t seed)
{
	memset(h, 0, sizeof *h);
	h->last_nonce = seed;
	h->length_ms = LEASE_DEFAULT_MS;
}

uint64_t lease_ask(struct lease_holder *h, int64_t now_ms)
{
	struct lease_asked *a = &h->asked[h->next++ % LEASE_ASKED_MAX];

	if (++h->last_nonce == 0)
		h->last_nonce = 1;
	*a = (struct lease_asked){.nonce = h->last_nonce, .sent_ms = now_ms};
	return a->nonce;
}

bool lease_grant(struct lease_holder *h, uint64_t nonce, int64_t length_ms)
{
	if (nonce == 0 || length_ms < LEASE_MIN_MS || length_ms > LEASE_MAX_MS)
		return false;
	for (unsigned i = 0; i < LEASE_ASKED_MAX; i++) {
		struct lease_asked *a = &h->asked[i];

		if (a->nonce != nonce)
			continue;
		/* From the sending on: how long the answer took is not known to whoever
		 * waits for the lease to end. */
		if (a->sent_ms + length_ms > h->end_ms)
			h->end_ms = a->sent_ms + length_ms;
		h->length_ms = length_ms;
		a->nonce = 0;
		return true;
	}
	return false;
}

bool lease_holds(const struct lease_holder *h, int64_t now_ms)
{
	return now_ms < h->end_ms;
}

/* --- the master's book --- */

void lease_book_init(struct lease_book *b, uint64_t seed, size_t room)
{
	memset(b, 0, sizeof *b);
	b->room = room;
	b->seed = seed;
	map_init(&b->by_host, seed);
}

static void book_forget(struct lease_book *b)
{
	size_t cursor = 0;
	struct lease_entry *entry;

	while ((entry = map_next(&b->by_host, &cursor)))
		free(entry);
	map_fini(&b->by_host);
	map_init(&b->by_host, b->seed);
	b->begun = b->first = b->urgent = false;
	b->first_ms = 0;
	b->waiting = 0;
}

void lease_book_fini(struct lease_book *b)
{
	book_forget(b);
	map_fini(&b->by_host);
}

void lease_book_lead(struct lease_book *b, bool leads)
{
	book_forget(b);
	b->leads = leads;
}

static struct lease_entry *entry_of(const struct lease_book *b, const struct uuid *host)
{
	return map_get(&b->by_host, host, sizeof *host);
}

static int entry_make(
	struct lease_book *b, const struct uuid *host, struct lease_entry **out)
{
	struct lease_entry *entry;

	if (b->by_host.count >= b->room)
		return RV_ELIMIT;
	entry = calloc(1, sizeof *entry);
	if (!entry)
		return RV_ENOMEM;
	entry->host = *host;
	if (map_add(&b->by_host, &entry->host, sizeof entry->host, entry)) {
		free(entry);
		return RV_ENOMEM;
	}
	*out = entry;
	return 0;
}

int lease_book_receive(
	struct lease_book *b, const struct uuid *host, uint64_t nonce, int64_t now_ms)
{
	struct lease_entry *entry;

	if (!b->leads)
		return RV_ENOTMASTER;
	if (nonce == 0)
		return RV_EINVAL;
	entry = entry_of(b, host);
	if (!entry) {
		int rc = entry_make(b, host, &entry);

		if (rc)
			return rc;
	}
	if (entry->nonce == 0)
		b->waiting++;
	if (!entry->renewed)
		b->urgent = true;
	entry->nonce = nonce;
	entry->received_ms = now_ms;
	return 0;
}

bool lease_book_wants(const struct lease_book *b)
{
	return b->leads && !b->begun && (b->waiting > 0 || !b->first);
}

bool lease_book_is_urgent(const struct lease_book *b)
{
	return b->urgent || !b->first;
}

void lease_book_begin(struct lease_book *b, uint64_t term)
{
	struct lease_entry *entry;
	size_t cursor = 0;

	assert(b->leads && !b->begun);
	b->begun = true;
	b->term = term;
	while ((entry = map_next(&b->by_host, &cursor))) {
		if (entry->nonce == 0)
			continue;
		entry->flying = entry->nonce;
		entry->flying_ms = entry->received_ms;
		entry->due = false;
		entry->nonce = 0;
	}
	b->waiting = 0;
	b->urgent = false;
}

void lease_book_ended(
	struct lease_book *b, bool committed, bool leads, uint64_t term, int64_t now_ms)
{
	struct lease_entry *entry;
	size_t cursor = 0;

	if (!b->begun)
		return; /* another term's: it was forgotten */
	b->begun = false;
	if (!committed || !leads || !b->leads || term != b->term) {
		while ((entry = map_next(&b->by_host, &cursor)))
			entry->flying = 0;
		return;
	}
	if (!b->first) {
		b->first = true;
		b->first_ms = now_ms;
	}
	while ((entry = map_next(&b->by_host, &cursor))) {
		if (entry->flying == 0)
			continue;
		entry->due = true;
		entry->renewed = true;
		if (entry->flying_ms > entry->renewed_ms)
			entry->renewed_ms = entry->flying_ms;
	}
}

bool lease_book_take(
	struct lease_book *b, size_t *cursor, struct uuid *host, uint64_t *nonce)
{
	struct lease_entry *entry;

	while ((entry = map_next(&b->by_host, cursor))) {
		if (!entry->due)
			continue;
		*host = entry->host;
		*nonce = entry->flying;
		entry->due = false;
		entry->flying = 0;
		return true;
	}
	return false;
}

int64_t lease_book_over_ms(
	const struct lease_book *b, const struct uuid *host, int64_t longest_ms)
{
	const struct lease_entry *entry = entry_of(b, host);
	int64_t from_ms;

	if (!b->leads || !b->first)
		return INT64_MAX;
	from_ms = b->first_ms;
	if (entry && entry->renewed && entry->renewed_ms > from_ms)
		from_ms = entry->renewed_ms;
	return from_ms + lease_wait_ms(longest_ms);
}

bool lease_book_renewed(
	const struct lease_book *b, const struct uuid *host, int64_t *at_ms)
{
	const struct lease_entry *entry = entry_of(b, host);

	if (!b->leads || !entry || !entry->renewed)
		return false;
	*at_ms = entry->renewed_ms;
	return true;
}

/* --- the length --- */

int64_t lease_length_ms(int64_t wished_ms, int64_t longest_ms)
{
	int64_t length_ms = wished_ms < longest_ms ? wished_ms : longest_ms;

	return within(length_ms, LEASE_MIN_MS, LEASE_MAX_MS);
}

int64_t lease_next_longest_ms(
	int64_t wished_ms, int64_t longest_ms, int64_t since_ms, int64_t now_ms)
{
	wished_ms = within(wished_ms, LEASE_MIN_MS, LEASE_MAX_MS);
	if (wished_ms > longest_ms)
		return wished_ms;
	if (wished_ms < longest_ms && now_ms >= since_ms + lease_wait_ms(longest_ms))
		return wished_ms;
	return longest_ms;
}
