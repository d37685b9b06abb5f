/*
 * Who was heard, and which configuration is the last committed one.
 *
 * libraft 0.15 rolls an uncommitted configuration back when a new leader's entries
 * replace it, but errs twice: opened again it takes the last configuration of its log for
 * committed, so that it is never rolled back; and it decodes the one before from its log,
 * without looking whether a snapshot has replaced that part. Here a copy of the last
 * committed configuration is kept, and put in force before libraft would do it.
 */
#include "pool/raft_io.h"

#include <stdlib.h>

#include "base/log.h"
#include "pool/raft_conf.h"
#include "pool/raft_io_internal.h"

/* --- hearing --- */

static struct rio_answer *answer_find(const struct rio *rio, uint64_t id)
{
	for (size_t i = 0; i < rio->answer_count; i++)
		if (rio->answers[i].id == id)
			return &rio->answers[i];
	return NULL;
}

static struct rio_answer *answer_make(struct rio *rio, uint64_t id)
{
	if (rio->answer_count == rio->answer_size) {
		size_t size = rio->answer_size ? 2 * rio->answer_size : 8;
		struct rio_answer *more = realloc(rio->answers, size * sizeof *more);

		if (!more)
			return NULL; /* the next answer is noted instead */
		rio->answers = more;
		rio->answer_size = size;
	}
	rio->answers[rio->answer_count] = (struct rio_answer){.id = id};
	return &rio->answers[rio->answer_count++];
}

static void hear_answer(struct rio *rio, const struct raft_message *m)
{
	const struct raft_append_entries_result *r = &m->append_entries_result;
	struct rio_answer *a;

	if (r->term != rio->meta.term || raft_state(rio_raft(rio)) != RAFT_LEADER)
		return;
	a = answer_find(rio, m->server_id);
	if (!a)
		a = answer_make(rio, m->server_id);
	if (!a)
		return;
	a->heard_us = loop_now_us(rio->config.loop);
	if (!r->rejected && r->last_log_index > a->match)
		a->match = r->last_log_index;
}

void rio_hear(struct rio *rio, const struct raft_message *m)
{
	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		hear_answer(rio, m);
		break;
	case RAFT_IO_APPEND_ENTRIES:
		if (m->append_entries.term < rio->meta.term)
			break;
		rio->heard_us = loop_now_us(rio->config.loop);
		rio->heard_commit = m->append_entries.leader_commit;
		break;
	default:
		break;
	}
}

void rio_hear_no_more(struct rio *rio)
{
	rio->answer_count = 0;
}

const struct rio_answer *rio_answer_of(const struct rio *rio, uint64_t id)
{
	return answer_find(rio, id);
}

void rio_leader_heard(const struct rio *rio, int64_t *us, uint64_t *commit)
{
	*us = rio->heard_us;
	*commit = rio->heard_commit;
}

/* --- configurations --- */

static int conf_keep(
	struct rio *rio, const struct raft_configuration *conf, uint64_t index)
{
	struct raft_configuration copy;
	int rc = raft_conf_copy(conf, &copy);

	if (rc)
		return rc;
	raft_configuration_close(&rio->conf);
	rio->conf = copy;
	rio->conf_index = index;
	return 0;
}

void rio_note_conf(struct rio *rio)
{
	struct raft *r = rio_raft(rio);

	/* Left over from before a snapshot was installed. */
	if (r->configuration_uncommitted_index <= r->last_applied)
		r->configuration_uncommitted_index = 0;
	if (r->configuration_uncommitted_index || !r->configuration_index ||
		r->configuration_index == rio->conf_index)
		return;
	if (conf_keep(rio, &r->configuration, r->configuration_index))
		rio->conf_index = 0; /* no memory: libraft must do it */
}

static int conf_keep_entry(
	struct rio *rio, const struct raft_entry *entry, uint64_t index)
{
	struct raft_configuration conf;
	int rc = raft_conf_decode(entry->buf.base, entry->buf.len, &conf);

	if (rc)
		return rc;
	raft_configuration_close(&rio->conf);
	rio->conf = conf;
	rio->conf_index = index;
	return 0;
}

/* Of the configurations on disk the last but one, and where the last is. */
int rio_load_conf(struct rio *rio, const struct recovered *r)
{
	const struct raft_entry *last = NULL;
	int rc = 0;

	raft_configuration_init(&rio->conf);
	if (r->has_snapshot)
		rc = conf_keep(rio, &r->snapshot.conf, r->snapshot.conf_index);
	for (size_t i = 0; i < r->count && !rc; i++) {
		if (r->entries[i].type != RAFT_CHANGE ||
			r->start_index + i <= rio->conf_index)
			continue;
		if (last)
			rc = conf_keep_entry(rio, last, rio->conf_loaded);
		last = &r->entries[i];
		rio->conf_loaded = r->start_index + i;
	}
	return rc;
}

void rio_doubt_conf(struct rio *rio)
{
	struct raft *r = rio_raft(rio);

	if (!rio->conf_index || rio->conf_loaded <= r->commit_index ||
		r->configuration_index != rio->conf_loaded)
		return;
	r->configuration_index = rio->conf_index;
	r->configuration_uncommitted_index = rio->conf_loaded;
}

/* The first entry of this log that the message replaces; 0: none. */
static uint64_t replaced_from(const struct rio *rio, const struct raft_append_entries *a)
{
	if (a->prev_log_index >= rio->next ||
		(a->prev_log_index &&
			rio_term_at(rio, a->prev_log_index) != a->prev_log_term))
		return 0; /* it will be rejected */
	for (unsigned i = 0; i < a->n_entries; i++) {
		uint64_t index = a->prev_log_index + 1 + i, term;

		if (index >= rio->next)
			break;
		term = rio_term_at(rio, index);
		if (term && term != a->entries[i].term)
			return index;
	}
	return 0;
}

void rio_roll_back(struct rio *rio, const struct raft_message *m)
{
	struct raft *r = rio_raft(rio);
	struct raft_configuration conf;
	uint64_t from;

	rio_note_conf(rio);
	if (m->type != RAFT_IO_APPEND_ENTRIES || !r->configuration_uncommitted_index ||
		m->append_entries.term < rio->meta.term || !rio->conf_index ||
		rio->conf_index != r->configuration_index)
		return;
	from = replaced_from(rio, &m->append_entries);
	if (!from || from > r->configuration_uncommitted_index)
		return;
	if (raft_conf_copy(&rio->conf, &conf))
		return;
	raft_configuration_close(&r->configuration);
	r->configuration = conf;
	r->configuration_uncommitted_index = 0;
	log_info("pool.log", "msg=\"an unfinished change of the voters is undone\"");
}

void rio_conf_fini(struct rio *rio)
{
	raft_configuration_close(&rio->conf);
	free(rio->answers);
}
