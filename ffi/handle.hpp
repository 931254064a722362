// What a handle of the C ABI stands for: one side of a ring.
#pragma once

#include "ring.hpp"
#include "tap.hpp"

struct bench_ring {
  bench::Mapping mapping;
  bench::Tap tap{&mapping, -1};
  bench::Consumer consumer{&mapping, -1};
  bool is_producer = false;  // the C ABI refuses the other side's functions
};
