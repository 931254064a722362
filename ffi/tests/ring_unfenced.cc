// The ring without the fence in the function that WITHOUT_FENCE_IN names ("wake" or "wait"): ring_wakeup.cc must see
// a wake-up lost, or it checks nothing.
#include <string.h>

#include <atomic>

namespace std {

// The name is known where this is inlined, so that nothing of the comparison is left. What the compiler may not move
// over a fence it still doesn't move: only the processor's part is missing.
[[gnu::always_inline]] inline void fence_but_not_in(const char* function, memory_order order) noexcept {
  if (strcmp(function, WITHOUT_FENCE_IN) == 0) {
    atomic_signal_fence(order);
  } else {
    atomic_thread_fence(order);
  }
}

}  // namespace std

#define atomic_thread_fence(order) fence_but_not_in(__func__, order)
#include "../ring.cc"
