#include "pool/db/pages.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "pool/db/store.h"

void page_release(struct page *page)
{
	if (--page->refs > 0)
		return;
	for (unsigned i = 0; i < PAGE_ROWS; i++)
		row_release(page->rows[i]);
	free(page);
}

void pages_fini(struct pages *p)
{
	for (size_t i = 0; i < p->count; i++) {
		page_release(p->places[i]->page);
		free(p->places[i]);
	}
	free(p->places);
	*p = (struct pages){0};
}

static int pages_append(struct pages *p)
{
	struct page_place **places, *place;

	if (p->count == p->size) {
		size_t size = p->size ? p->size * 2 : 16;

		places = realloc(p->places, size * sizeof places[0]);
		if (!places)
			return RV_ENOMEM;
		p->places = places;
		p->size = size;
	}
	place = calloc(1, sizeof *place);
	if (!place)
		return RV_ENOMEM;
	place->page = calloc(1, sizeof *place->page);
	if (!place->page) {
		free(place);
		return RV_ENOMEM;
	}
	place->page->refs = 1;
	place->index = p->count;
	p->places[p->count++] = place;
	return 0;
}

int pages_reserve(struct pages *p, size_t n)
{
	size_t room = 0;

	for (size_t i = p->fill; room < n; i++) {
		int rc;

		if (i == p->count) {
			rc = pages_append(p);
			if (rc)
				return rc;
		}
		rc = pages_own(p->places[i]);
		if (rc)
			return rc;
		room += i == p->fill ? PAGE_ROWS - p->fill_slot : PAGE_ROWS;
	}
	return 0;
}

void pages_add(
	struct pages *p, struct row *row, struct page_place **place, unsigned *slot)
{
	if (p->fill_slot == PAGE_ROWS) {
		if (p->places[p->fill]->used > 0) /* else all are gone: use it again */
			p->fill++;
		p->fill_slot = 0;
	}
	assert(p->fill < p->count);
	*place = p->places[p->fill];
	*slot = p->fill_slot++;
	assert((*place)->page->refs == 1);
	(*place)->page->rows[*slot] = row;
	(*place)->used++;
}

int pages_own(struct page_place *place)
{
	struct page *copy;

	if (place->page->refs == 1)
		return 0;
	copy = malloc(sizeof *copy);
	if (!copy)
		return RV_ENOMEM;
	*copy = *place->page;
	copy->refs = 1;
	for (unsigned i = 0; i < PAGE_ROWS; i++)
		if (copy->rows[i])
			row_hold(copy->rows[i]);
	page_release(place->page);
	place->page = copy;
	return 0;
}

void pages_replace(struct page_place *place, unsigned slot, struct row *row)
{
	assert(place->page->refs == 1);
	row_release(place->page->rows[slot]);
	place->page->rows[slot] = row;
}

void pages_remove(struct pages *p, struct page_place *place, unsigned slot)
{
	pages_replace(place, slot, NULL);
	place->used--;
	if (place->used > 0 || place->index >= p->fill)
		return;
	/* Empty for good: only the place being filled gets new rows. */
	memmove(&p->places[place->index], &p->places[place->index + 1],
		(p->count - place->index - 1) * sizeof p->places[0]);
	p->count--;
	p->fill--;
	for (size_t i = place->index; i < p->count; i++)
		p->places[i]->index = i;
	page_release(place->page);
	free(place);
}

struct page **pages_view(const struct pages *p, size_t *count)
{
	struct page **pages = malloc((p->count + 1) * sizeof pages[0]);

	if (!pages)
		return NULL;
	*count = p->count;
	for (size_t i = 0; i < p->count; i++) {
		pages[i] = p->places[i]->page;
		pages[i]->refs++;
	}
	return pages;
}
