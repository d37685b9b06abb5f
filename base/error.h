/*
 * Error codes and error reports.
 *
 * Functions that can fail return 0 or a negative RV_E code. What happened, to which
 * object, and what to do about it goes into a `struct rv_error` of the caller, in plain
 * words that reach the user unchanged.
 *
 * The wire numbers are part of the protocol: never reuse or renumber one.
 */
#ifndef REEVE_BASE_ERROR_H
#define REEVE_BASE_ERROR_H

#include <stdbool.h>
#include <stdint.h>

/* X(symbol, wire number, retryable, XenAPI name, text)
 * "retryable": the same call may succeed later without anybody changing anything. */
#define RV_ERRORS(X)                                                                     \
	X(EINVAL, 1, false, "INVALID_VALUE", "invalid value")                            \
	X(ENOMEM, 2, true, "OUT_OF_MEMORY", "out of memory")                             \
	X(ENOENT, 3, false, "HANDLE_INVALID", "no such object")                          \
	X(EEXIST, 4, false, "DB_UNIQUENESS_CONSTRAINT_VIOLATION", "already exists")      \
	X(EBUSY, 5, true, "OTHER_OPERATION_IN_PROGRESS", "busy with another operation")  \
	X(ESTATE, 6, false, "VM_BAD_POWER_STATE", "wrong state")                         \
	X(ENOTALLOWED, 7, false, "OPERATION_NOT_ALLOWED", "operation not allowed")       \
	X(EPERM, 8, false, "RBAC_PERMISSION_DENIED", "permission denied")                \
	X(EAUTH, 9, false, "SESSION_AUTHENTICATION_FAILED", "authentication failed")     \
	X(ENOHOST, 10, true, "NO_HOSTS_AVAILABLE", "no host can run it")                 \
	X(EMEMORY, 11, true, "HOST_NOT_ENOUGH_FREE_MEMORY", "not enough free memory")    \
	X(ESPACE, 12, true, "SR_FULL", "no space left")                                  \
	X(EIO, 13, true, "SR_BACKEND_FAILURE", "input/output error")                     \
	X(ETIMEDOUT, 14, true, "TIMEOUT", "timed out")                                   \
	X(ECANCELLED, 15, false, "TASK_CANCELLED", "cancelled")                          \
	X(ECLOSED, 16, true, "CONNECTION_CLOSED", "connection closed")                   \
	X(EPROTO, 17, false, "MESSAGE_MALFORMED", "malformed message")                   \
	X(ETOOBIG, 18, false, "MESSAGE_TOO_BIG", "too big")                              \
	X(EMETHOD, 19, false, "MESSAGE_METHOD_UNKNOWN", "unknown method")                \
	X(EPARAM, 20, false, "MESSAGE_PARAMETER_INVALID", "invalid parameter")           \
	X(EFIELD, 21, false, "FIELD_UNKNOWN", "unknown field")                           \
	X(EREADONLY, 22, false, "FIELD_READ_ONLY", "field is read-only")                 \
	X(EOUTCOME, 23, true, "OUTCOME_UNKNOWN", "outcome unknown")                      \
	X(ENOTMASTER, 24, true, "HOST_IS_SLAVE", "this host is not the master")          \
	X(ESTALE, 25, true, "STALE", "out of date")                                      \
	X(ECONFLICT, 26, true, "CONFLICT", "changed by somebody else meanwhile")         \
	X(ECORRUPT, 27, false, "DATA_CORRUPT", "data corrupt")                           \
	X(EHYPERVISOR, 28, true, "XEN_ERROR", "hypervisor error")                        \
	X(ECHILD, 29, true, "HELPER_FAILED", "helper process failed")                    \
	X(ETLS, 30, true, "TLS_FAILED", "TLS failure")                                   \
	X(ELIMIT, 31, true, "LIMIT_REACHED", "limit reached")                            \
	X(ECLOCK, 32, true, "CLOCK_SKEW", "clocks differ too much")                      \
	X(ECPU, 33, false, "VM_INCOMPATIBLE_WITH_THIS_HOST", "CPU features missing")     \
	X(ENOTATTACHED, 34, true, "SR_NOT_ATTACHED",                                     \
		"storage or network not attached here")                                  \
	X(EINTERNAL, 35, false, "INTERNAL_ERROR", "internal error")                      \
	X(EAGAIN, 36, true, "TRY_AGAIN", "not ready yet")                                \
	X(EUNSUPPORTED, 37, false, "FEATURE_UNSUPPORTED", "not supported here")          \
	X(EEJECTED, 38, false, "HOST_EJECTED", "ejected from the pool")

enum rv_errno {
#define X(symbol, wire, retryable, xenapi, text) RV_##symbol = -(wire),
	RV_ERRORS(X)
#undef X
};

#define RV_MUST_CHECK	     __attribute__((warn_unused_result))
#define RV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

enum { RV_ERROR_DETAIL_MAX = 768 };

/* An error report: code 0 is "no error". Copy it freely. */
struct rv_error {
	int code; /* 0 or a negative RV_E code */
	char detail[RV_ERROR_DETAIL_MAX];
};

/* Sets code and detail; returns code, so that `return rv_error_set(...)` reads well.
 * `e` may be NULL (the detail is then lost). Detail is cut at the buffer's end. */
int rv_error_set(struct rv_error *e, int code, const char *fmt, ...) RV_PRINTF(3, 4);

/* Puts "PREFIX: " before an existing detail; keeps the code and returns it. */
int rv_error_prefix(struct rv_error *e, const char *fmt, ...) RV_PRINTF(2, 3);

void rv_error_clear(struct rv_error *e);

/* All of these take any int; an unknown code reads as RV_EINTERNAL. */
const char *rv_error_symbol(int code); /* "ENOENT" */
const char *rv_error_xenapi(int code); /* "HANDLE_INVALID" */
const char *rv_error_text(int code);   /* "no such object" */
bool rv_error_retryable(int code);

/* The code for a positive errno value, e.g. ENOSPC gives RV_ESPACE. */
int rv_error_from_errno(int err);

#endif
