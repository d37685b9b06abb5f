#include "vm/vm_told.h"

#include <ctype.h>
#include <string.h>
#include <xxhash.h>

/* What follows is a name, even where it is a number. */
static bool names(const char *word, size_t len)
{
	return (len == 6 && memcmp(word, "domain", 6) == 0) ||
	       (len == 2 && memcmp(word, "VM", 2) == 0);
}

static bool is_number(const char *word, size_t len)
{
	size_t i = 0;

	while (i < len && isdigit((unsigned char)word[i]))
		i++;
	return i > 0 && (i == len || (i + 1 == len && ispunct((unsigned char)word[i])));
}

static uint64_t cause_of(const char *words)
{
	bool is_name = false;
	uint64_t cause = 0;

	for (const char *p = words; *p;) {
		size_t len = strcspn(p, " ");

		if (is_name || !is_number(p, len))
			cause = XXH3_64bits_withSeed(p, len, cause);
		is_name = names(p, len);
		p += len;
		p += strspn(p, " ");
	}
	return cause;
}

bool vm_told_new(struct vm_told *t, struct uuid subject, const char *words)
{
	uint64_t cause = cause_of(words);
	size_t at = t->next;

	for (size_t i = 0; i < t->count; i++)
		if (t->list[i].cause == cause && uuid_eq(&t->list[i].subject, &subject))
			return false;
	if (t->count < VM_TOLD_MAX)
		at = t->count++;
	else
		t->next = (t->next + 1) % VM_TOLD_MAX;
	t->list[at].subject = subject;
	t->list[at].cause = cause;
	return true;
}

void vm_told_over(struct vm_told *t, struct uuid subject)
{
	for (size_t i = t->count; i-- > 0;)
		if (uuid_eq(&t->list[i].subject, &subject))
			t->list[i] = t->list[--t->count];
	if (t->count < VM_TOLD_MAX)
		t->next = 0;
}
