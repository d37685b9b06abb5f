#include "daemon/quorum.h"

#include <stdio.h>
#include <string.h>

#include "base/mpcheck.h"
#include "daemon/members.h"

/* Adds ", NAME", or "…" where there is no room. */
static void name_add(char *list, size_t size, const char *name)
{
	size_t used = strlen(list), len = strlen(name);

	if (used + len + 8 < size)
		snprintf(list + used, size - used, "%s%s", used ? ", " : "", name);
	else if (used + 6 < size && !strstr(list, "…"))
		snprintf(list + used, size - used, ", …");
}

void quorum_look(const struct daemon *d, struct quorum_view *out)
{
	const struct db *db = pool_db(d->pool);

	*out = (struct quorum_view){0};
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));) {
		struct uuid uuid = row_uuid(h);

		if (db_enum(h, HOST_RAFT_ROLE) != HOST_RAFT_ROLE_VOTER)
			continue;
		out->voters++;
		if (uuid_eq(&uuid, &d->host) || members_is_up(d->members, &uuid))
			out->answering++;
		else
			name_add(out->missing, sizeof out->missing, row_name(h));
	}
}

bool quorum_lost(const struct daemon *d, char out[static QUORUM_WORDS])
{
	struct quorum_view v;
	struct uuid master;
	int64_t age_ms;

	out[0] = '\0';
	if (!d->members)
		return false;
	master = pool_master(d->pool);
	age_ms = pool_age_ms(d->pool);
	if (!uuid_is_none(&master) && age_ms >= 0 && age_ms <= POOL_STALE_MS)
		return false;
	quorum_look(d, &v);
	if (v.answering > v.voters / 2)
		snprintf(out, QUORUM_WORDS,
			"the pool has no master that this host hears, though %d of its "
			"%d voters answer here: one is elected in a moment, else see "
			"`reeve pool-status`",
			v.answering, v.voters);
	else if (v.voters == 1)
		snprintf(out, QUORUM_WORDS,
			"the pool has no master: its only voter, %s, does not answer "
			"here. Start that host or mend the network (`reeve pool-status` "
			"shows more); only if it is lost for good: "
			"pool-emergency-transition-to-master",
			v.missing);
	else
		snprintf(out, QUORUM_WORDS,
			"the pool has no master: %d of its %d voters answer here, %d are "
			"needed, and these are missing: %s. Start those hosts or mend "
			"the network (`reeve pool-status` shows more); only if they are "
			"lost for good: pool-emergency-transition-to-master",
			v.answering, v.voters, v.voters / 2 + 1, v.missing);
	return true;
}

static bool may_come_of_it(int code)
{
	return code == RV_ENOTMASTER || code == RV_ETIMEDOUT || code == RV_EOUTCOME ||
	       code == RV_ECLOSED || code == RV_ESTALE || code == RV_EAGAIN ||
	       code == RV_EBUSY; /* what is at work can't end either */
}

void quorum_explain(const struct daemon *d, struct rv_error *e)
{
	char words[QUORUM_WORDS];
	size_t len = strlen(e->detail);

	if (!may_come_of_it(e->code) || d->stopping || !quorum_lost(d, words))
		return;
	/* The cause is worth more than the end of long words before it. */
	if (len + strlen(words) + 3 > sizeof e->detail) {
		len = sizeof e->detail - strlen(words) - 3;
		e->detail[len] = '\0';
		mpcheck_mend_utf8(e->detail);
		len = strlen(e->detail);
	}
	snprintf(e->detail + len, sizeof e->detail - len, ". %c%s", words[0] - 'a' + 'A',
		words + 1);
}
