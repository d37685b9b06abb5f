/* What each verb needs, and whether a call can be right at all. Pure; of the front. */
#ifndef REEVE_STORAGE_CALL_H
#define REEVE_STORAGE_CALL_H

#include "storage/storage.h"

struct storage_verb_info {
	const char *name;
	int64_t deadline_ms;
	bool alone;    /* nothing else in the SR meanwhile */
	bool attached; /* needs the SR attached */
	bool config;   /* brings type and config */
	bool vdi;      /* names a VDI */
};

/* Borrowed; the verb must be known. */
const struct storage_verb_info *storage_verb_info(enum storage_verb verb);

/* RV_EINVAL, RV_ENOENT (type). */
int storage_call_check(const struct storage *st, const struct storage_call *call,
	struct rv_error *e) RV_MUST_CHECK;
/* RV_EUNSUPPORTED when SRs of this type can't. */
int storage_call_check_type(const struct storage_type *type,
	const struct storage_call *call, struct rv_error *e) RV_MUST_CHECK;

#endif
