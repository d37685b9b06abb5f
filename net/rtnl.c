#include "net/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Larger than any message of the kernel's: a dump fills at most 32 KiB. */
enum { BUFFER_BYTES = 64 << 10 };

static const char PLUGGED[] = "reeve-";

/* --- requests --- */

int rtnl_open(struct rtnl *rt, struct rv_error *e)
{
	int on = 1;
	*rt = (struct rtnl){.ethtool_fd = -1};
	rt->buffer = malloc(BUFFER_BYTES);
	rt->socket = rt->buffer ? mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC) : NULL;
	if (!rt->socket || mnl_socket_bind(rt->socket, 0, MNL_SOCKET_AUTOPID)) {
		int err = errno;
		rtnl_close(rt);
		return rv_error_set(e, rv_error_from_errno(err), "rtnetlink socket: %s",
			strerrordesc_np(err));
	}
	/* Words with errors; old kernels have none. */
	if (mnl_socket_setsockopt(rt->socket, NETLINK_EXT_ACK, &on, sizeof on) ||
		mnl_socket_setsockopt(rt->socket, NETLINK_CAP_ACK, &on, sizeof on))
		errno = 0;
	rt->port = mnl_socket_get_portid(rt->socket);
	rt->ethtool_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return 0;
}

void rtnl_close(struct rtnl *rt)
{
	if (rt->socket)
		mnl_socket_close(rt->socket);
	if (rt->ethtool_fd >= 0)
		close(rt->ethtool_fd);
	free(rt->buffer);
	*rt = (struct rtnl){.ethtool_fd = -1};
}

static struct nlmsghdr *request(struct rtnl *rt, void *buffer, int type, int flags)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);
	nlh->nlmsg_type = (uint16_t)type;
	nlh->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	nlh->nlmsg_seq = ++rt->sequence;
	return nlh;
}

static struct nlmsghdr *link_request(
	struct rtnl *rt, void *buffer, int type, int flags, int index)
{
	struct nlmsghdr *nlh = request(rt, buffer, type, flags);
	struct ifinfomsg *info = mnl_nlmsg_put_extra_header(nlh, sizeof *info);
	info->ifi_family = AF_UNSPEC;
	info->ifi_index = index;
	return nlh;
}

/* The kernel's own words in an acknowledgement, or none. */
static void kernel_words(const struct nlmsghdr *nlh, char *words, size_t size)
{
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(nlh);
	size_t skip = sizeof *err;
	*words = '\0';
	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		skip += MNL_ALIGN(err->msg.nlmsg_len - sizeof(struct nlmsghdr));
	if (skip > mnl_nlmsg_get_payload_len(nlh))
		return;
	const struct nlattr *attr;
	mnl_attr_for_each(attr, nlh, skip)
	{
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG &&
			mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			snprintf(words, size, ": %s", mnl_attr_get_str(attr));
	}
}

static int fail(struct rv_error *e, int err, const char *what, const char *words)
{
	const char *remedy = "";
	int code = rv_error_from_errno(err);
	if (err == EPERM || err == EACCES) {
		code = RV_EPERM;
		remedy = "; reeved needs CAP_NET_ADMIN";
	} else if (err == EOPNOTSUPP) {
		remedy = "; the kernel lacks it (modprobe bridge 8021q)";
	} else if (err == ERANGE) {
		code = RV_EINVAL;
	}
	return rv_error_set(
		e, code, "%s: %s%s%s", what, strerrordesc_np(err), words, remedy);
}

typedef int message_fn(const struct nlmsghdr *nlh, void *arg);

/* Sends, and hands each answer to `fn` until the end of it. */
static int talk(struct rtnl *rt, const struct nlmsghdr *nlh, const char *what,
	message_fn *fn, void *arg, struct rv_error *e)
{
	char words[200];
	if (mnl_socket_sendto(rt->socket, nlh, nlh->nlmsg_len) < 0)
		return fail(e, errno, what, "");
	for (;;) {
		ssize_t r = mnl_socket_recvfrom(rt->socket, rt->buffer, BUFFER_BYTES);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return fail(e, errno, what, "");
		const struct nlmsghdr *in = rt->buffer;
		for (int left = (int)r; mnl_nlmsg_ok(in, left);
			in = mnl_nlmsg_next(in, &left)) {
			if (in->nlmsg_seq != rt->sequence)
				continue; /* of an earlier request */
			if (in->nlmsg_type == NLMSG_DONE)
				return 0;
			if (in->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *err = mnl_nlmsg_get_payload(in);
				if (err->error == 0)
					return 0;
				kernel_words(in, words, sizeof words);
				return fail(e, -err->error, what, words);
			}
			int rc = fn ? fn(in, arg) : 0;
			if (rc)
				return rv_error_set(e, rc, "%s: no memory", what);
			if (!(in->nlmsg_flags & NLM_F_MULTI) && fn)
				return 0; /* the one answer */
		}
	}
}

/* --- reading --- */

static enum net_kind kind_of(const struct rtnl_link *link, unsigned type)
{
	const char *kind = link->kind;
	if (type == ARPHRD_LOOPBACK)
		return NET_KIND_LOOPBACK;
	if (strcmp(kind, "bridge") == 0 || strcmp(kind, "openvswitch") == 0)
		return NET_KIND_BRIDGE;
	if (strcmp(kind, "vlan") == 0)
		return NET_KIND_VLAN;
	if (strcmp(kind, "bond") == 0 || strcmp(kind, "team") == 0)
		return NET_KIND_BOND;
	if (*kind || type != ARPHRD_ETHER)
		return NET_KIND_VIRTUAL;
	/* The host's end of a guest's VIF says no kind. */
	return strncmp(link->interface.name, "vif", 3) == 0 &&
			       link->interface.name[3] >= '0' &&
			       link->interface.name[3] <= '9'
		       ? NET_KIND_VIRTUAL
		       : NET_KIND_PHYSICAL;
}

static void copy_text(char *to, size_t size, const struct nlattr *attr)
{
	size_t len = mnl_attr_get_payload_len(attr);
	if (len >= size)
		len = size - 1;
	memcpy(to, mnl_attr_get_payload(attr), len);
	to[len] = '\0';
}

static void parse_linkinfo(struct rtnl_link *link, const struct nlattr *nest)
{
	const struct nlattr *attr, *inner;
	mnl_attr_for_each_nested(attr, nest)
	{
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
			copy_text(link->kind, sizeof link->kind, attr);
		if (mnl_attr_get_type(attr) != IFLA_INFO_DATA ||
			strcmp(link->kind, "vlan") != 0)
			continue;
		mnl_attr_for_each_nested(inner, attr)
		{
			if (mnl_attr_get_type(inner) == IFLA_VLAN_ID &&
				mnl_attr_validate(inner, MNL_TYPE_U16) >= 0)
				link->interface.vlan = mnl_attr_get_u16(inner);
		}
	}
}

static void parse_altnames(struct rtnl_link *link, const struct nlattr *nest)
{
	const struct nlattr *attr;
	mnl_attr_for_each_nested(attr, nest)
	{
		char name[64];
		copy_text(name, sizeof name, attr);
		if (mnl_attr_get_type(attr) == IFLA_ALT_IFNAME &&
			strncmp(name, PLUGGED, sizeof PLUGGED - 1) == 0 &&
			uuid_parse(&link->plugged, name + sizeof PLUGGED - 1,
				strlen(name + sizeof PLUGGED - 1)))
			link->plugged = UUID_NONE;
	}
}

static void parse_attribute(struct rtnl_link *link, const struct nlattr *attr)
{
	struct net_interface *in = &link->interface;
	size_t len = mnl_attr_get_payload_len(attr);
	const uint8_t *b = mnl_attr_get_payload(attr);
	switch (mnl_attr_get_type(attr)) {
	case IFLA_IFNAME:
		copy_text(in->name, sizeof in->name, attr);
		break;
	case IFLA_IFALIAS:
		copy_text(link->alias, sizeof link->alias, attr);
		break;
	case IFLA_ADDRESS:
		if (len == 6)
			snprintf(in->mac, sizeof in->mac, "%02x:%02x:%02x:%02x:%02x:%02x",
				b[0], b[1], b[2], b[3], b[4], b[5]);
		break;
	case IFLA_MTU:
		in->mtu = len == 4 ? (int)mnl_attr_get_u32(attr) : 0;
		break;
	case IFLA_CARRIER:
		in->carrier = len == 1 && *b;
		break;
	case IFLA_MASTER:
		link->master = len == 4 ? (int)mnl_attr_get_u32(attr) : 0;
		break;
	case IFLA_LINK:
		link->lower = len == 4 ? (int)mnl_attr_get_u32(attr) : 0;
		break;
	case IFLA_LINKINFO:
		parse_linkinfo(link, attr);
		break;
	case IFLA_PROP_LIST:
		parse_altnames(link, attr);
		break;
	default:
		break;
	}
}

/* Made by Reeve (alias "reeve:UUID") or plugged by it. */
static void find_owner(struct rtnl_link *link)
{
	struct net_interface *in = &link->interface;
	if (strncmp(link->alias, "reeve:", 6) == 0 &&
		uuid_parse(&in->owner, link->alias + 6, strlen(link->alias + 6)) == 0)
		in->managed = true;
	else if (!uuid_is_none(&link->plugged)) {
		in->owner = link->plugged;
		in->managed = true;
	}
}

static void parse_link(const struct nlmsghdr *nlh, struct rtnl_link *link)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	*link = (struct rtnl_link){.interface.vlan = NET_VLAN_NONE};
	link->interface.index = info->ifi_index;
	link->interface.up = info->ifi_flags & IFF_UP;
	mnl_attr_for_each(attr, nlh, sizeof *info) parse_attribute(link, attr);
	link->interface.kind = kind_of(link, info->ifi_type);
	find_owner(link);
}

struct links {
	struct rtnl_link *list;
	size_t count, size;
};

static int take_link(const struct nlmsghdr *nlh, void *arg)
{
	struct links *links = arg;
	if (nlh->nlmsg_type != RTM_NEWLINK || links->count == NET_MAX_INTERFACES)
		return 0;
	if (links->count == links->size) {
		size_t size = links->size ? links->size * 2 : 32;
		void *grown = realloc(links->list, size * sizeof *links->list);
		if (!grown)
			return RV_ENOMEM;
		links->list = grown;
		links->size = size;
	}
	parse_link(nlh, &links->list[links->count++]);
	return 0;
}

static struct rtnl_link *by_index(const struct links *links, int index)
{
	for (size_t i = 0; i < links->count; i++)
		if (links->list[i].interface.index == index)
			return &links->list[i];
	return NULL;
}

static int take_address(const struct nlmsghdr *nlh, void *arg)
{
	struct links *links = arg;
	const struct ifaddrmsg *info = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr, *best = NULL;
	char text[INET6_ADDRSTRLEN];
	if (nlh->nlmsg_type != RTM_NEWADDR || info->ifa_scope >= RT_SCOPE_LINK)
		return 0;
	struct rtnl_link *link = by_index(links, (int)info->ifa_index);
	mnl_attr_for_each(attr, nlh, sizeof *info)
	{
		/* LOCAL is our own end of a point-to-point one. */
		if (mnl_attr_get_type(attr) == IFA_LOCAL ||
			(mnl_attr_get_type(attr) == IFA_ADDRESS && !best))
			best = attr;
	}
	size_t needed = info->ifa_family == AF_INET ? 4 : 16;
	if (!link || !best || mnl_attr_get_payload_len(best) != needed ||
		!inet_ntop(
			info->ifa_family, mnl_attr_get_payload(best), text, sizeof text))
		return 0;
	if (link->interface.address_count++ == 0)
		snprintf(link->interface.address, sizeof link->interface.address, "%s/%d",
			text, info->ifa_prefixlen);
	return 0;
}

static int speed_of(const struct rtnl *rt, const char *name)
{
	struct ethtool_cmd command = {.cmd = ETHTOOL_GSET};
	struct ifreq request = {0};
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	request.ifr_data = (void *)&command;
	if (rt->ethtool_fd < 0 || ioctl(rt->ethtool_fd, SIOCETHTOOL, &request))
		return 0;
	uint32_t speed = ethtool_cmd_speed(&command);
	return speed > 10000000 ? 0 : (int)speed;
}

int rtnl_links(
	struct rtnl *rt, struct rtnl_link **list, size_t *count, struct rv_error *e)
{
	char buffer[256];
	struct links links = {0};
	struct nlmsghdr *nlh = link_request(rt, buffer, RTM_GETLINK, NLM_F_DUMP, 0);
	int rc = talk(rt, nlh, "listing the interfaces", take_link, &links, e);
	if (rc == 0) {
		nlh = request(rt, buffer, RTM_GETADDR, NLM_F_DUMP);
		struct ifaddrmsg *info = mnl_nlmsg_put_extra_header(nlh, sizeof *info);
		info->ifa_family = AF_UNSPEC;
		rc = talk(rt, nlh, "listing the addresses", take_address, &links, e);
	}
	if (rc) {
		free(links.list);
		return rc;
	}
	for (size_t i = 0; i < links.count; i++) {
		struct rtnl_link *link = &links.list[i];
		const struct rtnl_link *master = by_index(&links, link->master);
		const struct rtnl_link *lower = by_index(&links, link->lower);
		if (link->master && master)
			memcpy(link->interface.master, master->interface.name,
				NET_NAME_SIZE);
		if (link->interface.kind == NET_KIND_VLAN && lower)
			memcpy(link->interface.lower, lower->interface.name,
				NET_NAME_SIZE);
		if (link->interface.kind == NET_KIND_PHYSICAL)
			link->interface.speed_mbit = speed_of(rt, link->interface.name);
	}
	*list = links.list;
	*count = links.count;
	return 0;
}

static int take_one(const struct nlmsghdr *nlh, void *arg)
{
	if (nlh->nlmsg_type == RTM_NEWLINK)
		parse_link(nlh, arg);
	return 0;
}

int rtnl_link_get(
	struct rtnl *rt, const char *name, struct rtnl_link *link, struct rv_error *e)
{
	char buffer[256];
	struct nlmsghdr *nlh = link_request(rt, buffer, RTM_GETLINK, 0, 0);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	*link = (struct rtnl_link){.interface.vlan = NET_VLAN_NONE};
	int rc = talk(rt, nlh, name, take_one, link, e);
	/* An alternative name finds it too; that is not what was asked for. */
	if (rc == 0 && strcmp(link->interface.name, name) != 0)
		rc = rv_error_set(e, RV_ENOENT, "%s: no such interface", name);
	return rc;
}

/* --- changing --- */

int rtnl_bridge_add(struct rtnl *rt, const char *name, const uint8_t mac[6], int mtu,
	struct rv_error *e)
{
	char buffer[512];
	struct nlmsghdr *nlh = link_request(
		rt, buffer, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 0);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	mnl_attr_put(nlh, IFLA_ADDRESS, 6, mac);
	if (mtu)
		mnl_attr_put_u32(nlh, IFLA_MTU, (uint32_t)mtu);
	struct nlattr *nest = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "bridge");
	mnl_attr_nest_end(nlh, nest);
	return talk(rt, nlh, "making the bridge", NULL, NULL, e);
}

int rtnl_vlan_add(
	struct rtnl *rt, const char *name, int lower, int vlan, struct rv_error *e)
{
	char buffer[512];
	struct nlmsghdr *nlh = link_request(
		rt, buffer, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 0);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	mnl_attr_put_u32(nlh, IFLA_LINK, (uint32_t)lower);
	struct nlattr *nest = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "vlan");
	struct nlattr *data = mnl_attr_nest_start(nlh, IFLA_INFO_DATA);
	mnl_attr_put_u16(nlh, IFLA_VLAN_ID, (uint16_t)vlan);
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, nest);
	return talk(rt, nlh, "making the VLAN device", NULL, NULL, e);
}

int rtnl_link_remove(struct rtnl *rt, int index, struct rv_error *e)
{
	char buffer[256];
	struct nlmsghdr *nlh = link_request(rt, buffer, RTM_DELLINK, NLM_F_ACK, index);
	return talk(rt, nlh, "removing the interface", NULL, NULL, e);
}

int rtnl_set_up(struct rtnl *rt, int index, struct rv_error *e)
{
	char buffer[256];
	struct nlmsghdr *nlh = link_request(rt, buffer, RTM_NEWLINK, NLM_F_ACK, index);
	struct ifinfomsg *info = mnl_nlmsg_get_payload(nlh);
	info->ifi_flags = IFF_UP;
	info->ifi_change = IFF_UP;
	return talk(rt, nlh, "bringing the interface up", NULL, NULL, e);
}

int rtnl_set_mtu(struct rtnl *rt, int index, int mtu, struct rv_error *e)
{
	char buffer[256];
	struct nlmsghdr *nlh = link_request(rt, buffer, RTM_NEWLINK, NLM_F_ACK, index);
	mnl_attr_put_u32(nlh, IFLA_MTU, (uint32_t)mtu);
	return talk(rt, nlh, "setting the MTU", NULL, NULL, e);
}

int rtnl_set_master(struct rtnl *rt, int index, int master, struct rv_error *e)
{
	char buffer[256];
	struct nlmsghdr *nlh = link_request(rt, buffer, RTM_NEWLINK, NLM_F_ACK, index);
	mnl_attr_put_u32(nlh, IFLA_MASTER, (uint32_t)master);
	return talk(rt, nlh,
		master ? "putting it into the bridge" : "taking it out of the bridge",
		NULL, NULL, e);
}

int rtnl_set_alias(struct rtnl *rt, int index, const char *alias, struct rv_error *e)
{
	char buffer[512];
	struct nlmsghdr *nlh = link_request(rt, buffer, RTM_NEWLINK, NLM_F_ACK, index);
	mnl_attr_put(nlh, IFLA_IFALIAS, strlen(alias), alias);
	return talk(rt, nlh, "marking it as Reeve's", NULL, NULL, e);
}

int rtnl_altname(
	struct rtnl *rt, int index, const char *name, bool add, struct rv_error *e)
{
	char buffer[512];
	struct nlmsghdr *nlh = link_request(rt, buffer,
		add ? RTM_NEWLINKPROP : RTM_DELLINKPROP,
		NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND : 0), index);
	struct nlattr *nest = mnl_attr_nest_start(nlh, IFLA_PROP_LIST);
	mnl_attr_put_strz(nlh, IFLA_ALT_IFNAME, name);
	mnl_attr_nest_end(nlh, nest);
	return talk(
		rt, nlh, add ? "marking it as plugged" : "unmarking it", NULL, NULL, e);
}
