// The ring without its release stores: ThreadSanitizer must report it, or the check with ring_stress.cc checks nothing.
#include <atomic>

#define memory_order_release memory_order_relaxed
#include "../ring.cc"
