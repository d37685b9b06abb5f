#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mpcheck.h"

struct error_info {
	const char *symbol;
	const char *xenapi;
	const char *text;
	bool retryable;
};

/* Indexed by wire number; slot 0 is "no error". */
static const struct error_info infos[] = {{"OK", "SUCCESS", "no error", false},
#define X(symbol, wire, retryable, xenapi, text)                                         \
	[wire] = {#symbol, xenapi, text, retryable},
	RV_ERRORS(X)
#undef X
};

static const struct error_info *error_info(int code)
{
	int count = sizeof infos / sizeof infos[0];

	if (code > 0 || code <= -count || !infos[-code].symbol)
		code = RV_EINTERNAL;
	return &infos[-code];
}

int rv_error_set(struct rv_error *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->detail, sizeof e->detail, fmt, ap);
	va_end(ap);
	mpcheck_mend_utf8(e->detail);
	return code;
}

int rv_error_prefix(struct rv_error *e, const char *fmt, ...)
{
	char detail[RV_ERROR_DETAIL_MAX];
	va_list ap;
	size_t used;

	if (!e)
		return RV_EINTERNAL;
	memcpy(detail, e->detail, sizeof detail);
	va_start(ap, fmt);
	vsnprintf(e->detail, sizeof e->detail, fmt, ap);
	va_end(ap);
	used = strlen(e->detail);
	snprintf(e->detail + used, sizeof e->detail - used, ": %s", detail);
	mpcheck_mend_utf8(e->detail);
	return e->code;
}

void rv_error_clear(struct rv_error *e)
{
	e->code = 0;
	e->detail[0] = '\0';
}

const char *rv_error_symbol(int code)
{
	return error_info(code)->symbol;
}

const char *rv_error_xenapi(int code)
{
	return error_info(code)->xenapi;
}

const char *rv_error_text(int code)
{
	return error_info(code)->text;
}

bool rv_error_retryable(int code)
{
	return error_info(code)->retryable;
}

int rv_error_from_errno(int err)
{
	switch (err) {
	case 0:
		return 0;
	case EINVAL:
	case ENAMETOOLONG:
	case ENOTDIR:
	case EISDIR:
		return RV_EINVAL;
	case ENOMEM:
		return RV_ENOMEM;
	case ENOENT:
	case ENODEV:
	case ESRCH:
		return RV_ENOENT;
	case EEXIST:
	case EADDRINUSE:
		return RV_EEXIST;
	case EBUSY:
	case ETXTBSY:
		return RV_EBUSY;
	case EPERM:
	case EACCES:
		return RV_EPERM;
	case ENOSPC:
	case EDQUOT:
		return RV_ESPACE;
	case ETIMEDOUT:
		return RV_ETIMEDOUT;
	case EPIPE:
	case ECONNRESET:
	case ECONNREFUSED:
	case ENOTCONN:
		return RV_ECLOSED;
	case EAGAIN:
		return RV_EAGAIN;
	case EMFILE:
	case ENFILE:
		return RV_ELIMIT;
	case EOPNOTSUPP:
	case ENOSYS:
		return RV_EUNSUPPORTED;
	default:
		return RV_EIO;
	}
}
