// The calling thread's heap, made larger ahead of what it will be asked for.
//
// glibc has heaps for threads, and extends them a page at a time: a system call, which waits for the page faults of all
// other threads, and a fault. For a thread that makes thousands of small objects in a few milliseconds that is most of
// what they take.
//
// Another C library may make nothing of it; it is a hint. With a sanitizer that watches memory it does nothing.
#pragma once

namespace vswitch {

// REQUIRES: called once, when a thread begins. Its heap then has a megabyte that the kernel need not be asked for.
// (After a malloc_trim() there are page faults again, but no system calls.)
void prepare_thread_heap();

}  // namespace vswitch
