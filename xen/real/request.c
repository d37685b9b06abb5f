#include "xen/real/request.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

union descriptor {
	struct cmsghdr head; /* for its alignment */
	char bytes[CMSG_SPACE(sizeof(int))];
};

ssize_t xen_request_send(int control_fd, const void *packet, size_t len, int data_fd)
{
	struct iovec piece = {.iov_base = (void *)packet, .iov_len = len};
	struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
	union descriptor d = {.bytes = {0}};
	ssize_t r;

	if (data_fd >= 0) {
		m.msg_control = d.bytes;
		m.msg_controllen = sizeof d.bytes;
		d.head.cmsg_level = SOL_SOCKET;
		d.head.cmsg_type = SCM_RIGHTS;
		d.head.cmsg_len = CMSG_LEN(sizeof data_fd);
		memcpy(CMSG_DATA(&d.head), &data_fd, sizeof data_fd);
	}
	do
		r = sendmsg(control_fd, &m, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r;
}

ssize_t xen_request_receive(int control_fd, void *packet, size_t size, int *data_fd)
{
	struct iovec piece = {.iov_base = packet, .iov_len = size};
	union descriptor d;
	struct msghdr m = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = d.bytes,
		.msg_controllen = sizeof d.bytes,
	};
	struct cmsghdr *head;
	ssize_t r;

	*data_fd = -1;
	do
		r = recvmsg(control_fd, &m, MSG_CMSG_CLOEXEC);
	while (r < 0 && errno == EINTR);
	head = r > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
		head->cmsg_len == CMSG_LEN(sizeof *data_fd))
		memcpy(data_fd, CMSG_DATA(head), sizeof *data_fd);
	return r;
}
