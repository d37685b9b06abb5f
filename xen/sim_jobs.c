/*
 * Requests at work: what runs when, what a fault does to it, what cancel still can.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "xen/sim_driver.h"

enum { LATE_DEFAULT_US = 30 * 1000 * 1000 };

void sim_job_wake(struct sim_job *job, int64_t after_us)
{
	timer_start_us(&job->timer, after_us);
}

void sim_job_free(struct sim_job *job)
{
	list_remove(&job->node);
	timer_stop(&job->timer);
	if (job->domain != NULL && job->domain->holder == job)
		job->domain->holder = NULL;
	if (job->transfer != NULL)
		sim_decoder_fini(&job->transfer->decoder);
	free(job->transfer);
	free(job);
}

void sim_job_end(struct sim_job *job, int rc)
{
	struct hyper_req *req = job->req;

	if (job->domain != NULL)
		sim_domain_describe(job->domain, &req->domain);
	req->rc = rc;
	if (rc != 0 && req->error.code != rc)
		rv_error_set(&req->error, rc, "%s %s: %s", hyper_call_name(req->call),
			job->domain != NULL ? job->domain->r.name : "of a domain",
			rv_error_text(rc));
	sim_job_free(job);
	hyper_finish(req);
}

void sim_job_done(struct sim_job *job, int error_code)
{
	struct hyper_req *req = job->req;

	switch (job->fault) {
	case HYPER_SIM_FAULT_LOST:
		job->phase = SIM_JOB_LOST;
		if (job->domain != NULL && job->domain->holder == job)
			job->domain->holder = NULL;
		job->domain = NULL;
		if (job->cancelled)
			sim_job_wake(job, 0);
		return;
	case HYPER_SIM_FAULT_EFFECT_ERROR:
		sim_job_end(job,
			rv_error_set(&req->error, error_code,
				"simulated fault: %s failed after it took effect; look "
				"at the domain, then repeat",
				hyper_call_name(req->call)));
		return;
	default:
		sim_job_end(job, 0);
	}
}

int64_t sim_latency_us(const struct sim_job *job)
{
	const struct hyper_sim_config *c = &job->sim->config;
	int64_t us = c->call_us[job->req->call];

	if (us == 0)
		us = c->step_us;
	return job->fault == HYPER_SIM_FAULT_LATE ? us + job->late_us : us;
}

static bool call_is_query(enum hyper_call call)
{
	return call == HYPER_CALL_HOST || call == HYPER_CALL_METRICS ||
	       call == HYPER_CALL_LIST || call == HYPER_CALL_INFO ||
	       call == HYPER_CALL_CONSOLE;
}

/* Only hypercalls: these go on while xenstored is away. */
static bool call_needs_stored(enum hyper_call call)
{
	return !call_is_query(call) && call != HYPER_CALL_PAUSE &&
	       call != HYPER_CALL_UNPAUSE && call != HYPER_CALL_SET_MAXMEM;
}

static bool call_has_begin(enum hyper_call call)
{
	return call == HYPER_CALL_CREATE || call == HYPER_CALL_RESTORE ||
	       call == HYPER_CALL_SAVE || call == HYPER_CALL_DESTROY;
}

static void run_simple(struct sim_job *job)
{
	struct hyper_req *req = job->req;
	const char *call = hyper_call_name(req->call);
	int rc;

	if (job->fault == HYPER_SIM_FAULT_ERROR) {
		sim_job_end(
			job, rv_error_set(&req->error, RV_EHYPERVISOR,
				     "simulated fault: %s failed; try it again", call));
		return;
	}
	if (job->fault == HYPER_SIM_FAULT_CRASH) {
		sim_job_end(job,
			rv_error_set(&req->error, RV_ECHILD,
				"simulated fault: the helper of %s died; try it again",
				call));
		return;
	}
	if (call_is_query(req->call))
		rc = sim_query(job, &req->error);
	else
		rc = sim_effect(job, &req->error);
	if (rc != 0)
		sim_job_end(job, rc);
	else
		sim_job_done(job, RV_EHYPERVISOR);
}

/* A cancelled job gives up where it still can; true if it ended. */
static bool job_gives_up(struct sim_job *job)
{
	struct hyper_req *req = job->req;

	if (job->phase == SIM_JOB_LOST) {
		sim_job_end(job,
			rv_error_set(&req->error, RV_EOUTCOME,
				"the answer to %s was lost; look at the domain, then "
				"repeat",
				hyper_call_name(req->call)));
		return true;
	}
	/* A stream may stand still for ever: its other end has gone. */
	if (job->phase != SIM_JOB_STREAM && (job->fault == HYPER_SIM_FAULT_LATE ||
						    job->fault == HYPER_SIM_FAULT_LOST))
		return false;
	if (req->call == HYPER_CALL_DESTROY && job->phase != SIM_JOB_BEGIN)
		return false;
	if (req->call == HYPER_CALL_SAVE || req->call == HYPER_CALL_RESTORE) {
		sim_transfer_undo(job);
	} else if (req->call == HYPER_CALL_CREATE && job->domain != NULL) {
		sim_domain_remove(job->domain);
	}
	sim_job_end(job, rv_error_set(&req->error, RV_ECANCELLED, "%s was cancelled",
				 hyper_call_name(req->call)));
	return true;
}

static void job_run(void *arg)
{
	struct sim_job *job = arg;

	if (job->phase == SIM_JOB_REFUSED) {
		sim_job_end(job, job->req->error.code);
		return;
	}
	if (job->cancelled && job_gives_up(job))
		return;
	if (job->phase == SIM_JOB_LOST)
		return;
	job->parked = job->sim->stored_down && call_needs_stored(job->req->call) &&
		      job->phase != SIM_JOB_STREAM;
	if (job->parked)
		return;
	switch (job->req->call) {
	case HYPER_CALL_CREATE:
		sim_create_run(job);
		break;
	case HYPER_CALL_DESTROY:
		sim_destroy_run(job);
		break;
	case HYPER_CALL_SAVE:
		sim_save_run(job);
		break;
	case HYPER_CALL_RESTORE:
		sim_restore_run(job);
		break;
	default:
		run_simple(job);
	}
}

static void choose_fault(struct sim_job *job)
{
	struct sim *s = job->sim;
	enum hyper_call call = job->req->call;
	bool query = call_is_query(call);
	struct sim_injection *in = &s->injections[call];

	if (in->count == 0 && !query)
		in = &s->injections[HYPER_CALL_NONE];
	if (in->count > 0) {
		in->count--;
		job->fault = in->fault;
		job->late_us = in->late_us;
	} else if (!query) {
		for (int f = 1; f < HYPER_SIM_FAULT_COUNT; f++)
			if (s->config.fault_ppm[f] > 0 && job->fault == 0 &&
				prng_chance_ppm(&s->prng, s->config.fault_ppm[f]))
				job->fault = f;
		job->late_us = LATE_DEFAULT_US;
	}
	s->faults_fired[job->fault] += job->fault != HYPER_SIM_FAULT_NONE;
}

void sim_submit(struct hyper *h, struct hyper_req *req)
{
	struct sim *s = sim_of(h);
	struct sim_job *job = calloc(1, sizeof *job);

	if (job == NULL) {
		log_error("xen.sim", "msg=\"no memory for a request\"");
		abort();
	}
	job->sim = s;
	job->req = req;
	req->job = job;
	timer_init(&job->timer, h->loop, "xen.sim.job", job_run, job);
	list_push_back(&s->jobs, &job->node);
	if (sim_stage(job, &req->error) != 0) {
		job->phase = SIM_JOB_REFUSED;
		sim_job_wake(job, 0);
		return;
	}
	choose_fault(job);
	job->phase = call_has_begin(req->call) ? SIM_JOB_BEGIN : SIM_JOB_EFFECT;
	sim_job_wake(job, job->phase == SIM_JOB_BEGIN ? 0 : sim_latency_us(job));
}

void sim_cancel(struct hyper *h, struct hyper_req *req)
{
	struct sim_job *job = req->job;

	(void)h;
	if (job->cancelled)
		return;
	job->cancelled = true;
	/* What is late stays late, and a domain that dies can't be called back: these
	 * answer when they are done. */
	if (job->phase != SIM_JOB_LOST && job->phase != SIM_JOB_STREAM &&
		(job->fault == HYPER_SIM_FAULT_LATE ||
			job->fault == HYPER_SIM_FAULT_LOST ||
			(req->call == HYPER_CALL_DESTROY && job->phase != SIM_JOB_BEGIN)))
		return;
	sim_job_wake(job, 0);
}

void sim_kick(struct hyper *h, struct hyper_req *req)
{
	struct sim_job *job = req->job;

	(void)h;
	if (job->phase == SIM_JOB_STREAM)
		sim_job_wake(job, 0);
}
