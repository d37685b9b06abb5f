/*
 * Saves and restores, in slices. A save:
 *
 *	HEAD ─► ROUND ─► (policy) ─┬─ continue ─► ROUND
 *	                           └─ stop ─► SUSPENDING ─► LAST ─► STATE ─► END
 *	HEAD ─► SUSPENDING ─► LAST ...     not live
 *	HEAD ─► LAST ...                   suspended already
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "xen/sim_driver.h"

enum {
	SLICE_BYTES = 256 * 1024, /* of one callback */
	CRASH_BYTES = 256 * 1024, /* a crashing helper gets at most so far */
	/* libxenguest's own pre-copy policy, for a save without one. */
	DEFAULT_ROUNDS = 5,
	DEFAULT_DIRTY_PAGES = 50,
};

static bool transfer_begin(struct sim_job *job)
{
	struct sim *s = job->sim;
	struct sim_transfer *t = calloc(1, sizeof *t);

	if (t == NULL) {
		sim_job_end(job, RV_ENOMEM);
		return false;
	}
	job->transfer = t;
	sim_encoder_init(&t->encoder, s->block, s->config.stream_zero_pages);
	sim_decoder_init(&t->decoder, s->block);
	t->crash_at = UINT64_MAX;
	if (job->fault == HYPER_SIM_FAULT_CRASH)
		t->crash_at = 1 + prng_below(&s->prng, CRASH_BYTES);
	job->phase = SIM_JOB_STREAM;
	sim_job_wake(job, sim_latency_us(job));
	return true;
}

static void end_helper_died(struct sim_job *job, int rc)
{
	sim_job_end(job,
		rv_error_set(&job->req->error, rc,
			"simulated fault: the helper of a %s died; look at the domain",
			hyper_call_name(job->req->call)));
}

/* --- save --- */

static int save_check_live(const struct sim_domain *d, struct rv_error *e)
{
	uint32_t caps = d->sim->config.caps;

	if (d->r.type == HYPER_PV && !(caps & HYPER_CAP_LIVE_PV))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s (domain %u) is a PV guest and this hypervisor is built "
			"without shadow paging: it can't be migrated while it runs; "
			"migrate it with suspend",
			d->r.name, d->r.domid);
	if (d->r.type != HYPER_PV && !(caps & HYPER_CAP_LIVE_HVM))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s (domain %u) can't be migrated while it runs on this "
			"hypervisor; migrate it with suspend",
			d->r.name, d->r.domid);
	return 0;
}

static int save_check(struct sim_job *job, struct sim_domain **out, struct rv_error *e)
{
	struct sim_domain *d;
	int rc = sim_find(job->sim, &job->req->id, &d, e);

	*out = NULL;
	if (rc != 0)
		return rc;
	if (d->holder != NULL)
		return rv_error_set(e, RV_EBUSY,
			"%s (domain %u) has a %s at work; wait for it or cancel it",
			d->r.name, d->r.domid, hyper_call_name(d->holder->req->call));
	if (d->r.state == HYPER_RUNNING && job->req->save.live)
		rc = save_check_live(d, e);
	else if (d->r.state != HYPER_RUNNING &&
		 (d->r.state != HYPER_SHUTDOWN || d->r.reason != HYPER_REASON_SUSPEND))
		rc = rv_error_set(e, RV_ESTATE,
			"%s (domain %u) is %s: only a running or suspended one can be "
			"saved",
			d->r.name, d->r.domid, hyper_state_name(d->r.state));
	if (rc == 0 && d->r.pod_kib > 0)
		rc = rv_error_set(e, RV_ESTATE,
			"%s (domain %u) still has %" PRIu64
			" KiB of its memory to be populated on demand: wait until its "
			"balloon driver runs",
			d->r.name, d->r.domid, d->r.pod_kib);
	if (rc == 0)
		*out = d;
	return rc;
}

static void save_begin(struct sim_job *job)
{
	struct rv_error *e = &job->req->error;
	struct sim_domain *d;
	int rc;

	if (job->fault == HYPER_SIM_FAULT_ERROR)
		rc = rv_error_set(
			e, RV_EHYPERVISOR, "simulated fault: save failed; try it again");
	else
		rc = save_check(job, &d, e);
	if (rc != 0) {
		sim_job_end(job, rc);
		return;
	}
	sim_balloons_run(job->sim); /* the last move before it keeps still */
	job->domain = d;
	d->holder = job;
	(void)transfer_begin(job);
}

static void save_round(struct sim_job *job)
{
	struct sim_transfer *t = job->transfer;
	int64_t now_us = loop_now_us(job->sim->hyper.loop);

	t->round_at_us = now_us;
	t->round_at_bytes = t->encoder.total_bytes;
	t->round_at_writes = sim_writes(&job->domain->r, now_us);
	sim_encoder_round(&t->encoder, &job->domain->r, t->round_at_writes);
}

static void save_suspend(struct sim_job *job)
{
	struct sim_domain *d = job->domain;

	job->transfer->stage = SIM_SAVE_SUSPENDING;
	if (d->r.state != HYPER_RUNNING)
		return;
	sim_ask(&d->r, HYPER_REASON_SUSPEND, loop_now_us(job->sim->hyper.loop));
	sim_domain_store(d);
	sim_domain_schedule(d);
}

static enum hyper_precopy_verdict save_ask_policy(struct sim_job *job)
{
	struct sim_transfer *t = job->transfer;
	const struct sim_record *r = &job->domain->r;
	int64_t now_us = loop_now_us(job->sim->hyper.loop);
	uint64_t writes = sim_writes(r, now_us);
	int64_t us = now_us - t->round_at_us;
	struct hyper_precopy p = {
		.iteration = t->encoder.round + 1,
		.total_pages = t->encoder.total_pages,
		.total_bytes = t->encoder.total_bytes,
		.dirty_pages = sim_encoder_dirty(&t->encoder, r, writes),
		.round_pages = t->encoder.round_pages,
		.round_us = us,
	};

	us = us > 0 ? us : 1;
	p.bytes_per_s = (uint64_t)((double)(p.total_bytes - t->round_at_bytes) * 1e6 /
				   (double)us);
	/* Pages that became dirty, as a bitmap shows them: each once. */
	p.dirty_per_s = (uint64_t)((double)p.dirty_pages * 1e6 / (double)us);
	if (job->req->save.policy != NULL)
		return job->req->save.policy(job->req->save.arg, &p);
	return p.iteration >= DEFAULT_ROUNDS || p.dirty_pages < DEFAULT_DIRTY_PAGES
		       ? HYPER_PRECOPY_STOP
		       : HYPER_PRECOPY_CONTINUE;
}

static void save_after_round(struct sim_job *job)
{
	if (job->domain->r.state != HYPER_RUNNING) {
		save_suspend(job); /* somebody else suspended it meanwhile */
		return;
	}
	switch (save_ask_policy(job)) {
	case HYPER_PRECOPY_CONTINUE:
		save_round(job);
		break;
	case HYPER_PRECOPY_STOP:
		save_suspend(job);
		break;
	case HYPER_PRECOPY_ABORT:
		job->transfer->stage = SIM_SAVE_END;
		job->cancelled = true;
		break;
	}
}

static void save_last(struct sim_job *job)
{
	job->transfer->stage = SIM_SAVE_LAST;
	if (job->req->save.suspended != NULL)
		job->req->save.suspended(job->req->save.arg);
	save_round(job);
}

static void save_after_head(struct sim_job *job)
{
	if (job->req->save.live && job->domain->r.state == HYPER_RUNNING) {
		job->transfer->stage = SIM_SAVE_ROUND;
		save_round(job);
	} else {
		save_suspend(job);
	}
}

static void save_head(struct sim_job *job)
{
	struct sim_record now = job->domain->r;

	if (now.state == HYPER_RUNNING)
		sim_stop(&now, loop_now_us(job->sim->hyper.loop));
	sim_encoder_head(&job->transfer->encoder, &now);
}

/* The encoder has written all it was asked for: what is next? False: wait. */
static bool save_advance(struct sim_job *job)
{
	struct sim_transfer *t = job->transfer;
	struct sim_domain *d = job->domain;

	switch (t->stage) {
	case SIM_SAVE_HEAD:
		if (t->encoder.total_bytes == 0)
			save_head(job);
		else
			save_after_head(job);
		return true;
	case SIM_SAVE_ROUND:
		save_after_round(job);
		return true;
	case SIM_SAVE_SUSPENDING:
		if (d->r.state == HYPER_RUNNING)
			return false;
		save_last(job);
		return true;
	case SIM_SAVE_LAST:
		t->stage = SIM_SAVE_STATE;
		sim_encoder_state(&t->encoder, &d->r);
		return true;
	case SIM_SAVE_STATE:
		t->stage = SIM_SAVE_END;
		sim_encoder_end(&t->encoder);
		return true;
	case SIM_SAVE_END:
		break;
	}
	return false;
}

static bool save_is_whole(const struct sim_job *job)
{
	return job->transfer->stage == SIM_SAVE_END &&
	       sim_encoder_idle(&job->transfer->encoder);
}

/* How many bytes the memory's speed allows by now; and when it allows more. */
static uint64_t pace(struct sim_job *job, int64_t *again_us)
{
	struct sim_transfer *t = job->transfer;
	uint64_t rate = job->sim->config.stream_kib_per_s * 1024;
	int64_t now_us = loop_now_us(job->sim->hyper.loop);
	uint64_t allowed, sent = t->encoder.total_bytes - t->pace_bytes;

	*again_us = 0;
	if (rate == 0)
		return SLICE_BYTES;
	/* A pause of the sink is not made up for afterwards. */
	if (t->pace_at_us == 0 || now_us - t->pace_at_us > 100000) {
		t->pace_at_us = now_us;
		t->pace_bytes = t->encoder.total_bytes;
		sent = 0;
	}
	allowed = (uint64_t)((double)rate * (double)(now_us - t->pace_at_us) / 1e6) +
		  SLICE_BYTES;
	*again_us = (int64_t)((double)SLICE_BYTES * 1e6 / (double)rate) + 1;
	return allowed > sent ? allowed - sent : 0;
}

/* Moves bytes until the slice is used up, the sink is full or it waits. Returns the delay
 * until the next slice, or -1: something else will wake it. */
static int64_t save_slice(struct sim_job *job)
{
	struct sim_transfer *t = job->transfer;
	struct hyper_sink *sink = &job->req->save.sink;
	int64_t again_us;
	uint64_t budget = pace(job, &again_us), start = t->encoder.total_bytes;

	if (budget > SLICE_BYTES)
		budget = SLICE_BYTES;
	while (t->encoder.total_bytes - start < budget) {
		uint64_t left = budget - (t->encoder.total_bytes - start), writes;
		uint8_t *room;
		size_t n;

		if (sim_encoder_idle(&t->encoder)) {
			if (!save_advance(job))
				return -1;
			if (job->cancelled)
				return 0;
			continue;
		}
		n = sink->room(sink->arg, &room);
		if (n == 0)
			return -1;
		n = n < left ? n : (size_t)left;
		n = n < HYPER_CHUNK_MAX ? n : HYPER_CHUNK_MAX;
		writes = sim_writes(&job->domain->r, loop_now_us(job->sim->hyper.loop));
		n = sim_encoder_fill(&t->encoder, &job->domain->r, writes, room, n);
		if (n > 0)
			sink->filled(sink->arg, n);
		if (job->cancelled || t->encoder.total_bytes >= t->crash_at)
			return 0;
		if (n == 0 && !sim_encoder_idle(&t->encoder))
			return 0; /* a long stretch of zero pages: go on later */
	}
	return again_us;
}

static void save_check_domain(struct sim_job *job)
{
	struct sim_domain *d = job->domain;
	struct rv_error *e = &job->req->error;
	int64_t again_us;

	if (d == NULL) {
		sim_job_end(job, rv_error_set(e, RV_ENOENT,
					 "the domain was destroyed during its save"));
		return;
	}
	sim_domain_touch(d);
	if (d->r.state != HYPER_RUNNING &&
		(d->r.state != HYPER_SHUTDOWN || d->r.reason != HYPER_REASON_SUSPEND)) {
		sim_job_end(job,
			rv_error_set(e, RV_ESTATE,
				"%s (domain %u) ended by itself during its save (%s)",
				d->r.name, d->r.domid, hyper_reason_name(d->r.reason)));
		return;
	}
	again_us = save_slice(job);
	if (job->cancelled && again_us == 0) {
		sim_transfer_undo(job);
		sim_job_end(job, rv_error_set(e, RV_ECANCELLED, "the save of %s was %s",
					 d->r.name, "cancelled"));
	} else if (job->transfer->encoder.total_bytes >= job->transfer->crash_at ||
		   (save_is_whole(job) && job->transfer->crash_at != UINT64_MAX)) {
		sim_transfer_undo(job);
		end_helper_died(job, RV_ECHILD);
	} else if (save_is_whole(job)) {
		sim_job_done(job, RV_EHYPERVISOR);
	} else if (again_us >= 0) {
		sim_job_wake(job, again_us);
	}
}

void sim_save_run(struct sim_job *job)
{
	if (job->phase == SIM_JOB_BEGIN)
		save_begin(job);
	else
		save_check_domain(job);
}

/* --- restore --- */

/* The stream has said what it brings: is it the one meant, and is there memory? */
static int restore_admit(struct sim_job *job, struct rv_error *e)
{
	const struct sim_record *saved = &job->transfer->decoder.record;
	struct sim_record *r = &job->staged;
	struct sim *s = job->sim;
	uint64_t free_kib, claimed_kib;

	if (!uuid_eq(&saved->vm, &r->vm) || saved->type != r->type)
		return rv_error_set(e, RV_ESTATE,
			"%s: the saved stream is of another VM or type of guest",
			r->name);
	if (saved->static_max_kib != r->static_max_kib ||
		saved->vcpus_max != r->vcpus_max)
		return rv_error_set(e, RV_ESTATE,
			"%s was saved with a static maximum of %" PRIu64
			" KiB and %u vcpus, the record says %" PRIu64
			" KiB and %u; these can't change under a guest: set them back",
			r->name, saved->static_max_kib, saved->vcpus_max,
			r->static_max_kib, r->vcpus_max);
	r->pod_kib = 0;
	r->maxmem_kib =
		r->target_kib > saved->actual_kib ? r->target_kib : saved->actual_kib;
	r->claim_kib = r->maxmem_kib + r->overhead_kib;
	sim_balloons_run(s);
	free_kib = sim_free_kib(s);
	claimed_kib = sim_claimed_kib(s);
	if (r->claim_kib > free_kib || r->claim_kib > free_kib - claimed_kib)
		return rv_error_set(e, RV_EMEMORY,
			"%s needs %" PRIu64 " KiB to be restored, the host has %" PRIu64
			" KiB free, %" PRIu64 " of it claimed; make room",
			r->name, r->claim_kib, free_kib, claimed_kib);
	return sim_domain_add(s, r, &job->domain, e);
}

static void restore_complete(struct sim_job *job)
{
	struct sim_domain *d = job->domain;
	struct sim_record saved = job->transfer->decoder.record;
	struct sim_record *r = &d->r;

	/* The guest comes from the stream, its place on this host from the spec. */
	saved.in_use = 1;
	saved.domid = r->domid;
	saved.handle = r->handle;
	saved.generation = r->generation;
	memcpy(saved.name, r->name, sizeof saved.name);
	memcpy(saved.devices, r->devices, sizeof saved.devices);
	saved.has_console = r->has_console;
	saved.overhead_kib = r->overhead_kib;
	saved.maxmem_kib = r->maxmem_kib;
	saved.target_kib = r->target_kib;
	saved.vcpus_online = r->vcpus_online;
	saved.restores++;
	saved.introduced = 1;
	saved.state = HYPER_PAUSED;
	*r = saved;
	d->metrics_cpu_ns = sim_cpu_ns(r, loop_now_us(job->sim->hyper.loop));
	sim_balloon_target(r, r->target_kib);
	sim_domain_store(d);
	job->req->id = sim_id(d);
	sim_domain_emit(d, HYPER_EV_INTRODUCED);
	sim_job_done(job, RV_EOUTCOME);
}

static void restore_fail(struct sim_job *job, int rc)
{
	sim_transfer_undo(job);
	sim_job_end(job, rc);
}

enum restore_next { RESTORE_WAIT, RESTORE_AGAIN, RESTORE_DONE, RESTORE_FAILED };

static enum restore_next restore_slice(struct sim_job *job)
{
	struct sim_decoder *x = &job->transfer->decoder;
	struct hyper_source *source = &job->req->source;
	struct rv_error *e = &job->req->error;
	uint64_t start = x->total_bytes;

	while (x->total_bytes - start < SLICE_BYTES) {
		enum sim_decoder_step step;
		const uint8_t *data;
		bool end = false;
		size_t n = source->peek(source->arg, &data, &end);

		if (n == 0 && !end)
			return RESTORE_WAIT;
		if (n == 0) {
			rv_error_set(e, RV_ECORRUPT,
				"%s: the saved stream ends early, after %llu bytes; its "
				"rest is lost",
				job->staged.name, (unsigned long long)x->total_bytes);
			return RESTORE_FAILED;
		}
		step = sim_decoder_feed(
			x, data, n < SLICE_BYTES ? n : SLICE_BYTES, &n, e);
		if (n > 0)
			source->consumed(source->arg, n);
		if (step == SIM_DECODER_ERROR)
			return RESTORE_FAILED;
		if (step == SIM_DECODER_DONE)
			return RESTORE_DONE;
		if (step == SIM_DECODER_HEAD) {
			if (restore_admit(job, e) != 0)
				return RESTORE_FAILED;
			job->domain->holder = job;
		}
		if (job->cancelled || x->total_bytes >= job->transfer->crash_at)
			return RESTORE_AGAIN;
	}
	return RESTORE_AGAIN;
}

static void restore_begin(struct sim_job *job)
{
	struct sim_domain *d = sim_find_handle(job->sim, &job->staged.handle);
	struct rv_error *e = &job->req->error;

	if (job->fault == HYPER_SIM_FAULT_ERROR)
		sim_job_end(job,
			rv_error_set(e, RV_EHYPERVISOR,
				"simulated fault: %s could not be restored; try it again",
				job->staged.name));
	else if (d != NULL)
		sim_job_end(job, rv_error_set(e, RV_EEXIST,
					 "%s (domain %u) has this handle; destroy it "
					 "first or draw "
					 "another handle",
					 d->r.name, d->r.domid));
	else
		(void)transfer_begin(job);
}

void sim_restore_run(struct sim_job *job)
{
	struct sim_transfer *t = job->transfer;
	enum restore_next next;

	if (job->phase == SIM_JOB_BEGIN) {
		restore_begin(job);
		return;
	}
	if (t->decoder.has_head && job->domain == NULL) {
		restore_fail(job, rv_error_set(&job->req->error, RV_ENOENT,
					  "%s was destroyed while it was restored",
					  job->staged.name));
		return;
	}
	next = restore_slice(job);
	if (t->decoder.total_bytes >= t->crash_at ||
		(next == RESTORE_DONE && t->crash_at != UINT64_MAX)) {
		if (job->domain != NULL)
			job->req->id = sim_id(job->domain);
		end_helper_died(job, job->domain != NULL ? RV_EOUTCOME : RV_ECHILD);
		return;
	}
	if (next == RESTORE_AGAIN)
		sim_job_wake(job, 0);
	else if (next == RESTORE_DONE)
		restore_complete(job);
	else if (next == RESTORE_FAILED)
		restore_fail(job, job->req->error.code);
}

void sim_transfer_undo(struct sim_job *job)
{
	struct sim_domain *d = job->domain;

	if (d == NULL)
		return;
	if (job->req->call == HYPER_CALL_RESTORE) {
		sim_domain_remove(d);
		return;
	}
	/* What was not obeyed yet is taken back; what is suspended stays so. */
	if (job->transfer == NULL || d->r.state != HYPER_RUNNING ||
		job->transfer->stage != SIM_SAVE_SUSPENDING)
		return;
	d->r.asked.at_ran_us = SIM_NEVER;
	sim_domain_store(d);
	sim_domain_schedule(d);
}
