/*
 * Many members of one pool in one process, each with a certificate and a TLS link of its
 * own to the master, as hosts have them. They join with one-time tokens through the real
 * handshake, follow the stream of entries and acknowledge it, and send metrics of their
 * host and its VMs once a second. Those that the master takes into raft's configuration
 * acknowledge its messages too.
 *
 * They keep no database: what they cost this process tells nothing of what a host costs,
 * only the master's side does.
 *
 *	JOIN (some at a time) ──► RECORD (the VMs) ──► LINK ──► METRICS, until killed
 */
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/bytes.h"
#include "base/log.h"
#include "link/join.h"
#include "link/peers.h"
#include "link/port.h"
#include "perf/report.h"
#include "pool/db/txn.h"
#include "pool/learner_wire.h"
#include "pool/messenger.h"
#include "pool/raft_message.h"
#include "pool/remote_wire.h"

enum {
	JOINS = 4,   /* at once */
	RECORDS = 8, /* commits at once */
	EARLY = 16,  /* linked as they join, for the master to choose voters from */
	LINKS = 16,  /* dialled at once */
	LOOK_MS = 20,
	METRICS_MS = 1000,
	FACTS_MAX = 8192,
	VM_BYTES = 16 << 20,
};

struct member {
	struct load *load;
	int number;
	struct uuid host;
	char *csr_pem, *key_pem;
	struct join_op join;
	struct uuid request;
	bool joining, joined;
	uint64_t asked; /* the id of the commit of its VMs; 0: to be asked */
	bool recorded;
	struct peers *peers;
	struct uuid master;
	bool up, followed;
	uint64_t session, position, index, term, raft_id;
	struct timer metrics;
	struct uuid *vms;
};

struct load {
	struct loop *loop;
	const char *address, *xen;
	uint8_t cpu[FACTS_MAX];
	size_t cpu_len;
	char (*tokens)[256];
	struct member *members;
	int count, vms, joined, linked, up, followed;
	struct rlog_generation generation;
	struct timer look;
	/* as the first member knows it, on behalf of all */
	uint64_t start, master_start, term, index, index_term;
	uint64_t last_ask;
	int recorded;
	bool told;
	unsigned long messages, bytes;
};

static void must(int rc, const struct rv_error *e, const char *what)
{
	if (rc)
		report_die("members: %s: %s", what,
			e->detail[0] ? e->detail : rv_error_text(rc));
}

static int pack_write(void *b, const char *bytes, size_t len)
{
	return buf_append(b, bytes, len) ? -1 : 0;
}

/* --- what a member says --- */

static void say(struct member *m, enum link_channel channel, enum pool_message type,
	const void *bytes, size_t len)
{
	struct iovec piece = {(void *)bytes, len};

	/* A link that is gone comes back; what a full queue drops follows again. */
	(void)!peers_send(m->peers, &m->master, channel, (uint16_t)type, &piece, 1);
}

static void say_learn(struct member *m, enum learn_kind kind)
{
	struct learn_message l = {.kind = kind,
		.session = m->session,
		.generation = m->load->generation,
		.index = m->index,
		.term = m->term,
		.position = m->position,
		.stored = m->index};
	struct buf b;

	buf_init(&b, 256);
	must(learn_encode(&l, &b), &(struct rv_error){0}, "learner message");
	say(m, LINK_RPC, POOL_MESSAGE_LEARN, buf_data(&b), buf_len(&b));
	buf_fini(&b);
}

static void follow(struct member *m)
{
	struct load *l = m->load;

	/* The first follows from the beginning; the others would do no more than that
	 * again, and begin where it is. */
	m->index = m->number ? l->index : 0;
	m->term = m->number ? l->index_term : 0;
	m->position = 0;
	m->session = prng_next(loop_prng(l->loop));
	say_learn(m, LEARN_ASK);
}

static void pack_live(
	msgpack_packer *pk, struct uuid uuid, enum schema_field_id field, double number)
{
	const struct schema_field *f = schema_field(field);

	msgpack_pack_array(pk, 4);
	msgpack_pack_bin(pk, sizeof uuid.b);
	msgpack_pack_bin_body(pk, uuid.b, sizeof uuid.b);
	msgpack_pack_uint16(pk, schema_class(f->cls)->tag);
	msgpack_pack_uint16(pk, f->tag);
	if (f->type == VALUE_FLOAT)
		msgpack_pack_double(pk, number);
	else
		msgpack_pack_int64(pk, (int64_t)number);
}

static void on_metrics(void *arg)
{
	struct member *m = arg;
	struct prng *prng = loop_prng(m->load->loop);
	msgpack_packer pk;
	struct buf b;

	timer_start_ms(&m->metrics, METRICS_MS);
	buf_init(&b, 1 << 20);
	msgpack_packer_init(&pk, &b, pack_write);
	pack_live(&pk, m->host, HOST_CPU_UTILISATION,
		(double)prng_below(prng, 1000) / 1000);
	pack_live(&pk, m->host, HOST_MEMORY_FREE, (double)prng_below(prng, 1 << 30));
	for (int i = 0; i < m->load->vms; i++) {
		pack_live(&pk, m->vms[i], VM_CPU_UTILISATION,
			(double)prng_below(prng, 1000) / 1000);
		pack_live(&pk, m->vms[i], VM_MEMORY_ACTUAL,
			(double)(VM_BYTES - (int)prng_below(prng, 4096) * 4096));
	}
	say(m, LINK_HEARTBEAT, POOL_MESSAGE_LIVE, buf_data(&b), buf_len(&b));
	buf_fini(&b);
}

/* --- what it is told --- */

static void followed(struct member *m, uint64_t commit)
{
	if (m->followed || m->index < commit)
		return;
	m->followed = true;
	m->load->followed++;
}

static void take_feed(struct member *m, const uint8_t *bytes, size_t len)
{
	struct load *l = m->load;
	struct feed_message f;
	struct feed_entry entry;
	size_t at = 0;

	if (feed_decode(&f, bytes, len) || f.session != m->session)
		return;
	switch (f.kind) {
	case FEED_BEAT:
		followed(m, f.commit);
		if (m->number == 0)
			l->term = f.term;
		return;
	case FEED_REFUSE: /* it leads no more, or is behind: asked again */
		follow(m);
		return;
	case FEED_ENTRIES:
		m->index = f.index + f.count;
		while (feed_next_entry(&f, &at, &entry))
			m->term = entry.term;
		break;
	case FEED_SNAP_BEGIN:
		m->index = f.index;
		m->term = f.entry_term;
		break;
	default:
		break;
	}
	m->position += len;
	if (m->number == 0) {
		l->index = m->index;
		l->index_term = m->term;
	}
	say_learn(m, LEARN_ACK);
}

/* What a follower answers that has stored it all, and that votes for whoever asks: there
 * is one real voter. False: nothing. */
static bool answer_raft(const struct raft_message *in, struct raft_message *out)
{
	struct raft_append_entries_result *r = &out->append_entries_result;

	*out = (struct raft_message){.type = RAFT_IO_APPEND_ENTRIES_RESULT};
	switch (in->type) {
	case RAFT_IO_APPEND_ENTRIES:
		r->term = in->append_entries.term;
		r->last_log_index =
			in->append_entries.prev_log_index + in->append_entries.n_entries;
		return true;
	case RAFT_IO_INSTALL_SNAPSHOT:
		r->term = in->install_snapshot.term;
		r->last_log_index = in->install_snapshot.last_index;
		return true;
	case RAFT_IO_REQUEST_VOTE:
		out->type = RAFT_IO_REQUEST_VOTE_RESULT;
		out->request_vote_result =
			(struct raft_request_vote_result){.term = in->request_vote.term,
				.vote_granted = true,
				.pre_vote = TO_RAFT_TRIBOOL(in->request_vote.pre_vote)};
		return true;
	default:
		return false;
	}
}

static void take_raft(struct member *m, const uint8_t *bytes, size_t len)
{
	struct raft_message in, out;
	uint8_t id[8];
	struct buf b;
	bool answer;

	if (!m->raft_id || len < 16 || raft_message_decode(&in, bytes + 8, len - 16))
		return;
	answer = answer_raft(&in, &out);
	raft_message_fini(&in);
	if (!answer)
		return;
	buf_init(&b, 4096);
	bytes_put_le64(id, m->raft_id);
	must(buf_append(&b, id, sizeof id) || raft_message_encode(&out, &b) ||
			buf_append(&b, bytes, 8),
		&(struct rv_error){.detail = "out of memory"}, "raft");
	say(m, LINK_RAFT, POOL_MESSAGE_RAFT, buf_data(&b), buf_len(&b));
	buf_fini(&b);
}

static void take_result(struct load *l, const uint8_t *bytes, size_t len)
{
	struct remote_answer answer;

	if (remote_answer_decode(&answer, bytes, len) || answer.start != l->start)
		return;
	for (int i = 0; i < l->count; i++) {
		struct member *m = &l->members[i];

		if (m->asked != answer.id || m->recorded)
			continue;
		if (answer.rc == RV_ENOTMASTER) {
			m->asked = 0; /* again, of the next term */
			return;
		}
		must(answer.rc, &(struct rv_error){.detail = "refused"}, answer.detail);
		m->recorded = true;
		l->recorded++;
	}
}

static void on_message(void *arg, const struct uuid *host, enum link_channel channel,
	uint16_t type, const uint8_t *data, size_t len)
{
	struct member *m = arg;
	struct place_message place;

	(void)host;
	(void)channel;
	m->load->messages++;
	m->load->bytes += len;
	switch (type) {
	case POOL_MESSAGE_HELLO:
		if (len == 8)
			m->load->master_start = bytes_get_le64(data);
		break;
	case POOL_MESSAGE_FEED:
		take_feed(m, data, len);
		break;
	case POOL_MESSAGE_RAFT:
		take_raft(m, data, len);
		break;
	case POOL_MESSAGE_RESULT:
		take_result(m->load, data, len);
		break;
	case POOL_MESSAGE_PLACE:
		if (!place_decode(&place, data, len) && place.id)
			m->raft_id = place.id;
		break;
	default: /* live fields of the others, calls */
		break;
	}
}

/* --- links --- */

static void on_up(void *arg, const struct uuid *host)
{
	struct member *m = arg;
	uint8_t start[8];

	(void)host;
	m->up = true;
	m->load->up++;
	bytes_put_le64(start, m->load->start);
	say(m, LINK_RPC, POOL_MESSAGE_HELLO, start, sizeof start);
	follow(m);
	timer_start_ms(&m->metrics,
		1 + (int64_t)prng_below(loop_prng(m->load->loop), METRICS_MS));
}

static void on_down(void *arg, const struct uuid *host, int rc, const char *reason)
{
	struct member *m = arg;

	(void)host;
	log_warn("members.down", "number=%d rc=%s reason=\"%s\"", m->number,
		rv_error_symbol(rc), reason);
	m->up = false;
	m->load->up--;
	timer_stop(&m->metrics);
}

static const struct peers_events peers_events = {
	.up = on_up, .down = on_down, .message = on_message};

/* The grant names the master first or somewhere: its address tells. */
static void find_master(struct member *m)
{
	msgpack_zone zone;
	msgpack_object o;
	size_t at = 0;
	const char *bytes = (const char *)m->join.grant.members;

	must(!msgpack_zone_init(&zone, 4096) ||
			msgpack_unpack(bytes, m->join.grant.members_len, &at, &zone, &o) <
				0 ||
			o.type != MSGPACK_OBJECT_MAP || o.via.map.size != 3,
		&(struct rv_error){.detail = "makes no sense"}, "the grant");
	o = o.via.map.ptr[2].val;
	for (uint32_t i = 0; i < o.via.array.size; i++) {
		const msgpack_object *pair = o.via.array.ptr[i].via.array.ptr;

		if (pair[1].via.str.size == strlen(m->load->address) &&
			memcmp(pair[1].via.str.ptr, m->load->address,
				pair[1].via.str.size) == 0)
			must(uuid_parse(&m->master, pair[0].via.str.ptr,
				     pair[0].via.str.size),
				&(struct rv_error){0}, "the master's UUID");
	}
	msgpack_zone_destroy(&zone);
}

static void link_begin(struct member *m)
{
	struct load *l = m->load;
	struct peers_config config = {
		.events = &peers_events,
		.arg = m,
		.self = m->host,
		/* As the master does in a pool of so many hosts: daemon/members.c. */
		.timing = {.probe_ms = 250 * (1 + l->count / 256),
			.silence_ms = 1000 * (1 + l->count / 256)},
		.dial_timeout_ms = 60000,
	};
	struct peer_member master = {.host = m->master, .dial = true};
	struct rv_error e = {0};

	must(port_client_tls(&config.tls, PORT_ALPN_LINK, m->join.grant.cert_pem,
		     m->key_pem, m->join.grant.ca_pem, &e),
		&e, "TLS");
	must(peers_new(&m->peers, l->loop, &config, &e), &e, "peers");
	tls_context_unref(config.tls);
	snprintf(master.address, sizeof master.address, "%s", l->address);
	must(peers_set(m->peers, &master, &e), &e, "peers");
	l->linked++;
}

/* --- joining --- */

static void facts_pack(struct member *m, struct buf *b)
{
	char name[32];
	msgpack_packer pk;
	const struct load *l = m->load;
	static const char address[] = "tcp:127.0.0.1:1"; /* nobody listens */

	snprintf(name, sizeof name, "load%d", m->number);
	msgpack_packer_init(&pk, b, pack_write);
	msgpack_pack_map(&pk, 7);
	msgpack_pack_str_with_body(&pk, "name", 4);
	msgpack_pack_str_with_body(&pk, name, strlen(name));
	msgpack_pack_str_with_body(&pk, "address", 7);
	msgpack_pack_str_with_body(&pk, address, sizeof address - 1);
	msgpack_pack_str_with_body(&pk, "level", 5);
	msgpack_pack_int(&pk, SCHEMA_LEVEL);
	msgpack_pack_str_with_body(&pk, "running", 7);
	msgpack_pack_int(&pk, 0);
	msgpack_pack_str_with_body(&pk, "simulated", 9);
	msgpack_pack_true(&pk);
	msgpack_pack_str_with_body(&pk, "xen", 3);
	msgpack_pack_str_with_body(&pk, l->xen, strlen(l->xen));
	msgpack_pack_str_with_body(&pk, "cpu", 3);
	msgpack_pack_bin_with_body(&pk, l->cpu, l->cpu_len);
}

static void on_joined(struct op *op)
{
	struct member *m = CONTAINER_OF(op, struct member, join.op);
	struct load *l = m->load;

	m->joining = false;
	if (op->error.code == RV_ENOTMASTER || op->error.code == RV_EOUTCOME ||
		op->error.code == RV_ETIMEDOUT) {
		/* A busy machine: the same request again does no harm. */
		join_fini(&m->join);
		memset(&m->join, 0, sizeof m->join);
		return;
	}
	must(op->error.code, &op->error, "joining");
	m->joined = true;
	find_master(m);
	l->generation = (struct rlog_generation){
		.number = m->join.grant.generation, .id = m->join.grant.generation_id};
	if (m->number < EARLY)
		link_begin(m);
	l->joined++;
	timer_start_ms(&l->look, 0);
}

static void join_begin(struct member *m)
{
	struct load *l = m->load;
	const char *names[] = {NULL};
	struct join_spec spec = {.address = l->address,
		.token = l->tokens[m->number],
		.request = m->request,
		.host = m->host,
		.names = names,
		.timeout_ms = 60000};
	struct rv_error e = {0};
	struct buf facts;

	buf_init(&facts, FACTS_MAX * 2);
	facts_pack(m, &facts);
	spec.facts = buf_data(&facts);
	spec.facts_len = buf_len(&facts);
	if (!m->csr_pem)
		must(ca_request_new(&m->host, &m->csr_pem, &m->key_pem, &e), &e, "a key");
	spec.csr_pem = m->csr_pem;
	spec.key_pem = m->key_pem;
	must(join_start(&m->join, l->loop, &spec, on_joined, &e), &e, "joining");
	m->joining = true;
	buf_fini(&facts);
}

/* --- the VMs' records --- */

static void record_vms(struct load *l, struct member *m)
{
	struct remote_ask ask = {.start = l->start,
		.id = ++l->last_ask,
		.master = l->master_start,
		.term = l->term};
	struct rv_error e = {0};
	struct txn t;
	struct buf b;
	char name[48];

	txn_init(&t, NULL, loop_wall_ms(l->loop));
	for (int i = 0; i < l->vms; i++) {
		struct uuid vm = m->vms[i] = uuid_random(loop_prng(l->loop));

		snprintf(name, sizeof name, "vm-%d-%d", m->number, i);
		txn_create(&t, CLASS_VM, vm);
		txn_set_string(&t, vm, VM_NAME_LABEL, name);
		txn_set_enum(&t, vm, VM_POWER_STATE, VM_POWER_STATE_RUNNING);
		txn_set_ref(&t, vm, VM_RESIDENT_ON, m->host);
		txn_set_int(&t, vm, VM_OWNER_GENERATION, 1);
		txn_set_int(&t, vm, VM_DOMID, i + 1);
		txn_set_int(&t, vm, VM_MEMORY_STATIC_MAX, VM_BYTES);
		txn_set_int(&t, vm, VM_MEMORY_DYNAMIC_MAX, VM_BYTES);
		txn_set_int(&t, vm, VM_MEMORY_DYNAMIC_MIN, VM_BYTES);
	}
	must(txn_finish(&t, &ask.bytes, &ask.len, &e), &e, "VM records");
	buf_init(&b, ask.len + 256);
	must(remote_ask_encode(&ask, &b), &e, "VM records");
	say(&l->members[0], LINK_RPC, POOL_MESSAGE_COMMIT, buf_data(&b), buf_len(&b));
	buf_fini(&b);
	txn_fini(&t);
	m->asked = ask.id;
}

/* --- step by step --- */

static void joins_go_on(struct load *l)
{
	int busy = 0;

	for (int i = 0; i < l->count; i++)
		busy += l->members[i].joining;
	for (int i = 0; i < l->count && busy < JOINS; i++)
		if (!l->members[i].joined && !l->members[i].joining) {
			join_begin(&l->members[i]);
			busy++;
		}
}

static void records_go_on(struct load *l)
{
	int busy = 0;

	if (!l->master_start || !l->term)
		return;
	for (int i = 0; i < l->count; i++)
		busy += l->members[i].asked && !l->members[i].recorded;
	for (int i = 0; i < l->count && busy < RECORDS; i++)
		if (!l->members[i].asked) {
			record_vms(l, &l->members[i]);
			busy++;
		}
}

static void step(struct load *l)
{
	if (l->joined < l->count) {
		joins_go_on(l);
	} else if (l->recorded < l->count) {
		records_go_on(l);
	} else if (l->linked < l->count) {
		while (l->linked < l->count && l->linked - l->up < LINKS)
			link_begin(&l->members[l->linked]);
	} else if (!l->told && l->followed == l->count) {
		l->told = true;
		printf("ready\n");
		fflush(stdout);
	}
}

static void on_look(void *arg)
{
	struct load *l = arg;

	timer_start_ms(&l->look, LOOK_MS);
	step(l);
}

/* --- beginning --- */

static void read_tokens(struct load *l, const char *path)
{
	FILE *f = fopen(path, "r");

	l->tokens = calloc((size_t)l->count, sizeof *l->tokens);
	for (int i = 0; f && l->tokens && i < l->count; i++)
		if (fscanf(f, "%255s", l->tokens[i]) != 1)
			report_die("%s: too few tokens", path);
	if (!f || !l->tokens)
		report_die("%s: can't be read", path);
	fclose(f);
}

static void read_cpu(struct load *l, const char *hex)
{
	unsigned byte;

	for (; l->cpu_len < sizeof l->cpu && sscanf(hex, "%2x", &byte) == 1; hex += 2)
		l->cpu[l->cpu_len++] = (uint8_t)byte;
}

static void make_members(struct load *l)
{
	l->members = calloc((size_t)l->count, sizeof *l->members);
	if (!l->members)
		report_die("out of memory");
	for (int i = 0; i < l->count; i++) {
		struct member *m = &l->members[i];

		m->load = l;
		m->number = i;
		m->host = uuid_random(loop_prng(l->loop));
		m->request = uuid_random(loop_prng(l->loop));
		m->vms = calloc((size_t)l->vms + 1, sizeof *m->vms);
		if (!m->vms)
			report_die("out of memory");
		timer_init(&m->metrics, l->loop, "load.metrics", on_metrics, m);
	}
}

int main(int argc, char **argv)
{
	struct rlimit files;
	static struct load l;
	struct rv_error e = {0};

	if (argc != 7) {
		fprintf(stderr, "usage: peer_members ADDRESS TOKENS-FILE COUNT "
				"VMS-EACH CPU-POLICY-HEX XEN\n");
		return 2;
	}
	log_set_level(LOG_WARN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	must(loop_new(&l.loop, &e), &e, "loop");
	l.address = argv[1];
	l.count = atoi(argv[3]);
	l.vms = atoi(argv[4]);
	l.xen = argv[6];
	l.start = prng_next(loop_prng(l.loop)) | 1;
	read_tokens(&l, argv[2]);
	read_cpu(&l, argv[5]);
	make_members(&l);
	timer_init(&l.look, l.loop, "load.look", on_look, &l);
	timer_start_ms(&l.look, 0);
	loop_run(l.loop);
	return 0; /* it is killed: there is nothing to put in order */
}
