/*
 * reeved's configuration: one INI file, overridden by `--set SECTION.KEY=VALUE`.
 *
 * Every key is one line of the table in config.c, with default and documentation;
 * `reeved --help-config` prints it. Unknown sections and keys are errors that name file
 * and line: a typing error must not pass for a setting.
 */
#ifndef REEVE_DAEMON_CONFIG_H
#define REEVE_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum { CONFIG_TEXT_MAX = 256, CONFIG_PATIENCE_MAX = 60 };

struct config {
	/* [host] */
	char name_label[CONFIG_TEXT_MAX]; /* empty: the host name */
	char state_dir[CONFIG_TEXT_MAX];
	char run_dir[CONFIG_TEXT_MAX];
	bool witness; /* votes and keeps the database, runs no VMs */
	/* [hypervisor] */
	char hypervisor[CONFIG_TEXT_MAX]; /* auto, xen, simulated */
	uint64_t sim_memory;
	uint64_t sim_dom0_memory;
	uint64_t pool_patience; /* 1 to CONFIG_PATIENCE_MAX */
	uint64_t sim_cpus;
	char sim_cpu_lacks[CONFIG_TEXT_MAX];
	char sim_version[CONFIG_TEXT_MAX];
	uint64_t sim_step_ms;
	char xen_driver_dir[CONFIG_TEXT_MAX]; /* these empty: see xen/real.h */
	char xen_helper[CONFIG_TEXT_MAX];
	char xen_scripts[CONFIG_TEXT_MAX];
	char xenstored[CONFIG_TEXT_MAX];
	uint64_t xenstored_patience_ms;
	/* [network] */
	char network[CONFIG_TEXT_MAX]; /* auto, bridge, simulated */
	/* [pool] */
	char pool_listen[CONFIG_TEXT_MAX];  /* empty: a pool of this host alone */
	char pool_address[CONFIG_TEXT_MAX]; /* empty: pool_listen */
	/* [scheduler] */
	char sched_plugins[CONFIG_TEXT_MAX];
	/* [rpc] */
	char rpc_listen[CONFIG_TEXT_MAX]; /* further URLs, separated by blanks */
	char rpc_group[CONFIG_TEXT_MAX];  /* local group that may call */
	char rpc_group_role[CONFIG_TEXT_MAX];
	bool rpc_tls12;
	/* [test] */
	char test_clock_file[CONFIG_TEXT_MAX];
	char test_dom0_root[CONFIG_TEXT_MAX];
	/* [log] */
	char log_level[CONFIG_TEXT_MAX];
};

void config_defaults(struct config *c);

/* Reads a file over what is there. RV_ENOENT; RV_EINVAL names file, line and key. */
int config_read(struct config *c, const char *path, struct rv_error *e) RV_MUST_CHECK;

/* "SECTION.KEY=VALUE" from the command line. RV_EINVAL. */
int config_set(
	struct config *c, const char *assignment, struct rv_error *e) RV_MUST_CHECK;

/* What can't be checked key by key. RV_EINVAL. */
int config_check(const struct config *c, struct rv_error *e) RV_MUST_CHECK;

/* Every key with default and meaning, in the form of a configuration file. */
void config_print_help(FILE *out);

#endif
