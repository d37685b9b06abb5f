/*
 * How a helper's request travels: one packet, and with it the descriptor that becomes
 * HELPER_FD_DATA, since a process that waits for its request has none yet.
 */
#ifndef REEVE_XEN_REAL_REQUEST_H
#define REEVE_XEN_REAL_REQUEST_H

#include <sys/types.h>

/* As send(2) and recv(2). data_fd may be -1; *data_fd, if not -1, is the receiver's. */
ssize_t xen_request_send(int control_fd, const void *packet, size_t len, int data_fd);
ssize_t xen_request_receive(int control_fd, void *packet, size_t size, int *data_fd);

#endif
