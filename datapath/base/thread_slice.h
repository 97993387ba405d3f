// How long the kernel lets the calling thread go on before another that is as important has its turn.
//
// A thread that forwards wakes those who wait for its packets, and the kernel often puts them on its own core. There
// they wait until its time slice ends, though they would run for microseconds only: since Linux 6.6 who runs is left
// alone until then, except that, since 6.12, who is woken goes first at once if his slice is the shorter one.
#pragma once

namespace vswitch {

// Gives the calling thread slices of twice the usual length, so that whom it wakes goes first, and so does whoever else
// is woken on its core (for a thread that works in the background). That takes nothing from others: all get the same
// share of the core as before. (With much longer ones they would wait for theirs; and who yields gives away what is
// left of a slice.)
//
// A hint: older kernels, and sandboxes that forbid the call, change nothing.
void lengthen_thread_slice();

}  // namespace vswitch
