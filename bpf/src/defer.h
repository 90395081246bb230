// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* Defers that reach the runtime; open-coded ones do not. */
#ifndef KMLAB_DEFER_H
#define KMLAB_DEFER_H

#include "probe.h"

#define COUNTING_PROGRAM(name, counter)                                                                      \
	SEC("uprobe/" #name)                                                                                 \
	int name(struct pt_regs *ctx)                                                                        \
	{                                                                                                    \
		if (!is_target())                                                                            \
			return 0;                                                                            \
		hit();                                                                                       \
		count(current_segment, counter);                                                             \
		return 0;                                                                                    \
	}

/* func deferproc(fn func()) */
COUNTING_PROGRAM(go_deferproc, COUNTER_deferproc)
/* func deferprocStack(d *_defer) */
COUNTING_PROGRAM(go_deferproc_stack, COUNTER_deferproc_stack)
/* func deferprocat(fn func(), frame any) */
COUNTING_PROGRAM(go_defer_at, COUNTER_defer_at)
/* func deferreturn() */
COUNTING_PROGRAM(go_defer_return, COUNTER_defer_return)
/* func newdefer() *_defer */
COUNTING_PROGRAM(go_defer_alloc, COUNTER_defer_alloc)

#endif
