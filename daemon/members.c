#include "daemon/members.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/eject.h"
#include "daemon/emergency.h"
#include "daemon/follow.h"
#include "daemon/forward.h"
#include "daemon/lease.h"
#include "link/peers.h"
#include "link/port.h"
#include "reactor/worker.h"

/* Where the members are, being written down. */
struct keeping {
	struct job job;
	struct identity place; /* of it: raft_id, founder, seeds */
	const char *state_dir;
	struct rv_error error;
	bool running;
};

enum {
	FOLLOW_BATCH = 16, /* changes of hosts in one go */
	/* How much calmer a link is kept that no decision waits for ... */
	CALM = 16,
	VOTERS_CALM = 4, /* two voters of which neither leads: raft looks after itself */
	CALM_HOSTS = 64, /* ... and the more so, the more of them there are */
	SNAPSHOT_HOSTS = 16, /* a small pool */
	/* The master's links in a large pool: so many hosts double the pause. */
	MASTER_HOSTS = 256,
};

struct members {
	struct pool_messenger messenger;
	struct daemon *daemon;
	struct identity identity;
	struct peers *peers;
	struct port *port;
	struct changes_token token;
	uint64_t followed_seq; /* rows changed up to here have been seen */
	struct uuid master;    /* for whom the links' calm was chosen ... */
	bool votes;	       /* ... and for this host as a voter or not */
	bool attached;	       /* the pool listens: before, nobody is linked */
	bool compare_due;      /* members that are gone are to be looked for */
	bool keep_due;	       /* who is a member, or where, changed */
	struct worker *worker;
	struct keeping keeping;
};

/* --- messages --- */

/* Agreement before commits, commits before bulk. */
static enum link_channel channel_of(enum pool_message type)
{
	switch (type) {
	case POOL_MESSAGE_RAFT:
		return LINK_RAFT;
	case POOL_MESSAGE_LIVE:
		return LINK_HEARTBEAT;
	case POOL_MESSAGE_HELLO:
	case POOL_MESSAGE_COMMIT:
	case POOL_MESSAGE_RESULT:
	case POOL_MESSAGE_LEARN:
	case POOL_MESSAGE_PLACE:
		break;
	case POOL_MESSAGE_FEED:
		return LINK_BULK;
	}
	return LINK_RPC;
}

static int messenger_send(struct pool_messenger *pm, const struct uuid *host,
	enum pool_message type, const uint8_t *bytes, size_t len)
{
	struct members *m = CONTAINER_OF(pm, struct members, messenger);
	struct iovec piece = {.iov_base = (void *)bytes, .iov_len = len};

	return peers_send(m->peers, host, channel_of(type), (uint16_t)type, &piece, 1);
}

static const struct pool_messenger_ops messenger_ops = {.send = messenger_send};

int members_send(struct members *m, const struct uuid *host, enum members_message type,
	const void *bytes, size_t len)
{
	struct iovec piece = {.iov_base = (void *)bytes, .iov_len = len};
	bool lease = type == MEMBERS_LEASE_ASK || type == MEMBERS_LEASE;

	return peers_send(m->peers, host, lease ? LINK_HEARTBEAT : LINK_RPC,
		(uint16_t)type, &piece, 1);
}

static void on_message(void *arg, const struct uuid *host, enum link_channel channel,
	uint16_t type, const uint8_t *data, size_t len)
{
	struct members *m = arg;

	switch (type) {
	case POOL_MESSAGE_RAFT:
	case POOL_MESSAGE_HELLO:
	case POOL_MESSAGE_COMMIT:
	case POOL_MESSAGE_RESULT:
	case POOL_MESSAGE_LIVE:
	case POOL_MESSAGE_LEARN:
	case POOL_MESSAGE_FEED:
	case POOL_MESSAGE_PLACE:
		if (channel_of((enum pool_message)type) == channel)
			pool_deliver(m->daemon->pool, host, (enum pool_message)type, data,
				len);
		break;
	case MEMBERS_CALL:
		forward_serve(m->daemon->forward, host, data, len);
		break;
	case MEMBERS_STANDING_ASK:
		emergency_asked(m->daemon, host);
		break;
	case MEMBERS_STANDING:
		emergency_answered(m->daemon, host, data, len);
		break;
	case MEMBERS_LEASE_ASK:
		lease_asked(m->daemon->lease, host, data, len);
		break;
	case MEMBERS_LEASE:
		lease_answered(m->daemon->lease, host, data, len);
		break;
	case MEMBERS_ANSWER:
		forward_answered(m->daemon->forward, host, data, len);
		break;
	default: /* of a newer daemon */
		log_debug("members.message", "type=%u", type);
	}
}

/* --- links --- */

/* Whether the master hears from a host is the master's to say. */
static void tell_live(struct members *m, const struct uuid *host, bool live)
{
	struct value v = value_bool(live);
	struct rv_error e = {0};

	if (pool_is_master(m->daemon->pool) &&
		pool_set_live(m->daemon->pool, *host, HOST_LIVE, &v, &e))
		log_debug("members.live", "error=\"%s\"", e.detail);
}

static void on_up(void *arg, const struct uuid *host)
{
	struct members *m = arg;
	char text[UUID_TEXT_SIZE];

	log_info("members.up", "host=%s", uuid_format(host, text));
	pool_peer_up(m->daemon->pool, host);
	tell_live(m, host, true);
	forward_look(m->daemon->forward);
	lease_look(m->daemon->lease);
}

static void on_down(void *arg, const struct uuid *host, int rc, const char *reason)
{
	struct members *m = arg;
	char text[UUID_TEXT_SIZE];

	log_warn("members.down", "host=%s rc=%s reason=\"%s\"", uuid_format(host, text),
		rv_error_symbol(rc), reason);
	pool_peer_down(m->daemon->pool, host);
	forward_host_down(m->daemon->forward, host);
	forward_look(m->daemon->forward);
	tell_live(m, host, false);
}

static void on_ejected(void *arg, const struct uuid *host, const char *reason)
{
	struct members *m = arg;

	ejection_told(m->daemon, host, reason);
}

static void on_room(void *arg, const struct uuid *host, enum link_channel channel)
{
	struct members *m = arg;

	if (channel == LINK_RPC)
		forward_room(m->daemon->forward, host);
}

static const struct peers_events peers_events = {.up = on_up,
	.down = on_down,
	.message = on_message,
	.room = on_room,
	.ejected = on_ejected};

void members_tell_live(struct members *m)
{
	const struct db *db = pool_db(m->daemon->pool);

	for (const struct row *h = db_next(db, CLASS_HOST, NULL); h;
		h = db_next(db, CLASS_HOST, h)) {
		struct uuid host = row_uuid(h);

		tell_live(m, &host,
			uuid_eq(&host, &m->daemon->host) || peers_is_up(m->peers, &host));
	}
}

int members_status(
	const struct members *m, const struct uuid *host, struct peer_status *out)
{
	return peers_status(m->peers, host, out);
}

bool members_is_up(const struct members *m, const struct uuid *host)
{
	return peers_is_up(m->peers, host);
}

bool members_clock(
	const struct members *m, const struct uuid *host, struct clock_estimate *out)
{
	struct peer_status s;

	if (peers_status(m->peers, host, &s) || s.state != PEER_UP || !s.link.clock.known)
		return false;
	*out = s.link.clock;
	return true;
}

/* --- the list --- */

static bool is_voter(const struct row *host)
{
	return host && db_enum(host, HOST_RAFT_ROLE) != HOST_RAFT_ROLE_LEARNER &&
	       db_enum(host, HOST_RAFT_ROLE) != HOST_RAFT_ROLE_STANDBY;
}

/* The end of the master is to be known to all at once, and that of any host to the
 * master. Of others it is enough to find it out in a while. */
static int calm_of(const struct members *m, const struct row *host)
{
	int hosts = (int)db_count(pool_db(m->daemon->pool), CLASS_HOST);
	struct uuid uuid = row_uuid(host);
	bool live = db_bool(host, HOST_LIVE);
	bool leads = uuid_eq(&m->master, &uuid) || uuid_eq(&m->master, &m->daemon->host);

	if (m->votes && is_voter(host))
		return leads || !live ? 1 : VOTERS_CALM;
	if (leads)
		return 1 + hosts / MASTER_HOSTS;
	/* The master hears it no more: whoever waits for it should know soon too. */
	if (!live)
		return 1;
	return CALM * (1 + hosts / CALM_HOSTS);
}

/* Who leads or votes may have changed. */
static void members_calm(struct members *m)
{
	const struct db *db = pool_db(m->daemon->pool);
	struct uuid master = pool_master(m->daemon->pool);
	bool votes = is_voter(db_row(db, CLASS_HOST, m->daemon->host));

	if (uuid_is_none(&master) || (uuid_eq(&master, &m->master) && votes == m->votes))
		return;
	m->master = master;
	m->votes = votes;
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));) {
		struct uuid host = row_uuid(h);

		peers_set_calm(m->peers, &host, calm_of(m, h));
	}
}

static void member_pin(struct peer_member *member, const char *certificate)
{
	int64_t issued_s, expires_s;
	struct rv_error e;

	if (!*certificate || ca_times(certificate, &issued_s, &expires_s, &e) ||
		ca_fingerprint(certificate, member->pins[member->pin_count], &e))
		return;
	member->pin_count++;
	if (issued_s > member->issued_s)
		member->issued_s = issued_s;
}

static void member_set(struct members *m, const struct uuid *host, const char *address)
{
	const struct row *row = db_row(pool_db(m->daemon->pool), CLASS_HOST, *host);
	/* Who leaves the pool is removed, so a certificate is only ever replaced. */
	struct peer_member member = {.host = *host, .dial = true, .replaced = true};
	struct rv_error e = {0};

	if (uuid_eq(host, &m->daemon->host))
		return;
	/* Once it has recorded its certificate, no earlier one is it. */
	if (row) {
		member_pin(&member, db_string(row, HOST_CERTIFICATE));
		member_pin(&member, db_string(row, HOST_CERTIFICATE_NEXT));
		member.calm = calm_of(m, row);
	}
	snprintf(member.address, sizeof member.address, "%s", address);
	if (peers_set(m->peers, &member, &e))
		log_error("members.set", "address=%s error=\"%s\"", address, e.detail);
}

/* Its host's row is gone. */
static void member_gone(struct members *m, const struct uuid *host)
{
	struct rv_error e = {0};
	struct peer_status s;
	int rc = 0;

	if (peers_status(m->peers, host, &s))
		return;
	if (s.state == PEER_UP && ejection_admit(m->daemon, host, s.fingerprint, 0, &e))
		rc = peers_dismiss(m->peers, host, e.code, e.detail);
	else
		rc = peers_remove(m->peers, host);
	if (!rc)
		log_info("members.removed", "msg=\"its link is closed\"");
}

static int member_changed(void *arg, const struct change *c)
{
	struct members *m = arg;

	m->keep_due |= !c->row || row_seq(c->row) > m->followed_seq;
	if (!c->row)
		member_gone(m, &c->uuid);
	else if (*db_string(c->row, HOST_ADDRESS) && row_seq(c->row) > m->followed_seq)
		member_set(m, &c->uuid, db_string(c->row, HOST_ADDRESS));
	else
		peers_set_calm(m->peers, &c->uuid, calm_of(m, c->row));
	return 0;
}

/* After a snapshot nobody says who went meanwhile. */
static void members_compare(struct members *m)
{
	const struct db *db = pool_db(m->daemon->pool);
	struct peer_status s;
	size_t cursor = 0;

	/* Those written down count until the database is this day's, and has this host:
	 * a voter that starts may know of an old snapshot only, and needs the others to
	 * learn more. */
	if (!db_row(db, CLASS_HOST, m->daemon->host) || pool_age_ms(m->daemon->pool) < 0)
		return;
	m->compare_due = false;
	while (peers_next(m->peers, &cursor, &s)) {
		if (db_row(db, CLASS_HOST, s.host))
			continue;
		member_gone(m, &s.host);
		cursor = 0; /* the list has changed */
	}
}

static void keep_run(struct job *job)
{
	struct keeping *k = CONTAINER_OF(job, struct keeping, job);

	rv_error_clear(&k->error);
	if (identity_keep_place(&k->place, k->state_dir, &k->error))
		return;
}

static void keep_done(struct job *job, int rc)
{
	struct keeping *k = CONTAINER_OF(job, struct keeping, job);

	k->running = false;
	if (!rc && k->error.code)
		log_warn("members.keep", "error=\"%s\"", k->error.detail);
}

static void seed_add(struct members *m, struct identity *place, const struct row *host)
{
	struct peer_member *seed = &place->seeds[place->seed_count];
	struct uuid uuid = row_uuid(host);

	if (place->seed_count == IDENTITY_MAX_SEEDS || uuid_eq(&uuid, &m->daemon->host) ||
		!*db_string(host, HOST_ADDRESS))
		return;
	seed->host = uuid;
	seed->dial = true;
	snprintf(
		seed->address, sizeof seed->address, "%s", db_string(host, HOST_ADDRESS));
	place->seed_count++;
}

/* A voter that starts knows of the database only what was in its last snapshot, until it
 * hears from the others: so it must know them from elsewhere. Servers of the log first. A
 * small pool, which may lose its quorum for good while it is young, has a snapshot taken
 * besides: questions, and pool-emergency-transition-to-master, need the hosts' records.
 */
static void members_keep(struct members *m)
{
	const struct db *db = pool_db(m->daemon->pool);
	struct keeping *k = &m->keeping;
	struct identity *now = calloc(1, sizeof *now);

	if (!now || k->running)
		goto out; /* the next change of the database has us come again */
	m->keep_due = false;
	now->raft_id = m->identity.raft_id;
	now->founder = m->identity.founder;
	for (int round = 0; round < 2; round++)
		for (const struct row *h = db_next(db, CLASS_HOST, NULL); h;
			h = db_next(db, CLASS_HOST, h))
			if ((db_enum(h, HOST_RAFT_ROLE) == HOST_RAFT_ROLE_LEARNER) ==
				(round == 1))
				seed_add(m, now, h);
	/* Not less than what is known, until the database is this day's. */
	if (pool_age_ms(m->daemon->pool) < 0 || now->seed_count == 0) {
		m->keep_due = now->seed_count > 0;
		goto out;
	}
	if (memcmp(now->seeds, k->place.seeds, sizeof now->seeds) == 0)
		goto out;
	k->place = *now;
	if (db_count(db, CLASS_HOST) <= SNAPSHOT_HOSTS)
		pool_snapshot(m->daemon->pool);
	k->job = (struct job){.run = keep_run, .done = keep_done, .name = "members.keep"};
	k->state_dir = m->daemon->config->state_dir;
	k->running = worker_submit(m->worker, &k->job) == 0;
out:
	free(now);
}

/* Of this life of the pool, so that what the token says of the database holds. */
static bool follows_on(const struct members *m, const struct db *db)
{
	struct uuid generation =
		db_pool(db) ? db_ref(db_pool(db), POOL_GENERATION_ID) : UUID_NONE;

	return uuid_eq(&generation, &m->token.generation);
}

void members_follow(struct members *m)
{
	const struct db *db = pool_db(m->daemon->pool);
	enum changes_status status = CHANGES_NONE;

	members_calm(m);
	do {
		/* After a snapshot, or a while away, certificates are read, too. */
		if (status != CHANGES_NONE && follow_is_long(m->daemon)) {
			follow_once_more(m->daemon);
			return;
		}
		/* Live fields change often, addresses and certificates hardly ever. */
		m->followed_seq = follows_on(m, db) ? m->token.seq : 0;
		if (changes_since(db, &m->token, CHANGES_CLASS(CLASS_HOST), FOLLOW_BATCH,
			    member_changed, m, &status))
			return;
		m->compare_due |= status == CHANGES_FRESH;
	} while (status == CHANGES_SOME || status == CHANGES_FRESH);
	if (m->compare_due)
		members_compare(m);
	if (m->keep_due)
		members_keep(m);
}

void members_attach(struct members *m)
{
	const struct identity *id = &m->identity;

	m->attached = true;
	for (int i = 0; i < id->seed_count; i++)
		member_set(m, &id->seeds[i].host, id->seeds[i].address);
}

/* --- what this host shows --- */

static int client_tls(const struct identity *id, const char *alpn,
	struct tls_context **out, struct rv_error *e)
{
	char *chain = identity_chain(id);
	int rc = chain ? port_client_tls(out, alpn, chain, id->key_pem, id->ca_pem, e)
		       : rv_error_set(e, RV_ENOMEM, "out of memory");

	free(chain);
	return rc;
}

static int server_tls(
	const struct identity *id, struct tls_context **out, struct rv_error *e)
{
	char *chain = identity_chain(id);
	int rc = chain ? port_tls(out, chain, id->key_pem, id->ca_pem, e)
		       : rv_error_set(e, RV_ENOMEM, "out of memory");

	free(chain);
	return rc;
}

struct identity *members_identity_edit(struct members *m)
{
	return &m->identity;
}

int members_use_identity(struct members *m, struct rv_error *e)
{
	struct tls_context *server, *client;
	int rc = server_tls(&m->identity, &server, e);

	if (rc)
		return rc;
	rc = client_tls(&m->identity, PORT_ALPN_LINK, &client, e);
	if (!rc) {
		port_set_tls(m->port, server);
		peers_set_tls(m->peers, client);
		tls_context_unref(client);
	}
	tls_context_unref(server);
	return rc;
}

/* --- connections for one use --- */

int members_connect(struct members *m, const struct uuid *host, const char *alpn,
	struct stream_config *config, struct stream **out, struct rv_error *e)
{
	const struct identity *id = &m->identity;
	struct peer_status s;
	struct tls_context *tls;
	int rc = peers_status(m->peers, host, &s);

	if (rc)
		return rv_error_set(e, rc, "that host is no member of this pool");
	rc = client_tls(id, alpn, &tls, e);
	if (rc)
		return rc;
	config->tls = tls;
	rc = stream_connect(out, m->daemon->loop, s.address, config, e);
	tls_context_unref(tls);
	return rc;
}

int members_register(struct members *m, const char *alpn, bool strangers,
	void (*accept)(void *arg, struct stream *stream), void *arg)
{
	struct port_acceptor acceptor = {
		.alpn = alpn, .accept = accept, .arg = arg, .strangers = strangers};

	return port_register(m->port, &acceptor);
}

void members_closed(struct members *m, const char *alpn)
{
	port_closed(m->port, alpn);
}

/* --- beginning and ending --- */

static int admit(void *arg, const struct tls_peer *peer, struct rv_error *e)
{
	const char *named = peer->unverified ? peer->claimed_uuid : peer->uuid;
	struct members *m = arg;
	struct uuid host;
	int rc = 0;

	/* What came on a link before the pool is open would be lost, and the link not
	 * know it: the peer dials again. */
	if (!m->attached)
		return rv_error_set(e, RV_EAGAIN, "this host is only starting");
	if (!uuid_parse(&host, named, strlen(named)))
		rc = ejection_admit(
			m->daemon, &host, peer->fingerprint, peer->issued_s, e);
	return rc ? rc : peers_admit(m->peers, peer, &host, e);
}

static void accept_link(void *arg, struct stream *stream)
{
	struct members *m = arg;

	peers_accept(m->peers, stream); /* which bounds its own connections */
	port_closed(m->port, PORT_ALPN_LINK);
}

static int open_peers(struct members *m, struct rv_error *e)
{
	const struct identity *id = &m->identity;
	int patience = (int)m->daemon->config->pool_patience;
	struct peers_config config = {.events = &peers_events,
		.arg = m,
		.self = m->daemon->host,
		.dial_timeout_ms = 3000 * patience,
		.timing = {.probe_ms = 250 * patience,
			.silence_ms = 1000 * patience,
			.hello_ms = 5000 * patience}};
	struct tls_context *tls;
	int rc = client_tls(id, PORT_ALPN_LINK, &tls, e);

	if (rc)
		return rc;
	config.tls = tls;
	rc = peers_new(&m->peers, m->daemon->loop, &config, e);
	tls_context_unref(tls);
	return rc;
}

static int open_port(struct members *m, struct rv_error *e)
{
	const struct identity *id = &m->identity;
	struct port_config config = {.address = m->daemon->config->pool_listen,
		.admit = admit,
		.admit_arg = m};
	struct tls_context *tls;
	int rc = server_tls(id, &tls, e);

	if (rc)
		return rc;
	config.tls = tls;
	rc = port_open(&m->port, m->daemon->loop, &config, e);
	tls_context_unref(tls);
	if (!rc)
		rc = members_register(m, PORT_ALPN_LINK, false, accept_link, m);
	if (!rc)
		log_info("members.listen", "address=%s", config.address);
	return rc;
}

int members_open(struct members **out, struct daemon *d, struct rv_error *e)
{
	const char *names[] = {NULL}; /* hosts know each other by UUID */
	struct members *m = calloc(1, sizeof *m);
	int rc;

	if (!m)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	m->daemon = d;
	m->messenger.ops = &messenger_ops;
	*out = m; /* freed by members_free, whatever follows */
	if (worker_new(&m->worker, d->loop, "members.keep"))
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	rc = identity_open(&m->identity, d->config->state_dir, &d->host, names, e);
	if (!rc)
		rc = open_peers(m, e);
	return rc ? rc : open_port(m, e);
}

void members_free(struct members *m)
{
	if (!m)
		return;
	worker_free(m->worker);
	port_free(m->port);
	peers_free(m->peers);
	identity_fini(&m->identity);
	free(m);
}

const struct identity *members_identity(const struct members *m)
{
	return &m->identity;
}

struct pool_messenger *members_messenger(struct members *m)
{
	return &m->messenger;
}

const char *members_address(const struct members *m)
{
	const struct config *c = m->daemon->config;

	return *c->pool_address ? c->pool_address : c->pool_listen;
}
