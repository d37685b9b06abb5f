/*
 * The suite of all hypervisor drivers on real Xen: run in dom0, as root.
 *
 *	real_suite --kernel FILE [--ramdisk FILE] [--cmdline TEXT] [--type pvh|pv|hvm]
 *		   [--memory MIB] [--driver-dir DIR] [--helper FILE] [--scripts DIR]
 *		   [--platform TEXT] [--limit SECONDS] [--skip CASE]... [CASE...]
 *	real_suite --load DIR	only: does the module load? For machines without Xen.
 *
 * The guest must have a balloon driver and obey control/shutdown, as any Linux does. One
 * line per case; the answer is 0 when none failed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenstore.h>

#include "xen/conformance.h"
#include "xen/real.h"

enum { MAX_CASES = 64 };

struct suite {
	struct hyper_conformance c;
	struct hyper_detection found;
	struct hyper_real_config config;
	struct hyper_domain_spec spec;
	struct xs_handle *xs;
	const char *only[MAX_CASES], *skip[MAX_CASES];
	int only_count, skip_count;
	const char *load;
};

static void spec(void *arg, struct hyper_domain_spec *out)
{
	struct suite *s = arg;

	*out = s->spec;
}

static int restart(struct hyper_conformance *c, struct rv_error *e)
{
	struct suite *s = c->arg;

	hyper_free(c->hyper);
	c->hyper = NULL;
	return hyper_real_new(&c->hyper, c->loop, &s->found, &s->config, e);
}

/* Linux writes what it obeys into its control/ once it listens
 * (drivers/xen/manage.c). */
static bool booted(void *arg, const struct hyper_domain_id *id)
{
	struct suite *s = arg;
	char path[64], *value;
	unsigned len = 0;
	bool is;

	snprintf(
		path, sizeof path, "/local/domain/%u/control/feature-suspend", id->domid);
	value = xs_read(s->xs, XBT_NULL, path, &len);
	is = value != NULL && strcmp(value, "1") == 0;
	free(value);
	return is;
}

static const char *option(int argc, char **argv, int *i)
{
	if (*i + 1 == argc) {
		fprintf(stderr, "real_suite: %s needs a value\n", argv[*i]);
		exit(2);
	}
	return argv[++*i];
}

static enum hyper_type type_of(const char *name)
{
	if (strcmp(name, "pv") == 0)
		return HYPER_PV;
	return strcmp(name, "hvm") == 0 ? HYPER_HVM : HYPER_PVH;
}

static void parse(struct suite *s, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--kernel") == 0)
			s->spec.kernel = option(argc, argv, &i);
		else if (strcmp(argv[i], "--ramdisk") == 0)
			s->spec.ramdisk = option(argc, argv, &i);
		else if (strcmp(argv[i], "--cmdline") == 0)
			s->spec.cmdline = option(argc, argv, &i);
		else if (strcmp(argv[i], "--platform") == 0)
			s->spec.platform = option(argc, argv, &i);
		else if (strcmp(argv[i], "--type") == 0)
			s->spec.type = type_of(option(argc, argv, &i));
		else if (strcmp(argv[i], "--memory") == 0)
			s->spec.static_max_kib =
				strtoull(option(argc, argv, &i), NULL, 10) * 1024;
		else if (strcmp(argv[i], "--limit") == 0)
			s->c.limit_ms = atoll(option(argc, argv, &i)) * 1000;
		else if (strcmp(argv[i], "--driver-dir") == 0)
			s->config.driver_dir = option(argc, argv, &i);
		else if (strcmp(argv[i], "--helper") == 0)
			s->config.helper = option(argc, argv, &i);
		else if (strcmp(argv[i], "--scripts") == 0)
			s->config.scripts = option(argc, argv, &i);
		else if (strcmp(argv[i], "--load") == 0)
			s->load = option(argc, argv, &i);
		else if (strcmp(argv[i], "--skip") == 0 && s->skip_count < MAX_CASES)
			s->skip[s->skip_count++] = option(argc, argv, &i);
		else if (argv[i][0] != '-' && s->only_count < MAX_CASES)
			s->only[s->only_count++] = argv[i];
		else {
			fprintf(stderr, "real_suite: what is %s?\n", argv[i]);
			exit(2);
		}
	}
}

static bool names(const char *const *list, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(list[i], name) == 0)
			return true;
	return false;
}

static int run_all(struct suite *s)
{
	const struct hyper_conformance_case *one = hyper_conformance_cases;
	int failed = 0;

	for (; one->name != NULL; one++) {
		struct rv_error e = {0};
		int64_t from_us = loop_now_us(s->c.loop);
		const char *word = "ok";
		int rc;

		if ((s->only_count > 0 && !names(s->only, s->only_count, one->name)) ||
			names(s->skip, s->skip_count, one->name))
			continue;
		rc = one->run(&s->c, &e);
		if (rc == RV_EUNSUPPORTED)
			word = "skipped";
		else if (rc != 0) {
			word = "FAILED";
			failed++;
		}
		printf("%-20s %-8s %6.1f s %s%s\n", one->name, word,
			(double)(loop_now_us(s->c.loop) - from_us) / 1e6,
			rc != 0 ? rv_error_symbol(rc) : "", rc != 0 ? ": " : "");
		if (rc != 0)
			printf("    %s\n", e.detail);
		fflush(stdout);
	}
	return failed;
}

/* Without Xen the module must load, find all it needs in this program, and say that it
 * can't reach a hypervisor. */
static int only_load(struct suite *s)
{
	struct rv_error e = {0};
	int rc;

	s->found = (struct hyper_detection){.here = HYPER_HERE_DOM0,
		.version_major = 4,
		.version_minor = 17,
		.version = "4.17"};
	s->config.driver_dir = s->load;
	rc = hyper_real_new(&s->c.hyper, s->c.loop, &s->found, &s->config, &e);
	printf("%s: %s\n", rv_error_symbol(rc), e.detail);
	hyper_free(s->c.hyper);
	return rc == 0 || strstr(e.detail, "privcmd") != NULL ? 0 : 1;
}

int main(int argc, char **argv)
{
	static struct suite s;
	struct rv_error e = {0};
	int failed;

	s.spec = (struct hyper_domain_spec){.type = HYPER_PVH,
		.vcpus_max = 1,
		.static_max_kib = 128 * 1024,
		.console = true};
	s.c.limit_ms = 180 * 1000;
	s.c.slack_kib = 64; /* dom0's event channels and grants, Xen's own tables */
	parse(&s, argc, argv);
	s.spec.target_kib = s.spec.static_max_kib / 8 * 7;
	if (loop_new(&s.c.loop, &e) != 0) {
		fprintf(stderr, "real_suite: %s\n", e.detail);
		return 1;
	}
	if (s.load != NULL)
		return only_load(&s);
	hyper_detect("", &s.found);
	s.xs = xs_open(0);
	if (s.xs == NULL ||
		hyper_real_new(&s.c.hyper, s.c.loop, &s.found, &s.config, &e) != 0) {
		fprintf(stderr, "real_suite: %s\n",
			s.xs == NULL ? "xenstored doesn't answer" : e.detail);
		return 1;
	}
	s.c.arg = &s;
	s.c.spec = spec;
	s.c.restart = restart;
	s.c.booted = booted;
	failed = run_all(&s);
	hyper_free(s.c.hyper);
	loop_free(s.c.loop);
	xs_close(s.xs);
	printf("%d failed\n", failed);
	return failed > 0;
}
