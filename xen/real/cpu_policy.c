#include "xen/real/cpu_policy.h"

#include <stdio.h>
#include <string.h>

/* --- the blob --- */

static const uint8_t magic[9] = {'R', 'V', 'X', 'E', 'N', 'C', 'P', 'U', 1};

struct reader {
	const uint8_t *at, *end;
	bool bad;
};

static uint64_t get_int(struct reader *r, int bytes)
{
	uint64_t value = 0;

	if (r->end - r->at < bytes) {
		r->bad = true;
		return 0;
	}
	for (int i = 0; i < bytes; i++)
		value |= (uint64_t)*r->at++ << 8 * i;
	return value;
}

static uint8_t *put_int(uint8_t *at, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		*at++ = (uint8_t)(value >> 8 * i);
	return at;
}

static bool leaf_before(const struct xen_cpu_leaf *a, const struct xen_cpu_leaf *b)
{
	return a->leaf != b->leaf ? a->leaf < b->leaf : a->subleaf < b->subleaf;
}

/* In order and without doubles, so that merging is one pass and a blob has one form. */
static void get_level(struct reader *r, struct xen_cpu_level *level)
{
	size_t leaves = (size_t)get_int(r, 2), msrs = (size_t)get_int(r, 2);

	r->bad |= leaves > XEN_CPU_MAX_LEAVES || msrs > XEN_CPU_MAX_MSRS || leaves == 0 ||
		  level->leaf_count > 0;
	for (size_t i = 0; !r->bad && i < leaves; i++) {
		struct xen_cpu_leaf *leaf = &level->leaves[i];

		leaf->leaf = (uint32_t)get_int(r, 4);
		leaf->subleaf = (uint32_t)get_int(r, 4);
		for (int k = 0; k < 4; k++)
			leaf->r[k] = (uint32_t)get_int(r, 4);
		r->bad |= i > 0 && !leaf_before(leaf - 1, leaf);
	}
	for (size_t i = 0; !r->bad && i < msrs; i++) {
		struct xen_cpu_msr *msr = &level->msrs[i];

		msr->index = (uint32_t)get_int(r, 4);
		msr->value = get_int(r, 8);
		r->bad |= i > 0 && msr[-1].index >= msr->index;
	}
	level->leaf_count = leaves;
	level->msr_count = msrs;
}

int xen_cpu_policy_parse(
	struct xen_cpu_policy *out, const uint8_t *blob, size_t len, struct rv_error *e)
{
	struct reader r = {blob, blob + len, false};

	memset(out, 0, sizeof *out);
	if (len < sizeof magic || memcmp(blob, magic, sizeof magic) != 0)
		return rv_error_set(e, RV_EINVAL,
			"a CPU policy of %zu bytes is not one of a real Xen host; "
			"simulated and real hosts don't mix in a pool",
			len);
	r.at += sizeof magic;
	while (!r.bad && r.at < r.end) {
		uint8_t kind = *r.at++;

		if (kind == 'h')
			get_level(&r, &out->hvm);
		else if (kind == 'p')
			get_level(&r, &out->pv);
		else
			r.bad = true;
	}
	if (r.bad)
		return rv_error_set(e, RV_EINVAL,
			"a CPU policy of %zu bytes is damaged at byte %zu", len,
			(size_t)(r.at - blob));
	return 0;
}

static uint8_t *put_level(uint8_t *at, uint8_t kind, const struct xen_cpu_level *level)
{
	if (level->leaf_count == 0)
		return at;
	*at++ = kind;
	at = put_int(at, level->leaf_count, 2);
	at = put_int(at, level->msr_count, 2);
	for (size_t i = 0; i < level->leaf_count; i++) {
		at = put_int(at, level->leaves[i].leaf, 4);
		at = put_int(at, level->leaves[i].subleaf, 4);
		for (int k = 0; k < 4; k++)
			at = put_int(at, level->leaves[i].r[k], 4);
	}
	for (size_t i = 0; i < level->msr_count; i++) {
		at = put_int(at, level->msrs[i].index, 4);
		at = put_int(at, level->msrs[i].value, 8);
	}
	return at;
}

size_t xen_cpu_policy_write(const struct xen_cpu_policy *p, uint8_t *blob)
{
	_Static_assert(sizeof magic + 2 * (5 + XEN_CPU_MAX_LEAVES * 24 +
						  XEN_CPU_MAX_MSRS * 12) <=
			       HYPER_MAX_CPU_POLICY,
		"two full levels fit");
	uint8_t *at = blob;

	memcpy(at, magic, sizeof magic);
	at = put_level(at + sizeof magic, 'h', &p->hvm);
	at = put_level(at, 'p', &p->pv);
	return (size_t)(at - blob);
}

/* --- features --- */

/* Which leaf and register each word of Xen's featureset is; words 16 and 17 are the
 * halves of MSR_ARCH_CAPS. Source: xen/include/public/arch-x86/cpufeatureset.h. */
enum { WORDS = 19, MSR_ARCH_CAPS = 0x10a, WORD_ARCH_CAPS = 16 };
enum { EAX, EBX, ECX, EDX };

static const struct {
	uint32_t leaf, subleaf;
	int reg;
} words[WORDS] = {
	{0x1, UINT32_MAX, EDX},
	{0x1, UINT32_MAX, ECX},
	{0x80000001, UINT32_MAX, EDX},
	{0x80000001, UINT32_MAX, ECX},
	{0xd, 1, EAX},
	{0x7, 0, EBX},
	{0x7, 0, ECX},
	{0x80000007, UINT32_MAX, EDX},
	{0x80000008, UINT32_MAX, EBX},
	{0x7, 0, EDX},
	{0x7, 1, EAX},
	{0x80000021, UINT32_MAX, EAX},
	{0x7, 1, EBX},
	{0x7, 2, EDX},
	{0x7, 1, ECX},
	{0x7, 1, EDX},
	{0, 0, 0}, /* MSR_ARCH_CAPS */
	{0, 0, 0},
	{0x80000021, UINT32_MAX, ECX},
};

#define XEN_CPUFEATURE(name, value) {#name, value},
static const struct {
	const char *name;
	unsigned bit;
} features[] = {
#include <xen/arch-x86/cpufeatureset.h>
};
#undef XEN_CPUFEATURE

static const char *feature_name(unsigned bit, char text[32])
{
	for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
		size_t n = 0;

		if (features[i].bit != bit)
			continue;
		for (const char *c = features[i].name; *c != '\0' && n < 31; c++)
			text[n++] = *c == '_'		     ? '-'
				    : *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a')
							     : *c;
		text[n] = '\0';
		return text;
	}
	snprintf(text, 32, "bit %u of word %u", bit % 32, bit / 32);
	return text;
}

const struct xen_cpu_leaf *xen_cpu_leaf_find(
	const struct xen_cpu_level *level, uint32_t leaf, uint32_t subleaf)
{
	for (size_t i = 0; i < level->leaf_count; i++)
		if (level->leaves[i].leaf == leaf && level->leaves[i].subleaf == subleaf)
			return &level->leaves[i];
	return NULL;
}

static uint64_t arch_caps(const struct xen_cpu_level *level)
{
	for (size_t i = 0; i < level->msr_count; i++)
		if (level->msrs[i].index == MSR_ARCH_CAPS)
			return level->msrs[i].value;
	return 0;
}

static uint32_t word_of(const struct xen_cpu_level *level, unsigned word)
{
	const struct xen_cpu_leaf *leaf;

	if (word == WORD_ARCH_CAPS || word == WORD_ARCH_CAPS + 1)
		return (uint32_t)(arch_caps(level) >> 32 * (word - WORD_ARCH_CAPS));
	leaf = xen_cpu_leaf_find(level, words[word].leaf, words[word].subleaf);
	return leaf != NULL ? leaf->r[words[word].reg] : 0;
}

/* --- comparing --- */

static void vendor_of(const struct xen_cpu_level *level, char text[13])
{
	const struct xen_cpu_leaf *leaf = xen_cpu_leaf_find(level, 0, UINT32_MAX);
	static const int order[] = {EBX, EDX, ECX};

	memset(text, 0, 13);
	for (int i = 0; leaf != NULL && i < 12; i++) {
		char c = (char)(leaf->r[order[i / 4]] >> 8 * (i % 4));

		text[i] = c < ' ' || c > '~' ? '?' : c;
	}
}

static int check_vendor(
	const struct xen_cpu_level *a, const struct xen_cpu_level *b, struct rv_error *e)
{
	char one[13], other[13];

	vendor_of(a, one);
	vendor_of(b, other);
	if (strcmp(one, other) == 0)
		return 0;
	return rv_error_set(e, RV_ECPU,
		"CPUs of different makers, %s and %s: a running guest can't pass from "
		"one to the other; stop it first, or keep them in different pools",
		one, other);
}

static int check_level(const struct xen_cpu_level *offered,
	const struct xen_cpu_level *needed, const char *kind, struct rv_error *e)
{
	char names[400] = "", name[32];
	size_t len = 0, more = 0;
	int rc;

	if (needed->leaf_count == 0)
		return 0;
	if (offered->leaf_count == 0)
		return rv_error_set(
			e, RV_ECPU, "this host can't run %s guests at all", kind);
	rc = check_vendor(offered, needed, e);
	if (rc != 0)
		return rc;
	for (unsigned bit = 0; bit < WORDS * 32; bit++) {
		uint32_t missing =
			word_of(needed, bit / 32) & ~word_of(offered, bit / 32);

		if (!(missing >> bit % 32 & 1))
			continue;
		if (len + 40 < sizeof names)
			len += (size_t)snprintf(names + len, sizeof names - len, "%s%s",
				len > 0 ? ", " : "", feature_name(bit, name));
		else
			more++;
	}
	if (len == 0)
		return 0;
	if (more > 0)
		snprintf(names + len, sizeof names - len, " and %zu more", more);
	return rv_error_set(e, RV_ECPU,
		"CPU features missing here (%s guests): %s; use a host that has them or "
		"lower the pool's level",
		kind, names);
}

int xen_cpu_policy_check(const struct xen_cpu_policy *offered,
	const struct xen_cpu_policy *needed, struct rv_error *e)
{
	int rc = check_level(&offered->hvm, &needed->hvm, "PVH and HVM", e);

	return rc != 0 ? rc : check_level(&offered->pv, &needed->pv, "PV", e);
}

static uint32_t feature_mask(const struct xen_cpu_leaf *leaf, int reg)
{
	for (unsigned word = 0; word < WORDS; word++)
		if (word != WORD_ARCH_CAPS && word != WORD_ARCH_CAPS + 1 &&
			words[word].leaf == leaf->leaf &&
			words[word].subleaf == leaf->subleaf && words[word].reg == reg)
			return UINT32_MAX;
	/* Which parts of the extended state there are: bits too. */
	if (leaf->leaf == 0xd && leaf->subleaf == 0 && (reg == EAX || reg == EDX))
		return UINT32_MAX;
	if (leaf->leaf == 0xd && leaf->subleaf == 1 && (reg == ECX || reg == EDX))
		return UINT32_MAX;
	return 0;
}

/* The highest leaf, and the sizes of the extended state, are numbers: the smaller. Names
 * and topology have no order; the smaller makes the result the same either way round. */
static void merge_leaf(const struct xen_cpu_leaf *a, const struct xen_cpu_leaf *b,
	struct xen_cpu_leaf *out)
{
	bool brand = a->leaf >= 0x80000002 && a->leaf <= 0x80000004;
	const struct xen_cpu_leaf *less = memcmp(a->r, b->r, sizeof a->r) < 0 ? a : b;

	*out = brand ? *less : *a;
	for (int reg = 0; !brand && reg < 4; reg++) {
		if (feature_mask(a, reg) != 0)
			out->r[reg] = a->r[reg] & b->r[reg];
		else if (b->r[reg] < a->r[reg])
			out->r[reg] = b->r[reg];
	}
}

static int merge_level(const struct xen_cpu_level *a, const struct xen_cpu_level *b,
	struct xen_cpu_level *out, struct rv_error *e)
{
	int rc;

	if (a->leaf_count == 0 || b->leaf_count == 0)
		return 0;
	rc = check_vendor(a, b, e);
	for (size_t i = 0; rc == 0 && i < a->leaf_count; i++) {
		const struct xen_cpu_leaf *other =
			xen_cpu_leaf_find(b, a->leaves[i].leaf, a->leaves[i].subleaf);

		if (other != NULL)
			merge_leaf(&a->leaves[i], other, &out->leaves[out->leaf_count++]);
	}
	for (size_t i = 0; rc == 0 && i < a->msr_count; i++)
		for (size_t k = 0; k < b->msr_count; k++)
			if (a->msrs[i].index == b->msrs[k].index) {
				out->msrs[out->msr_count].index = a->msrs[i].index;
				out->msrs[out->msr_count++].value =
					a->msrs[i].value & b->msrs[k].value;
			}
	return rc;
}

int xen_cpu_policy_common(const struct xen_cpu_policy *a, const struct xen_cpu_policy *b,
	struct xen_cpu_policy *out, struct rv_error *e)
{
	int rc;

	memset(out, 0, sizeof *out);
	rc = merge_level(&a->hvm, &b->hvm, &out->hvm, e);
	return rc != 0 ? rc : merge_level(&a->pv, &b->pv, &out->pv, e);
}
