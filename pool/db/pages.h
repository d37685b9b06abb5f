/*
 * Every row in order of creation, in pages that are shared with views of the past.
 *
 * A view takes the list of pages and a reference to each; a page is copied when it is
 * changed while somebody else has it. So a view costs a pointer per page, and a change
 * meanwhile at most one copy of each page.
 */
#ifndef REEVE_POOL_DB_PAGES_H
#define REEVE_POOL_DB_PAGES_H

#include <stddef.h>

#include "base/error.h"

enum { PAGE_ROWS = 256 };

struct row;

struct page {
	unsigned refs;
	struct row *rows[PAGE_ROWS]; /* a reference each; NULL: deleted, or not yet */
};

/* A place in the list: what objects point to, while its page may be replaced. */
struct page_place {
	struct page *page;
	size_t index; /* in pages.places */
	unsigned used;
};

struct pages {
	struct page_place **places;
	size_t count, size;
	size_t fill;	    /* the place where new rows go: those behind it are empty */
	unsigned fill_slot; /* PAGE_ROWS: go on to the next place */
};

void pages_fini(struct pages *p); /* also drops the rows */

/* Makes room so that `n` calls of pages_add can't fail. RV_ENOMEM. */
int pages_reserve(struct pages *p, size_t n) RV_MUST_CHECK;

/* Puts a row (reference taken) at the end; *place and *slot say where. Needs
 * pages_reserve. */
void pages_add(
	struct pages *p, struct row *row, struct page_place **place, unsigned *slot);

/* Copies the page if it is shared. After it, pages_replace and pages_remove on the place
 * can't fail. RV_ENOMEM. */
int pages_own(struct page_place *place) RV_MUST_CHECK;

void pages_replace(struct page_place *place, unsigned slot, struct row *row);
void pages_remove(struct pages *p, struct page_place *place, unsigned slot);

/* A view: an array of pages with a reference each, for pages_view_drop and free. NULL:
 * out of memory. */
struct page **pages_view(const struct pages *p, size_t *count);
void page_release(struct page *page);

#endif
