#include "pool/raft_conf.h"

#include "base/bytes.h"

#include <stdint.h>
#include <string.h>

enum { CONF_FORMAT = 1, CONF_MAX_SERVERS = 1024 };

/* One server at *at; moves it on. */
static int conf_server(
	const uint8_t **at, const uint8_t *end, struct raft_configuration *conf)
{
	const uint8_t *name = *at + 8, *nul;
	uint64_t id;
	int r;

	if (end - *at < 10)
		return RV_ECORRUPT;
	id = bytes_get_le64(*at);
	nul = memchr(name, 0, (size_t)(end - name));
	if (id == 0 || !nul || nul + 1 >= end || nul[1] > RAFT_SPARE)
		return RV_ECORRUPT;
	r = raft_configuration_add(conf, id, (const char *)name, nul[1]);
	*at = nul + 2;
	return r == RAFT_NOMEM ? RV_ENOMEM : r ? RV_ECORRUPT : 0;
}

int raft_conf_decode(const uint8_t *bytes, size_t len, struct raft_configuration *conf)
{
	const uint8_t *at = bytes + 9, *end = bytes + len;
	uint64_t n;
	int rc = 0;

	raft_configuration_init(conf);
	if (len < 9 || bytes[0] != CONF_FORMAT)
		return RV_ECORRUPT;
	n = bytes_get_le64(bytes + 1);
	if (n == 0 || n > CONF_MAX_SERVERS)
		return RV_ECORRUPT;
	for (uint64_t i = 0; i < n && !rc; i++)
		rc = conf_server(&at, end, conf);
	if (!rc && end - at >= 8) /* libraft pads to 8 bytes */
		rc = RV_ECORRUPT;
	if (rc) {
		raft_configuration_close(conf);
		raft_configuration_init(conf);
	}
	return rc;
}

int raft_conf_copy(const struct raft_configuration *from, struct raft_configuration *to)
{
	int r = 0;

	raft_configuration_init(to);
	for (unsigned i = 0; i < from->n && r == 0; i++)
		r = raft_configuration_add(to, from->servers[i].id,
			from->servers[i].address, from->servers[i].role);
	if (r == 0)
		return 0;
	raft_configuration_close(to);
	raft_configuration_init(to);
	return r == RAFT_NOMEM ? RV_ENOMEM : RV_ECORRUPT;
}

bool raft_conf_sole_voter(const struct raft_configuration *conf, raft_id id)
{
	bool is = false;

	for (unsigned i = 0; i < conf->n; i++) {
		if (conf->servers[i].role != RAFT_VOTER)
			continue;
		if (conf->servers[i].id != id)
			return false;
		is = true;
	}
	return is;
}
