/*
 * libvirt as a peer: its test driver behind a real libvirtd of our own, asked over a Unix
 * socket with virDomainGetInfo, one call after the other.
 */
#ifndef REEVE_PERF_RPC_LIBVIRT_H
#define REEVE_PERF_RPC_LIBVIRT_H

struct libvirt;

/* NULL: it can't be run here; *why says so (a literal). Returned owned. */
struct libvirt *libvirt_open(const char *dir, const char **why);
void libvirt_close(struct libvirt *v); /* NULL-safe */

/* Calls per second. */
double libvirt_run(struct libvirt *v, double seconds);

#endif
