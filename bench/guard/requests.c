/* Valgrind's client requests are inline assembly: this makes functions of them. */
#include <valgrind/callgrind.h>

int under_valgrind(void)
{
	return RUNNING_ON_VALGRIND > 0;
}

void start_instrumentation(void)
{
	CALLGRIND_START_INSTRUMENTATION;
}

void toggle_collect(void)
{
	CALLGRIND_TOGGLE_COLLECT;
}

/* Write what was counted to the next file, under this name, and count from nought. */
void dump(const char *name)
{
	CALLGRIND_DUMP_STATS_AT(name);
}
