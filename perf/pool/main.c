/*
 * The pool: what a commit costs, how long clients wait when the master is lost, what
 * hosts cost when nothing happens.
 */
#include "perf/child.h"
#include "perf/pool/parts.h"

int main(int argc, char **argv)
{
	static struct report r;
	const char *dir;

	report_begin(&r, "pool", argc, argv);
	dir = child_directory();
	if (report_wants(&r, "commits"))
		commits_measure(&r, dir);
	if (report_wants(&r, "failover"))
		failover_measure(&r, dir);
	if (report_wants(&r, "idle"))
		scale_measure(&r, dir);
	if (report_wants(&r, "thousand"))
		thousand_measure(&r, dir);
	return report_end(&r);
}
