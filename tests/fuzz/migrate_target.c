/* links: reeve_migrate dep::cmocka */
/*
 * A peer that was let in sends what it likes to the side that a VM comes to: the host
 * must refuse or undo it, and hold nothing afterwards: no domain, no memory, no
 * connection.
 *
 * The input is a script of what the source says, good and bad pieces mixed, so that every
 * state is reached; see `say`. Two hosts live on from input to input; the first one's
 * daemon is dead and its VM suspended, so that nobody interferes.
 */
#include "../unit/migrate/world.h"

#include <assert.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct saved {
	uint8_t *bytes, chunk[MIGRATE_HEADER_BYTES + MIGRATE_PAYLOAD_MAX];
	size_t len, size;
	bool done;
};

struct script {
	struct world *w;
	struct saved saved;
	struct journal journal;
	uint8_t policy[HYPER_MAX_CPU_POLICY];
	size_t policy_len;
	/* of one input */
	struct stream *stream;
	uint64_t sent, saved_at;
	const uint8_t *at, *end;
};

static struct script s;

static size_t saved_room(void *arg, uint8_t **room)
{
	struct saved *x = arg;

	if (x->len + MIGRATE_DATA_MAX > x->size)
		x->bytes = realloc(x->bytes, x->size += 4 << 20);
	assert(x->bytes);
	*room = x->bytes + x->len;
	return MIGRATE_DATA_MAX;
}

static void saved_filled(void *arg, size_t n)
{
	((struct saved *)arg)->len += n;
}

static void saved_done(void *arg, struct hyper_req *req)
{
	assert(req->rc == 0);
	((struct saved *)arg)->done = true;
}

static void host_done(void *arg, struct hyper_req *req)
{
	assert(req->rc == 0);
	memcpy(s.policy, req->host->cpu_policy, req->host->cpu_policy_len);
	s.policy_len = req->host->cpu_policy_len;
	*(bool *)arg = true;
}

/* The VM as a source leaves it that has died after PREPARE. */
static void intend(void)
{
	struct world *w = s.w;
	char text[UUID_TEXT_SIZE];
	struct txn t;

	s.journal = (struct journal){.vm = w->vm,
		.migration = world_uuid(w),
		.task = world_uuid(w),
		.source = w->hosts[0].uuid,
		.target = w->hosts[1].uuid,
		.generation = (uint64_t)db_int(world_vm(w), VM_OWNER_GENERATION)};
	vm_recorded(world_vm(w), &s.journal.domain);
	txn_init(&t, pool_db(w->pool), 0);
	txn_create(&t, CLASS_TASK, s.journal.task);
	txn_map_put(&t, w->vm, VM_CURRENT_OPERATIONS, uuid_format(&s.journal.task, text),
		"pool_migrate");
	txn_set_enum(&t, w->vm, VM_INTENT, VM_INTENT_MIGRATE);
	txn_set_ref(&t, w->vm, VM_INTENT_TASK, s.journal.task);
	txn_map_put(&t, w->vm, VM_INTENT_DATA, "generation", "1");
	s.journal.generation = 1;
	journal_txn_begin(&t, &s.journal);
	world_commit(w, &t);
}

static void begin(void)
{
	struct hyper_save_spec spec = {
		.sink = {.room = saved_room, .filled = saved_filled, .arg = &s.saved}};
	struct hyper_domain_id id;
	struct hyper_req req;
	bool known = false;

	s.w = world_new(1, 0, VM_DOMAIN_TYPE_PVH);
	s.w->quiet = true;
	vm_recorded(world_vm(s.w), &id);
	hyper_req_init(&req, host_done, &known);
	hyper_host(s.w->hosts[0].hyper, &req);
	while (!known)
		assert(loop_sim_step(s.w->loop));
	intend();
	/* Nobody of vm/ resumes it: the daemon that would is dead before it looks. */
	hyper_req_init(&req, saved_done, &s.saved);
	hyper_save(s.w->hosts[0].hyper, &req, &id, &spec);
	while (!s.saved.done)
		assert(loop_sim_step(s.w->loop));
	world_kill(&s.w->hosts[0], false);
	loop_sim_on_event(s.w->loop, NULL, NULL);
}

/* As it was before: PREPARE, on the first host. */
static void reset(void)
{
	struct txn t;

	if (db_enum(world_vm(s.w), VM_MIGRATION_PHASE) == VM_MIGRATION_PHASE_PREPARE)
		return;
	txn_init(&t, pool_db(s.w->pool), 0);
	txn_set_enum(&t, s.w->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_PREPARE);
	txn_set_int(&t, s.w->vm, VM_OWNER_GENERATION, (int64_t)s.journal.generation);
	txn_set_ref(&t, s.w->vm, VM_RESIDENT_ON, s.journal.source);
	txn_map_remove(&t, s.w->vm, VM_INTENT_DATA, "returning");
	world_commit(s.w, &t);
}

static void send_bytes(const void *bytes, size_t len)
{
	struct iovec piece = {(void *)bytes, len};
	int rc = s.stream && len ? stream_write(s.stream, &piece, 1) : 0;

	if (rc) /* held back, or over: later pieces tell */
		world_run_ms(s.w, 5);
}

static void send_message(struct migrate_message *m)
{
	static uint8_t frame[MIGRATE_CONTROL_MAX];

	send_bytes(frame, migrate_encode(m, frame));
}

static size_t take(size_t n)
{
	size_t left = (size_t)(s.end - s.at);

	return n < left ? n : left;
}

static void say_prepare(void)
{
	struct migrate_message m = {.type = MIGRATE_PREPARE,
		.as.prepare = {.version_min = 1,
			.version_max = 1,
			.migration = s.journal.migration,
			.task = s.journal.task,
			.vm = s.w->vm,
			.source = s.journal.source,
			.target = s.journal.target,
			.generation = s.journal.generation,
			.target_kib = 64 << 10,
			.actual_kib = 64 << 10,
			.xen_major = 4,
			.xen_minor = 17,
			.driver = "simulated",
			.live = true,
			.cpu_policy = s.policy,
			.cpu_policy_len = s.policy_len}};

	send_message(&m);
	world_run_ms(s.w, 30);
}

static void say_data(const uint8_t *bytes, size_t len)
{
	if (len == 0)
		return;
	memcpy(s.saved.chunk + MIGRATE_HEADER_BYTES + MIGRATE_OFFSET_BYTES, bytes, len);
	send_bytes(s.saved.chunk, migrate_seal_data(s.saved.chunk, s.sent, len));
	s.sent += len;
}

/* `n` sixteenths of what is left of a good stream. */
static void say_saved(unsigned n)
{
	size_t len = (s.saved.len - s.saved_at) * (n + 1) / 16;

	while (len > 0) {
		size_t piece = len < MIGRATE_DATA_MAX ? len : MIGRATE_DATA_MAX;

		say_data(s.saved.bytes + s.saved_at, piece);
		s.saved_at += piece;
		len -= piece;
		world_run_ms(s.w, 2);
	}
}

static void say_final(uint64_t bytes)
{
	struct migrate_message m = {.type = MIGRATE_FINAL,
		.as.final = {.migration = s.journal.migration,
			.generation = s.journal.generation,
			.bytes = bytes}};

	send_message(&m);
}

/* Any type with any payload, under a right checksum. */
static void say_frame(unsigned type, size_t len)
{
	uint8_t frame[MIGRATE_HEADER_BYTES + 256] = {(uint8_t)len, 0, 0, 0,
		(uint8_t)(type % MIGRATE_TYPE_COUNT), 0, MIGRATE_VERSION};
	uint64_t head = 0, sum;

	memcpy(frame + MIGRATE_HEADER_BYTES, s.at, len);
	for (int i = 0; i < 8; i++)
		head |= (uint64_t)frame[i] << (8 * i);
	sum = XXH3_64bits_withSeed(frame + MIGRATE_HEADER_BYTES, len, head);
	for (int i = 0; i < 8; i++)
		frame[8 + i] = (uint8_t)(sum >> (8 * i));
	send_bytes(frame, MIGRATE_HEADER_BYTES + len);
	s.at += len;
}

static void phase_final(void)
{
	struct txn t;

	if (db_enum(world_vm(s.w), VM_MIGRATION_PHASE) != VM_MIGRATION_PHASE_PREPARE)
		return;
	txn_init(&t, pool_db(s.w->pool), 0);
	txn_set_enum(&t, s.w->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_FINAL);
	world_commit(s.w, &t);
}

static void say(void)
{
	uint8_t op = *s.at++;
	size_t len;

	switch (op & 7) {
	case 0:
		say_prepare();
		return;
	case 1:
		len = take(op >> 3);
		say_data(s.at, len);
		s.at += len;
		return;
	case 2:
		say_saved(op >> 4);
		return;
	case 3:
		say_final(op & 8 ? s.sent + (op >> 4) : s.sent);
		return;
	case 4:
		len = take(op >> 3);
		send_bytes(s.at, len);
		s.at += len;
		return;
	case 5:
		if (s.at == s.end)
			return;
		len = *s.at++;
		say_frame(op >> 3, take(len));
		return;
	case 6:
		world_run_ms(s.w, 1 + (op >> 3) * 100);
		return;
	default:
		if (op & 8)
			phase_final();
		else if (s.stream && op & 16)
			stream_free(s.stream), s.stream = NULL;
		else
			world_run_ms(s.w, 1);
	}
}

static size_t domains(void)
{
	size_t n = 0;

	for (uint32_t slot = 0; slot < WORLD_SLOTS; slot++) {
		struct sim_record r;

		n += sim_machine_load(s.w->hosts[1].machine, slot, &r) && r.in_use;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct stream_events nobody = {
		.data = world_eat, .closed = world_closed};
	struct stream_config config = {
		.events = &nobody, .name = "test", .write_high_water = 64 << 20};
	struct world_host *h;
	struct stream *theirs;

	if (!s.w)
		begin();
	if (size > 256)
		return 0;
	h = &s.w->hosts[1];
	reset();
	stream_sim_link_free(s.w->link);
	assert(stream_sim_pair(
		       s.w->loop, &config, &config, &s.stream, &theirs, &s.w->link) == 0);
	stream_sim_set(s.w->link, 50, 100, 0);
	migrate_accept(h->migrate, theirs);
	s.sent = s.saved_at = 0;
	s.at = data;
	s.end = data + size;
	while (s.at < s.end)
		say();
	world_run_ms(s.w, 50);
	stream_free(s.stream);
	s.stream = NULL;
	for (int i = 0; i < 300 && (vm_op_count(h->mgr) > 0 ||
					   migrate_incoming_count(h->migrate) > 0);
		i++)
		world_run_ms(s.w, 1000);
	assert(vm_op_count(h->mgr) == 0 && migrate_incoming_count(h->migrate) == 0);
	assert(domains() == 0);
	assert(memctl_reservation_count(vm_memory_controller(h->mgr->hosts[0]->memory)) ==
		0);
	return 0;
}
