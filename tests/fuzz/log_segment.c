/* links: reeve_pool reeve_reactor reeve_base */
/* Recovery on any bytes: each file of a small log replaced by the input, or with bytes of
 * it changed. It must open with sound entries, or refuse; never crash or hang. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/recover.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct raft_configuration *first_conf(struct raft_configuration *conf)
{
	raft_configuration_init(conf);
	if (raft_configuration_add(conf, 1, "one", RAFT_VOTER))
		abort();
	return conf;
}

static struct recover_config config_of(struct raft_configuration *conf, unsigned *first)
{
	return (struct recover_config){
		.id = 1,
		.segment_bytes = 1024,
		.trailing = 4,
		.bootstrap = first_conf(conf),
		.meta_first = first,
	};
}

static void append_some(struct recovered *r, unsigned n)
{
	struct rv_error e;

	for (unsigned i = 0; i < n; i++) {
		char text[40] = "an entry of the log, say";
		struct raft_entry entry = {.term = r->meta.term, .type = RAFT_COMMAND};
		struct segments_batch batch = {&entry, 1};

		entry.buf = (struct raft_buffer){text, 8 + i};
		if (segments_append(&r->segments, &batch, 1, &e))
			abort();
	}
	if (segments_mark(&r->segments, &e))
		abort();
}

static void write_snapshot(struct disk *d, const struct raft_configuration *conf)
{
	struct raft_snapshot meta = {
		.index = 5, .term = 2, .configuration = *conf, .configuration_index = 1};
	struct snapfile_writer w;
	uint64_t older, kept;
	struct rv_error e;

	if (snapfile_begin(&w, d, &e) || snapfile_chunk(&w, "state", 5, &e) ||
		snapfile_chunk(&w, "of it", 5, &e) ||
		snapfile_commit(&w, &meta, &older, &kept, &e))
		abort();
}

static void make_log(struct disk *d)
{
	struct raft_configuration conf;
	unsigned first = 0;
	struct recover_config config = config_of(&conf, &first);
	struct recovered r;
	struct rv_error e;

	if (recover(&r, d, &config, &e))
		abort();
	append_some(&r, 12);
	recovered_fini(&r);
	write_snapshot(d, &conf);
	raft_configuration_close(&conf);
}

/* Input: which file, then its whole content; or (high bit) place and change in turn. */
static void damage(
	struct disk_sim_medium *m, struct disk *d, const uint8_t *data, size_t size)
{
	uint64_t bytes;
	char name[DISK_NAME_MAX];
	struct rv_error e;

	if (size == 0)
		return;
	snprintf(name, sizeof name, "%s",
		disk_sim_file(m, (data[0] & 0x7f) % disk_sim_file_count(m), &bytes));
	if (!(data[0] & 0x80)) {
		if (disk_replace(d, name, data + 1, size - 1, &e))
			abort();
		return;
	}
	for (size_t i = 1; i + 3 <= size && bytes > 0; i += 3)
		disk_sim_flip(m, name, (data[i] | (uint64_t)data[i + 1] << 8) % bytes,
			data[i + 2]);
}

static void check(const struct recovered *r)
{
	uint64_t term = 0;

	for (size_t i = 0; i < r->count; i++) {
		if (r->entries[i].term < term || r->entries[i].term > r->meta.term ||
			r->entries[i].buf.len == 0 || !r->entries[i].buf.base)
			abort();
		term = r->entries[i].term;
	}
	if (r->count && r->start_index + r->count != r->segments.next)
		abort();
	if (r->has_snapshot && r->start_index > r->snapshot.index + 1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct raft_configuration conf;
	unsigned first = 0;
	struct recover_config config = config_of(&conf, &first);
	struct disk_sim_medium *m;
	struct recovered r;
	struct loop *loop;
	struct disk *d;
	struct rv_error e;

	log_setup(LOG_ERROR + 1, NULL, NULL);
	if (loop_new_sim(&loop, 1) || disk_sim_medium_new(&m, 1) ||
		disk_new_sim(&d, loop, m))
		abort();
	make_log(d);
	damage(m, d, data, size);
	if (recover(&r, d, &config, &e) == 0) {
		check(&r);
		recovered_fini(&r);
	} else if (!e.detail[0]) {
		abort();
	}
	raft_configuration_close(&conf);
	disk_free(d);
	disk_sim_medium_free(m);
	loop_free(loop);
	return 0;
}
