// What the parts of the extension module share.
#pragma once

#include <cstdint>
#include <vector>

#include "python_abi.h"
#include "handle.hpp"

namespace bench::python {

// What a Python ring object stands for: one side of a ring, and what the sidecar keeps of its steps where that is the event
// ring's producer.
struct Side {
  explicit Side(bench_ring* attached) noexcept : ring(attached) {}
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;
  ~Side() { bench_ring_close(ring); }

  bench_ring* ring;
  std::uint32_t tap_push_ns = 0;  // how long the last tap took
  // What the step record before knew: steps tapped, and how often its thread was taken off its core.
  std::uint32_t recorded_steps = 0;
  std::uint32_t recorded_switches = 0;
  std::vector<bench_record> records;  // of the step that is being recorded
};

// The side that a ring object stands for; null with a Python error set.
Side* side_of(PyObject* capsule);
// False with a Python error set.
bool has_arguments(const char* name, Py_ssize_t given, Py_ssize_t wanted);

// Times that the calling thread was taken off its core although it had work, since it began.
std::uint32_t involuntary_switches();
// The whole records in a bytes object; false with a Python error set.
bool records_in(PyObject* object, const bench_record** records, std::uint32_t* n);
// Pushes records that a run cannot end without, and waits for room if there is none; false with a Python error set.
bool push_in_the_end(Side* side, const bench_record* records, std::uint32_t n);

// The record of a step of vLLM, in python_step.cc.
PyObject* step(PyObject*, PyObject* const* args, Py_ssize_t n);

// The scripted engine's functions, in python_scripted.cc.
PyObject* scripted_new(PyObject*, PyObject* const* args, Py_ssize_t n);
PyObject* scripted_stage(PyObject*, PyObject* const* args, Py_ssize_t n);
PyObject* scripted_run(PyObject*, PyObject* const* args, Py_ssize_t n);

}  // namespace bench::python
